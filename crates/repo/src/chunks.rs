//! Reading chunks: where to read, how much at once, and opening what came.

mod search;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;
use pgrecall_store::{ByteRange, Key};

use crate::codec;
use crate::error::{ErrorKind, FormatError, RepoError};
use crate::format::bytes::{Reader, wide};
use crate::format::frame::{self, FrameCipher, Opened, Place};
use crate::format::index::IndexPack;
use crate::id::ChunkId;
use crate::index::{Index, Location};
use crate::keys::Keys;
use crate::names::{self, Name};
use crate::object::Proof;
use crate::pack::frame_len;
use crate::sealed_store::SealedStore;

use search::{Found, find};

/// Bytes between two wanted frames that are read along rather than asked for apart.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// Bytes of one read.
const READ_BYTES_MAX: u64 = 8 << 20;

/// One read of a pack, and the chunks that come with it.
#[derive(Debug, Clone)]
pub struct ReadRange {
    /// The pack.
    pub pack: Arc<IndexPack>,
    /// The pack's name.
    pub name: Key,
    /// The first byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// The chunks in it, by offset.
    pub chunks: Vec<(ChunkId, Location)>,
}

impl ReadRange {
    fn of(domain: &Name, chunk: ChunkId, location: Location) -> Self {
        Self {
            pack: location.pack.clone(),
            name: names::pack(domain, location.pack.kind, location.pack.id),
            offset: location.offset.into(),
            len: frame_len(location.sealed_len),
            chunks: vec![(chunk, location)],
        }
    }
}

