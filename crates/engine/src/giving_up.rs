//! Giving up a backup that is lost in part: as long as it stands and nobody can tell what it needs,
//! a collection removes nothing.

use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::names;
use pgrecall_repo::repair::{self, Quarantined, RepairPlan, Repaired, What};

use crate::cancel::Cancel;
use crate::catalog;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::verify;

/// Plans to give up a backup that cannot be had whole. Nothing is written.
///
/// # Errors
/// `Invalid` for one of which nothing is known to be lost; `Conflict` for one that is held;
/// `NotFound`; the store's failures.
pub async fn plan(
    cluster: &ClusterStore,
    id: BackupId,
    cancel: &Cancel,
) -> Result<RepairPlan, EngineError> {
    let (known, _) = catalog::backups(cluster).await?;
    let Some(backup) = known.into_iter().find(|backup| backup.manifest.backup == id) else {
        let message = format!("there is no backup {id} whose manifest reads");
        return Err(EngineError::refused(ErrorKind::NotFound, message)
            .hint("`pgrecall repair` by itself gives up those whose manifests do not read."));
    };
    let log = ExpiredLog::read(&cluster.sealed, cluster.domain()).await?;
    if let Some(hold) = log.entry().held.iter().find(|hold| hold.backup == id) {
        let message = format!("backup {id} is held, by {}: {}", hold.by, hold.reason);
        return Err(EngineError::refused(ErrorKind::Conflict, message)
            .hint(format!("`pgrecall hold remove {id}` takes the hold off.")));
    }
    let broken = verify::broken(cluster, std::slice::from_ref(&backup), cancel).await?;
    let Some(why) = broken.get(&id) else {
        let message = format!("as far as is known backup {id} is whole: it is not given up");
        return Err(EngineError::refused(ErrorKind::Invalid, message).hint(
            "`pgrecall verify --read-data` looks at all of it, and `expire` removes backups.",
        ));
    };
    let what = What::Manifest { at: cluster.at.clone(), backup: id };
    let name = names::manifest(&cluster.at, id);
    let reason = format!("the backup cannot be had whole: {why}");
    let quarantined = vec![Quarantined { name, what, reason }];
    Ok(RepairPlan { quarantined, ..RepairPlan::default() })
}

/// Gives the backup up, unless it has become whole or held since.
///
/// # Errors
/// As [`plan`].
pub async fn carry_out(
    cluster: &ClusterStore,
    id: BackupId,
    cancel: &Cancel,
) -> Result<Repaired, EngineError> {
    let plan = plan(cluster, id, cancel).await?;
    Ok(repair::give_up(&cluster.sealed, cluster.domain(), &plan).await?)
}
