//! The last backup that this host has taken of a cluster, kept in the cache folder, and held
//! against the repository before anything is written or deleted by it.

use std::path::PathBuf;

use pgrecall_engine::backup::BackupReport;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::last_backup::LastBackup;
use pgrecall_repo::repository::Repository;

use crate::config::settings::Settings;
use crate::failure::Outcome;

fn file(settings: &Settings, repository: &Repository, cluster: &ClusterStore) -> PathBuf {
    let name = format!("last-backup-{}-{}.json", cluster.at.cluster, cluster.at.lineage);
    settings.repository.cache_dir.join(repository.root().id.to_string()).join(name)
}

/// Refuses a repository that was put back to a state from before that backup.
///
/// # Errors
/// When it was; the store's failures.
pub(crate) async fn require(
    settings: &Settings,
    repository: &Repository,
    cluster: &ClusterStore,
) -> Outcome<()> {
    let file = file(settings, repository, cluster);
    match LastBackup::read(&file) {
        Some(last) => Ok(last.require(cluster, &file).await?),
        None => Ok(()),
    }
}

/// Keeps what was just committed.
pub(crate) fn keep(
    settings: &Settings,
    repository: &Repository,
    cluster: &ClusterStore,
    report: &BackupReport,
) {
    LastBackup::of(report, cluster).write(&file(settings, repository, cluster));
}