/// Joins the places of chunks into reads, in the order of packs and offsets.
#[must_use]
pub fn plan_reads(domain: &Name, mut wanted: Vec<(ChunkId, Location)>) -> Vec<ReadRange> {
    wanted.sort_by_key(|(_, at)| (at.pack.id, at.offset));
    let mut reads: Vec<ReadRange> = Vec::new();
    for (chunk, location) in wanted {
        let start = u64::from(location.offset);
        let end = start + frame_len(location.sealed_len);
        match reads.last_mut() {
            Some(read)
                if read.pack.id == location.pack.id
                    && start <= read.offset + read.len + GAP_BYTES_MAX
                    && end - read.offset <= READ_BYTES_MAX =>
            {
                read.len = read.len.max(end - read.offset);
                read.chunks.push((chunk, location));
            }
            _ => reads.push(ReadRange::of(domain, chunk, location)),
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

/// Memory that opening one chunk after the other makes use of again.
#[derive(Debug, Default)]
pub struct Buffers {
    frame: Vec<u8>,
    plain: Vec<u8>,
}

/// Opens the chunks of one read, on several threads if need be: the cipher of their pack is made
/// once.
#[derive(Debug)]
pub struct Opener<'a> {
    keys: &'a Keys,
    read: &'a ReadRange,
    bytes: &'a [u8],
    cipher: Result<FrameCipher, FormatError>,
}

impl<'a> Opener<'a> {
    /// Takes the bytes that [`fetch`] gave.
    #[must_use]
    pub fn new(sealed: &'a SealedStore, read: &'a ReadRange, bytes: &'a [u8]) -> Self {
        let keys = sealed.keys();
        let (sealing, kind) = (&read.pack.sealing, read.pack.kind);
        let cipher = keys.cipher(sealing, sealing.class, kind, read.name.as_str());
        Self { keys, read, bytes, cipher }
    }

    /// Opens one chunk, and proves that it is the one that its id names.
    ///
    /// # Errors
    /// [`RepoError::Corrupt`] that names the pack and the chunk.
    pub fn open<'b>(
        &self,
        (chunk, location): (&ChunkId, &Location),
        proof: Proof,
        buffers: &'b mut Buffers,
    ) -> Result<&'b [u8], RepoError> {
        let Buffers { frame, plain } = buffers;
        self.inflate(chunk, location, frame, plain)
            .and_then(|_| match proof {
                Proof::Seals => Ok(()),
                Proof::Hash => self.check_id(chunk, plain),
            })
            .map_err(|error| self.bad(chunk, error))?;
        Ok(plain)
    }

    /// Whether this host can open the pack at all.
    ///
    /// # Errors
    /// [`RepoError::NoRestoreKey`].
    pub fn require_key(&self) -> Result<(), RepoError> {
        match &self.cipher {
            Err(error @ FormatError::NoRestoreKey { .. }) => {
                Err(RepoError::format(&self.read.name, error.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Proves that a chunk is the one that its id names; where it is sealed for a restore key that
    /// is not here, that its sealed bytes are those that were written, as a keyed check says.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn prove(
        &self,
        (chunk, location): (&ChunkId, &Location),
        buffers: &mut Buffers,
    ) -> Result<(), RepoError> {
        if self.require_key().is_ok() {
            return self.open((chunk, location), Proof::Hash, buffers).map(drop);
        }
        let checked = self.framed(location).and_then(|framed| {
            let ids = self.keys.ids_of(self.read.pack.sealing.id_generation)?;
            let found = ids.frame_check(framed);
            match location.check {
                Some(expected) if expected != found => Err(FormatError::Unexpected {
                    what: "the check of the sealed chunk",
                    expected: format!("{expected:016x}"),
                    found: format!("{found:016x}"),
                }),
                _ => Ok(()),
            }
        });
        checked.map_err(|error| self.bad(chunk, error))
    }

    /// Opens one chunk, proves that it is the one that its id names, and gives it as it is packed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_packed<'b>(
        &self,
        (chunk, location): (&ChunkId, &Location),
        buffers: &'b mut Buffers,
    ) -> Result<Opened<'b>, RepoError> {
        let Buffers { frame, plain } = buffers;
        let opened = self.inflate(chunk, location, frame, plain);
        opened
            .and_then(|opened| self.check_id(chunk, plain).map(|()| opened))
            .map_err(|error| self.bad(chunk, error))
    }

    fn bad(&self, chunk: &ChunkId, error: FormatError) -> RepoError {
        RepoError::format(format!("{} (chunk {chunk})", self.read.name), error)
    }

    fn check_id(&self, chunk: &ChunkId, plain: &[u8]) -> Result<(), FormatError> {
        match self.keys.ids_of(self.read.pack.sealing.id_generation)?.chunk_id(plain) {
            found if found == *chunk => Ok(()),
            found => Err(FormatError::Unexpected {
                what: "keyed hash of the chunk",
                expected: chunk.to_string(),
                found: found.to_string(),
            }),
        }
    }

    fn inflate<'b>(
        &self,
        chunk: &ChunkId,
        location: &Location,
        frame: &'b mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Opened<'b>, FormatError> {
        let cipher = self.cipher.as_ref().map_err(Clone::clone)?;
        let framed = self.framed(location)?;
        let place = Place::chunk(location.frame.into(), *chunk);
        let opened = cipher.open(place, framed, frame)?;
        codec::inflate(&opened, plain)?;
        Ok(opened)
    }

    /// A chunk's sealed frame.
    fn framed(&self, location: &Location) -> Result<&'a [u8], FormatError> {
        let start = u64::from(location.offset).saturating_sub(self.read.offset);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let mut reader = Reader::new(self.bytes.get(start..).unwrap_or_default());
        let framed = frame::take(&mut reader)?;
        if wide(framed.len()) != u64::from(location.sealed_len) {
            return Err(FormatError::Unexpected {
                what: "frame length",
                expected: location.sealed_len.to_string(),
                found: framed.len().to_string(),
            });
        }
        Ok(framed)
    }
}

/// Reads one copy of a chunk.
///
/// # Errors
/// When it cannot be read, opened, or is another one.
pub async fn read(
    sealed: &SealedStore,
    domain: &Name,
    chunk: &ChunkId,
    location: &Location,
) -> Result<Vec<u8>, RepoError> {
    let read = ReadRange::of(domain, *chunk, location.clone());
    let bytes = fetch(sealed, &read).await?;
    let mut buffers = Buffers::default();
    Opener::new(sealed, &read, &bytes).open((chunk, location), Proof::Hash, &mut buffers)?;
    Ok(buffers.plain)
}

/// Reads a chunk from the first of its copies that is good. Where all that the index names are bad
/// or gone, packs are asked that it does not speak of, and the index is read again.
///
/// # Errors
/// [`RepoError::ChunkMissing`] when there is none; what is wrong with the last one when all are
/// bad.
pub async fn read_any(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    chunk: &ChunkId,
) -> Result<Vec<u8>, RepoError> {
    let found = find(sealed, domain, index, vec![*chunk]).await?.pop();
    match found.map_or(Found::Nowhere, |(_, found)| found) {
        Found::Plain(plain) => Ok(plain),
        Found::Bad(error) => Err(error),
        Found::Nowhere => Err(index.missing(sealed, chunk).await),
    }
}

/// Finds a set of chunks, all of which must be there.
///
/// # Errors
/// [`RepoError::ChunkMissing`] when one is in no pack.
pub async fn locate_all(
    sealed: &SealedStore,
    index: &Index,
    wanted: &HashSet<ChunkId>,
) -> Result<Vec<(ChunkId, Location)>, RepoError> {
    let located = index.locate(sealed, wanted).await?;
    match wanted.iter().filter(|chunk| !located.contains_key(chunk)).min() {
        None => Ok(located.into_iter().collect()),
        Some(chunk) => Err(index.missing(sealed, chunk).await),
    }
}

/// Reads under way at once.
const READS_AT_ONCE: usize = 8;

/// Reads a set of metadata chunks into memory, each from a copy that is good.
///
/// # Errors
/// [`RepoError::ChunkMissing`] when one is in no pack; damage to all its copies.
pub async fn read_many(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    wanted: &HashSet<ChunkId>,
) -> Result<HashMap<ChunkId, Vec<u8>>, RepoError> {
    let located = locate_all(sealed, index, wanted).await?;
    let (mut all, bad) = read_located(sealed, domain, located).await?;
    all.extend(read_others(sealed, domain, index, bad).await?);
    Ok(all)
}

/// The chunks of a set that can be had, and what is wrong with the others.
///
/// # Errors
/// When the store fails, or what was written by another version is met.
pub async fn salvage_many(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    wanted: &HashSet<ChunkId>,
) -> Result<Salvaged, RepoError> {
    let located = index.locate(sealed, wanted).await?;
    let lacking = wanted.iter().filter(|chunk| !located.contains_key(chunk)).copied();
    let mut lacking: Vec<ChunkId> = lacking.collect();
    let located = located.into_iter().collect();
    let (plain, bad) = read_located(sealed, domain, located).await?;
    lacking.extend(bad);
    let mut salvaged = salvage_others(sealed, domain, index, lacking).await?;
    salvaged.plain.extend(plain);
    Ok(salvaged)
}

/// Reads chunks from where they are said to be; those that are bad or gone there come second.
async fn read_located(
    sealed: &SealedStore,
    domain: &Name,
    located: Vec<(ChunkId, Location)>,
) -> Result<(HashMap<ChunkId, Vec<u8>>, Vec<ChunkId>), RepoError> {
    let mut all = HashMap::with_capacity(located.len());
    let mut bad = Vec::new();
    let mut reads = futures::stream::iter(plan_reads(domain, located))
        .map(|read| read_range(sealed, read))
        .buffer_unordered(READS_AT_ONCE);
    while let Some(read) = reads.next().await {
        for (chunk, plain) in read? {
            match plain {
                Some(plain) => drop(all.insert(chunk, plain)),
                None => bad.push(chunk),
            }
        }
    }
    Ok((all, bad))
}

/// Reads chunks of which a copy was tried, and is bad or gone.
///
/// # Errors
/// As [`read_any`].
pub async fn read_others(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    chunks: Vec<ChunkId>,
) -> Result<HashMap<ChunkId, Vec<u8>>, RepoError> {
    let mut read = HashMap::with_capacity(chunks.len());
    for (chunk, found) in find(sealed, domain, index, chunks).await? {
        match found {
            Found::Plain(plain) => drop(read.insert(chunk, plain)),
            Found::Bad(error) => return Err(error),
            Found::Nowhere => return Err(index.missing(sealed, &chunk).await),
        }
    }
    Ok(read)
}

/// Chunks that could be had, and those that are lost.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Plaintexts.
    pub plain: HashMap<ChunkId, Vec<u8>>,
    /// What is wrong with the last copy of each of the others, or that it is in no pack.
    pub lost: HashMap<ChunkId, RepoError>,
}

