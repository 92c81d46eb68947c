//! The lineages that a command is about which looks at all that is meant, with those that it cannot
//! open: one lost or shredded domain keeps nobody from seeing the others.

use pgrecall_engine::EngineError;
use pgrecall_engine::cluster::{ClusterStore, cluster_ref, identity_digest};
use pgrecall_repo::format::document::Shredded;
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::names::Name;
use pgrecall_repo::repository::Repository;
use pgrecall_repo::{ErrorKind, RepoError};
use serde::Serialize;

use super::cluster;
use crate::config::settings::Settings;
use crate::failure::{Failure, Kind, Outcome};

/// The lineages that are meant.
pub(crate) struct Lineages {
    pub(crate) open: Vec<ClusterStore>,
    pub(crate) closed: Vec<Closed>,
}

/// A lineage that does not open.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Closed {
    pub(crate) cluster: String,
    pub(crate) system_identifier: String,
    /// Why.
    pub(crate) reason: String,
    /// Whether its keys were deleted on purpose.
    pub(crate) shredded: bool,
    #[serde(skip)]
    pub(crate) kind: Kind,
}

impl Closed {
    /// As a person reads it.
    pub(crate) fn told(&self) -> String {
        format!("cluster {} ({}): {}", self.cluster, self.system_identifier, self.reason)
    }
}

/// The exit code for those that nobody closed on purpose, damage before all else; nothing where
/// there are none.
pub(crate) fn code(closed: &[Closed]) -> Option<u8> {
    let kinds = closed.iter().filter(|closed| !closed.shredded).map(|closed| closed.kind);
    let gravest = kinds.min_by_key(|kind| *kind != Kind::Corrupt);
    gravest.map(|kind| kind.row().code)
}

/// Those of the cluster that the settings name, else all.
///
/// # Errors
/// When the store fails; where the settings name a cluster, when none of it opens.
pub(crate) async fn meant(settings: &Settings, repository: &Repository) -> Outcome<Lineages> {
    let names = match &settings.cluster {
        Some(_) if settings.system_id.is_some() => {
            let open = vec![cluster::stored(settings, repository).await?];
            return Ok(Lineages { open, closed: Vec::new() });
        }
        Some(_) => vec![cluster::cluster_names(settings)?.cluster],
        None => cluster::clusters(repository).await?,
    };
    let domains = cluster::domains(repository).await?;
    let (mut open, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        for system in ClusterStore::lineages(repository, &name).await? {
            match open_in_any(repository, &domains, &name, system).await {
                Ok(store) => open.push(store),
                Err(failure) if failure.kind == Kind::Unavailable => return Err(failure),
                Err(failure) => failed.push((name.clone(), system, failure)),
            }
        }
    }
    if open.is_empty() && settings.cluster.is_some() {
        // It says what there is instead, or why it does not open.
        open.push(cluster::stored(settings, repository).await?);
    }
    let closed = why_closed(repository, &domains, failed).await?;
    Ok(Lineages { open, closed })
}

/// A lineage, in whichever domain it is: the one whose keys open its identity.
async fn open_in_any(
    repository: &Repository,
    domains: &[Name],
    name: &Name,
    system: u64,
) -> Outcome<ClusterStore> {
    let mut failure: Option<(u8, Failure)> = None;
    for domain in domains {
        match ClusterStore::open(repository, domain, name, system).await {
            Ok(store) => return Ok(store),
            Err(error) => {
                let rank = rank(&error);
                if failure.as_ref().is_none_or(|(known, _)| *known < rank) {
                    failure = Some((rank, error.into()));
                }
            }
        }
    }
    Err(failure.map(|(_, failure)| failure).unwrap_or_else(|| {
        let message = format!("cluster {name} is in the repository, but no domain is");
        Failure::new(Kind::Corrupt, message)
    }))
}

/// Which of several domains' reasons tells most. Another domain's keys do not open the identity,
/// which looks like damage; shredded keys are no reason for a lineage of another domain; keys that
/// are lost, or that the store denies, are.
fn rank(error: &EngineError) -> u8 {
    match error {
        EngineError::Repo(RepoError::Shredded { .. }) => 0,
        error if error.kind() == ErrorKind::Corrupt => 1,
        _ => 2,
    }
}

async fn why_closed(
    repository: &Repository,
    domains: &[Name],
    failed: Vec<(Name, u64, Failure)>,
) -> Outcome<Vec<Closed>> {
    let mut marks = Vec::new();
    // In the clear whoever can put an object could have put one.
    if !failed.is_empty() && repository.root().suite != RootSuite::None {
        for domain in domains {
            match repository.shredded(domain).await {
                Ok(mark) => marks.extend(mark),
                Err(error) if error.is_damage() => tracing::warn!("domain {domain}: {error}"),
                Err(error) => return Err(error.into()),
            }
        }
    }
    let mut closed = Vec::new();
    for (cluster, system, failure) in failed {
        let mark = mark_of(repository, &marks, &cluster, system).await?;
        let (cluster, system_identifier) = (cluster.to_string(), system.to_string());
        closed.push(Closed {
            reason: match mark {
                Some(mark) => format!("shredded at {} on {}", mark.at, mark.host),
                None => failure.chain.join(": "),
            },
            shredded: mark.is_some(),
            kind: failure.kind,
            cluster,
            system_identifier,
        });
    }
    Ok(closed)
}

/// The mark that names the very lineage that lies there now.
async fn mark_of<'a>(
    repository: &Repository,
    marks: &'a [Shredded],
    cluster: &Name,
    system: u64,
) -> Outcome<Option<&'a Shredded>> {
    if marks.is_empty() {
        return Ok(None);
    }
    let at = cluster_ref(cluster, cluster, system);
    let identity = identity_digest(repository, &at).await?;
    let names = |mark: &&Shredded| {
        mark.lineages.iter().any(|of| {
            of.cluster == cluster.as_str() && of.lineage == at.lineage && of.identity == identity
        })
    };
    Ok(marks.iter().find(names).filter(|_| !identity.is_empty()))
}
