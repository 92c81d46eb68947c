//! A cluster in the repository: its name, its lineage (system identifier), its identity, its
//! domain's keys.

use pgrecall_pgformat::control::ControlFile;
use pgrecall_pgformat::{Major, SegmentSize};
use pgrecall_repo::RepoError;
use pgrecall_repo::format::document::Identity;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::manifests;
use pgrecall_repo::names::{self, ClusterRef, Name};
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::{SealedStore, Stored};
use pgrecall_store::Key;
use serde::{Deserialize, Serialize};

use crate::catalog::chain;
use crate::details::BackupDetails;
use crate::error::{EngineError, ErrorKind};

/// What never changes within a lineage (but by `pg_resetwal` or `pg_checksums`, which do not make a
/// new one: these fields tell what was so when the cluster was first seen).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// The system identifier.
    pub system_identifier: u64,
    /// PostgreSQL's major version.
    pub major: Major,
    /// The size of a data page.
    pub page_size_bytes: u32,
    /// The size of a WAL segment.
    pub wal_segment_size: SegmentSize,
}

impl ClusterFacts {
    /// From a control file.
    #[must_use]
    pub fn of(control: &ControlFile) -> Self {
        Self {
            system_identifier: control.system_identifier,
            major: control.major,
            page_size_bytes: control.page_size_bytes,
            wal_segment_size: control.wal_segment_size,
        }
    }

    /// By what backups of a lineage say of themselves, where its identity is lost: this tells so.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn by_backups(
        sealed: &SealedStore,
        at: &ClusterRef,
        lost: LostIdentity,
    ) -> Result<Option<Self>, EngineError> {
        let Ok(system_identifier) = at.lineage.parse() else { return Ok(None) };
        let mut first: Option<BackupDetails> = None;
        for object in sealed.list(&names::manifests_of(at)).await? {
            let Some((_, id)) = names::manifest_of(&at.domain, &object.key) else { continue };
            let details = match manifests::read(sealed, at, id).await {
                Ok(manifest) => manifest.and_then(|manifest| BackupDetails::of(&manifest).ok()),
                Err(error) if error.is_damage() => None,
                Err(error) => return Err(error.into()),
            };
            // What was so when the cluster was first seen.
            let earliest = first.as_ref().map(|first| first.ended);
            first = details
                .filter(|details| earliest.is_none_or(|ended| details.ended < ended))
                .or(first);
        }
        let Some(first) = first else { return Ok(None) };
        lost.warn(&identity_name(at)?);
        Ok(Some(Self {
            system_identifier,
            major: first.major,
            page_size_bytes: first.page_size_bytes,
            wal_segment_size: first.wal_segment_size,
        }))
    }
}

/// How an identity is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostIdentity {
    /// It is not there.
    Missing,
    /// It does not read.
    Unreadable,
}

impl LostIdentity {
    fn warn(self, object: &Key) {
        match self {
            Self::Missing => tracing::warn!(
                %object,
                "the identity of the cluster is not there: its backups say what it was; the next \
                 `pgrecall backup` on its server writes it again"
            ),
            Self::Unreadable => tracing::warn!(
                %object,
                "the identity of the cluster does not read: its backups say what it was; `pgrecall \
                 repair` moves it out of the way, so that the next `pgrecall backup` on its server \
                 writes it again"
            ),
        }
    }

    /// Where this is what an error says. By another version of the program it may read.
    pub(crate) fn of(error: &RepoError) -> Option<Self> {
        match error.kind() {
            ErrorKind::NotFound => Some(Self::Missing),
            ErrorKind::Unsupported => None,
            _ => error.is_damage().then_some(Self::Unreadable),
        }
    }
}

/// One lineage of a cluster, with the keys of its domain.
#[derive(Debug, Clone)]
pub struct ClusterStore {
    /// The domain's objects.
    pub sealed: SealedStore,
    /// Where the cluster's objects live.
    pub at: ClusterRef,
    /// What is known of it.
    pub facts: ClusterFacts,
}

