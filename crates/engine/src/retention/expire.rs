//! Carrying an expiry out: the log first, then the manifests that it names, then WAL.

use pgrecall_repo::expired::{self, ExpiredLog};
use pgrecall_repo::format::document::Expired;
use pgrecall_repo::sealed_store::Stored;

use super::floor::Floors;
use super::plan::{ExpirePlan, wal_cut};
use super::wal::OldWal;
use crate::cancel::Cancel;
use crate::catalog::chain;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Manifests that are gone, those of earlier entries of the log included.
    pub manifests: u64,
    /// WAL objects that are gone.
    pub wal_objects: u64,
    /// Their bytes.
    pub wal_bytes: u64,
}

/// Carries a plan out. It can be ended at any moment and begun again.
///
/// # Errors
/// `Conflict` when another host has expired or held something since the plan was made: nothing was
/// done, and a new plan may be another one. The store's failures.
pub async fn carry_out(
    cluster: &ClusterStore,
    plan: &ExpirePlan,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Done, EngineError> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let more = Expired {
        backups: plan.expires.iter().map(|row| row.id).collect(),
        wal: plan.floors.iter().flat_map(|floors| floors.to_log(cluster)).collect(),
        ..Expired::default()
    };
    if !more.backups.is_empty() || !more.wal.is_empty() {
        progress.phase("writing down what expires", None);
        let appended = plan.log.append(sealed, domain, more.clone()).await?;
        // A number that was freed may be won by a plan that is out of date: the highest holds.
        let holds = ExpiredLog::read(sealed, domain).await?;
        if appended == Stored::Other || !holds.says(&more) {
            let message =
                "another host has changed the log of expired backups since this plan was made";
            return Err(EngineError::refused(ErrorKind::Conflict, message)
                .hint("Make a new plan: run the command again."));
        }
    }
    remove(cluster, plan, progress, cancel).await.map_err(told_as_half_done)
}

/// Somebody without the right to delete should know what has come of it.
fn told_as_half_done(error: EngineError) -> EngineError {
    if error.kind() != ErrorKind::Denied {
        return error;
    }
    let message = format!(
        "what has expired is written down and counts, and not all of it could be removed: {}",
        chain(&error)
    );
    EngineError::refused(ErrorKind::Denied, message)
        .hint("Run expire or gc with credentials that may delete: they remove the rest.")
}

/// Removes what the log says has expired.
async fn remove(
    cluster: &ClusterStore,
    plan: &ExpirePlan,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Done, EngineError> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    progress.phase("removing backups", None);
    let mut done =
        Done { manifests: expired::remove_manifests(sealed, domain).await?, ..Done::default() };
    // Looked at again, now that the log says what goes: a backup may have begun since, on a standby
    // that lags behind. One that begins from now on finds its start below a floor.
    let cutting = wal_cut(cluster, plan).await?;
    let log = ExpiredLog::read(sealed, domain).await?;
    let old = cutting.objects(&Floors::of(cluster, &log)?);
    if !old.is_empty() {
        log.make_durable(sealed, domain).await?;
    }
    progress.phase("removing WAL", Some(old.iter().map(|object| object.bytes).sum()));
    for OldWal { object, bytes } in old {
        cancel.check()?;
        sealed.store().delete(&object).await.map_err(pgrecall_repo::RepoError::from)?;
        progress.advance(bytes);
        done.wal_objects += 1;
        done.wal_bytes = done.wal_bytes.saturating_add(bytes);
    }
    expired::remove_lower_entries(sealed, domain).await?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_delete_is_told_what_has_come_of_it() {
        let refused = |kind| told_as_half_done(EngineError::refused(kind, "access is denied"));
        let denied = refused(ErrorKind::Denied);
        assert_eq!(denied.kind(), ErrorKind::Denied);
        assert!(denied.to_string().contains("written down"), "{denied}");
        assert!(denied.to_string().ends_with("access is denied"), "{denied}");
        assert_eq!(denied.hints().len(), 1);
        assert_eq!(refused(ErrorKind::Unavailable).to_string(), "access is denied");
    }
}
