//! The index: writing objects for new packs, reading all of them, and finding chunks.
//!
//! An entry is only a hint: a chunk counts as stored when its pack is listed with the size that
//! the index states, is in no marker of gc, and the chunk was not found bad.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use pgrecall_store::Key;

use crate::error::{FormatError, RepoError};
use crate::format::bytes::wide;
use crate::format::document::{Damage, DamagedChunk};
use crate::format::header::{KeyClass, Kind};
use crate::format::index::{
    BLOCK_ENTRIES, Fence, Filter, IndexEntry, IndexHead, IndexPack, decode_block, encode_block,
};
use crate::id::{ChunkId, IndexId, PackId};
use crate::names::{self, Name};
use crate::object::{self, Payload};
use crate::pack::ConfirmedPack;
use crate::sealed_store::{SealedStore, Stored};

/// An index object is at most this long.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// Where a chunk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its pack.
    pub pack: std::sync::Arc<IndexPack>,
    /// Its frame's number in the pack.
    pub frame: u32,
    /// Where its frame starts, at the length prefix.
    pub offset: u32,
    /// Bytes of its sealed frame, the prefix not counted.
    pub sealed_len: u32,
    /// Bytes of its plaintext.
    pub plain_len: u32,
    /// Keyed hash of the sealed frame.
    pub check: u64,
}

impl Location {
    fn of(pack: &std::sync::Arc<IndexPack>, entry: &IndexEntry) -> Self {
        Self {
            pack: pack.clone(),
            frame: entry.frame,
            offset: entry.offset,
            sealed_len: entry.sealed_len,
            plain_len: entry.plain_len,
            check: entry.check,
        }
    }
}

/// Puts an index object for confirmed packs (step B6).
///
/// # Errors
/// When the store does not confirm it.
pub async fn put_index(
    sealed: &SealedStore,
    domain: &Name,
    packs: &[ConfirmedPack],
) -> Result<(), RepoError> {
    let id = IndexId::random(sealed.random());
    let name = names::index(domain, id);
    let bytes = encode_index(sealed, &name, packs)?;
    match sealed.put_sealed(Kind::Index, &name, bytes).await? {
        Stored::Mine => Ok(()),
        Stored::Other => Err(RepoError::Invalid {
            what: format!("index object {name}"),
            reason: "its random name is taken by something else".into(),
        }),
    }
}

fn encode_index(
    sealed: &SealedStore,
    name: &Key,
    packs: &[ConfirmedPack],
) -> Result<Bytes, RepoError> {
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
        packs: packs.iter().map(|pack| pack.pack.clone()).collect(),
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
struct IndexObject {
    packs: Vec<std::sync::Arc<IndexPack>>,
    entries: Vec<IndexEntry>,
}

async fn read_index(sealed: &SealedStore, name: &Key) -> Result<IndexObject, RepoError> {
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
    if sealed.keys().digest(&head.encode()) != header.digest {
        return Err(fail(FormatError::Unexpected {
            what: "digest of the index head",
            expected: header.digest.to_string(),
            found: "another".into(),
        }));
    }
    let packs = head.packs.into_iter().map(std::sync::Arc::new).collect();
    Ok(IndexObject { packs, entries })
}

/// Which packs count.
#[derive(Debug, Default)]
struct Usable {
    listed: HashMap<PackId, u64>,
    damaged: HashSet<DamagedChunk>,
    retired: HashSet<PackId>,
}

impl Usable {
    fn pack(&self, pack: &IndexPack) -> bool {
        self.listed.get(&pack.id) == Some(&pack.size) && !self.retired.contains(&pack.id)
    }

    fn chunk(&self, pack: &IndexPack, chunk: ChunkId) -> bool {
        self.damaged.is_empty() || !self.damaged.contains(&DamagedChunk { pack: pack.id, chunk })
    }
}

/// Every pack of a domain that the store lists, with its size.
///
/// # Errors
/// When the store cannot list.
pub async fn list_packs(
    sealed: &SealedStore,
    domain: &Name,
) -> Result<HashMap<PackId, u64>, RepoError> {
    let mut packs = HashMap::new();
    for object in sealed.list(&names::packs(domain)).await? {
        if let Some((_, id)) = names::pack_of(domain, &object.key) {
            packs.insert(id, object.size);
        }
    }
    Ok(packs)
}

/// Every note of damage of a domain.
///
/// # Errors
/// When one cannot be listed or read.
pub async fn read_damage(
    sealed: &SealedStore,
    domain: &Name,
) -> Result<HashSet<DamagedChunk>, RepoError> {
    let mut damaged = HashSet::new();
    for object in sealed.list(&names::all_damaged(domain)).await? {
        let note: Damage = sealed.get(Kind::Damage, &object.key).await?;
        damaged.extend(note.chunks);
    }
    Ok(damaged)
}

/// Which readers of the index there are: they differ in what a pack that gc is about to remove
/// means to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A backup may refer only to what nobody is about to remove.
    Refer,
    /// A restore takes what is there.
    Read,
}

