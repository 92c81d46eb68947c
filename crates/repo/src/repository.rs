//! Making a repository, opening one, and the keys that open it.

mod key_log;
mod lost_keys;
mod service_key;
mod shred;
mod unlock;

use std::sync::Arc;

use pgrecall_store::{Put, Store};

use crate::error::{FormatError, RepoError};
use crate::format::document::DomainKeysDocument;
use crate::format::header::Kind;
use crate::format::root::{ROOT_BYTES_MAX, Root, RootSuite};
use crate::format::wrap::WRAP_BYTES_MAX;
use crate::id::{KeyId, RepositoryId};
use crate::keys::{
    Keys, RepositoryKey, RestoreKey, RestoreKeyPublic, Rotation, Unlock, first_domain_keys,
    next_domain_keys,
};
use crate::names::{self, Name};
use crate::random::SharedRandom;
use crate::sealed_store::{SealedStore, Stored};
use lost_keys::InUse;

/// Keeps small objects that never change on this host, so that a push need not fetch them. They
/// are kept as stored: wrapped or sealed.
pub trait Cache: std::fmt::Debug + Send + Sync {
    /// What was kept under this object name of this repository.
    fn get(&self, repository: RepositoryId, name: &str) -> Option<Vec<u8>>;
    /// Keeps an object; failing to is no error.
    fn put(&self, repository: RepositoryId, name: &str, object: &[u8]);
    /// Keeps it no longer; false when it was not kept.
    fn forget(&self, repository: RepositoryId, name: &str) -> bool;
}

/// What the configuration says of a repository.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The pinned id; nothing before `init` has written it.
    pub id: Option<RepositoryId>,
    /// The suite asked for: a repository in the clear is opened only by who asks for one.
    pub suite: RootSuite,
    /// The pinned fingerprint of the repository key.
    pub fingerprint: Option<String>,
    /// What opens it.
    pub unlock: Unlock,
    /// Where ids and salts come from.
    pub random: SharedRandom,
    /// A cache of wrapped keys.
    pub cache: Option<Arc<dyn Cache>>,
    /// What opens data that was sealed for restore keys, as far as it is here.
    pub restore_keys: Vec<RestoreKey>,
}

/// A new key's label and the time, for people.
#[derive(Debug, Clone)]
pub struct KeyNote {
    /// Which host or person has the key.
    pub label: String,
    /// The time, RFC 3339.
    pub now: String,
}

/// An open repository.
#[derive(Debug)]
pub struct Repository {
    store: Arc<dyn Store>,
    root: Root,
    root_bytes: Vec<u8>,
    key: RepositoryKey,
    sealed: SealedStore,
    options: OpenOptions,
    /// The key that opened it; none in the clear.
    opened_by: Option<KeyId>,
}

/// How `create` ended.
#[derive(Debug)]
pub enum Created {
    /// A new repository.
    New(Box<Repository>),
    /// Another one stands there, possibly since a moment ago; it can be joined.
    Taken(Root),
}

impl Repository {
    /// Reads `pgrecall.json`.
    ///
    /// # Errors
    /// [`RepoError::NoRepository`] when there is none; a repository of another id or suite than
    /// asked for; damage; a newer version.
    pub async fn read_root(
        store: &Arc<dyn Store>,
        options: &OpenOptions,
    ) -> Result<(Root, Vec<u8>), RepoError> {
        let name = names::root();
        let bytes = match store.get(&name, ROOT_BYTES_MAX).await {
            Ok(bytes) => bytes.to_vec(),
            Err(error) if error.kind() == pgrecall_store::ErrorKind::NotFound => {
                return Err(RepoError::NoRepository { url: store.url() });
            }
            Err(error) => return Err(error.into()),
        };
        let root = Root::decode(&bytes).map_err(|error| RepoError::format(&name, error))?;
        if let Some(expected) = options.id.filter(|id| *id != root.id) {
            return Err(RepoError::OtherRepository {
                url: store.url(),
                expected: expected.to_string(),
                found: root.id.to_string(),
            });
        }
        if root.suite != options.suite {
            return Err(RepoError::OtherSuite {
                url: store.url(),
                expected: options.suite.describe(),
                found: root.suite.describe(),
            });
        }
        Ok((root, bytes))
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// As [`read_root`](Self::read_root); a key that opens nothing or was removed; another
    /// fingerprint than the pinned one.
    pub async fn open(store: Arc<dyn Store>, options: OpenOptions) -> Result<Self, RepoError> {
        let (root, root_bytes) = Self::read_root(&store, &options).await?;
        Self::open_with_root(store, options, root, root_bytes).await
    }

    /// Opens the repository by its root, which was read already or is known from a cache (a push
    /// reads it while it compresses, and compares before it acknowledges).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with_root(
        store: Arc<dyn Store>,
        options: OpenOptions,
        root: Root,
        root_bytes: Vec<u8>,
    ) -> Result<Self, RepoError> {
        let (key, opened_by) = match root.suite {
            RootSuite::None => (RepositoryKey::clear(root.id), None),
            RootSuite::Aes256Gcm => {
                let (key, id) = unlock::open(&store, &options, &root, &root_bytes).await?;
                (key, Some(id))
            }
        };
        let found = key.fingerprint();
        if let Some(expected) = options.fingerprint.clone().filter(|pinned| *pinned != found) {
            return Err(RepoError::OtherKey { expected, found });
        }
        let keys = Arc::new(Keys::of_repository(root.suite.suite(), &key));
        let sealed = SealedStore::new(store.clone(), keys, options.random.clone());
        let repository = Self { store, root, root_bytes, key, sealed, options, opened_by };
        repository.require_living().await?;
        Ok(repository)
    }

