//! Sweeping a round (S): once every backup on its list has ended, packs that no valid backup needs
//! are deleted, and the others are no longer retired.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::backup::{end_dead, remove_lone_starts};
use crate::error::RepoError;
use crate::format::document::{DamagedChunk, RetireVerdict, Retired};
use crate::format::header::Kind;
use crate::id::{BackupId, ChunkId, PackId, RoundId};
use crate::index::{self, Purpose, Short, short};
use crate::names::{self, ClusterRef, Name, RoundPart};
use crate::sealed_store::SealedStore;

use super::live::{Live, live_chunks};
use super::retire::{rounds, waiting_for};

/// How a sweep ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swept {
    /// Backups that may refer to the packs are under way; the round waits.
    Waiting(Vec<BackupId>),
    /// The round is over.
    Done {
        /// Packs that are gone.
        deleted: u64,
        /// Packs that are needed, and stay.
        spared: u64,
    },
}

/// Sweeps one round, or goes on with what another has begun. `is_dead` says of a backup under way
/// whether it is taken for dead: it is ended then, and could not commit any more.
///
/// # Errors
/// When something that has to be known cannot be read (U), or the store fails: the round stays as
/// it is, and anybody can go on with it.
pub async fn sweep(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
    mut is_dead: impl AsyncFnMut(&ClusterRef, BackupId) -> Result<bool, RepoError>,
) -> Result<Swept, RepoError> {
    let marker_name = names::round(domain, id, RoundPart::Marker);
    let retired = match sealed.get::<Retired>(Kind::Retired, &marker_name).await {
        Ok(retired) => Some(retired),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let verdict = match read_verdict(sealed, domain, id).await? {
        Some(verdict) => verdict,
        None => {
            let Some(retired) = &retired else {
                remove_parts(sealed, domain, id).await?;
                return Ok(Swept::Done { deleted: 0, spared: 0 });
            };
            let waiting = settle_waiting(sealed, domain, id, &mut is_dead).await?;
            if !waiting.is_empty() {
                return Ok(Swept::Waiting(waiting));
            }
            decide(sealed, domain, id, retired).await?
        }
    };
    // S7: the marker, looked at after the verdict: a verdict over a round that is over is nobody's.
    match sealed.get::<Retired>(Kind::Retired, &marker_name).await {
        Ok(retired) => {
            let deleted = delete_packs(sealed, domain, &verdict.packs).await?;
            sealed.store().delete(&marker_name).await?;
            remove_parts(sealed, domain, id).await?;
            let spared = retired.packs.len().saturating_sub(verdict.packs.len()) as u64;
            Ok(Swept::Done { deleted, spared })
        }
        Err(error) if error.is_not_found() => {
            remove_parts(sealed, domain, id).await?;
            Ok(Swept::Done { deleted: 0, spared: 0 })
        }
        Err(error) => Err(error),
    }
}

/// Lists and verdicts whose marker is gone (S12), and what says where backups start that are gone.
///
/// # Errors
/// When the store fails.
pub async fn remove_remains(sealed: &SealedStore, domain: &Name) -> Result<(), RepoError> {
    for round in rounds(sealed, domain).await? {
        if !round.marker {
            remove_parts(sealed, domain, round.id).await?;
        }
    }
    remove_lone_starts(sealed, domain).await
}

async fn read_verdict(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
) -> Result<Option<RetireVerdict>, RepoError> {
    let name = names::round(domain, id, RoundPart::Verdict);
    match sealed.get(Kind::RetireVerdict, &name).await {
        Ok(verdict) => Ok(Some(verdict)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// S1: backups on the list that are taken for dead are ended; those that are left are given.
async fn settle_waiting(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
    is_dead: &mut impl AsyncFnMut(&ClusterRef, BackupId) -> Result<bool, RepoError>,
) -> Result<Vec<BackupId>, RepoError> {
    for (at, backup) in waiting_for(sealed, domain, id).await? {
        if is_dead(&at, backup).await? {
            // The tombstone first, the intent after it.
            end_dead(sealed, &at, backup, "taken for dead by a collection".into()).await?;
        }
    }
    let left = waiting_for(sealed, domain, id).await?;
    Ok(left.into_iter().map(|(_, backup)| backup).collect())
}

/// S2 to S6: what of the round nobody needs; the first verdict that is stored holds.
async fn decide(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
    retired: &Retired,
) -> Result<RetireVerdict, RepoError> {
    let live = live_chunks(sealed, domain).await?;
    let packs = dead_packs(sealed, domain, retired, &live).await?;
    let name = names::round(domain, id, RoundPart::Verdict);
    sealed.put(Kind::RetireVerdict, &name, &RetireVerdict { packs }).await?;
    sealed.get(Kind::RetireVerdict, &name).await
}

/// The packs of a round each of whose live chunks has a copy elsewhere: in a pack that is listed,
/// indexed, in no marker, and not known to be damaged there.
async fn dead_packs(
    sealed: &SealedStore,
    domain: &Name,
    retired: &Retired,
    live: &Live,
) -> Result<Vec<PackId>, RepoError> {
    // S3, S4, S5, in this order.
    let marked = index::read_markers(sealed, domain).await?;
    let damaged = index::read_damage(sealed, domain, Purpose::Refer).await?;
    let ours: BTreeSet<PackId> = retired.packs.iter().copied().collect();
    let needed = needed_of(sealed, domain, &ours, live).await?;
    let wanted: HashSet<Short> = needed.values().flatten().copied().collect();
    let mut copies: HashMap<Short, HashSet<(PackId, u64)>> = HashMap::new();
    index::each_entry(sealed, domain, |pack, entry| {
        let chunk = short(&entry.chunk);
        let counts = wanted.contains(&chunk)
            && !marked.contains(&pack.id)
            && !damaged.contains(&DamagedChunk { pack: pack.id, chunk: entry.chunk });
        if counts {
            copies.entry(chunk).or_default().insert((pack.id, pack.size));
        }
    })
    .await?;
    let listed = index::list_packs(sealed, domain).await?;
    let is_there = |(pack, size): &(PackId, u64)| listed.get(pack) == Some(size);
    let covered =
        |chunk: &Short| copies.get(chunk).is_some_and(|copies| copies.iter().any(is_there));
    let dead = needed.into_iter().filter(|(_, chunks)| chunks.iter().all(covered));
    let mut dead: Vec<PackId> = dead.map(|(pack, _)| pack).collect();
    dead.sort_unstable();
    Ok(dead)
}

/// The live chunks in each pack of the round, by its own directory: an index object may hold a part
/// of a pack only. One whose directory does not read is spared, and stays for a repair.
async fn needed_of(
    sealed: &SealedStore,
    domain: &Name,
    ours: &BTreeSet<PackId>,
    live: &Live,
) -> Result<HashMap<PackId, HashSet<Short>>, RepoError> {
    let mut needed: HashMap<PackId, HashSet<Short>> = HashMap::new();
    for pack in ours {
        if let Some(chunks) = directory_of(sealed, domain, *pack).await? {
            let chunks = chunks.iter().filter(|chunk| live.has(chunk)).map(short).collect();
            needed.insert(*pack, chunks);
        }
    }
    Ok(needed)
}

/// What a pack says of itself; nothing when it is gone, or when that
/// cannot be read: it is spared then, and stays for a repair.
async fn directory_of(
    sealed: &SealedStore,
    domain: &Name,
    pack: PackId,
) -> Result<Option<Vec<ChunkId>>, RepoError> {
    for kind in [Kind::DataPack, Kind::MetaPack] {
        match index::read_directory(sealed, domain, kind, pack).await {
            Ok(pack) => return Ok(Some(pack.entries.iter().map(|entry| entry.chunk).collect())),
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_damage() => {
                let name = names::pack(domain, kind, pack);
                index::warn_unreadable(
                    &name,
                    &error,
                    "the directory of a pack cannot be read: \
                    the pack stays",
                );
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// S8: deletes until none is left.
async fn delete_packs(
    sealed: &SealedStore,
    domain: &Name,
    packs: &[PackId],
) -> Result<u64, RepoError> {
    let doomed: HashSet<&PackId> = packs.iter().collect();
    let mut deleted = 0;
    loop {
        let mut found = 0;
        for object in sealed.list(&names::packs(domain)).await? {
            if names::pack_of(domain, &object.key).is_some_and(|(_, id)| doomed.contains(&id)) {
                sealed.store().delete(&object.key).await?;
                found += 1;
            }
        }
        if found == 0 {
            return Ok(deleted);
        }
        deleted = deleted.max(found);
    }
}

/// S10, S11: the list, then the verdict.
async fn remove_parts(sealed: &SealedStore, domain: &Name, id: RoundId) -> Result<(), RepoError> {
    for part in [RoundPart::Intents, RoundPart::Verdict] {
        sealed.store().delete(&names::round(domain, id, part)).await?;
    }
    Ok(())
}
