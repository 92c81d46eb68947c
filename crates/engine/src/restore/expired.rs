//! A backup that expires while it is read: then its packs may be gone, and that is no damage.

use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::Manifest;

use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};

/// Why a backup could not be read: that it has expired, where the log says so. It is read after
/// what was missed (R1).
pub(super) async fn or_expired(
    cluster: &ClusterStore,
    manifest: &Manifest,
    error: EngineError,
) -> EngineError {
    let missing = [ErrorKind::NotFound, ErrorKind::Incomplete, ErrorKind::Corrupt];
    if !missing.contains(&error.kind()) {
        return error;
    }
    // Whatever is wrong with the log, the first error is what stopped the restore.
    match ExpiredLog::read(&cluster.sealed, cluster.domain()).await {
        Ok(log) if log.entry().backups.contains(&manifest.backup) => {
            let id = manifest.backup;
            let message = format!("backup {id} has expired since this began, and its files go");
            EngineError::refused(ErrorKind::Conflict, message)
                .hint("Run the restore again: it takes a backup that is there.")
                .hint(
                    "What must not expire meanwhile is held: pgrecall hold add BACKUP --reason TEXT.",
                )
        }
        _ => error,
    }
}
