//! Making all of a domain unreadable for good, by deleting its keys.
//!
//! What was sealed by them stays where it is and opens for nobody, whatever keys of the repository
//! he has. Only copies of the keys' own objects would open it: in hosts' caches, in versions that a
//! bucket keeps, in snapshots of the store.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::names::{self, ClusterRef, Name};
use pgrecall_repo::repository::Repository;

use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::retention::hold::is_in_force;

/// What would be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShredPlan {
    /// The domain.
    pub domain: Name,
    /// Its lineages, with the number of their backups.
    pub lineages: Vec<(ClusterRef, usize)>,
    /// The objects that hold its keys.
    pub epochs: usize,
}

/// Finds out what a domain holds.
///
/// # Errors
/// `Invalid` when there is no such domain, or its keys are gone already; `Conflict` while backups
/// of it are held or under way; when the store fails.
pub async fn plan(
    repository: &Repository,
    domain: &Name,
    now: Timestamp,
) -> Result<ShredPlan, EngineError> {
    let sealed = repository.existing_domain(domain).await?;
    let log = ExpiredLog::read(&sealed, domain).await?;
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
    let mut backups: BTreeMap<(String, String), usize> = BTreeMap::new();
    for object in sealed.list(&names::manifests(domain)).await? {
        if let Some((at, _)) = names::manifest_of(domain, &object.key) {
            *backups.entry((at.cluster.to_string(), at.lineage)).or_default() += 1;
        }
    }
    let mut lineages = Vec::new();
    for cluster in ClusterStore::clusters(repository).await? {
        for lineage in ClusterStore::lineages(repository, &cluster).await? {
            let found = ClusterStore::find(repository, domain, &cluster, lineage).await?;
            if found.domain() == domain {
                let name = (cluster.to_string(), found.at.lineage.clone());
                lineages.push((found.at, backups.get(&name).copied().unwrap_or_default()));
            }
        }
    }
    let epochs = sealed.list(names::domain_keys(domain).prefix()).await?.len();
    Ok(ShredPlan { domain: domain.clone(), lineages, epochs })
}

/// Deletes the keys; gives how many objects those were. Ended in the middle it can be begun again,
/// as long as any key is left.
///
/// # Errors
/// When the store fails: then some may be left.
pub async fn carry_out(repository: &Repository, plan: &ShredPlan) -> Result<u64, EngineError> {
    Ok(repository.shred(&plan.domain).await?)
}
