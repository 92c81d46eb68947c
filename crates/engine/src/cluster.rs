//! A cluster in the repository: its name, its lineage (system identifier), its identity, its
//! domain's keys.

use pgrecall_pgformat::control::ControlFile;
use pgrecall_pgformat::{Major, SegmentSize};
use pgrecall_repo::format::document::Identity;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::names::{self, ClusterRef, Name};
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::{SealedStore, Stored};
use pgrecall_store::Key;
use serde::{Deserialize, Serialize};

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

impl ClusterStore {
    /// The cluster of a data directory, for writing: its identity is put when it is new here.
    ///
    /// # Errors
    /// When the name belongs to another domain, or the store fails.
    pub async fn register(
        repository: &Repository,
        domain: &Name,
        cluster: &Name,
        facts: ClusterFacts,
    ) -> Result<Self, EngineError> {
        let at = cluster_ref(domain, cluster, facts.system_identifier);
        let sealed = repository.domain(domain).await?;
        let identity = Identity {
            cluster: cluster.to_string(),
            lineage: at.lineage.clone(),
            domain: domain.to_string(),
            details: serde_json::to_value(&facts).unwrap_or_default(),
        };
        let name = identity_name(&at)?;
        if sealed.put(Kind::Identity, &name, &identity).await? == Stored::Other {
            // Facts may differ (pg_resetwal can change the segment size); the domain must not.
            let _: Identity = sealed.get(Kind::Identity, &name).await?;
        }
        Ok(Self { sealed, at, facts })
    }

    /// A lineage that must be there already, for reading.
    ///
    /// # Errors
    /// `NotFound` when the repository does not know it.
    pub async fn open(
        repository: &Repository,
        domain: &Name,
        cluster: &Name,
        system_identifier: u64,
    ) -> Result<Self, EngineError> {
        let at = cluster_ref(domain, cluster, system_identifier);
        let sealed = repository.existing_domain(domain).await?;
        let name = identity_name(&at)?;
        let identity: Identity = match sealed.get(Kind::Identity, &name).await {
            Ok(identity) => identity,
            Err(error) if error.is_not_found() => {
                let message = format!(
                    "the repository knows no cluster {cluster} with system identifier \
                     {system_identifier}"
                );
                return Err(EngineError::refused(ErrorKind::NotFound, message));
            }
            Err(error) => return Err(error.into()),
        };
        let facts = serde_json::from_value(identity.details).map_err(|error| {
            EngineError::refused(
                ErrorKind::Corrupt,
                format!("the identity of cluster {cluster} does not read: {error}"),
            )
        })?;
        Ok(Self { sealed, at, facts })
    }

    /// The lineages stored under a cluster's name, by system identifier.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn lineages(
        repository: &Repository,
        cluster: &Name,
    ) -> Result<Vec<u64>, EngineError> {
        let prefix = names::cluster(cluster);
        let mut found = Vec::new();
        for object in repository.sealed().list(&prefix).await? {
            let lineage = object.key.strip_prefix(&prefix).and_then(|rest| rest.split('/').next());
            if let Some(id) = lineage.and_then(|text| text.parse::<u64>().ok())
                && found.last() != Some(&id)
            {
                found.push(id);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The domain.
    #[must_use]
    pub const fn domain(&self) -> &Name {
        &self.at.domain
    }
}
