//! Backups that others have seen, that are not there, and that have not expired: a hole in the
//! middle, which a repository tells of itself.

use std::collections::{BTreeMap, HashSet};

use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::manifests;
use pgrecall_repo::names::{self, ClusterRef, Name};
use pgrecall_repo::sealed_store::SealedStore;

use crate::details::BackupDetails;
use crate::error::{EngineError, ErrorKind};
use crate::seen::BRING_BACK;

/// A backup whose manifest is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingBackup {
    /// Whose it is.
    pub at: ClusterRef,
    /// The backup.
    pub id: BackupId,
    /// One that saw it when it began.
    pub seen_by: BackupId,
}

impl MissingBackup {
    /// What is known of it, for people.
    #[must_use]
    pub fn told(&self) -> String {
        format!(
            "its manifest, {}, is not there: backup {} saw it when it began, and it has not expired",
            names::manifest(&self.at, self.id),
            self.seen_by
        )
    }

    /// How to go on without it.
    #[must_use]
    pub fn go_on(&self) -> String {
        let (cluster, id) = (&self.at.cluster, self.id);
        format!(
            "If nothing brings it back, `pgrecall repair --cluster {cluster} --give-up {id}` lets \
             go of it."
        )
    }
}

/// Those of all clusters of a domain, by id.
///
/// # Errors
/// When the log of expired backups does not read, where it is asked; when the store fails.
pub async fn find(sealed: &SealedStore, domain: &Name) -> Result<Vec<MissingBackup>, EngineError> {
    let listed = manifests::list(sealed, domain).await?;
    let valid = listed.valid.iter().map(|backup| backup.manifest.backup);
    let unreadable = listed.unreadable.iter().map(|backup| backup.id);
    let there: HashSet<BackupId> = valid.chain(unreadable).collect();
    let mut missing = BTreeMap::new();
    for backup in &listed.valid {
        // What another version wrote is told as that.
        let Ok(details) = BackupDetails::of(&backup.manifest) else { continue };
        for id in details.saw_backups.into_iter().filter(|id| !there.contains(id)) {
            let (at, seen_by) = (backup.at.clone(), backup.manifest.backup);
            missing.entry(id).or_insert(MissingBackup { at, id, seen_by });
        }
    }
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    // Whoever expires a backup writes that down, and only then deletes it.
    let log = ExpiredLog::read(sealed, domain).await?;
    for expired in &log.entry().backups {
        missing.remove(expired);
    }
    Ok(missing.into_values().collect())
}

/// Refuses where a backup is missing: what it needs would go, and with it the way back.
///
/// # Errors
/// `Incomplete` where one is; as [`find`].
pub(crate) async fn require_none(sealed: &SealedStore, domain: &Name) -> Result<(), EngineError> {
    let missing = find(sealed, domain).await?;
    let Some(first) = missing.first() else { return Ok(()) };
    let others = match missing.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} others)"),
    };
    let message = format!(
        "backup {} of cluster {}{others} is missing, and what it needs would go: {}",
        first.id,
        first.at.cluster,
        first.told()
    );
    Err(EngineError::refused(ErrorKind::Incomplete, message).hint(BRING_BACK).hint(first.go_on()))
}
