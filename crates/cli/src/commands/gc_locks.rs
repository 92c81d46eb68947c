//! The part of `pgrecall gc` that has a bucket lock what is needed for longer.

use std::collections::HashSet;

use jiff::Timestamp;
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::cluster::{ClusterStore, cluster_ref};
use pgrecall_engine::collection::locks;
use pgrecall_repo::id::PackId;
use pgrecall_repo::repository::Repository;
use pgrecall_store::LockRequest;
use serde::Serialize;

use crate::context::telling::Telling;
use crate::failure::Outcome;
use crate::output::human;

/// What is told of it. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
pub(super) struct Locks {
    /// Objects that are needed, each of which was (or would be) asked.
    objects: u64,
    mode: String,
    /// Locks that end before are extended …
    enough: String,
    /// … until then.
    until: String,
    /// How many were; none in a dry run.
    extended: Option<u64>,
}

/// Whether anything is written.
pub(super) enum Run<'a> {
    Dry,
    Real(&'a Cancel),
}

/// How long locks are to last: asked before anything is deleted.
pub(super) async fn request(cluster: &ClusterStore) -> Outcome<LockRequest> {
    Ok(locks::request(&cluster.sealed, Timestamp::now()).await?)
}

pub(super) async fn extend(
    repository: &Repository,
    cluster: &ClusterStore,
    going: &HashSet<PackId>,
    request: LockRequest,
    run: Run<'_>,
) -> Outcome<Locks> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let (of_domain, in_doubt) = ClusterStore::of_domain(repository, domain).await?;
    let mut clusters: Vec<_> = of_domain.into_iter().map(|store| store.at).collect();
    for (name, system) in in_doubt {
        tracing::warn!("cluster {name} ({system}) does not open; its WAL is locked all the same");
        clusters.push(cluster_ref(domain, &name, system));
    }
    let plan = locks::plan(sealed, domain, &clusters, going, request).await?;
    let extended = match run {
        Run::Dry => None,
        Run::Real(cancel) => {
            let progress = Telling::new().progress();
            Some(locks::extend(sealed, &plan, &progress, cancel).await?.extended)
        }
    };
    let time = |secs| Timestamp::from_second(secs).map(|at| at.to_string()).unwrap_or_default();
    Ok(Locks {
        objects: plan.objects.len() as u64,
        mode: plan.request.mode.to_string(),
        enough: time(plan.request.enough_secs),
        until: time(plan.request.until_secs),
        extended,
    })
}

pub(super) fn told(locks: &Locks) -> String {
    let (enough, until) = (human::moment_text(&locks.enough), human::moment_text(&locks.until));
    match locks.extended {
        Some(count) => format!(
            "of {} objects that are needed {count} had locks that end before {enough}: they are \
             locked until {until} now\n",
            locks.objects
        ),
        None => format!(
            "locks of {} objects that are needed would be looked at; those that end before {enough} \
             would be extended until {until}\n",
            locks.objects
        ),
    }
}
