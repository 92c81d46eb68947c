//! The chunks that valid backups refer to.

use std::collections::HashSet;

use crate::chunks;
use crate::error::{FormatError, RepoError};
use crate::format::map::FileMap;
use crate::format::table::{Entry, PieceMap};
use crate::id::ChunkId;
use crate::index::{Index, Purpose, Short, short};
use crate::manifests;
use crate::names::Name;
use crate::sealed_store::SealedStore;

/// Map chunks read at once.
const MAPS_AT_ONCE: usize = 256;

/// The chunks that are referred to, in 16 bytes each.
#[derive(Debug, Default)]
pub struct Live {
    chunks: HashSet<Short>,
    /// How many backups refer to them.
    pub backups: u64,
}

impl Live {
    /// Whether a backup refers to this chunk.
    #[must_use]
    pub fn has(&self, chunk: &ChunkId) -> bool {
        self.chunks.contains(&short(chunk))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// True when nothing is referred to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    fn add(&mut self, chunk: &ChunkId) -> bool {
        self.chunks.insert(short(chunk))
    }

    fn add_map(&mut self, map: &FileMap) {
        for chunk in &map.hash_chunks {
            self.add(&chunk.id);
        }
        for chunk in &map.chunks {
            self.add(&chunk.id);
        }
    }
}

/// Reads every valid backup of a domain (S2). What cannot be read is an error: who deletes must
/// know what everybody needs (U).
///
/// # Errors
/// When a manifest, the log of expired backups, a file table or a map cannot be read.
pub async fn live_chunks(sealed: &SealedStore, domain: &Name) -> Result<Live, RepoError> {
    let backups = manifests::list(sealed, domain).await?;
    if let Some(error) = backups.log_error {
        return Err(error);
    }
    if let Some(unreadable) = backups.unreadable.into_iter().next() {
        return Err(unreadable.error);
    }
    let index = Index::open(sealed, domain, Purpose::Read).await?;
    let mut live = Live { backups: backups.valid.len() as u64, ..Live::default() };
    let mut maps: HashSet<Short> = HashSet::new();
    for backup in &backups.valid {
        for table in &backup.manifest.tables {
            live.add(&table.id);
        }
        let mut wanted: HashSet<ChunkId> = HashSet::new();
        manifests::each_table(sealed, domain, &index, &backup.manifest, |entries| {
            entries.iter().try_for_each(|entry| add_entry(entry, &mut live, &mut maps, &mut wanted))
        })
        .await?;
        let wanted: Vec<ChunkId> = wanted.into_iter().collect();
        for part in wanted.chunks(MAPS_AT_ONCE) {
            let part: HashSet<ChunkId> = part.iter().copied().collect();
            for (id, plain) in chunks::read_many(sealed, domain, &index, &part).await? {
                let map = FileMap::decode(&plain).map_err(|error| bad_map(&id, error))?;
                live.add_map(&map);
            }
        }
    }
    Ok(live)
}

/// Adds what an entry refers to; maps in chunks of their own are wanted once.
fn add_entry(
    entry: &Entry,
    live: &mut Live,
    maps: &mut HashSet<Short>,
    wanted: &mut HashSet<ChunkId>,
) -> Result<(), RepoError> {
    for piece in entry.pieces() {
        match &piece.map {
            PieceMap::Zeros => {}
            PieceMap::Inline(bytes) => {
                let map = FileMap::decode(bytes).map_err(|error| {
                    RepoError::format(format!("the map of {}", entry.path), error)
                })?;
                live.add_map(&map);
            }
            PieceMap::Chunk { id, .. } => {
                live.add(id);
                if maps.insert(short(id)) {
                    wanted.insert(*id);
                }
            }
        }
    }
    Ok(())
}

fn bad_map(id: &ChunkId, error: FormatError) -> RepoError {
    RepoError::format(format!("map chunk {id}"), error)
}
