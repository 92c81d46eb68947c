//! Index objects: written for new packs, and read whole.

use std::sync::Arc;

use bytes::Bytes;
use pgrecall_store::Key;

use crate::error::{FormatError, RepoError};
use crate::format::bytes::wide;
use crate::format::header::{KeyClass, Kind};
use crate::format::index::{
    BLOCK_ENTRIES, Fence, Filter, IndexEntry, IndexHead, IndexPack, PACKS_MAX, decode_block,
    encode_block,
};
use crate::id::IndexId;
use crate::names::{self, Name};
use crate::object::{self, Payload};
use crate::pack::ConfirmedPack;
use crate::sealed_store::{SealedStore, Stored};

/// An index object is at most this long.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// Puts an index object for confirmed packs (step B6).
///
/// # Errors
/// When the store does not confirm it.
pub async fn put_index(
    sealed: &SealedStore,
    domain: &Name,
    packs: &[ConfirmedPack],
) -> Result<(), RepoError> {
    let mut entries = Vec::new();
    for (number, pack) in packs.iter().enumerate() {
        for (frame, entry) in pack.entries.iter().enumerate() {
            entries.push(IndexEntry {
                chunk: entry.chunk,
                pack: u32::try_from(number).unwrap_or(u32::MAX),
                frame: u32::try_from(frame).unwrap_or(u32::MAX),
                offset: entry.offset,
                sealed_len: entry.sealed_len,
                plain_len: entry.plain_len,
                check: entry.check,
            });
        }
    }
    entries.sort_unstable_by_key(|entry| entry.chunk);
    entries.dedup_by_key(|entry| entry.chunk);
    let packs: Vec<IndexPack> = packs.iter().map(|pack| pack.pack.clone()).collect();
    put_entries(sealed, domain, &packs, entries).await.map(drop)
}

/// Puts an index object of entries that are in order of their ids, each of which stands once, and
/// gives its name.
///
/// # Errors
/// Before anything is put when it speaks of more packs than a reader takes; when the store does not
/// confirm it.
pub(crate) async fn put_entries(
    sealed: &SealedStore,
    domain: &Name,
    packs: &[IndexPack],
    entries: Vec<IndexEntry>,
) -> Result<Key, RepoError> {
    let id = IndexId::random(sealed.random());
    let name = names::index(domain, id);
    if packs.len() > usize::try_from(PACKS_MAX).unwrap_or(usize::MAX) {
        return Err(RepoError::Invalid {
            what: format!("index object {name}"),
            reason: format!("it would speak of {} packs, more than {PACKS_MAX}", packs.len()),
        });
    }
    let bytes = encode_index(sealed, &name, packs, &entries)?;
    match sealed.put_sealed(Kind::Index, &name, bytes).await? {
        Stored::Mine => Ok(name),
        Stored::Other => Err(RepoError::Invalid {
            what: format!("index object {name}"),
            reason: "its random name is taken by something else".into(),
        }),
    }
}

fn encode_index(
    sealed: &SealedStore,
    name: &Key,
    packs: &[IndexPack],
    entries: &[IndexEntry],
) -> Result<Bytes, RepoError> {
    let mut blocks = Vec::new();
    let mut fences = Vec::new();
    let mut offset = 0_usize;
    for part in entries.chunks(BLOCK_ENTRIES) {
        let Some(first) = part.first() else { continue };
        // Ids and hashes are random bytes: compressing a block gains nothing.
        let payload = Payload::stored(encode_block(part));
        let len = payload.framed_len();
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        fences.push(Fence {
            first: first.chunk,
            entries: small(part.len()),
            offset: small(offset),
            len: small(len),
        });
        offset += len;
        blocks.push(payload);
    }
    let head = IndexHead {
        packs: packs.to_vec(),
        fences,
        filter: Filter::build(entries.iter().map(|entry| &entry.chunk)),
    }
    .encode();
    let digest = sealed.keys().digest(&head);
    blocks.insert(0, Payload::stored(head));
    object::seal_frames(
        sealed.keys(),
        (Kind::Index, KeyClass::Meta),
        name,
        digest,
        &blocks,
        sealed.random(),
    )
}

/// One index object, read whole.
#[derive(Debug)]
pub struct IndexObject {
    /// The packs that it speaks of.
    pub packs: Vec<Arc<IndexPack>>,
    /// Their chunks, in order of ids.
    pub entries: Vec<IndexEntry>,
}

impl IndexObject {
    /// The pack of an entry.
    #[must_use]
    pub fn pack(&self, entry: &IndexEntry) -> Option<&Arc<IndexPack>> {
        self.packs.get(usize::try_from(entry.pack).ok()?)
    }
}

/// Reads an index object whole.
///
/// # Errors
/// When it is not there, damaged or newer.
pub async fn read_object(sealed: &SealedStore, name: &Key) -> Result<IndexObject, RepoError> {
    let bytes = sealed.store().get(name, INDEX_BYTES_MAX).await?;
    let fail = |error| RepoError::format(name, error);
    let mut head: Option<IndexHead> = None;
    let mut entries = Vec::new();
    let header = object::open_frames(sealed.keys(), Kind::Index, name, &bytes, |frame| {
        match &head {
            None => head = Some(IndexHead::decode(frame)?),
            Some(head) => entries.extend(decode_block(frame, head.packs.len())?),
        }
        if entries.len() > usize::try_from(INDEX_BYTES_MAX).unwrap_or(usize::MAX) / 60 {
            return Err(FormatError::TooLarge {
                what: "index entries",
                limit: INDEX_BYTES_MAX / 60,
                found: wide(entries.len()),
            });
        }
        Ok(())
    })?;
    let head = head
        .ok_or_else(|| fail(FormatError::Truncated { what: "index head", needed: 1, found: 0 }))?;
    let ids = sealed.keys().ids_of(header.sealing.id_generation).map_err(fail)?;
    if ids.digest(&head.encode()) != header.digest {
        return Err(fail(FormatError::Unexpected {
            what: "digest of the index head",
            expected: header.digest.to_string(),
            found: "another".into(),
        }));
    }
    let packs = head.packs.into_iter().map(Arc::new).collect();
    Ok(IndexObject { packs, entries })
}