/// The index of a domain as it was at one moment, read in the order of steps B2 to B4.
#[derive(Debug)]
pub struct Index {
    objects: Vec<Key>,
    usable: Usable,
}

impl Index {
    /// Reads markers and notes of damage, lists index objects, then packs.
    ///
    /// # Errors
    /// When one of them cannot be listed or read.
    pub async fn open(
        sealed: &SealedStore,
        domain: &Name,
        purpose: Purpose,
    ) -> Result<Self, RepoError> {
        let retired = match purpose {
            Purpose::Refer => read_markers(sealed, domain).await?,
            Purpose::Read => HashSet::new(),
        };
        let damaged = read_damage(sealed, domain).await?;
        let listed = sealed.list(&names::indexes(domain)).await?;
        let objects = listed.into_iter().map(|object| object.key).collect();
        let listed = list_packs(sealed, domain).await?;
        Ok(Self { objects, usable: Usable { listed, damaged, retired } })
    }

    /// Packs listed, with their sizes.
    #[must_use]
    pub const fn packs(&self) -> &HashMap<PackId, u64> {
        &self.usable.listed
    }

    /// Hands every usable entry out, object by object. Objects that cannot be read only hide what
    /// they name, so they are reported and passed over.
    ///
    /// # Errors
    /// When the store fails; an object that vanished was merged into another, and the caller has
    /// to open the index again.
    pub async fn each(
        &self,
        sealed: &SealedStore,
        mut each: impl FnMut(&std::sync::Arc<IndexPack>, &IndexEntry),
    ) -> Result<(), RepoError> {
        for name in &self.objects {
            let object = match read_index(sealed, name).await {
                Ok(object) => object,
                Err(error @ RepoError::Corrupt { .. }) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(object = %name, cause, "an index object is damaged: what it \
                        names is stored again, and cannot be read through it");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let usable: Vec<bool> =
                object.packs.iter().map(|pack| self.usable.pack(pack)).collect();
            for entry in &object.entries {
                let number = usize::try_from(entry.pack).unwrap_or(usize::MAX);
                let Some(pack) = object.packs.get(number) else { continue };
                if usable.get(number) == Some(&true) && self.usable.chunk(pack, entry.chunk) {
                    each(pack, entry);
                }
            }
        }
        Ok(())
    }

    /// Finds many chunks in one pass over the index.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    pub async fn locate(
        &self,
        sealed: &SealedStore,
        wanted: &HashSet<ChunkId>,
    ) -> Result<HashMap<ChunkId, Location>, RepoError> {
        let mut found = HashMap::with_capacity(wanted.len());
        self.each(sealed, |pack, entry| {
            if wanted.contains(&entry.chunk) {
                found.entry(entry.chunk).or_insert_with(|| Location::of(pack, entry));
            }
        })
        .await?;
        Ok(found)
    }
}