/// Where a lineage's objects live.
#[must_use]
pub fn cluster_ref(domain: &Name, cluster: &Name, system_identifier: u64) -> ClusterRef {
    ClusterRef {
        domain: domain.clone(),
        cluster: cluster.clone(),
        lineage: system_identifier.to_string(),
    }
}

fn identity_name(at: &ClusterRef) -> Result<Key, EngineError> {
    Ok(names::cluster_object(at, "identity")?)
}

/// The digest of a lineage's identity, as its header tells it, without any key; it tells apart what
/// had one name at different times. Empty where it does not read.
///
/// # Errors
/// When the store fails.
pub async fn identity_digest(
    repository: &Repository,
    at: &ClusterRef,
) -> Result<String, EngineError> {
    match repository.sealed().header(&identity_name(at)?).await {
        Ok(header) => Ok(header.digest.to_string()),
        Err(error) if error.is_damage() => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

impl ClusterStore {
    /// The cluster of a data directory, for writing: its identity is put when it is new here, and
    /// only then are keys made for a domain that has none. What is known already must be in that
    /// domain.
    ///
    /// # Errors
    /// `Conflict` when the cluster is in another domain; when the store fails.
    pub async fn register(
        repository: &Repository,
        domain: &Name,
        cluster: &Name,
        facts: ClusterFacts,
    ) -> Result<Self, EngineError> {
        let at = cluster_ref(domain, cluster, facts.system_identifier);
        let name = identity_name(&at)?;
        match repository.sealed().header(&name).await {
            // Facts may differ (pg_resetwal can change the segment size); the domain must not.
            Ok(_) => return Ok(Self { facts, ..Self::known(repository, at).await? }),
            Err(error) if error.is_not_found() => {}
            // It is where its backups are.
            Err(error) if LostIdentity::of(&error).is_some() => {
                return Ok(Self { facts, ..Self::known(repository, at).await? });
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(there) = Self::domain_of_backups(repository, &at).await? {
            return Err(in_another_domain(&at, &there));
        }
        let sealed = repository.domain(domain).await?;
        let identity = Identity {
            cluster: cluster.to_string(),
            lineage: at.lineage.clone(),
            domain: domain.to_string(),
            details: serde_json::to_value(&facts).unwrap_or_default(),
        };
        if sealed.put(Kind::Identity, &name, &identity).await? == Stored::Other {
            // Another host was faster.
            return Ok(Self { facts, ..Self::known(repository, at).await? });
        }
        Ok(Self { sealed, at, facts })
    }

    /// Another domain than that of `at` in which the lineage has backups, if one opens.
    async fn domain_of_backups(
        repository: &Repository,
        at: &ClusterRef,
    ) -> Result<Option<Name>, EngineError> {
        for domain in Self::domains(repository).await? {
            let there = ClusterRef { domain, ..at.clone() };
            if there.domain == at.domain {
                continue;
            }
            for object in repository.sealed().list(&names::manifests_of(&there)).await? {
                let Some((_, id)) = names::manifest_of(&there.domain, &object.key) else {
                    continue;
                };
                let sealed = match repository.existing_domain(&there.domain).await {
                    Ok(sealed) => sealed,
                    Err(RepoError::Shredded { .. }) => break,
                    Err(error) => return Err(error.into()),
                };
                match manifests::read(&sealed, &there, id).await {
                    Ok(None) => {}
                    Ok(Some(_)) => return Ok(Some(there.domain)),
                    // It says nothing; by another version, or with its keys, it may.
                    Err(RepoError::Corrupt { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(None)
    }

    /// A lineage that must be there already, for reading.
    ///
    /// # Errors
    /// `NotFound` when the repository does not know it; `Conflict` when it is in another domain.
    pub async fn open(
        repository: &Repository,
        domain: &Name,
        cluster: &Name,
        system_identifier: u64,
    ) -> Result<Self, EngineError> {
        Self::known(repository, cluster_ref(domain, cluster, system_identifier)).await
    }

    /// The same in whatever domain it is, the named one first.
    ///
    /// # Errors
    /// As [`open`](Self::open), of the named domain.
    pub async fn find(
        repository: &Repository,
        domain: &Name,
        cluster: &Name,
        system_identifier: u64,
    ) -> Result<Self, EngineError> {
        let at = cluster_ref(domain, cluster, system_identifier);
        let error = match Self::in_domain(repository, at.clone()).await {
            Ok(Some(found)) => return Ok(found),
            // Its backups may be in another, where its identity is lost.
            Ok(None) => unknown(&at),
            Err(error) if may_be_another_domains(&error) => error,
            Err(error) => return Err(error),
        };
        match Self::elsewhere(repository, &at).await? {
            Some(found) => Ok(found),
            None => Self::despite(error, repository, &at).await,
        }
    }

    /// A lineage whose identity opens nowhere, by its backups; where there are none that is the
    /// failure.
    async fn despite(
        error: EngineError,
        repository: &Repository,
        at: &ClusterRef,
    ) -> Result<Self, EngineError> {
        // Where keys do not read, the identity is not what is wrong.
        if !speaks_of(&error, &identity_name(at)?) {
            return Err(error);
        }
        let others = Self::domains(repository).await?.into_iter();
        let others = others.filter(|domain| *domain != at.domain);
        for domain in std::iter::once(at.domain.clone()).chain(others) {
            let there = ClusterRef { domain, ..at.clone() };
            let sealed = match repository.existing_domain(&there.domain).await {
                Ok(sealed) => sealed,
                Err(failed) => {
                    let failed = EngineError::from(failed);
                    match may_be_another_domains(&failed) {
                        true => continue,
                        false => return Err(failed),
                    }
                }
            };
            let lost = LostIdentity::Unreadable;
            if let Some(facts) = ClusterFacts::by_backups(&sealed, &there, lost).await? {
                return Ok(Self { sealed, at: there, facts });
            }
        }
        // Where that is not what is wrong.
        let lost = match &error {
            EngineError::Repo(error) => LostIdentity::of(error),
            _ => None,
        };
        let Some(LostIdentity::Unreadable) = lost else { return Err(error) };
        let message = format!(
            "the identity of cluster {} does not read, and no backup says what it was: {}",
            at.cluster,
            chain(&error)
        );
        Err(EngineError::refused(ErrorKind::Corrupt, message).hint(
            "`pgrecall repair` moves it out of the way, if a file that was archived says whose it \
             is; where nothing was, move it away by hand. The next backup or wal push on its server \
             writes it again.",
        ))
    }

    async fn known(repository: &Repository, at: ClusterRef) -> Result<Self, EngineError> {
        match Self::in_domain(repository, at.clone()).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(unknown(&at)),
            Err(error) if may_be_another_domains(&error) => {
                let found = match Self::elsewhere(repository, &at).await? {
                    Some(found) => found,
                    None => Self::despite(error, repository, &at).await?,
                };
                match *found.domain() == at.domain {
                    true => Ok(found),
                    false => Err(in_another_domain(&at, found.domain())),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The lineage if its identity opens with the domain's keys; nothing if it has neither an
    /// identity nor a backup.
    async fn in_domain(
        repository: &Repository,
        at: ClusterRef,
    ) -> Result<Option<Self>, EngineError> {
        let sealed = repository.existing_domain(&at.domain).await?;
        let identity: Identity = match sealed.get(Kind::Identity, &identity_name(&at)?).await {
            Ok(identity) => identity,
            Err(error) if error.is_not_found() => {
                let facts = ClusterFacts::by_backups(&sealed, &at, LostIdentity::Missing).await?;
                return Ok(facts.map(|facts| Self { sealed, at, facts }));
            }
            Err(error) => return Err(error.into()),
        };
        if identity.domain != at.domain.as_str() {
            // In the clear every domain's keys open it.
            let found = identity.domain.parse().unwrap_or_else(|_| at.domain.clone());
            return Err(in_another_domain(&at, &found));
        }
        let facts = serde_json::from_value(identity.details).map_err(|error| {
            EngineError::refused(
                ErrorKind::Corrupt,
                format!("the identity of cluster {} does not read: {error}", at.cluster),
            )
        })?;
        Ok(Some(Self { sealed, at, facts }))
    }

    /// The lineage in another domain than the one of `at`.
    async fn elsewhere(
        repository: &Repository,
        at: &ClusterRef,
    ) -> Result<Option<Self>, EngineError> {
        for domain in Self::domains(repository).await? {
            if domain == at.domain {
                continue;
            }
            let there = ClusterRef { domain, ..at.clone() };
            match Self::in_domain(repository, there).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) if may_be_another_domains(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The domains that the repository holds.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn domains(repository: &Repository) -> Result<Vec<Name>, EngineError> {
        let folders = repository.sealed().list_folders(&names::domains()).await?;
        Ok(folders.iter().filter_map(|folder| folder.name().parse().ok()).collect())
    }

    /// The names of the clusters that the repository holds.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn clusters(repository: &Repository) -> Result<Vec<Name>, EngineError> {
        let folders = repository.sealed().list_folders(&names::clusters()).await?;
        Ok(folders.iter().filter_map(|folder| folder.name().parse().ok()).collect())
    }

    /// The lineages stored under a cluster's name, by system identifier.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn lineages(
        repository: &Repository,
        cluster: &Name,
    ) -> Result<Vec<u64>, EngineError> {
        let folders = repository.sealed().list_folders(&names::cluster(cluster)).await?;
        let mut found: Vec<u64> =
            folders.iter().filter_map(|folder| folder.name().parse().ok()).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The lineages of a domain, and those that open nowhere and so may be of it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of_domain(
        repository: &Repository,
        domain: &Name,
    ) -> Result<(Vec<Self>, Vec<(Name, u64)>), EngineError> {
        let (mut known, mut in_doubt) = (Vec::new(), Vec::new());
        for cluster in Self::clusters(repository).await? {
            for system in Self::lineages(repository, &cluster).await? {
                match Self::open(repository, domain, &cluster, system).await {
                    Ok(found) => known.push(found),
                    // It is in another domain.
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                    Err(_) => in_doubt.push((cluster.clone(), system)),
                }
            }
        }
        Ok((known, in_doubt))
    }

    /// The domain.
    #[must_use]
    pub const fn domain(&self) -> &Name {
        &self.at.domain
    }
}

fn unknown(at: &ClusterRef) -> EngineError {
    let message = format!(
        "the repository knows no cluster {} with system identifier {}: clusters/{}/{}/identity is \
         not there, and no backup",
        at.cluster, at.lineage, at.cluster, at.lineage
    );
    EngineError::refused(ErrorKind::NotFound, message)
}

fn in_another_domain(at: &ClusterRef, found: &Name) -> EngineError {
    let message = format!("cluster {} is in the domain {found}, not in {}", at.cluster, at.domain);
    EngineError::refused(ErrorKind::Conflict, message)
        .hint(format!("Put domain = \"{found}\" into its [[cluster]]."))
}

/// Whether an error is about an object, or about a domain that is not there.
fn speaks_of(error: &EngineError, object: &Key) -> bool {
    match error {
        EngineError::Repo(RepoError::Corrupt { object: found, .. }) => found == object.as_str(),
        EngineError::Repo(RepoError::Store(error)) => error.object().ends_with(object.as_str()),
        EngineError::Repo(RepoError::Invalid { .. }) => true,
        _ => false,
    }
}

/// Whether this is how an identity looks to the keys of a domain that it does not belong to: there
/// are no such keys, or they do not open it.
fn may_be_another_domains(error: &EngineError) -> bool {
    use ErrorKind::{Conflict, Corrupt, Denied, Invalid, NotFound};
    matches!(error.kind(), Invalid | NotFound | Corrupt | Denied | Conflict)
}
