//! Sweeping rounds (S): once every backup on a round's list has ended, packs that no valid backup
//! needs are deleted, and the others are no longer retired.

use std::collections::{HashMap, HashSet};

use futures::StreamExt as _;

use crate::backup::{end_dead, remove_lone_starts};
use crate::error::RepoError;
use crate::format::document::{RetireVerdict, Retired};
use crate::format::header::Kind;
use crate::id::{BackupId, PackId, RoundId};
use crate::index;
use crate::names::{self, ClusterRef, Name, RoundPart};
use crate::sealed_store::SealedStore;

use super::copies::dead_packs;
use super::live::Live;
use super::retire::{rounds, waiting_for};

/// Deletes under way at once.
const DELETES_AT_ONCE: usize = 32;

/// How a sweep ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swept {
    /// Backups that may refer to the packs are under way; the round waits.
    Waiting(Vec<(ClusterRef, BackupId)>),
    /// The round is over.
    Done {
        /// Packs that are gone.
        deleted: u64,
        /// Their bytes.
        bytes: u64,
        /// Packs that are needed, and stay.
        spared: u64,
    },
}

impl Swept {
    /// Another has ended the round.
    const OVER: Self = Self::Done { deleted: 0, bytes: 0, spared: 0 };
}

/// Sweeps rounds, or goes on with what another has begun, and gives what is live besides, to be
/// used again. `is_dead` says of a backup under way whether it is taken for dead: it is ended
/// then, and could not commit any more.
///
/// # Errors
/// When something that has to be known cannot be read (U), or the store fails: the rounds stay as
/// they are, and anybody can go on with them.
pub async fn sweep(
    sealed: &SealedStore,
    domain: &Name,
    ids: &[RoundId],
    mut live: Live,
    mut is_dead: impl AsyncFnMut(&ClusterRef, BackupId) -> Result<bool, RepoError>,
) -> Result<(Vec<(RoundId, Swept)>, Live), RepoError> {
    let mut swept = Vec::with_capacity(ids.len());
    let mut decided: Vec<(RoundId, RetireVerdict)> = Vec::new();
    let mut undecided: Vec<(RoundId, Retired)> = Vec::new();
    for id in ids {
        match look(sealed, domain, *id, &mut is_dead).await? {
            Stage::Over => {
                remove_parts(sealed, domain, *id).await?;
                swept.push((*id, Swept::OVER));
            }
            Stage::Waiting(backups) => swept.push((*id, Swept::Waiting(backups))),
            Stage::Decided(verdict) => decided.push((*id, verdict)),
            Stage::Ended(retired) => undecided.push((*id, retired)),
        }
    }
    if !undecided.is_empty() {
        // S2, now that all on their lists have ended.
        live = live.and_newer(sealed, domain).await?;
        let retired = undecided.iter().map(|(_, retired)| retired);
        let dead = dead_packs(sealed, domain, retired, &live).await?;
        for (id, retired) in undecided {
            let packs = retired.packs.into_iter().filter(|pack| dead.contains(pack)).collect();
            decided.push((id, put_verdict(sealed, domain, id, packs).await?));
        }
    }
    for (id, verdict) in decided {
        swept.push((id, carry_out(sealed, domain, id, &verdict).await?));
    }
    Ok((swept, live))
}

/// Where a round is.
enum Stage {
    /// Its marker is gone.
    Over,
    /// S1: backups on its list are under way.
    Waiting(Vec<(ClusterRef, BackupId)>),
    /// S1: none is.
    Ended(Retired),
    /// S0.
    Decided(RetireVerdict),
}

