//! The index of a domain: which index objects and packs there are, and where chunks are.
//!
//! An entry is only a hint: a chunk counts as stored when its pack is listed with the size that
//! the index states, is in no marker of gc, and the chunk was not found bad. Who restores takes
//! what there is: every copy, those found bad last, and what only packs themselves tell.

mod chunk_table;
mod directory;
mod object;
mod reading;
mod rows;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use pgrecall_store::{Key, Listed};

use crate::error::RepoError;
use crate::format::document::Retired;
use crate::format::header::Kind;
use crate::format::index::{IndexEntry, IndexPack};
use crate::id::{ChunkId, PackId};
use crate::names::{self, Name, RoundPart};
use crate::sealed_store::SealedStore;

pub use chunk_table::ChunkTable;
pub use directory::read_directory;
pub(crate) use object::put_entries;
pub use object::{IndexObject, put_index, read_object};
pub(crate) use reading::Reading;
pub(crate) use rows::{Short, short};

/// Objects read at once.
const READS_AT_ONCE: usize = 8;

/// Times that the index objects are listed, since those that vanish were merged into others.
const LISTINGS_MAX: u32 = 5;

/// Where a chunk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its pack.
    pub pack: Arc<IndexPack>,
    /// Its frame's number in the pack.
    pub frame: u32,
    /// Where its frame starts, at the length prefix.
    pub offset: u32,
    /// Bytes of its sealed frame, the prefix not counted.
    pub sealed_len: u32,
    /// Bytes of its plaintext.
    pub plain_len: u32,
    /// The check of its sealed frame, where it is at hand: a lookup by chunks leaves it out.
    pub check: Option<u64>,
}

impl Location {
    /// Where an index entry says that a chunk is.
    #[must_use]
    pub fn of(pack: &Arc<IndexPack>, entry: &IndexEntry) -> Self {
        Self {
            pack: pack.clone(),
            frame: entry.frame,
            offset: entry.offset,
            sealed_len: entry.sealed_len,
            plain_len: entry.plain_len,
            check: Some(entry.check),
        }
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
    let listed = list_packs_by_kind(sealed, domain).await?;
    Ok(listed.into_iter().map(|(id, (_, size))| (id, size)).collect())
}

/// The same, with what each of them holds.
///
/// # Errors
/// When the store cannot list.
pub async fn list_packs_by_kind(
    sealed: &SealedStore,
    domain: &Name,
) -> Result<HashMap<PackId, (Kind, u64)>, RepoError> {
    let mut packs = HashMap::new();
    for object in sealed.list(&names::packs(domain)).await? {
        if let Some((kind, id)) = names::pack_of(domain, &object.key) {
            packs.insert(id, (kind, object.size));
        }
    }
    Ok(packs)
}

pub(crate) fn warn_unreadable(name: &Key, error: &RepoError, what: &str) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(object = %name, %error, cause, "{what}");
}

/// Which readers of the index there are: they differ in what a pack that gc is about to remove
/// means to them, or a chunk that was found bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A backup may refer only to what is sound, and nobody is about to remove.
    Refer,
    /// A restore takes what is there.
    Read,
    /// The same, of metadata alone: a hundredth of the memory.
    ReadMeta,
}

impl Purpose {
    const fn takes_what_is_there(self) -> bool {
        matches!(self, Self::Read | Self::ReadMeta)
    }
}

/// The index of a domain. Who takes what there is reads it again where copies have moved since.
#[derive(Debug)]
pub struct Index {
    domain: Name,
    purpose: Purpose,
    now: Mutex<Arc<Reading>>,
    /// One at a time reads it again.
    again: tokio::sync::Mutex<()>,
}

