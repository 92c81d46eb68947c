//! The cluster that is meant: its name and domain, its data directory, and which lineage of it
//! (system identifier) in the repository.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pgrecall_engine::EngineError;
use pgrecall_engine::cluster::{ClusterFacts, ClusterStore};
use pgrecall_pgformat::FormatError;
use pgrecall_pgformat::control::ControlFile;
use pgrecall_repo::names::Name;
use pgrecall_repo::repository::Repository;

use crate::config::settings::Settings;
use crate::failure::{Failure, Kind, Outcome};

/// A cluster's name and the domain it shares keys and chunks in.
#[derive(Debug, Clone)]
pub(crate) struct ClusterNames {
    pub(crate) domain: Name,
    pub(crate) cluster: Name,
}

/// The names of the cluster that is meant.
///
/// # Errors
/// When none is meant, or a name cannot be one.
pub(crate) fn cluster_names(settings: &Settings) -> Outcome<ClusterNames> {
    let cluster = settings.cluster()?;
    Ok(ClusterNames {
        domain: name("cluster.domain", &cluster.domain)?,
        cluster: name("cluster.name", &cluster.name)?,
    })
}

fn name(setting: &str, text: &str) -> Outcome<Name> {
    text.parse().map_err(|error| Failure::from_error(Kind::Configuration, &error).during(setting))
}

/// The data directory that is meant.
///
/// # Errors
/// When the settings name none.
pub(crate) fn pgdata(settings: &Settings) -> Outcome<PathBuf> {
    let cluster = settings.cluster()?;
    cluster.pgdata.clone().ok_or_else(|| {
        Failure::configuration(format!("the data directory of cluster {} is not set", cluster.name))
            .hint("Give --pgdata DIR, or set pgdata in its [[cluster]].")
    })
}

const CONTROL_READS_MAX: u32 = 10;
const CONTROL_READ_PAUSE: Duration = Duration::from_millis(50);

/// Reads `global/pg_control`. The server writes it in one go, but a reader may still see a part of
/// the old and a part of the new: a wrong checksum is read again (as `get_controlfile` of
/// `controldata_utils.c` does).
///
/// # Errors
/// When it cannot be read, or stays wrong.
pub(crate) fn control_file(pgdata: &Path) -> Outcome<ControlFile> {
    let path = pgdata.join("global/pg_control");
    let mut tries = 0;
    loop {
        let bytes = std::fs::read(&path).map_err(|error| unreadable(pgdata, &path, error))?;
        tries += 1;
        match ControlFile::decode(&bytes) {
            Ok(control) => return Ok(control),
            Err(FormatError::Checksum { .. } | FormatError::Length { .. })
                if tries < CONTROL_READS_MAX =>
            {
                std::thread::sleep(CONTROL_READ_PAUSE);
            }
            Err(source) => {
                let path = path.display().to_string();
                return Err(EngineError::Postgres { path, source }.into());
            }
        }
    }
}

fn unreadable(pgdata: &Path, path: &Path, error: std::io::Error) -> Failure {
    let kind = error.kind();
    let failure = Failure::from(EngineError::file("read", path, error));
    match kind {
        std::io::ErrorKind::NotFound if pgdata.join("PG_VERSION").exists() => failure.hint(
            "A data directory without it is half restored: finish the restore by running it again.",
        ),
        std::io::ErrorKind::NotFound => {
            failure.hint(format!("Is {} a data directory of PostgreSQL?", pgdata.display()))
        }
        std::io::ErrorKind::PermissionDenied => {
            failure.hint("Run the command as the owner of the data directory.")
        }
        _ => failure,
    }
}

/// The lineage of the data directory, for writing: it is made known to the repository when it is
/// new there.
///
/// # Errors
/// When the control file cannot be read, or the repository fails.
pub(crate) async fn registered(
    settings: &Settings,
    repository: &Repository,
) -> Outcome<ClusterStore> {
    let names = cluster_names(settings)?;
    let facts = ClusterFacts::of(&control_file(&pgdata(settings)?)?);
    Ok(ClusterStore::register(repository, &names.domain, &names.cluster, facts).await?)
}

