//! The index of a domain: which index objects and packs there are, and where chunks are.
//!
//! An entry is only a hint: a chunk counts as stored when its pack is listed with the size that
//! the index states, is in no marker of gc, and the chunk was not found bad. Who restores takes
//! what there is: every copy, those found bad last, and what only packs themselves tell.

mod chunk_table;
mod directory;
mod object;
mod rows;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;
use pgrecall_store::{Key, Listed};
use tokio::sync::OnceCell;

use crate::error::RepoError;
use crate::format::document::{Damage, DamagedChunk, Retired};
use crate::format::header::Kind;
use crate::format::index::{IndexEntry, IndexPack};
use crate::id::{ChunkId, PackId};
use crate::names::{self, Name, RoundPart};
use crate::sealed_store::SealedStore;

pub use chunk_table::ChunkTable;
pub use directory::read_directory;
pub(crate) use object::put_entries;
pub use object::{IndexObject, put_index, read_object};
use rows::Rows;
pub(crate) use rows::{Short, short};

/// From so many packs on, asking each of them takes long enough to be told.
const PACKS_TOLD_FROM: usize = 1000;

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

pub(crate) async fn list_packs_by_kind(
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

/// Every note of damage of a domain. For [`Purpose::Read`] one that cannot be read is passed over:
/// what it notes is tried like any other chunk.
///
/// # Errors
/// When they cannot be listed, or one cannot be read.
pub async fn read_damage(
    sealed: &SealedStore,
    domain: &Name,
    purpose: Purpose,
) -> Result<HashSet<DamagedChunk>, RepoError> {
    let listed = sealed.list(&names::all_damaged(domain)).await?;
    let mut notes = futures::stream::iter(listed)
        .map(|object| async move {
            let note = sealed.get::<Damage>(Kind::Damage, &object.key).await;
            (object.key, note)
        })
        .buffered(READS_AT_ONCE);
    let mut damaged = HashSet::new();
    while let Some((name, note)) = notes.next().await {
        match note {
            Ok(note) => damaged.extend(note.chunks),
            Err(error) if purpose.takes_what_is_there() && error.is_damage() => {
                warn_unreadable(&name, &error, "a note of damage cannot be read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(damaged)
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

/// The index of a domain as it was at one moment, read in the order of steps B2 to B4.
#[derive(Debug)]
pub struct Index {
    domain: Name,
    purpose: Purpose,
    objects: Vec<Key>,
    packs: HashMap<PackId, (Kind, u64)>,
    retired: HashSet<PackId>,
    damaged: HashSet<DamagedChunk>,
    /// What the index objects say, read when it is first asked for.
    rows: OnceCell<Rows>,
    /// What the directories say of packs that no index object names.
    unindexed: OnceCell<Rows>,
    /// What they say of all others: of several objects that name a pack one may be lost.
    others: OnceCell<Rows>,
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
            Purpose::Read | Purpose::ReadMeta => HashSet::new(),
        };
        let damaged = read_damage(sealed, domain, purpose).await?;
        let objects = list_objects(sealed, domain).await?;
        let packs = list_packs_by_kind(sealed, domain).await?;
        Ok(Self {
            domain: domain.clone(),
            purpose,
            objects,
            packs,
            retired,
            damaged,
            rows: OnceCell::new(),
            unindexed: OnceCell::new(),
            others: OnceCell::new(),
        })
    }

    /// Whether a copy counts for the purpose.
    fn counts(&self, pack: &IndexPack, chunk: ChunkId) -> bool {
        match self.purpose {
            Purpose::Refer => !self.retired.contains(&pack.id) && !self.is_doubtful(pack, chunk),
            Purpose::Read => self.packs.contains_key(&pack.id),
            Purpose::ReadMeta => pack.kind == Kind::MetaPack && self.packs.contains_key(&pack.id),
        }
    }

    /// Whether the pack is not there as the index says, or the copy was found bad.
    fn is_doubtful(&self, pack: &IndexPack, chunk: ChunkId) -> bool {
        let whole = self.packs.get(&pack.id).is_some_and(|(_, size)| *size == pack.size);
        !whole || self.damaged.contains(&DamagedChunk { pack: pack.id, chunk })
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
        self.each_of(sealed, &self.objects, each).await
    }

    async fn each_of(
        &self,
        sealed: &SealedStore,
        objects: &[Key],
        mut each: impl FnMut(&Arc<IndexPack>, &IndexEntry),
    ) -> Result<(), RepoError> {
        let mut read = futures::stream::iter(objects)
            .map(|name| async move { (name, read_object(sealed, name).await) })
            .buffered(READS_AT_ONCE);
        while let Some((name, object)) = read.next().await {
            let object = match object {
                Ok(object) => object,
                Err(error) if error.is_damage() && !error.is_not_found() => {
                    let what = "an index object cannot be read: chunks that only it names are \
                                stored again by backups, and looked for in the packs by restores";
                    warn_unreadable(name, &error, what);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for entry in &object.entries {
                let pack = object.pack(entry);
                if let Some(pack) = pack.filter(|pack| self.counts(pack, entry.chunk)) {
                    each(pack, entry);
                }
            }
        }
        Ok(())
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
        let mut found = HashMap::with_capacity(wanted.len());
        for chunk in wanted {
            if let Some(location) = self.copies(sealed, chunk).await?.into_iter().next() {
                found.insert(*chunk, location);
            }
        }
        Ok(found)
    }

    /// Every copy of a chunk, the doubtful ones last. Where the index objects name none, the packs
    /// are asked: those first that they do not speak of.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn copies(
        &self,
        sealed: &SealedStore,
        chunk: &ChunkId,
    ) -> Result<Vec<Location>, RepoError> {
        let rows = self.rows.get_or_try_init(|| self.read_rows(sealed)).await?;
        let mut copies: Vec<Location> = rows.copies(chunk).collect();
        if copies.is_empty() && self.purpose.takes_what_is_there() {
            copies = self.unnamed_copies(sealed, chunk).await?;
            if copies.is_empty() {
                // A request for each pack, before anything is said to be lost.
                let ask = || self.read_directories(sealed, |id| rows.names(id));
                copies = self.others.get_or_try_init(ask).await?.copies(chunk).collect();
            }
        }
        copies.sort_by_key(|location| self.is_doubtful(&location.pack, *chunk));
        Ok(copies)
    }

    /// Copies of a chunk in packs that no index object speaks of, by the packs themselves: few but
    /// for those of an index object that is lost. Nothing for whoever may not take what happens
    /// to be there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn unnamed_copies(
        &self,
        sealed: &SealedStore,
        chunk: &ChunkId,
    ) -> Result<Vec<Location>, RepoError> {
        if !self.purpose.takes_what_is_there() {
            return Ok(Vec::new());
        }
        let rows = self.rows.get_or_try_init(|| self.read_rows(sealed)).await?;
        let ask = || self.read_directories(sealed, |id| !rows.names(id));
        Ok(self.unindexed.get_or_try_init(ask).await?.copies(chunk).collect())
    }

    async fn read_rows(&self, sealed: &SealedStore) -> Result<Rows, RepoError> {
        let mut objects = self.objects.clone();
        let mut listings = 1;
        loop {
            let mut rows = Rows::default();
            match self.each_of(sealed, &objects, |pack, entry| rows.add(pack, entry)).await {
                Ok(()) => return Ok(rows.sorted()),
                Err(error) if error.is_not_found() && listings < LISTINGS_MAX => {
                    listings += 1;
                    objects = list_objects(sealed, &self.domain).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the directories of some packs: what is left of an index object that was lost, or of a
    /// backup that died.
    async fn read_directories(
        &self,
        sealed: &SealedStore,
        is_asked: impl Fn(&PackId) -> bool,
    ) -> Result<Rows, RepoError> {
        let all = self.purpose != Purpose::ReadMeta;
        let fits = |kind: Kind| all || kind == Kind::MetaPack;
        let asked = self.packs.iter().filter(|(id, (kind, _))| fits(*kind) && is_asked(id));
        let mut asked: Vec<_> = asked.collect();
        asked.sort_unstable_by_key(|(id, _)| **id);
        if asked.len() >= PACKS_TOLD_FROM {
            let packs = asked.len();
            tracing::warn!(
                packs,
                "the index names no good copy of a chunk: packs are asked, one by one"
            );
        }
        let mut directories = futures::stream::iter(asked)
            .map(|(id, (kind, _))| async move {
                (
                    names::pack(&self.domain, *kind, *id),
                    read_directory(sealed, &self.domain, *kind, *id).await,
                )
            })
            .buffered(READS_AT_ONCE);
        let mut found = Rows::default();
        while let Some((name, directory)) = directories.next().await {
            match directory {
                Ok(pack) => found.add_pack(&pack),
                Err(error) if error.is_damage() => {
                    warn_unreadable(&name, &error, "the directory of a pack cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found.sorted())
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
