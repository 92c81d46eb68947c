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

use crate::cluster::ClusterStore;
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
    /// Clusters that no domain's keys open, which may be this one's.
    pub in_doubt: Vec<(Name, u64)>,
}

/// Finds out what a domain holds.
///
/// # Errors
/// `Invalid` when there is no such domain; `Conflict` while backups of it are held or under way;
/// when the store fails.
pub async fn plan(
    repository: &Repository,
    domain: &Name,
    now: Timestamp,
    host: &str,
) -> Result<ShredPlan, EngineError> {
    let epochs = repository.count_epochs(domain).await?;
    if let Some(mark) = repository.shredded(domain).await? {
        return Ok(ShredPlan { mark, begun: true, epochs, in_doubt: Vec::new() });
    }
    let sealed = repository.existing_domain(domain).await?;
    refuse_needed(&sealed, domain, now).await?;
    let mut lineages = backups(&sealed, domain).await?;
    let in_doubt = add_clusters(repository, domain, &mut lineages).await?;
    let lineages = lineages.into_iter().map(|((cluster, lineage), backups)| ShreddedLineage {
        cluster,
        lineage,
        backups,
    });
    let mark = Shredded {
        domain: domain.to_string(),
        at: now.to_string(),
        host: host.to_owned(),
        lineages: lineages.collect(),
    };
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

/// The backups of each cluster and lineage, readable or not.
type Lineages = BTreeMap<(String, String), u64>;

async fn backups(sealed: &SealedStore, domain: &Name) -> Result<Lineages, EngineError> {
    let found = manifests::list(sealed, domain).await?;
    let valid = found.valid.into_iter().map(|backup| backup.at);
    let unreadable = found.unreadable.into_iter().map(|backup| backup.at);
    let mut lineages = Lineages::new();
    for at in valid.chain(unreadable) {
        *lineages.entry((at.cluster.to_string(), at.lineage)).or_default() += 1;
    }
    Ok(lineages)
}

/// Adds the clusters of the domain that have no backup; gives those that open nowhere.
async fn add_clusters(
    repository: &Repository,
    domain: &Name,
    lineages: &mut Lineages,
) -> Result<Vec<(Name, u64)>, EngineError> {
    let (known, mut in_doubt) = ClusterStore::of_domain(repository, domain).await?;
    for found in known {
        lineages.entry((found.at.cluster.to_string(), found.at.lineage)).or_default();
    }
    in_doubt.retain(|(cluster, system)| {
        !lineages.contains_key(&(cluster.to_string(), system.to_string()))
    });
    Ok(in_doubt)
}

/// Deletes the keys; gives how many objects those were. Ended in the middle it is to be begun
/// again, with a new plan.
///
/// # Errors
/// When the store fails: then some may be left.
pub async fn carry_out(
    repository: &Repository,
    domain: &Name,
    plan: &ShredPlan,
) -> Result<u64, EngineError> {
    Ok(repository.shred(domain, &plan.mark).await?)
}