/// The lineage meant by a command that needs no data directory: the one of `--system-id`, else the
/// only one stored under the cluster's name, else the one of the data directory.
///
/// # Errors
/// When the repository knows no such cluster, or several and it is not clear which is meant.
pub(crate) async fn stored(settings: &Settings, repository: &Repository) -> Outcome<ClusterStore> {
    let names = cluster_names(settings)?;
    let lineages = ClusterStore::lineages(repository, &names.cluster).await?;
    let system = match (settings.system_id, lineages.as_slice()) {
        (Some(wanted), known) if known.contains(&wanted) => wanted,
        (_, []) => return Err(unknown_cluster(settings, repository, &names.cluster).await?),
        (Some(wanted), known) => {
            let message = format!("the repository knows no cluster {} {wanted}", names.cluster);
            return Err(Failure::new(Kind::NotFound, message)
                .hint(format!("It has these under that name: {}.", list(known))));
        }
        (None, [only]) => *only,
        (None, several) => one_of(settings, &names.cluster, several)?,
    };
    let (domain, cluster) = (&names.domain, &names.cluster);
    // Where nobody has said which domain the cluster is in, as on a new host after a disaster.
    let found = if settings.cluster()?.domain_is_default {
        ClusterStore::find(repository, domain, cluster, system).await
    } else {
        ClusterStore::open(repository, domain, cluster, system).await
    };
    Ok(found?)
}

/// Every lineage that is stored under the cluster's name and can be opened.
///
/// # Errors
/// When the store cannot list.
pub(crate) async fn lineages(
    settings: &Settings,
    repository: &Repository,
) -> Outcome<Vec<ClusterStore>> {
    let names = cluster_names(settings)?;
    let mut stores = Vec::new();
    for system in ClusterStore::lineages(repository, &names.cluster).await? {
        let (domain, cluster) = (&names.domain, &names.cluster);
        stores.extend(ClusterStore::find(repository, domain, cluster, system).await.ok());
    }
    Ok(stores)
}

/// The one of several lineages that the data directory belongs to.
fn one_of(settings: &Settings, cluster: &Name, several: &[u64]) -> Outcome<u64> {
    let here = settings.cluster()?.pgdata.as_deref().and_then(|dir| control_file(dir).ok());
    match here.map(|control| control.system_identifier) {
        Some(system) if several.contains(&system) => Ok(system),
        _ => Err(Failure::new(
            Kind::Configuration,
            format!(
                "{} clusters of different system identifiers are stored under the name {cluster}",
                several.len()
            ),
        )
        .hint(format!("Name one with --system-id: {}.", list(several)))),
    }
}

fn list(systems: &[u64]) -> String {
    systems.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// The domains that the repository holds.
///
/// # Errors
/// When the store cannot list.
pub(crate) async fn domains(repository: &Repository) -> Outcome<Vec<Name>> {
    Ok(ClusterStore::domains(repository).await?)
}

/// The names of the clusters that the repository holds.
///
/// # Errors
/// When the store cannot list.
pub(crate) async fn clusters(repository: &Repository) -> Outcome<Vec<Name>> {
    Ok(ClusterStore::clusters(repository).await?)
}

async fn unknown_cluster(
    settings: &Settings,
    repository: &Repository,
    cluster: &Name,
) -> Outcome<Failure> {
    let url = settings.repository_url()?;
    let failure =
        Failure::new(Kind::NotFound, format!("the repository at {url} knows no cluster {cluster}"));
    let known: Vec<String> = clusters(repository).await?.iter().map(Name::to_string).collect();
    Ok(match known.as_slice() {
        [] => failure.hint("It holds no cluster yet: run pgrecall init on the database host."),
        known => failure.hint(format!("It has: {}. Name one with --cluster.", known.join(", "))),
    })
}
