//! The chunks that valid backups refer to.

use std::collections::{BTreeSet, HashSet};

use crate::chunks;
use crate::error::{ErrorKind, FormatError, RepoError};
use crate::format::document::Manifest;
use crate::format::map::FileMap;
use crate::format::table::{Entry, PieceMap};
use crate::id::{BackupId, ChunkId};
use crate::index::{Index, Purpose, Short, short};
use crate::manifests::{self, TableReader};
use crate::names::Name;
use crate::sealed_store::SealedStore;

/// Map and table chunks read at once: bounds memory.
const CHUNKS_AT_ONCE: usize = 256;

/// Chunks that are kept apart before they are sorted in.
const RECENT_MAX: usize = 1 << 20;

/// The chunks that are referred to, in 16 bytes each, sorted: each has a position.
#[derive(Debug, Default)]
pub struct Live {
    sorted: Vec<Short>,
    recent: HashSet<Short>,
    /// Manifests never change: each is read once, however often liveness is asked for.
    read: HashSet<BackupId>,
    /// How many backups there were when liveness was last asked for.
    pub backups: u64,
    tombstones: Vec<BackupId>,
}

impl Live {
    /// Whether a backup refers to this chunk.
    #[must_use]
    pub fn has(&self, chunk: &ChunkId) -> bool {
        self.position(&short(chunk)).is_some()
    }

    /// The place of a chunk among all that are live.
    pub(super) fn position(&self, chunk: &Short) -> Option<usize> {
        self.sorted.binary_search(chunk).ok()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// True when nothing is referred to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The backups under whose names tombstones stood when liveness was last asked for.
    #[must_use]
    pub fn tombstones(&self) -> &[BackupId] {
        &self.tombstones
    }

    /// True when it is new.
    fn add(&mut self, chunk: &ChunkId) -> bool {
        let chunk = short(chunk);
        if self.position(&chunk).is_some() || !self.recent.insert(chunk) {
            return false;
        }
        if self.recent.len() > RECENT_MAX.max(self.sorted.len() / 4) {
            self.settle();
        }
        true
    }

    fn settle(&mut self) {
        self.sorted.extend(self.recent.drain());
        self.sorted.sort_unstable();
    }

    fn add_map(&mut self, map: &FileMap) {
        for chunk in &map.hash_chunks {
            self.add(&chunk.id);
        }
        for chunk in &map.chunks {
            self.add(&chunk.id);
        }
    }

    /// With what backups refer to that have come since. What those referred to that have gone
    /// stays in: who counts on it keeps too much, never too little.
    ///
    /// # Errors
    /// As [`live_chunks`]. What was read so far is gone with it: half of it is worth nothing.
    pub async fn and_newer(
        mut self,
        sealed: &SealedStore,
        domain: &Name,
    ) -> Result<Self, RepoError> {
        let backups = manifests::list(sealed, domain).await?;
        if let Some(error) = backups.log_error {
            return Err(error);
        }
        if let Some(unreadable) = backups.unreadable.into_iter().next() {
            return Err(unreadable.error);
        }
        self.backups = backups.valid.len() as u64;
        self.tombstones = backups.tombstones;
        let new = backups.valid.iter().filter(|b| !self.read.contains(&b.manifest.backup));
        let new: Vec<&Manifest> = new.map(|backup| &backup.manifest).collect();
        if new.is_empty() {
            return Ok(self);
        }
        let index = Index::open(sealed, domain, Purpose::ReadMeta).await?;
        for manifest in new {
            let added = self.add_backup((sealed, domain, &index), manifest).await;
            added.map_err(|error| need_unknown(manifest, error))?;
            self.read.insert(manifest.backup);
        }
        self.settle();
        Ok(self)
    }

    /// With what one backup refers to.
    ///
    /// # Errors
    /// [`RepoError::NeedUnknown`] where a part of its list of files, or a map, is lost.
    pub async fn and_backup(
        mut self,
        sealed: &SealedStore,
        domain: &Name,
        manifest: &Manifest,
    ) -> Result<Self, RepoError> {
        let index = Index::open(sealed, domain, Purpose::ReadMeta).await?;
        let added = self.add_backup((sealed, domain, &index), manifest).await;
        if added.is_err() {
            index.require_known_version()?;
        }
        added.map_err(|error| need_unknown(manifest, error))?;
        self.settle();
        Ok(self)
    }

    /// Tables and maps that another backup has too are read once.
    async fn add_backup(
        &mut self,
        at: (&SealedStore, &Name, &Index),
        manifest: &Manifest,
    ) -> Result<(), RepoError> {
        let (sealed, domain, index) = at;
        let new = manifest.tables.iter().filter(|table| self.add(&table.id));
        let tables: Vec<_> = new.collect();
        for part in tables.chunks(CHUNKS_AT_ONCE / 4) {
            let wanted = part.iter().map(|table| table.id).collect();
            let read = chunks::read_many(sealed, domain, index, &wanted).await?;
            let mut maps: BTreeSet<ChunkId> = BTreeSet::new();
            for table in part {
                let plain = read.get(&table.id).map(Vec::as_slice).unwrap_or_default();
                for entry in TableReader::default().decode(table, plain)? {
                    self.add_entry(&entry, &mut maps)?;
                }
            }
            self.add_maps(at, maps.into_iter().collect()).await?;
        }
        Ok(())
    }

    async fn add_maps(
        &mut self,
        (sealed, domain, index): (&SealedStore, &Name, &Index),
        maps: Vec<ChunkId>,
    ) -> Result<(), RepoError> {
        for part in maps.chunks(CHUNKS_AT_ONCE) {
            let wanted: HashSet<ChunkId> = part.iter().copied().collect();
            for (id, plain) in chunks::read_many(sealed, domain, index, &wanted).await? {
                let map = FileMap::decode(&plain).map_err(|error| bad_map(&id, error))?;
                self.add_map(&map);
            }
        }
        Ok(())
    }

    /// Adds what an entry refers to; maps in chunks of their own are still to be read.
    fn add_entry(&mut self, entry: &Entry, maps: &mut BTreeSet<ChunkId>) -> Result<(), RepoError> {
        for piece in entry.pieces() {
            match &piece.map {
                PieceMap::Zeros => {}
                PieceMap::Inline(bytes) => {
                    let map = FileMap::decode(bytes).map_err(|error| {
                        RepoError::format(format!("the map of {}", entry.path), error)
                    })?;
                    self.add_map(&map);
                }
                PieceMap::Chunk { id, .. } => {
                    if self.add(id) {
                        maps.insert(*id);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads every valid backup of a domain (S2). What cannot be read is an error: who deletes must
/// know what everybody needs (U).
///
/// # Errors
/// When a manifest, the log of expired backups, a file table or a map cannot be read.
pub async fn live_chunks(sealed: &SealedStore, domain: &Name) -> Result<Live, RepoError> {
    Live::default().and_newer(sealed, domain).await
}

/// Names the backup whose list of files, or a map of it, is lost.
fn need_unknown(manifest: &Manifest, error: RepoError) -> RepoError {
    // With other keys, by another version or by a disk that recovers it may read.
    let is_lost = match &error {
        RepoError::Corrupt { .. } => true,
        other => matches!(other.kind(), ErrorKind::Incomplete | ErrorKind::NotFound),
    };
    if !is_lost {
        return error;
    }
    let (backup, cluster) = (manifest.backup.to_string(), manifest.cluster.clone());
    RepoError::NeedUnknown { backup, cluster, source: Box::new(error) }
}

fn bad_map(id: &ChunkId, error: FormatError) -> RepoError {
    RepoError::format(format!("map chunk {id}"), error)
}
