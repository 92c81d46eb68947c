//! What this host has seen of the repository, held against what is there: by commands that delete,
//! which refuse to go on, and by others, which tell.

use pgrecall_engine::archive::cache::HostCache;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::seen::{self, Memory};
use pgrecall_repo::repository::Repository;

use crate::config::settings::Settings;
use crate::failure::Outcome;

/// Where it is kept.
pub(crate) fn memory(
    settings: &Settings,
    repository: &Repository,
    cluster: &ClusterStore,
) -> Memory {
    let cache = HostCache::new(settings.repository.cache_dir.clone());
    Memory::new(&cache, repository.root().id, cluster)
}

/// What is not there any more, as sentences.
///
/// # Errors
/// When the store fails.
pub(crate) async fn missing(
    settings: &Settings,
    repository: &Repository,
    cluster: &ClusterStore,
) -> Outcome<Vec<String>> {
    if settings.repository.s3.as_of.is_some() {
        // It is the past, and there was less.
        return Ok(Vec::new());
    }
    Ok(memory(settings, repository, cluster).missing(cluster).await?)
}

/// The same, told in the log.
///
/// # Errors
/// When the store fails.
pub(crate) async fn warn_of_missing(
    settings: &Settings,
    repository: &Repository,
    cluster: &ClusterStore,
) -> Outcome<Vec<String>> {
    let missing = missing(settings, repository, cluster).await?;
    for sentence in &missing {
        tracing::warn!("the repository has less than it had: {sentence}. {}", seen::BRING_BACK);
    }
    Ok(missing)
}

/// Refuses to delete by what is there, when something is missing.
///
/// # Errors
/// When something is; when the store fails.
pub(crate) async fn require_nothing_missing(
    settings: &Settings,
    repository: &Repository,
    cluster: &ClusterStore,
) -> Outcome<()> {
    let missing = missing(settings, repository, cluster).await?;
    Ok(seen::require_nothing(&missing, cluster)?)
}

/// Takes up the newest entry of the log, once one may have been written. What was done is done: a
/// failure here is told, and changes nothing.
pub(crate) async fn keep_log(memory: &Memory, cluster: &ClusterStore) {
    if let Err(error) = memory.keep_log(cluster).await {
        tracing::warn!("which entries the log has was not taken up: {error}");
    }
}
