//! The index of a domain as it was at one moment.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use futures::StreamExt as _;
use pgrecall_store::Key;
use tokio::sync::OnceCell;

use super::directory::read_directory;
use super::object::read_object;
use super::rows::Rows;
use super::{
    Location, Purpose, READS_AT_ONCE, list_objects, list_packs_by_kind, read_markers,
    warn_unreadable,
};
use crate::damaged_chunks::ChunkNotes;
use crate::error::{FormatError, RepoError};
use crate::format::document::DamagedChunk;
use crate::format::header::Kind;
use crate::format::index::{IndexEntry, IndexPack};
use crate::id::{ChunkId, PackId};
use crate::names::{self, Name};
use crate::sealed_store::SealedStore;

/// From so many packs on, asking each of them takes long enough to be told.
const PACKS_TOLD_FROM: usize = 1000;

/// The index of a domain as it was at one moment, read in the order of steps B2 to B4.
#[derive(Debug)]
pub(crate) struct Reading {
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
    /// An object that another version of the program wrote, and what that is.
    of_other_version: OnceLock<(Key, FormatError)>,
}

impl Reading {
    /// Reads markers and notes of damage, lists index objects, then packs.
    ///
    /// # Errors
    /// When one of them cannot be listed or read.
    pub(super) async fn open(
        sealed: &SealedStore,
        domain: &Name,
        purpose: Purpose,
    ) -> Result<Self, RepoError> {
        let retired = match purpose {
            Purpose::Refer => read_markers(sealed, domain).await?,
            Purpose::Read | Purpose::ReadMeta => HashSet::new(),
        };
        let damaged = ChunkNotes::read(sealed, domain).await?.known();
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
            of_other_version: OnceLock::new(),
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
    pub(super) async fn each(
        &self,
        sealed: &SealedStore,
        mut each: impl FnMut(&Arc<IndexPack>, &IndexEntry),
    ) -> Result<(), RepoError> {
        let mut read = futures::stream::iter(&self.objects)
            .map(|name| async move { (name, read_object(sealed, name).await) })
            .buffered(READS_AT_ONCE);
        while let Some((name, object)) = read.next().await {
            let object = match object {
                Ok(object) => object,
                Err(error) if error.is_damage() && !error.is_not_found() => {
                    let what = "an index object cannot be read: chunks that only it names are \
                                stored again by backups, and looked for in the packs by restores";
                    warn_unreadable(name, &error, what);
                    self.note_version(name, error);
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

    /// Copies of a chunk in other packs than these, the doubtful ones last: those that the index
    /// objects name, or, for whoever may take what happens to be there, those in packs that no
    /// object speaks of. Of such there are few but for those of an index object that is lost.
    ///
    /// # Errors
    /// When the store fails; when an index object is gone: it was merged into another.
    async fn copies(
        &self,
        sealed: &SealedStore,
        chunk: &ChunkId,
        tried: &HashSet<PackId>,
    ) -> Result<Vec<Location>, RepoError> {
        let rows = self.rows.get_or_try_init(|| self.read_rows(sealed)).await?;
        let is_new = |location: &Location| !tried.contains(&location.pack.id);
        let mut copies: Vec<Location> = rows.copies(chunk).filter(is_new).collect();
        if copies.is_empty() && self.purpose.takes_what_is_there() {
            let ask = || self.read_directories(sealed, |id| !rows.names(id));
            let unindexed = self.unindexed.get_or_try_init(ask).await?;
            copies = unindexed.copies(chunk).filter(is_new).collect();
        }
        copies.sort_by_key(|location| self.is_doubtful(&location.pack, *chunk));
        Ok(copies)
    }

    /// The same; where nothing was tried, what packs said that were asked for another chunk counts
    /// too.
    ///
    /// # Errors
    /// As [`copies`](Self::copies).
    pub(crate) async fn more_copies(
        &self,
        sealed: &SealedStore,
        chunk: &ChunkId,
        tried: &HashSet<PackId>,
    ) -> Result<Vec<Location>, RepoError> {
        let copies = self.copies(sealed, chunk, tried).await?;
        if copies.is_empty() && tried.is_empty() && self.purpose.takes_what_is_there() {
            return Ok(self.known_elsewhere(chunk));
        }
        Ok(copies)
    }

    /// Copies of a chunk that the index objects do not name, by all packs that they speak of: a
    /// request for each, before anything is said to be lost.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn copies_anywhere(
        &self,
        sealed: &SealedStore,
        chunk: &ChunkId,
    ) -> Result<Vec<Location>, RepoError> {
        if !self.purpose.takes_what_is_there() {
            return Ok(Vec::new());
        }
        let rows = self.rows.get_or_try_init(|| self.read_rows(sealed)).await?;
        let ask = || self.read_directories(sealed, |id| rows.names(id));
        self.others.get_or_try_init(ask).await?;
        Ok(self.known_elsewhere(chunk))
    }

    /// The same, of packs that were asked for another chunk.
    fn known_elsewhere(&self, chunk: &ChunkId) -> Vec<Location> {
        let mut copies: Vec<Location> =
            self.others.get().into_iter().flat_map(|others| others.copies(chunk)).collect();
        copies.sort_by_key(|location| self.is_doubtful(&location.pack, *chunk));
        copies
    }

    fn note_version(&self, name: &Key, error: RepoError) {
        if let RepoError::Newer { source, .. } | RepoError::Older { source, .. } = error {
            let _ = self.of_other_version.set((name.clone(), source));
        }
    }

    /// As [`Index::require_known_version`](super::Index::require_known_version).
    pub(super) fn require_known_version(&self) -> Result<(), RepoError> {
        match self.of_other_version.get() {
            Some((name, source)) => Err(RepoError::format(name, source.clone())),
            None => Ok(()),
        }
    }

    /// Whether the store listed a pack.
    pub(super) fn lists(&self, pack: &PackId) -> bool {
        self.packs.contains_key(pack)
    }

    /// Whether all objects and packs are listed that another reading lists.
    pub(super) fn lists_all_of(&self, other: &Self) -> bool {
        let objects: HashSet<&Key> = self.objects.iter().collect();
        other.objects.iter().all(|object| objects.contains(object))
            && other.packs.keys().all(|pack| self.packs.contains_key(pack))
    }

    async fn read_rows(&self, sealed: &SealedStore) -> Result<Rows, RepoError> {
        let mut rows = Rows::default();
        self.each(sealed, |pack, entry| rows.add(pack, entry)).await?;
        Ok(rows.sorted())
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
                    self.note_version(&name, error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found.sorted())
    }
}
