//! Backups that people keep from expiring, whatever the rules say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgrecall_repo::expired::{self, ExpiredLog, Held};
use pgrecall_repo::format::document::Hold;
use pgrecall_repo::id::BackupId;

use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};

/// The holds of a domain, as its log has them.
///
/// # Errors
/// When the log cannot be read.
pub async fn holds(cluster: &ClusterStore) -> Result<Vec<Hold>, EngineError> {
    Ok(ExpiredLog::read(&cluster.sealed, cluster.domain()).await?.entry().held.clone())
}

/// Holds a backup that is there. When this returns, no expiry takes it before the hold ends.
///
/// # Errors
/// `NotFound` when it has expired meanwhile; the store's failures.
pub async fn add(cluster: &ClusterStore, hold: &Hold) -> Result<(), EngineError> {
    match expired::hold(&cluster.sealed, cluster.domain(), hold).await? {
        Held::Held => Ok(()),
        Held::Expired => {
            let message = format!("backup {} has expired: it cannot be held any more", hold.backup);
            Err(EngineError::refused(ErrorKind::NotFound, message))
        }
    }
}

/// Takes a hold off.
///
/// # Errors
/// The store's failures.
pub async fn remove(cluster: &ClusterStore, id: BackupId) -> Result<(), EngineError> {
    Ok(expired::release(&cluster.sealed, cluster.domain(), id).await?)
}

/// Whether a hold is in force at a time. One whose end does not read is.
#[must_use]
pub fn is_in_force(hold: &Hold, now: Timestamp) -> bool {
    let until = hold.until.as_deref().and_then(|until| until.parse::<Timestamp>().ok());
    until.is_none_or(|until| now < until)
}

/// The holds in force, with their reasons.
pub(super) fn in_force(log: &ExpiredLog, now: Timestamp) -> BTreeMap<BackupId, String> {
    let held = log.entry().held.iter().filter(|hold| is_in_force(hold, now));
    held.map(|hold| (hold.backup, hold.reason.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_when_it_says_so_and_one_that_does_not_read_never() {
        let hold = |until: Option<&str>| Hold {
            backup: BackupId::from_bytes([1; 16]),
            reason: "audit".into(),
            until: until.map(str::to_owned),
            by: "somebody".into(),
        };
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        assert!(is_in_force(&hold(None), now));
        assert!(is_in_force(&hold(Some("2026-11-30T12:00:01Z")), now));
        assert!(!is_in_force(&hold(Some("2026-11-30T12:00:00Z")), now));
        assert!(is_in_force(&hold(Some("next year")), now));
    }
}
