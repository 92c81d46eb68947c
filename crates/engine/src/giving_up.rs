//! Giving up a backup that is lost in part: as long as it stands and nobody can tell what it needs,
//! a collection removes nothing.

use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::header::KeyClass;
use pgrecall_repo::gc::Live;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::repair::{self, Quarantined, RepairPlan, Repaired, What};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{RepoError, names};

use crate::catalog::missing::{self, MissingBackup};
use crate::catalog::{self, chain};
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::meanwhile::{has_newer_keys, newer_keys};

/// Plans to give up a backup of whose list of files, or maps, a part is lost, or whose manifest is
/// not there though others saw it. Nothing is written.
///
/// # Errors
/// `Invalid` for one of which all of that reads; what keeps it from being read otherwise;
/// `Conflict` for one that is held; `NotFound`; the store's failures.
pub async fn plan(cluster: &ClusterStore, id: BackupId) -> Result<RepairPlan, EngineError> {
    let (known, _) = catalog::backups(cluster).await?;
    let backup = known.into_iter().find(|backup| backup.manifest.backup == id);
    let missing = match backup {
        Some(_) => None,
        None => Some(of_missing(cluster, id).await?),
    };
    let log = ExpiredLog::read(&cluster.sealed, cluster.domain()).await?;
    if let Some(hold) = log.entry().held.iter().find(|hold| hold.backup == id) {
        let message = format!("backup {id} is held, by {}: {}", hold.by, hold.reason);
        return Err(EngineError::refused(ErrorKind::Conflict, message)
            .hint(format!("`pgrecall hold remove {id}` takes the hold off.")));
    }
    let at = cluster.at.clone();
    let (what, reason) = match (backup, missing) {
        (Some(backup), _) => {
            let why = lost_part(cluster, &backup.manifest).await?;
            let reason = format!("what the backup needs cannot be told: {why}");
            (What::Manifest { at, backup: id }, reason)
        }
        (None, missing) => {
            let reason = missing.map(|missing| missing.told()).unwrap_or_default();
            (What::MissingManifest { at, backup: id }, reason)
        }
    };
    let name = names::manifest(&cluster.at, id);
    let quarantined = vec![Quarantined { name, what, reason }];
    Ok(RepairPlan { quarantined, ..RepairPlan::default() })
}

/// The backup that is not there, and that others saw.
async fn of_missing(cluster: &ClusterStore, id: BackupId) -> Result<MissingBackup, EngineError> {
    let missing = missing::find(&cluster.sealed, cluster.domain()).await?;
    missing.into_iter().find(|backup| backup.at == cluster.at && backup.id == id).ok_or_else(|| {
        let message = format!("there is no backup {id} whose manifest reads");
        EngineError::refused(ErrorKind::NotFound, message)
            .hint("`pgrecall repair` by itself gives up those whose manifests do not read.")
    })
}

/// What is lost of what says which chunks a backup needs; that alone stops collections. What other
/// keys or another version may read is not lost.
async fn lost_part(cluster: &ClusterStore, manifest: &Manifest) -> Result<String, EngineError> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let id = manifest.backup;
    if let Some(epoch) = missing_epoch(sealed) {
        let message = format!(
            "the keys of epoch {epoch} of domain {domain} are not here: what they open may be whole"
        );
        return Err(EngineError::refused(ErrorKind::Corrupt, message).hint(format!(
            "Bring domains/{domain}/keys/{epoch:016x} back, by an earlier version of it or from a \
             copy."
        )));
    }
    match Live::default().and_backup(sealed, domain, manifest).await {
        Ok(_) => {
            let message = format!(
                "the list of files of backup {id} reads: it keeps nothing from being collected, \
                 and is not given up"
            );
            Err(EngineError::refused(ErrorKind::Invalid, message)
                .hint("`pgrecall expire` removes backups, by the rules of retention."))
        }
        // By the newest keys: a collection may have moved what is missed.
        Err(RepoError::NeedUnknown { .. }) if has_newer_keys(sealed, domain).await? => {
            Err(newer_keys(domain))
        }
        Err(RepoError::NeedUnknown { source, .. }) => Ok(chain(&*source)),
        Err(error) => Err(error.into()),
    }
}

/// The first epoch up to the newest whose keys are missing.
fn missing_epoch(sealed: &SealedStore) -> Option<u32> {
    let keys = sealed.keys();
    (0..keys.epoch()).find(|epoch| !keys.has_epoch(KeyClass::Meta, *epoch))
}

/// Gives the backup up, unless it has become whole or held since.
///
/// # Errors
/// As [`plan`].
pub async fn carry_out(cluster: &ClusterStore, id: BackupId) -> Result<Repaired, EngineError> {
    let plan = plan(cluster, id).await?;
    Ok(repair::give_up(&cluster.sealed, cluster.domain(), &plan).await?)
}
