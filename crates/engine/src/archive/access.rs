//! How the archive commands reach the repository: with as few requests as can be.

use std::sync::Arc;

use pgrecall_repo::format::root::Root;
use pgrecall_repo::format::wrap::WRAP_BYTES_MAX;
use pgrecall_repo::id::RepositoryId;
use pgrecall_repo::names::{self, ClusterRef, Name};
use pgrecall_repo::repository::{Cache, OpenOptions, Repository};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{FormatError, RepoError};
use pgrecall_store::{ErrorKind as StoreErrorKind, Store};

use super::cache::{HostCache, Reading};
use super::patience::{Moves, Patience, Watch};
use crate::cluster::{ClusterFacts, ClusterStore, cluster_ref};
use crate::error::{EngineError, ErrorKind};
use crate::seen::Memory;

/// The repository, what opens it, and the cluster meant in it.
#[derive(Debug, Clone)]
pub struct Access {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What opens the repository; without a cache.
    pub options: OpenOptions,
    /// Copies of what never changes.
    pub cache: Option<HostCache>,
    /// The cluster's name.
    pub cluster: Name,
    /// The domain it belongs to.
    pub domain: Name,
    /// Whether somebody said so.
    pub domain_is: DomainIs,
    /// How long to wait.
    pub patience: Patience,
}

/// A cluster that is open for a push.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) cluster: ClusterStore,
    /// Whether by copies of its keys, which are to be [confirmed](Access::confirm_keys).
    pub(super) by: Reading,
}

/// How the domain is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainIs {
    /// It was named.
    Told,
    /// Nobody named one: it is called like the cluster, unless the repository has the cluster in
    /// another one.
    Assumed,
}

impl Access {
    pub(super) fn watch(&self) -> Watch {
        Watch::of(&self.store.url())
    }

    /// Where the lineage's objects live.
    #[must_use]
    pub fn at(&self, system_identifier: u64) -> ClusterRef {
        cluster_ref(&self.domain, &self.cluster, system_identifier)
    }

    /// The cluster for a push. The root object is read from the store in any case and its id
    /// compared with the pinned one: what has just been unmounted is not a repository.
    ///
    /// # Errors
    /// When the repository is not the pinned one, cannot be opened, or the store fails.
    pub(super) async fn for_push(
        &self,
        reading: Reading,
        facts: ClusterFacts,
    ) -> Result<Opened, EngineError> {
        let step = (self.watch(), "opening the repository", Moves::Little);
        if reading == Reading::Copies
            && let Some(cache) = self.usable_cache()
        {
            let quick = self.patience.for_step(step, self.push_by_copies(&cache, &facts)).await;
            match quick {
                Ok(Some(cluster)) => return Ok(Opened { cluster, by: Reading::Copies }),
                Ok(None) => {}
                Err(error) if !copies_may_be_wrong(&error) => return Err(error),
                Err(error) => tracing::debug!("reading everything anew: {error}"),
            }
        }
        let cluster = self.patience.for_step(step, self.push_anew(facts)).await?;
        Ok(Opened { cluster, by: Reading::Anew })
    }

    /// Holds the copy of the newest keys against what is stored. In a repository that was put back
    /// to a state from before them nobody else could read what this host seals by them.
    ///
    /// # Errors
    /// `Corrupt` when other keys are stored, or none; when the store fails.
    pub(super) async fn confirm_keys(&self, cluster: &ClusterStore) -> Result<(), EngineError> {
        let epoch = cluster.sealed.keys().epoch();
        let entry = names::domain_keys(&self.domain).entry(epoch.into());
        let copy = match (&self.cache, self.options.id) {
            (Some(cache), Some(id)) => cache.reading(Reading::Copies).get(id, entry.as_str()),
            _ => None,
        };
        let step = (self.watch(), "looking for the domain's keys", Moves::Little);
        let reading = async {
            match self.store.get(&entry, WRAP_BYTES_MAX).await {
                Ok(stored) => Ok(Some(stored)),
                Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
                Err(error) => Err(EngineError::from(RepoError::from(error))),
            }
        };
        let stored = self.patience.for_step(step, reading).await?;
        if stored.is_some() && stored.as_deref() == copy.as_deref() {
            return Ok(());
        }
        let found = if stored.is_some() { "others" } else { "none" };
        tracing::warn!(
            "the repository had other keys for the domain {}: instead of {entry}, as this host \
             knows it, it has {found}. Was it put back to an earlier state? Take a backup; \
             `pgrecall list` tells what is there",
            self.domain
        );
        let (expected, found) = ("those that this host has a copy of".into(), found.into());
        let error = FormatError::Unexpected { what: "the domain's keys", expected, found };
        Err(RepoError::Corrupt { object: entry.to_string(), source: error }.into())
    }

    async fn push_by_copies(
        &self,
        cache: &HostCache,
        facts: &ClusterFacts,
    ) -> Result<Option<ClusterStore>, EngineError> {
        let repository =
            Repository::open(self.store.clone(), self.options(Some(cache.clone()))).await?;
        let at = self.at(facts.system_identifier);
        // Under the keys of another domain nothing that is pushed could be read back.
        if self.marked_domain(cache, repository.root().id, &at)?.as_ref() != Some(&self.domain) {
            return Ok(None);
        }
        let sealed = repository.existing_domain(&self.domain).await?;
        Ok(Some(ClusterStore { sealed, at, facts: facts.clone() }))
    }

