//! What `wal push`, `wal fetch` and `wal resolve` share: the repository opened for them, with its
//! copies on this host and their own time-outs, and the data directory that they act for.

use std::path::Path;
use std::time::Duration;

use pgrecall_engine::archive::access::{Access, DomainIs};
use pgrecall_engine::archive::cache::HostCache;
use pgrecall_engine::archive::data_directory::Around;
use pgrecall_engine::archive::patience::Patience;
use pgrecall_store::{RootPolicy, StoreOptions};

use crate::config::settings::Settings;
use crate::context::repository;
use crate::context::{cluster, store};
use crate::failure::{Failure, Kind, Outcome};

/// Opens the store, which must answer within the time without progress.
///
/// # Errors
/// When a setting is missing, there is no key, or the store cannot be opened.
pub(crate) async fn open(settings: &Settings, patience: Patience) -> Outcome<Access> {
    repository::require_pinned_id(settings)?;
    let options = repository::options(settings)?;
    let names = cluster::cluster_names(settings)?;
    let store_options = hurried(store::options(settings, RootPolicy::MustExist)?, patience);
    let opening = store::open_with(settings, &store_options);
    let store = tokio::time::timeout(patience.progress, opening).await.map_err(|_| {
        let seconds = patience.progress.as_secs_f64();
        Failure::new(Kind::Unavailable, format!("the store did not open within {seconds} s"))
            .hint("A network mount that hangs looks like this: see the kernel's log.")
    })??;
    Ok(Access {
        store,
        options,
        cache: Some(HostCache::new(settings.repository.cache_dir.clone())),
        cluster: names.cluster,
        domain: names.domain,
        domain_is: match settings.cluster()?.domain_is_default {
            true => DomainIs::Assumed,
            false => DomainIs::Told,
        },
        patience,
    })
}

/// The store's own time-outs, where they are longer than the command's.
fn hurried(mut options: StoreOptions, patience: Patience) -> StoreOptions {
    let retry = &mut options.retry;
    retry.total_max = retry.total_max.min(patience.total);
    retry.idle_max = retry.idle_max.min(patience.progress);
    retry.attempt_idle_max = retry.attempt_idle_max.min(patience.progress);
    options.s3.connect_timeout = options.s3.connect_timeout.min(patience.progress);
    options
}

/// Where to look for the data directory around a WAL file.
///
/// # Errors
/// When the working directory is gone.
pub(crate) fn around(settings: &Settings, wal_path: &Path) -> Outcome<Around> {
    let working_directory = std::env::current_dir().map_err(|error| {
        Failure::from_error(Kind::Configuration, &error).during("reading the working directory")
    })?;
    let configured = settings.cluster()?.pgdata.clone();
    Ok(Around { working_directory, wal_path: wal_path.to_owned(), configured })
}

/// How long a push waits.
pub(crate) fn push_patience(settings: &Settings) -> Patience {
    let wal = &settings.wal;
    Patience { progress: wal.push_progress_timeout, total: wal.push_timeout }
}

/// Milliseconds as people read them.
pub(crate) fn took(elapsed_ms: u64) -> String {
    crate::output::human::duration(Duration::from_millis(elapsed_ms))
}
