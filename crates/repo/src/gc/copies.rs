//! Which packs of a round may go: those each of whose live chunks has a copy elsewhere.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::StreamExt as _;

use crate::damaged_chunks::ChunkNotes;
use crate::error::RepoError;
use crate::format::document::{DamagedChunk, Retired};
use crate::format::header::Kind;
use crate::id::{ChunkId, PackId};
use crate::index::{self, short};
use crate::names::{self, Name};
use crate::sealed_store::SealedStore;

use super::live::Live;

/// Directories of packs read at once: small reads.
const DIRECTORIES_AT_ONCE: usize = 64;

/// Times that the index is read, since packs go while it is.
const READINGS_MAX: u32 = 5;

/// The packs of some rounds that may go: of each live chunk in them there is a copy in a pack that
/// is listed, indexed, in no marker, and not known to be damaged there (S3 to S5).
///
/// The copies of a hundred million chunks do not fit: there is one bit for each live chunk that
/// says whether a copy counts. It is set by packs that were listed before the index was read; and
/// those of them that count have to be listed after, too, or all of it is done again.
pub(super) async fn dead_packs<'a>(
    sealed: &SealedStore,
    domain: &Name,
    rounds: impl Iterator<Item = &'a Retired>,
    live: &Live,
) -> Result<HashSet<PackId>, RepoError> {
    let ours: BTreeSet<PackId> = rounds.flat_map(|round| round.packs.iter().copied()).collect();
    for _ in 0..READINGS_MAX {
        // S3.
        let marked = index::read_markers(sealed, domain).await?;
        let damaged = ChunkNotes::read(sealed, domain).await?.all()?;
        let before = index::list_packs_by_kind(sealed, domain).await?;
        let needed = needed_of(sealed, domain, &ours, &before, live).await?;
        let mut copied = Bits::of(live.len());
        // S4. Where nothing is needed no copy has to be looked for.
        if needed.values().any(|chunks| !chunks.is_empty()) {
            index::each_entry(sealed, domain, |pack, entry| {
                let there = before.get(&pack.id).is_some_and(|(_, size)| *size == pack.size);
                let note = DamagedChunk { pack: pack.id, chunk: entry.chunk };
                let counts = there && !marked.contains(&pack.id) && !damaged.contains(&note);
                if counts && let Some(position) = live.position(&short(&entry.chunk)) {
                    copied.set(position);
                }
            })
            .await?;
        }
        // S5.
        let after = index::list_packs_by_kind(sealed, domain).await?;
        let counted = before.iter().filter(|(id, _)| !marked.contains(id));
        if counted.clone().all(|(id, found)| after.get(id) == Some(found)) {
            let all_copied = |chunks: &Vec<usize>| chunks.iter().all(|at| copied.get(*at));
            let dead = needed.into_iter().filter(|(_, chunks)| all_copied(chunks));
            return Ok(dead.map(|(pack, _)| pack).collect());
        }
    }
    Err(RepoError::Invalid {
        what: "the sweep of a round".into(),
        reason: "packs go again and again while the index is read; try later".into(),
    })
}

/// The live chunks in each pack, by its own directory: an index object may hold a part of a pack
/// only. One whose directory does not read is left out, so that it stays for a repair.
async fn needed_of(
    sealed: &SealedStore,
    domain: &Name,
    ours: &BTreeSet<PackId>,
    listed: &HashMap<PackId, (Kind, u64)>,
    live: &Live,
) -> Result<HashMap<PackId, Vec<usize>>, RepoError> {
    let there = ours.iter().filter_map(|id| Some((*id, listed.get(id)?.0)));
    let mut directories = futures::stream::iter(there)
        .map(|(id, kind)| async move { (id, directory_of(sealed, domain, kind, id).await) })
        .buffer_unordered(DIRECTORIES_AT_ONCE);
    let mut needed = HashMap::new();
    while let Some((id, directory)) = directories.next().await {
        if let Some(chunks) = directory? {
            let live = chunks.iter().filter_map(|chunk| live.position(&short(chunk)));
            needed.insert(id, live.collect());
        }
    }
    Ok(needed)
}

/// What a pack says of itself; nothing when it is gone, or when that cannot be read.
async fn directory_of(
    sealed: &SealedStore,
    domain: &Name,
    kind: Kind,
    pack: PackId,
) -> Result<Option<Vec<ChunkId>>, RepoError> {
    match index::read_directory(sealed, domain, kind, pack).await {
        Ok(pack) => Ok(Some(pack.entries.iter().map(|entry| entry.chunk).collect())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) if error.is_damage() => {
            let what = "the directory of a pack cannot be read: the pack stays";
            index::warn_unreadable(&names::pack(domain, kind, pack), &error, what);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A bit for each live chunk.
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn of(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    pub(super) fn set(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    pub(super) fn get(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}