async fn look(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
    is_dead: &mut impl AsyncFnMut(&ClusterRef, BackupId) -> Result<bool, RepoError>,
) -> Result<Stage, RepoError> {
    let Some(retired) = read_marker(sealed, domain, id).await? else { return Ok(Stage::Over) };
    let name = names::round(domain, id, RoundPart::Verdict);
    match sealed.get(Kind::RetireVerdict, &name).await {
        Ok(verdict) => return Ok(Stage::Decided(verdict)),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let Some(waiting) = waiting_for(sealed, domain, id).await? else { return Ok(Stage::Over) };
    for (at, backup) in waiting {
        if is_dead(&at, backup).await? {
            // The tombstone first, the intent after it.
            end_dead(sealed, &at, backup, "taken for dead by a collection".into()).await?;
        }
    }
    Ok(match waiting_for(sealed, domain, id).await? {
        None => Stage::Over,
        Some(left) if left.is_empty() => Stage::Ended(retired),
        Some(left) => Stage::Waiting(left),
    })
}

async fn read_marker(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
) -> Result<Option<Retired>, RepoError> {
    let name = names::round(domain, id, RoundPart::Marker);
    match sealed.get(Kind::Retired, &name).await {
        Ok(retired) => Ok(Some(retired)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// S6: the first verdict that is stored holds. One that is gone before it was read was another
/// collector's, who has ended the round with it: then nothing goes by this one.
async fn put_verdict(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
    packs: Vec<PackId>,
) -> Result<RetireVerdict, RepoError> {
    let name = names::round(domain, id, RoundPart::Verdict);
    let stored = match sealed.put(Kind::RetireVerdict, &name, &RetireVerdict { packs }).await {
        Ok(_) => sealed.get(Kind::RetireVerdict, &name).await,
        Err(error) => Err(error),
    };
    match stored {
        Err(error) if error.is_not_found() => Ok(RetireVerdict { packs: Vec::new() }),
        stored => stored,
    }
}

/// S7 to S11.
async fn carry_out(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
    verdict: &RetireVerdict,
) -> Result<Swept, RepoError> {
    // The marker, looked at after the verdict: a verdict over a round that is over is nobody's.
    let Some(retired) = read_marker(sealed, domain, id).await? else {
        remove_parts(sealed, domain, id).await?;
        return Ok(Swept::OVER);
    };
    let (deleted, bytes) = delete_packs(sealed, domain, &verdict.packs).await?;
    sealed.store().delete(&names::round(domain, id, RoundPart::Marker)).await?;
    remove_parts(sealed, domain, id).await?;
    let spared = retired.packs.len().saturating_sub(verdict.packs.len()) as u64;
    Ok(Swept::Done { deleted, bytes, spared })
}

/// Lists and verdicts whose marker is gone (S12), and what says where backups start that are gone.
///
/// # Errors
/// When the store fails.
pub async fn remove_remains(sealed: &SealedStore, domain: &Name) -> Result<(), RepoError> {
    for round in rounds(sealed, domain).await? {
        // A listing may have come by before the marker was there, and after its list or its verdict
        // was: only a marker that is looked for now is known to be gone (S7).
        if !round.marker && read_marker(sealed, domain, round.id).await?.is_none() {
            remove_parts(sealed, domain, round.id).await?;
        }
    }
    remove_lone_starts(sealed, domain).await
}

/// S8: deletes until none is left. Gives how many there were, and their bytes.
async fn delete_packs(
    sealed: &SealedStore,
    domain: &Name,
    packs: &[PackId],
) -> Result<(u64, u64), RepoError> {
    let doomed: HashSet<&PackId> = packs.iter().collect();
    let mut gone: HashMap<PackId, u64> = HashMap::new();
    while !doomed.is_empty() {
        let mut found = Vec::new();
        for (id, (kind, size)) in index::list_packs_by_kind(sealed, domain).await? {
            if doomed.contains(&id) {
                gone.insert(id, size);
                found.push(names::pack(domain, kind, id));
            }
        }
        if found.is_empty() {
            break;
        }
        // In the same order each time, so that a run can be replayed.
        found.sort_unstable();
        let mut deletes = futures::stream::iter(&found)
            .map(|name| sealed.store().delete(name))
            .buffer_unordered(DELETES_AT_ONCE);
        while let Some(deleted) = deletes.next().await {
            deleted?;
        }
    }
    Ok((gone.len() as u64, gone.values().sum()))
}

/// S10, S11: the list, then the verdict.
async fn remove_parts(sealed: &SealedStore, domain: &Name, id: RoundId) -> Result<(), RepoError> {
    for part in [RoundPart::Intents, RoundPart::Verdict] {
        sealed.store().delete(&names::round(domain, id, part)).await?;
    }
    Ok(())
}