/// Packs that gc is about to remove. This version writes no markers; one that it cannot read
/// ends the command, since it would not know what it may refer to.
async fn read_markers(sealed: &SealedStore, domain: &Name) -> Result<HashSet<PackId>, RepoError> {
    let markers = sealed.list(&names::retired(domain)).await?;
    match markers.first() {
        None => Ok(HashSet::new()),
        Some(marker) => Err(RepoError::Newer {
            object: marker.key.to_string(),
            source: FormatError::UnknownFeature {
                what: "the domain",
                feature: "collection of garbage under way".into(),
            },
        }),
    }
}

/// Which chunks a backup may refer to, by the first 16 bytes of their ids (they are keyed hashes:
/// two that share them do not occur), 20 bytes a chunk.
#[derive(Debug, Default)]
pub struct ChunkTable {
    /// Sorted by id.
    rows: Vec<([u8; 16], u32)>,
    packs: Vec<(PackId, u64)>,
    /// Where the metadata is: an incremental backup reads maps and hashes of the one before.
    meta: HashMap<ChunkId, Location>,
}

impl ChunkTable {
    /// Reads the whole index.
    ///
    /// # Errors
    /// As [`Index::each`].
    pub async fn read(sealed: &SealedStore, index: &Index) -> Result<Self, RepoError> {
        let mut table = Self::default();
        let mut numbers: HashMap<PackId, u32> = HashMap::new();
        index
            .each(sealed, |pack, entry| {
                let number = *numbers.entry(pack.id).or_insert_with(|| {
                    table.packs.push((pack.id, pack.size));
                    u32::try_from(table.packs.len() - 1).unwrap_or(u32::MAX)
                });
                table.rows.push((short(&entry.chunk), number));
                if pack.kind == Kind::MetaPack {
                    table.meta.insert(entry.chunk, Location::of(pack, entry));
                }
            })
            .await?;
        table.rows.sort_unstable();
        table.rows.dedup_by_key(|row| row.0);
        table.rows.shrink_to_fit();
        Ok(table)
    }

    /// The number of the chunk's pack, when a backup may refer to it.
    #[must_use]
    pub fn find(&self, chunk: &ChunkId) -> Option<u32> {
        let wanted = short(chunk);
        let at = self.rows.binary_search_by_key(&wanted, |row| row.0).ok()?;
        self.rows.get(at).map(|row| row.1)
    }

    /// Where a metadata chunk is.
    #[must_use]
    pub fn meta(&self, chunk: &ChunkId) -> Option<&Location> {
        self.meta.get(chunk)
    }

    /// A pack by its number, with its size.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<(PackId, u64)> {
        self.packs.get(usize::try_from(number).ok()?).copied()
    }

    /// Packs that the table speaks of.
    #[must_use]
    pub fn pack_count(&self) -> usize {
        self.packs.len()
    }

    /// Chunks in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

pub(crate) fn short(chunk: &ChunkId) -> [u8; 16] {
    let (short, _) = chunk.as_bytes().split_at(16);
    short.try_into().unwrap_or([0; 16])
}

/// The directory of a pack, read from the pack itself: a fact of its id, whatever the index says.
///
/// # Errors
/// When it cannot be read.
pub async fn read_directory(
    sealed: &SealedStore,
    domain: &Name,
    kind: Kind,
    id: PackId,
) -> Result<ConfirmedPack, RepoError> {
    let name = names::pack(domain, kind, id);
    let header = sealed.header(&name).await?;
    let mut len = 64 << 10;
    loop {
        let range = pgrecall_store::ByteRange::Last { len };
        let read = sealed.store().get_range(&name, range).await?;
        match object::open_trailer(sealed.keys(), &header, &name, &read.bytes)? {
            object::TrailerRead::NeedMore(needed) if needed > len => len = needed,
            object::TrailerRead::NeedMore(_) => {
                let error =
                    FormatError::Truncated { what: "pack", needed: len, found: read.object_size };
                return Err(RepoError::format(&name, error));
            }
            object::TrailerRead::Trailer(plain) => {
                let entries = crate::format::pack::decode_directory(&plain)
                    .map_err(|error| RepoError::format(&name, error))?;
                let pack = IndexPack { id, size: read.object_size, kind, sealing: header.sealing };
                return Ok(ConfirmedPack { pack, entries });
            }
        }
    }
}
