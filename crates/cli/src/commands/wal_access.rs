//! What `wal push`, `wal fetch` and `wal resolve` share: the repository opened for them, with its
//! copies on this host and their own time-outs, and the data directory that they act for.

use std::path::Path;
use std::time::Duration;

use pgrecall_engine::EngineError;
use pgrecall_engine::archive::access::{Access, DomainIs};
use pgrecall_engine::archive::cache::HostCache;
use pgrecall_engine::archive::data_directory::{Around, Named};
use pgrecall_engine::archive::patience::Patience;
use pgrecall_store::{RootPolicy, StoreOptions};

use crate::config::resolve::Origin;
use crate::config::settings::Settings;
use crate::context::{cluster, store};
use crate::context::{repository, runtime};
use crate::failure::{Failure, Kind, Outcome};

/// Opens the store, which must answer within the time without progress.
///
/// # Errors
/// When a setting is missing, there is no key, or the store cannot be opened.
async fn open(settings: &Settings, patience: Patience, reads: Reads) -> Outcome<Access> {
    repository::require_pinned_id(settings)?;
    let mut options = repository::options(settings)?;
    if reads == Reads::Contents {
        options.restore_keys = repository::restore_keys_at_hand(settings);
    }
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
        // What is cached is of today.
        cache: match settings.repository.s3.as_of {
            None => Some(HostCache::new(settings.repository.cache_dir.clone())),
            Some(_) => None,
        },
        cluster: names.cluster,
        domain: names.domain,
        domain_is: match settings.cluster()?.domain_is_default {
            true => DomainIs::Assumed,
            false => DomainIs::Told,
        },
        patience,
    })
}

/// Whether a command reads contents of stored files: only then a restore key is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    Contents,
    Nothing,
}

/// Opens the store and does the work, all of it within the command's time.
///
/// # Errors
/// Those of [`open`] and of the work, and `Unavailable` when the time is up.
pub(crate) fn run<T>(
    settings: &Settings,
    patience: Patience,
    reads: Reads,
    work: impl AsyncFnOnce(Access) -> Result<T, EngineError>,
) -> Outcome<T> {
    runtime::run_short(async {
        let all = async { Ok(work(open(settings, patience, reads).await?).await?) };
        tokio::time::timeout(patience.total, all).await.unwrap_or_else(|_| {
            let seconds = patience.total.as_secs_f64();
            Err(Failure::new(Kind::Unavailable, format!("given up after {seconds} s in all"))
                .hint("Is the repository's store mounted, reachable and not overloaded?"))
        })
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
pub(crate) fn around(settings: &Settings, wal_path: &Path, by: By) -> Outcome<Around> {
    let working_directory = std::env::current_dir().map_err(|error| {
        Failure::from_error(Kind::Configuration, &error).during("reading the working directory")
    })?;
    let configured = settings.cluster()?.pgdata.clone();
    let flagged =
        settings.resolved.items.iter().any(|item| {
            item.setting.is("cluster.pgdata") && matches!(item.origin, Origin::Flag(_))
        });
    let named = if flagged && by == By::Push { Named::Now } else { Named::Before };
    Ok(Around { working_directory, wal_path: wal_path.to_owned(), configured, named })
}

/// Who looks for a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Whoever stores a file: `--pgdata` is a person's word for whose it is.
    Push,
    /// Whoever fetches one: the directory that PostgreSQL runs in says who asks, whatever stands in
    /// a `restore_command` that was copied along with another cluster's settings.
    Fetch,
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