/// Times that it is read again for one chunk.
const READINGS_MAX: u32 = 5;

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
        let reading = Reading::open(sealed, domain, purpose).await?;
        let now = Mutex::new(Arc::new(reading));
        Ok(Self { domain: domain.clone(), purpose, now, again: tokio::sync::Mutex::default() })
    }

    fn now(&self) -> Arc<Reading> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands every entry out that counts for the purpose, object by object. Objects that cannot be
    /// read only hide what they name, so they are reported and passed over.
    ///
    /// # Errors
    /// When the store fails; an object that vanished was merged into another, and the caller has
    /// to open the index again.
    pub async fn each(
        &self,
        sealed: &SealedStore,
        each: impl FnMut(&Arc<IndexPack>, &IndexEntry),
    ) -> Result<(), RepoError> {
        self.now().each(sealed, each).await
    }

    /// Finds many chunks: of each the copy that is most likely to be good.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn locate(
        &self,
        sealed: &SealedStore,
        wanted: &HashSet<ChunkId>,
    ) -> Result<HashMap<ChunkId, Location>, RepoError> {
        let wanted = wanted.iter().copied().collect();
        let copies = self.copies_of(sealed, wanted).await?.into_iter();
        Ok(copies.filter_map(|(chunk, all)| Some((chunk, all.into_iter().next()?))).collect())
    }

    /// Copies of a chunk, those that are most likely to be good first. Where the index objects
    /// name none, the packs are asked: those first that they do not speak of.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn copies(
        &self,
        sealed: &SealedStore,
        chunk: &ChunkId,
    ) -> Result<Vec<Location>, RepoError> {
        let copies = self.copies_of(sealed, vec![*chunk]).await?.into_values().next();
        Ok(copies.unwrap_or_default())
    }

    /// The same of many; those of which there are none are left out. What is not found is looked
    /// for again where the index says another thing meanwhile (R1: a collection may have moved it),
    /// and only then is every pack asked.
    async fn copies_of(
        &self,
        sealed: &SealedStore,
        chunks: Vec<ChunkId>,
    ) -> Result<HashMap<ChunkId, Vec<Location>>, RepoError> {
        let mut all = HashMap::with_capacity(chunks.len());
        let (mut left, none) = (chunks, HashSet::new());
        let mut readings = Readings::of(self);
        loop {
            let mut missed = Vec::new();
            for chunk in left {
                match readings.now.more_copies(sealed, &chunk, &none).await {
                    Ok(copies) if !copies.is_empty() => drop(all.insert(chunk, copies)),
                    looked => {
                        readings.missed(looked.err())?;
                        missed.push(chunk);
                    }
                }
            }
            left = missed;
            if left.is_empty() || !readings.next(sealed).await? {
                break;
            }
        }
        for chunk in left {
            let copies = readings.now.copies_anywhere(sealed, &chunk).await?;
            if !copies.is_empty() {
                all.insert(chunk, copies);
            }
        }
        Ok(all)
    }

    /// Refuses to say that something is nowhere while an index object or the directory of a pack
    /// was met that another version of the program wrote.
    ///
    /// # Errors
    /// [`RepoError::Newer`] or [`RepoError::Older`], with the object.
    pub(crate) fn require_known_version(&self) -> Result<(), RepoError> {
        self.now().require_known_version()
    }

    /// That a chunk is nowhere, with the pack that it was in, where an index object still tells.
    pub async fn missing(&self, sealed: &SealedStore, chunk: &ChunkId) -> RepoError {
        let mut pack = None;
        let now = self.now();
        let look = each_entry(sealed, &self.domain, |of, entry| {
            if entry.chunk == *chunk && !now.lists(&of.id) {
                pack = Some(names::pack(&self.domain, of.kind, of.id).to_string());
            }
        });
        // What fails here changes nothing about the chunk.
        let _ = look.await;
        RepoError::ChunkMissing { chunk: chunk.to_string(), domain: self.domain.to_string(), pack }
    }

    /// What the index says now, unless all that it spoke of is there yet: then nothing has moved.
    async fn read_again(
        &self,
        sealed: &SealedStore,
        before: &Arc<Reading>,
    ) -> Result<Option<Arc<Reading>>, RepoError> {
        let _one = self.again.lock().await;
        let now = self.now();
        if !Arc::ptr_eq(&now, before) {
            return Ok(Some(now));
        }
        let newer = Reading::open(sealed, &self.domain, self.purpose).await?;
        if newer.lists_all_of(before) {
            return Ok(None);
        }
        tracing::debug!(domain = %self.domain, "packs have moved: the index is read again");
        let newer = Arc::new(newer);
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = newer.clone();
        Ok(Some(newer))
    }
}

/// The index as it is read again and again for what was not found by it.
#[derive(Debug)]
pub(crate) struct Readings<'a> {
    index: &'a Index,
    /// As it was read last.
    pub(crate) now: Arc<Reading>,
    times: u32,
    /// An object was merged into another while it was read: not all that there is was looked at.
    merged: Option<RepoError>,
}

