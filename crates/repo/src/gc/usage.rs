//! How much of each pack is referred to: the guess by which packs are retired. It carries no proof;
//! the sweep looks again.

use std::collections::{HashMap, HashSet};

use crate::error::RepoError;
use crate::format::header::Kind;
use crate::id::PackId;
use crate::index::{self, Purpose, Short, short};
use crate::names::Name;
use crate::sealed_store::SealedStore;

use super::live::Live;

/// A pack, and how much of it is needed from it and no other pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    /// The pack.
    pub id: PackId,
    /// Data or metadata.
    pub kind: Kind,
    /// Bytes of its object.
    pub size: u64,
    /// Chunks that are needed from it.
    pub live_chunks: u64,
    /// Bytes of their frames.
    pub live_bytes: u64,
    /// Whether an index object names it: of one that none names the backup may be under way.
    pub indexed: bool,
}

/// What is used of every pack that is listed and not retired.
///
/// # Errors
/// When a marker or a note of damage cannot be read, or the store fails.
pub async fn pack_uses(
    sealed: &SealedStore,
    domain: &Name,
    live: &Live,
) -> Result<Vec<PackUse>, RepoError> {
    let marked = index::read_markers(sealed, domain).await?;
    let damaged = index::read_damage(sealed, domain, Purpose::Refer).await?;
    let listed = index::list_packs_by_kind(sealed, domain).await?;
    let counts = |pack: PackId| !marked.contains(&pack) && listed.contains_key(&pack);
    // Of several copies that in the pack of the lowest id is the one that stays.
    let mut homes: HashMap<Short, (PackId, u64)> = HashMap::new();
    let mut indexed: HashSet<PackId> = HashSet::new();
    index::each_entry(sealed, domain, |pack, entry| {
        indexed.insert(pack.id);
        let note = crate::format::document::DamagedChunk { pack: pack.id, chunk: entry.chunk };
        if live.has(&entry.chunk) && counts(pack.id) && !damaged.contains(&note) {
            let here = (pack.id, crate::pack::frame_len(entry.sealed_len));
            let home = homes.entry(short(&entry.chunk)).or_insert(here);
            *home = (*home).min(here);
        }
    })
    .await?;
    let mut uses: HashMap<PackId, PackUse> = HashMap::new();
    for (id, (kind, size)) in listed.iter().filter(|(id, _)| !marked.contains(id)) {
        let (id, kind, size) = (*id, *kind, *size);
        let indexed = indexed.contains(&id);
        uses.insert(id, PackUse { id, kind, size, live_chunks: 0, live_bytes: 0, indexed });
    }
    for (pack, bytes) in homes.into_values() {
        if let Some(used) = uses.get_mut(&pack) {
            used.live_chunks += 1;
            used.live_bytes += bytes;
        }
    }
    let mut uses: Vec<PackUse> = uses.into_values().collect();
    uses.sort_unstable_by_key(|used| used.id);
    Ok(uses)
}
