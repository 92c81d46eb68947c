//! What others may have done while a backup was read, so that something is missed and nothing is
//! lost (R1). It is asked after the last miss.

use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::sealed_store::SealedStore;

use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};

/// Whether the domain has newer keys than those that this process has: what a collection has moved
/// since is sealed by them.
///
/// # Errors
/// When the store cannot list.
pub async fn has_newer_keys(sealed: &SealedStore, domain: &Name) -> Result<bool, EngineError> {
    let log = names::domain_keys(domain);
    let listed = sealed.list(log.prefix()).await?;
    let newest = listed.iter().filter_map(|object| log.number(&object.key)).max();
    Ok(newest.is_some_and(|newest| newest > u64::from(sealed.keys().epoch())))
}

/// That the keys were rotated.
pub(crate) fn newer_keys(domain: &Name) -> EngineError {
    let message = format!(
        "the keys of domain {domain} were rotated since this began, and something that it needs is \
         sealed by the new ones"
    );
    EngineError::refused(ErrorKind::Conflict, message).hint("Run the same command again.")
}

/// Why a backup could not be read: that it has expired, or that there are newer keys, where it is
/// so.
pub(crate) async fn or_changed(
    cluster: &ClusterStore,
    manifest: &Manifest,
    error: EngineError,
) -> EngineError {
    let missing = [ErrorKind::NotFound, ErrorKind::Incomplete, ErrorKind::Corrupt];
    if !matches!(error, EngineError::Repo(_)) || !missing.contains(&error.kind()) {
        return error;
    }
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    // Whatever is wrong with these, the first error is what stopped the restore.
    if has_newer_keys(sealed, domain).await.unwrap_or(false) {
        return newer_keys(domain);
    }
    match ExpiredLog::read(sealed, domain).await {
        Ok(log) if log.entry().backups.contains(&manifest.backup) => expired(manifest),
        _ => error,
    }
}

/// Refuses to take for lost what others have moved or removed since a backup was begun to be read.
///
/// # Errors
/// That the backup has expired, or that there are newer keys; when either cannot be looked at.
pub(crate) async fn require_unchanged(
    cluster: &ClusterStore,
    manifest: &Manifest,
) -> Result<(), EngineError> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    if has_newer_keys(sealed, domain).await? {
        return Err(newer_keys(domain));
    }
    match ExpiredLog::read(sealed, domain).await {
        Ok(log) if log.entry().backups.contains(&manifest.backup) => Err(expired(manifest)),
        Ok(_) => Ok(()),
        // Then nobody can tell that it has.
        Err(error) if error.is_damage() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn expired(manifest: &Manifest) -> EngineError {
    let message =
        format!("backup {} has expired since this began, and its files go", manifest.backup);
    EngineError::refused(ErrorKind::Conflict, message)
        .hint("Run the restore again: it takes a backup that is there.")
        .hint("What must not expire meanwhile is held: pgrecall hold add BACKUP --reason TEXT.")
}
