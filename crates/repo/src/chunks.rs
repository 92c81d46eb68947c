//! Reading chunks: where to read, how much at once, and opening what came.

use std::collections::{HashMap, HashSet};

use pgrecall_store::{ByteRange, Key};

use crate::codec;
use crate::error::{FormatError, RepoError};
use crate::format::bytes::{Reader, wide};
use crate::format::frame::{self, Place};
use crate::id::ChunkId;
use crate::index::{Index, Location};
use crate::names::{self, Name};
use crate::pack::frame_len;
use crate::sealed_store::SealedStore;

/// Bytes between two wanted frames that are read along rather than asked for apart.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// Bytes of one read.
const READ_BYTES_MAX: u64 = 8 << 20;

/// One read of a pack, and the chunks that come with it.
#[derive(Debug, Clone)]
pub struct ReadRange {
    /// The pack's name.
    pub name: Key,
    /// The first byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// The chunks in it, by offset.
    pub chunks: Vec<(ChunkId, Location)>,
}

/// Joins the places of chunks into reads, in the order of packs and offsets.
#[must_use]
pub fn plan_reads(domain: &Name, mut wanted: Vec<(ChunkId, Location)>) -> Vec<ReadRange> {
    wanted.sort_by_key(|(_, at)| (at.pack.id, at.offset));
    let mut reads: Vec<ReadRange> = Vec::new();
    let mut pack = None;
    for (chunk, location) in wanted {
        let start = u64::from(location.offset);
        let end = start + frame_len(location.sealed_len);
        let same = pack == Some(location.pack.id);
        match reads.last_mut() {
            Some(read)
                if same
                    && start <= read.offset + read.len + GAP_BYTES_MAX
                    && end - read.offset <= READ_BYTES_MAX =>
            {
                read.len = read.len.max(end - read.offset);
                read.chunks.push((chunk, location));
            }
            _ => {
                pack = Some(location.pack.id);
                reads.push(ReadRange {
                    name: names::pack(domain, location.pack.kind, location.pack.id),
                    offset: start,
                    len: end - start,
                    chunks: vec![(chunk, location)],
                });
            }
        }
    }
    reads
}

/// Fetches the bytes of a read.
///
/// # Errors
/// When the store fails, or the pack ends early.
pub async fn fetch(sealed: &SealedStore, read: &ReadRange) -> Result<bytes::Bytes, RepoError> {
    let range = ByteRange::At { offset: read.offset, len: read.len };
    let got = sealed.store().get_range(&read.name, range).await?.bytes;
    if wide(got.len()) == read.len {
        return Ok(got);
    }
    let error = FormatError::Truncated { what: "pack", needed: read.len, found: wide(got.len()) };
    Err(RepoError::format(&read.name, error))
}

/// Opens one chunk of a read into `plain` (cleared first) and checks that it is the chunk that its
/// id names.
///
/// # Errors
/// [`RepoError::Corrupt`] that names the pack and the chunk.
pub fn open(
    sealed: &SealedStore,
    read: &ReadRange,
    bytes: &[u8],
    (chunk, location): (&ChunkId, &Location),
    plain: &mut Vec<u8>,
) -> Result<(), RepoError> {
    let fail = |error| RepoError::format(format!("{} (chunk {chunk})", read.name), error);
    let keys = sealed.keys();
    let start = usize::try_from(u64::from(location.offset).saturating_sub(read.offset));
    let mut reader = Reader::new(bytes.get(start.unwrap_or(usize::MAX)..).unwrap_or_default());
    let framed = frame::take(&mut reader).map_err(fail)?;
    if wide(framed.len()) != u64::from(location.sealed_len) {
        return Err(fail(FormatError::Unexpected {
            what: "frame length",
            expected: location.sealed_len.to_string(),
            found: framed.len().to_string(),
        }));
    }
    let sealing = &location.pack.sealing;
    let cipher = keys
        .cipher(sealing, sealing.class, location.pack.kind, read.name.as_str())
        .map_err(fail)?;
    let mut scratch = Vec::new();
    let place = Place::body(location.frame.into());
    let opened = cipher.open(place, framed, &mut scratch).map_err(fail)?;
    plain.clear();
    codec::inflate(&opened, plain).map_err(fail)?;
    let found = keys.chunk_id(plain);
    if found == *chunk {
        return Ok(());
    }
    Err(fail(FormatError::Unexpected {
        what: "keyed hash of the chunk",
        expected: chunk.to_string(),
        found: found.to_string(),
    }))
}

/// Reads one chunk.
///
/// # Errors
/// When it cannot be read, opened, or is another one.
pub async fn read(
    sealed: &SealedStore,
    domain: &Name,
    chunk: &ChunkId,
    location: &Location,
) -> Result<Vec<u8>, RepoError> {
    let read = ReadRange {
        name: names::pack(domain, location.pack.kind, location.pack.id),
        offset: location.offset.into(),
        len: frame_len(location.sealed_len),
        chunks: Vec::new(),
    };
    let bytes = fetch(sealed, &read).await?;
    let mut plain = Vec::new();
    open(sealed, &read, &bytes, (chunk, location), &mut plain)?;
    Ok(plain)
}

/// Reads a set of metadata chunks into memory.
///
/// # Errors
/// [`RepoError::ChunkMissing`] when one is in no pack; damage.
pub async fn read_many(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    wanted: &HashSet<ChunkId>,
) -> Result<HashMap<ChunkId, Vec<u8>>, RepoError> {
    use futures::{StreamExt, TryStreamExt};
    let located = index.locate(sealed, wanted).await?;
    if let Some(chunk) = wanted.iter().find(|chunk| !located.contains_key(chunk)) {
        let (chunk, domain) = (chunk.to_string(), domain.to_string());
        return Err(RepoError::ChunkMissing { chunk, domain });
    }
    let reads = plan_reads(domain, located.into_iter().collect());
    let fetched = futures::stream::iter(reads)
        .map(|read| async move { fetch(sealed, &read).await.map(|bytes| (read, bytes)) })
        .buffered(8);
    fetched
        .try_fold(HashMap::new(), |mut all, (read, bytes)| async move {
            for (chunk, location) in &read.chunks {
                let mut plain = Vec::new();
                open(sealed, &read, &bytes, (chunk, location), &mut plain)?;
                all.insert(*chunk, plain);
            }
            Ok(all)
        })
        .await
}