    /// Makes a repository: the wrapped key first, `pgrecall.json` last, so that of two that race
    /// one wins and the other can join it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create(
        store: Arc<dyn Store>,
        options: OpenOptions,
        note: &KeyNote,
    ) -> Result<Created, RepoError> {
        if let Some(root) = existing_root(&store).await? {
            return Ok(Created::Taken(root));
        }
        let id = RepositoryId::random(&options.random);
        let (key, opened_by) = match options.suite {
            RootSuite::None => (RepositoryKey::clear(id), None),
            RootSuite::Aes256Gcm => {
                let key_id = key_log::key_id_of(&options.unlock, &options.random);
                (RepositoryKey::random(&options.random), Some(key_id))
            }
        };
        let mut root = Root::new(id, options.suite, note.now.clone());
        root.first_key = opened_by;
        let root_bytes = root.encode();
        let keys = Arc::new(Keys::of_repository(root.suite.suite(), &key));
        let sealed = SealedStore::new(store.clone(), keys, options.random.clone());
        let repository = Self { store, root, root_bytes, key, sealed, options, opened_by };
        let mut wrap = None;
        if let Some(key_id) = opened_by {
            wrap = Some((key_id, repository.put_first_wrap(key_id, note).await?));
        }
        let name = names::root();
        let body = repository.root_bytes.clone().into();
        match repository.store.put_if_absent(&name, body).await {
            Put::Created => {}
            Put::Exists => {
                let there = existing_root(&repository.store).await?;
                match there {
                    Some(root) if root.id == id => {}
                    Some(root) => return Ok(Created::Taken(root)),
                    None => return Err(RepoError::NoRepository { url: repository.store.url() }),
                }
            }
            Put::Unknown(source) => {
                return Err(RepoError::Unknown { object: name.to_string(), source });
            }
        }
        repository.key_log().await?;
        if let Some((key_id, wrap)) = wrap {
            repository.require_first_wrap(key_id, &wrap).await?;
        }
        Ok(Created::New(Box::new(repository)))
    }

    /// The root object.
    #[must_use]
    pub const fn root(&self) -> &Root {
        &self.root
    }

    /// The fingerprint of the repository key.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint()
    }

    /// The key that opened the repository; none in the clear.
    #[must_use]
    pub const fn opened_by(&self) -> Option<KeyId> {
        self.opened_by
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The randomness.
    #[must_use]
    pub const fn random(&self) -> &SharedRandom {
        &self.options.random
    }

    /// What belongs to no domain.
    #[must_use]
    pub const fn sealed(&self) -> &SealedStore {
        &self.sealed
    }

    /// A domain's objects, its keys made when it is new.
    ///
    /// # Errors
    /// When its keys cannot be read, or made; when they are lost, though objects of it are there.
    pub async fn domain(&self, name: &Name) -> Result<SealedStore, RepoError> {
        let mut epochs = self.epochs(name).await?;
        if epochs.is_empty() {
            let is_new = lost_keys::require_new(&self.sealed, name).await;
            // Another host may have been first: its keys hold.
            epochs = self.fetch_epochs(name).await?;
            if epochs.is_empty() {
                is_new?;
                let first = first_domain_keys(&self.options.random);
                self.put_epoch(name, &first).await?;
                epochs = self.fetch_epochs(name).await?;
            }
        }
        self.with_epochs(name, &epochs)
    }

    /// A domain that must exist: reading never makes one.
    ///
    /// # Errors
    /// When it has no keys, or they cannot be read.
    pub async fn existing_domain(&self, name: &Name) -> Result<SealedStore, RepoError> {
        let epochs = self.epochs(name).await?;
        if epochs.is_empty() {
            return Err(RepoError::Invalid {
                what: format!("domain {name}"),
                reason: format!("the repository at {} has no such domain", self.store.url()),
            });
        }
        self.with_epochs(name, &epochs)
    }

    /// Starts a new epoch of a domain's keys. What was sealed before stays as it is
    /// and stays readable. The repository key stays the same, and opens the new epoch too: this
    /// bounds how much is sealed under one pair of keys, and locks nobody out. From that epoch on
    /// data is sealed for `restore_key`, where one is given; else as before.
    ///
    /// # Errors
    /// When another host started one at the same time, an epoch's keys are lost, or the store
    /// fails.
    pub async fn rotate(
        &self,
        name: &Name,
        rotation: Rotation,
        restore_key: Option<&RestoreKeyPublic>,
    ) -> Result<u32, RepoError> {
        // Objects first: the keys of those that are there were put before them.
        let in_use = InUse::read(&self.sealed, name).await?;
        let epochs = self.fetch_epochs(name).await?;
        let newest = epochs.iter().max_by_key(|document| document.epoch);
        in_use.require(name, newest)?;
        let Some(newest) = newest else {
            lost_keys::require_new(&self.sealed, name).await?;
            let first = first_domain_keys(&self.options.random);
            return self.put_epoch(name, &first).await.map(|_| first.epoch);
        };
        let next = next_domain_keys(newest, rotation, restore_key, &self.options.random);
        match self.put_epoch(name, &next).await? {
            Stored::Mine => Ok(next.epoch),
            Stored::Other => Err(RepoError::Invalid {
                what: format!("epoch {} of domain {name}", next.epoch),
                reason: "another host started it at this moment; that rotation holds".into(),
            }),
        }
    }

    fn with_epochs(
        &self,
        name: &Name,
        epochs: &[DomainKeysDocument],
    ) -> Result<SealedStore, RepoError> {
        let restore_keys = &self.options.restore_keys;
        let keys = Keys::of_domain(self.root.suite.suite(), name, epochs, restore_keys)
            .map_err(|error| RepoError::format(names::domain_keys(name).prefix(), error))?;
        Ok(SealedStore::new(self.store.clone(), Arc::new(keys), self.options.random.clone()))
    }

    async fn put_epoch(
        &self,
        name: &Name,
        document: &DomainKeysDocument,
    ) -> Result<Stored, RepoError> {
        let entry = names::domain_keys(name).entry(document.epoch.into());
        let stored = self.sealed.put(Kind::DomainKeys, &entry, document).await?;
        // The mark of a shredded domain comes before its keys are listed: it is seen here, or what
        // was put is seen there.
        if let Err(error) = self.require_not_shredded(name).await {
            if matches!(error, RepoError::Shredded { .. }) && stored == Stored::Mine {
                self.store.delete(&entry).await?;
            }
            return Err(error);
        }
        Ok(stored)
    }

    async fn epochs(&self, name: &Name) -> Result<Vec<DomainKeysDocument>, RepoError> {
        let Some(cache) = &self.options.cache else { return self.fetch_epochs(name).await };
        let log = names::domain_keys(name);
        let mut epochs = Vec::new();
        for number in 0.. {
            let entry = log.entry(number);
            let Some(object) = cache.get(self.root.id, entry.as_str()) else { break };
            let Ok(document) = self.sealed.open(Kind::DomainKeys, &entry, &object) else { break };
            epochs.push(document);
        }
        if epochs.is_empty() { self.fetch_epochs(name).await } else { Ok(epochs) }
    }

    /// Reads every epoch's keys from the store.
    async fn fetch_epochs(&self, name: &Name) -> Result<Vec<DomainKeysDocument>, RepoError> {
        let log = names::domain_keys(name);
        let mut epochs = Vec::new();
        let listed = self.sealed.list(log.prefix()).await?;
        self.refuse_shredded(name, &listed).await?;
        for entry in listed {
            let Some(number) = log.number(&entry.key) else { continue };
            let object = self.store.get(&entry.key, WRAP_BYTES_MAX).await?;
            let document: DomainKeysDocument =
                self.sealed.open(Kind::DomainKeys, &entry.key, &object)?;
            if u64::from(document.epoch) != number {
                let error = FormatError::Unexpected {
                    what: "the epoch",
                    expected: number.to_string(),
                    found: document.epoch.to_string(),
                };
                return Err(RepoError::format(&entry.key, error));
            }
            if let Some(cache) = &self.options.cache {
                cache.put(self.root.id, entry.key.as_str(), &object);
            }
            epochs.push(document);
        }
        if let Some(cache) = &self.options.cache {
            // What the store has no more, as after it was put back to an earlier state, opens
            // nothing that others can read.
            let after = epochs.iter().map(|document| u64::from(document.epoch) + 1).max();
            let mut gone = (after.unwrap_or(0)..).map(|number| log.entry(number));
            while let Some(entry) = gone.next()
                && cache.forget(self.root.id, entry.as_str())
            {
                tracing::warn!(
                    "the repository had {entry}, and has it no more: was it put back to an earlier \
                     state? New data is sealed by the keys of before"
                );
            }
        }
        Ok(epochs)
    }
}

async fn existing_root(store: &Arc<dyn Store>) -> Result<Option<Root>, RepoError> {
    let name = names::root();
    match store.get(&name, ROOT_BYTES_MAX).await {
        Ok(bytes) => {
            Root::decode(&bytes).map(Some).map_err(|error| RepoError::format(&name, error))
        }
        Err(error) if error.kind() == pgrecall_store::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