    async fn push_anew(&self, facts: ClusterFacts) -> Result<ClusterStore, EngineError> {
        let repository = self.open_anew().await?;
        let cluster =
            ClusterStore::register(&repository, &self.domain, &self.cluster, facts).await?;
        self.mark_domain(&repository, &cluster.at)?;
        self.mark_fresh(&repository);
        Ok(cluster)
    }

    /// The domain that the cluster was found in, as a copy on this host says: in place of the
    /// identity stands the domain's name.
    fn marked_domain(
        &self,
        cache: &HostCache,
        repository: RepositoryId,
        at: &ClusterRef,
    ) -> Result<Option<Name>, EngineError> {
        let identity = names::cluster_object(at, "identity")?;
        let mark = cache.get(repository, identity.as_str());
        let mark = mark.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(mark.and_then(|text| text.trim_end().parse().ok()))
    }

    fn mark_domain(&self, repository: &Repository, at: &ClusterRef) -> Result<(), EngineError> {
        if let Some(cache) = &self.cache {
            let identity = names::cluster_object(at, "identity")?;
            let mark = format!("{}\n", at.domain);
            cache.put(repository.root().id, identity.as_str(), mark.as_bytes());
        }
        Ok(())
    }

    /// The domain's keys for a fetch, from copies alone where they are fresh: what they open is
    /// authentic, so nothing need be asked of the store before the file itself.
    ///
    /// # Errors
    /// As [`for_push`](Self::for_push).
    pub(super) async fn for_fetch(
        &self,
        reading: Reading,
        system_identifier: u64,
    ) -> Result<SealedStore, EngineError> {
        let step = (self.watch(), "opening the repository", Moves::Little);
        if reading == Reading::Copies
            && let Some(cache) = self.usable_cache()
        {
            let quick = self.fetch_by_copies(&cache, system_identifier);
            match self.patience.for_step(step, quick).await {
                Ok(Some(sealed)) => return Ok(sealed),
                Ok(None) => {}
                // Who does not answer would be asked the same again, and PostgreSQL waits.
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => tracing::debug!("reading everything anew: {error}"),
            }
        }
        self.patience.for_step(step, self.fetch_anew(system_identifier)).await
    }

    async fn fetch_anew(&self, system_identifier: u64) -> Result<SealedStore, EngineError> {
        let repository = self.open_anew().await?;
        let sealed = match self.domain_is {
            DomainIs::Told => repository.existing_domain(&self.domain).await?,
            DomainIs::Assumed => {
                let found =
                    ClusterStore::find(&repository, &self.domain, &self.cluster, system_identifier)
                        .await?;
                self.mark_domain(&repository, &found.at)?;
                found.sealed
            }
        };
        self.mark_fresh(&repository);
        Ok(sealed)
    }

    async fn fetch_by_copies(
        &self,
        cache: &HostCache,
        system_identifier: u64,
    ) -> Result<Option<SealedStore>, EngineError> {
        let Some(id) = self.options.id else { return Ok(None) };
        let copy = cache.get(id, names::root().as_str());
        let root = copy.and_then(|bytes| Some((Root::decode(&bytes).ok()?, bytes)));
        let Some((root, bytes)) = root else { return Ok(None) };
        if root.id != id || root.suite != self.options.suite {
            return Ok(None);
        }
        let marked = match self.domain_is {
            DomainIs::Told => None,
            DomainIs::Assumed => self.marked_domain(cache, id, &self.at(system_identifier))?,
        };
        let options = self.options(Some(cache.clone()));
        let repository =
            Repository::open_with_root(self.store.clone(), options, root, bytes).await?;
        Ok(Some(repository.existing_domain(marked.as_ref().unwrap_or(&self.domain)).await?))
    }

    /// Opens the repository with everything read from it, and makes new copies. That a removed key
    /// opens nothing is looked at here, which a repository with a cache leaves out.
    async fn open_anew(&self) -> Result<Repository, EngineError> {
        let cache = self.cache.as_ref().map(|cache| cache.reading(Reading::Anew));
        let repository = Repository::open(self.store.clone(), self.options(cache)).await?;
        if self.cache.is_some()
            && let Some(key) = repository.opened_by()
        {
            let (number, log) = repository.key_log().await?;
            if !log.living.iter().any(|living| living.id == key) {
                let message = format!(
                    "the key {key} was removed from the repository (entry {number} of the key log)"
                );
                return Err(EngineError::refused(ErrorKind::Denied, message)
                    .hint("Add a key for this host with `pgrecall key add`."));
            }
        }
        Ok(repository)
    }

    fn mark_fresh(&self, repository: &Repository) {
        if let Some(cache) = &self.cache {
            cache.put(repository.root().id, names::root().as_str(), &repository.root().encode());
        }
    }

    /// Where this host keeps what it has seen of the lineage.
    pub(super) fn memory(&self, cluster: &ClusterStore) -> Option<Memory> {
        Some(Memory::new(self.cache.as_ref()?, self.options.id?, cluster))
    }

    fn usable_cache(&self) -> Option<HostCache> {
        let cache = self.cache.as_ref()?;
        cache.is_fresh(self.options.id?).then(|| cache.reading(Reading::Copies))
    }

    fn options(&self, cache: Option<HostCache>) -> OpenOptions {
        let cache = cache.map(|cache| Arc::new(cache) as Arc<dyn Cache>);
        OpenOptions { cache, ..self.options.clone() }
    }
}

/// Whether an error may come from copies that are out of date or spoilt.
pub(super) fn copies_may_be_wrong(error: &EngineError) -> bool {
    if let EngineError::Repo(RepoError::Store(_)) | EngineError::File { .. } = error {
        return false;
    }
    matches!(
        error.kind(),
        ErrorKind::Denied | ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Invalid
    )
}