/// As [`read_others`], for whoever goes on with what is left.
///
/// # Errors
/// When the store fails, or what was written by another version is met.
pub async fn salvage_others(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    chunks: Vec<ChunkId>,
) -> Result<Salvaged, RepoError> {
    let mut salvaged = Salvaged::default();
    for (chunk, found) in find(sealed, domain, index, chunks).await? {
        match found {
            Found::Plain(plain) => drop(salvaged.plain.insert(chunk, plain)),
            Found::Bad(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
            Found::Bad(error) => drop(salvaged.lost.insert(chunk, error)),
            Found::Nowhere => {
                index.require_known_version()?;
                let (text, domain) = (chunk.to_string(), domain.to_string());
                let error = RepoError::ChunkMissing { chunk: text, domain, pack: None };
                salvaged.lost.insert(chunk, error);
            }
        }
    }
    Ok(salvaged)
}

/// Reads chunks and tells which are bad.
///
/// # Errors
/// When the store fails.
pub(crate) async fn find_bad(
    sealed: &SealedStore,
    domain: &Name,
    located: Vec<(ChunkId, Location)>,
) -> Result<Vec<ChunkId>, RepoError> {
    let mut reads = futures::stream::iter(plan_reads(domain, located))
        .map(|read| find_bad_of(sealed, read))
        .buffer_unordered(READS_AT_ONCE);
    let mut bad = Vec::new();
    while let Some(found) = reads.next().await {
        bad.extend(found?);
    }
    Ok(bad)
}

async fn find_bad_of(sealed: &SealedStore, read: ReadRange) -> Result<Vec<ChunkId>, RepoError> {
    let bytes = match fetch(sealed, &read).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_damage() => {
            return Ok(read.chunks.iter().map(|(chunk, _)| *chunk).collect());
        }
        Err(error) => return Err(error),
    };
    let sealed = sealed.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let opener = Opener::new(&sealed, &read, &bytes);
        let mut buffers = Buffers::default();
        let mut bad = Vec::new();
        for (chunk, location) in &read.chunks {
            if opener.prove((chunk, location), &mut buffers).is_err() {
                bad.push(*chunk);
            }
        }
        bad
    });
    match looked.await {
        Ok(bad) => Ok(bad),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

type Plains = Vec<(ChunkId, Option<Vec<u8>>)>;

/// The plaintexts of a read; nothing for what is damaged.
async fn read_range(sealed: &SealedStore, read: ReadRange) -> Result<Plains, RepoError> {
    let bytes = match fetch(sealed, &read).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_damage() => {
            return Ok(read.chunks.iter().map(|(chunk, _)| (*chunk, None)).collect());
        }
        Err(error) => return Err(error),
    };
    Opener::new(sealed, &read, &bytes).require_key()?;
    let sealed = sealed.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let opener = Opener::new(&sealed, &read, &bytes);
        let chunks = read.chunks.iter().map(|(chunk, location)| {
            let mut buffers = Buffers::default();
            let good = opener.open((chunk, location), Proof::Hash, &mut buffers).is_ok();
            (*chunk, good.then_some(buffers.plain))
        });
        chunks.collect()
    });
    match opened.await {
        Ok(plains) => Ok(plains),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