impl<'a> Readings<'a> {
    pub(crate) fn of(index: &'a Index) -> Self {
        Self { index, now: index.now(), times: 0, merged: None }
    }

    /// Something was not found: by an error, perhaps, that a later reading mends.
    ///
    /// # Errors
    /// Another error than that.
    pub(crate) fn missed(&mut self, error: Option<RepoError>) -> Result<(), RepoError> {
        match error {
            Some(error) if !error.is_not_found() => return Err(error),
            Some(error) => self.merged = Some(error),
            None => {}
        }
        Ok(())
    }

    /// Goes on to what the index says now; false where it says the same, or this is read by
    /// somebody who may not refer to what was moved.
    ///
    /// # Errors
    /// When the store fails; when index objects are merged again and again.
    pub(crate) async fn next(&mut self, sealed: &SealedStore) -> Result<bool, RepoError> {
        let again = self.index.purpose.takes_what_is_there() && self.times < READINGS_MAX;
        let newer = match again {
            true => self.index.read_again(sealed, &self.now).await?,
            false => None,
        };
        match (newer, self.merged.take()) {
            (Some(newer), _) => self.now = newer,
            (None, Some(merged)) => return Err(merged),
            (None, None) => return Ok(false),
        }
        self.times += 1;
        Ok(true)
    }
}

async fn list_objects(sealed: &SealedStore, domain: &Name) -> Result<Vec<Key>, RepoError> {
    let listed = sealed.list(&names::indexes(domain)).await?;
    Ok(listed.into_iter().map(|object| object.key).collect())
}

/// Packs that a collection is about to remove. A marker that cannot be read ends the command: it
/// would not know what it may refer to. One that vanishes meanwhile has had its packs removed, or
/// spared them.
///
/// # Errors
/// When they cannot be listed, or one cannot be read.
pub async fn read_markers(
    sealed: &SealedStore,
    domain: &Name,
) -> Result<HashSet<PackId>, RepoError> {
    let mut packs = HashSet::new();
    for object in sealed.list(&names::retired(domain)).await? {
        if names::round_of(domain, &object.key).is_none_or(|(_, part)| part != RoundPart::Marker) {
            continue;
        }
        match sealed.get::<Retired>(Kind::Retired, &object.key).await {
            Ok(marker) => packs.extend(marker.packs),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(packs)
}

/// Hands out every index object; one that cannot be read is passed over, since it only hides what
/// it names. If an object vanishes, all are listed and handed out again.
///
/// # Errors
/// When the store fails.
pub async fn each_object(
    sealed: &SealedStore,
    domain: &Name,
    mut each: impl FnMut(&Listed, &IndexObject),
) -> Result<(), RepoError> {
    for _ in 0..LISTINGS_MAX {
        let objects = sealed.list(&names::indexes(domain)).await?;
        match each_object_of(sealed, &objects, &mut each).await {
            Err(error) if error.is_not_found() => {}
            read => return read,
        }
    }
    Err(RepoError::Invalid {
        what: "the index".into(),
        reason: "its objects are merged again and again while they are read; try later".into(),
    })
}

/// Hands out every entry of every index object, as [`each_object`] does.
///
/// # Errors
/// When the store fails.
pub async fn each_entry(
    sealed: &SealedStore,
    domain: &Name,
    mut each: impl FnMut(&Arc<IndexPack>, &IndexEntry),
) -> Result<(), RepoError> {
    each_object(sealed, domain, |_, object| {
        for entry in &object.entries {
            if let Some(pack) = object.pack(entry) {
                each(pack, entry);
            }
        }
    })
    .await
}

async fn each_object_of(
    sealed: &SealedStore,
    objects: &[Listed],
    each: &mut impl FnMut(&Listed, &IndexObject),
) -> Result<(), RepoError> {
    let mut read = futures::stream::iter(objects)
        .map(|listed| async move { (listed, read_object(sealed, &listed.key).await) })
        .buffered(READS_AT_ONCE);
    while let Some((listed, object)) = read.next().await {
        match object {
            Ok(object) => each(listed, &object),
            Err(error) if error.is_damage() && !error.is_not_found() => {
                warn_unreadable(&listed.key, &error, "an index object cannot be read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
