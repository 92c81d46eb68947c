//! Making all of a domain unreadable for good, by deleting its keys.
//!
//! What was sealed by them stays where it is and opens for nobody, whatever keys of the repository
//! he has. Only copies of the keys' own objects would open it: in hosts' caches, in versions that a
//! bucket keeps, in snapshots of the store.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::{Shredded, ShreddedLineage};
use pgrecall_repo::manifests;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::SealedStore;

use crate::cluster::{ClusterStore, identity_digest};
use crate::error::{EngineError, ErrorKind};
use crate::retention::hold::is_in_force;

/// What would be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShredPlan {
    /// The mark that is put first.
    pub mark: Shredded,
    /// Whether it lies there already: then this ends what was begun.
    pub begun: bool,
    /// The objects that hold its keys.
    pub epochs: u64,
    /// Clusters that no domain's keys open now, and that may be this one's.
    pub in_doubt: Vec<(Name, u64)>,
}

/// Who shreds.
#[derive(Debug, Clone, Copy)]
pub struct Shredder<'a> {
    /// The time.
    pub now: Timestamp,
    /// This host, for people.
    pub host: &'a str,
}

/// Finds out what a domain holds.
///
/// # Errors
/// `Invalid` when there is no such domain; `Conflict` while backups of it are held or under way;
/// when its keys or the log of holds do not read, or the store fails.
pub async fn plan(
    repository: &Repository,
    domain: &Name,
    by: Shredder<'_>,
) -> Result<ShredPlan, EngineError> {
    let epochs = repository.count_epochs(domain).await?;
    if let Some(mark) = repository.shredded(domain).await? {
        return Ok(ShredPlan { mark, begun: true, epochs, in_doubt: Vec::new() });
    }
    let (known, in_doubt) = ClusterStore::of_domain(repository, domain).await?;
    // Where keys do not read nobody knows whether a backup is held: they are to be mended first.
    let sealed = repository.existing_domain(domain).await?;
    refuse_needed(&sealed, domain, by.now).await?;
    let backups = backups(&sealed, domain).await?;
    let mut lineages = Vec::new();
    for found in known {
        let (cluster, lineage) = (found.at.cluster.to_string(), found.at.lineage.clone());
        let backups = backups.get(&(cluster.clone(), lineage.clone())).copied();
        let identity = identity_digest(repository, &found.at).await?;
        let backups = backups.unwrap_or_default();
        lineages.push(ShreddedLineage { cluster, lineage, backups, identity });
    }
    let (domain, at, host) = (domain.to_string(), by.now.to_string(), by.host.to_owned());
    let mark = Shredded { domain, at, host, lineages };
    Ok(ShredPlan { mark, begun: false, epochs, in_doubt })
}

/// Refuses what somebody has asked to keep, or is storing at this moment.
async fn refuse_needed(
    sealed: &SealedStore,
    domain: &Name,
    now: Timestamp,
) -> Result<(), EngineError> {
    let log = ExpiredLog::read(sealed, domain).await?;
    if let Some(hold) = log.entry().held.iter().find(|hold| is_in_force(hold, now)) {
        let message = format!("backup {} of it is held: {}", hold.backup, hold.reason);
        return Err(EngineError::refused(ErrorKind::Conflict, message)
            .hint("pgrecall hold remove takes the hold off, if that is right."));
    }
    if !sealed.list(&names::all_intents(domain)).await?.is_empty() {
        let message = format!("a backup of domain {domain} is under way, or its intent is left");
        return Err(EngineError::refused(ErrorKind::Conflict, message)
            .hint("Stop the backups of its clusters, and run pgrecall gc, which ends dead ones."));
    }
    Ok(())
}

/// How many backups each cluster and lineage has, readable or not.
type Backups = BTreeMap<(String, String), u64>;

async fn backups(sealed: &SealedStore, domain: &Name) -> Result<Backups, EngineError> {
    let found = manifests::list(sealed, domain).await?;
    let valid = found.valid.into_iter().map(|backup| backup.at);
    let unreadable = found.unreadable.into_iter().map(|backup| backup.at);
    let mut counts = Backups::new();
    for at in valid.chain(unreadable) {
        *counts.entry((at.cluster.to_string(), at.lineage)).or_default() += 1;
    }
    Ok(counts)
}

/// Deletes the keys; gives how many objects those were. Ended in the middle it is to be begun
/// again, with a new plan.
///
/// # Errors
/// `Conflict` when the domain holds something else than the plan said by now; when the store fails:
/// then some may be left.
pub async fn carry_out(
    repository: &Repository,
    domain: &Name,
    planned: &ShredPlan,
    by: Shredder<'_>,
) -> Result<u64, EngineError> {
    let now = plan(repository, domain, by).await?;
    if !now.begun
        && (&now.mark.lineages, &now.in_doubt) != (&planned.mark.lineages, &planned.in_doubt)
    {
        let message = format!("what domain {domain} holds has changed since it was told");
        return Err(EngineError::refused(ErrorKind::Conflict, message)
            .hint("Run the command again, and look at what it says now."));
    }
    Ok(repository.shred(domain, &now.mark).await?)
}
