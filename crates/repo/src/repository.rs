//! Making a repository, opening one, and the keys that open it.

use std::sync::Arc;

use pgrecall_store::{Put, Store};

use crate::error::{FormatError, RepoError};
use crate::format::document::{DomainKeysDocument, KeyLog, LivingKey};
use crate::format::header::Kind;
use crate::format::root::{ROOT_BYTES_MAX, Root, RootSuite};
use crate::format::wrap::{WRAP_BYTES_MAX, Wrap, WrapMethod};
use crate::id::{KeyId, RepositoryId};
use crate::keys::{Keys, RepositoryKey, Rotation, Unlock, first_domain_keys, next_domain_keys};
use crate::names::{self, Name};
use crate::random::SharedRandom;
use crate::sealed_store::{SealedStore, Stored};

/// Keeps small objects that never change on this host, so that a push need not fetch them. They
/// are kept as stored: wrapped or sealed.
pub trait Cache: std::fmt::Debug + Send + Sync {
    /// What was kept under this object name of this repository.
    fn get(&self, repository: RepositoryId, name: &str) -> Option<Vec<u8>>;
    /// Keeps an object; failing to is no error.
    fn put(&self, repository: RepositoryId, name: &str, object: &[u8]);
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
                let (key, id) = unlock(&store, &options, &root, &root_bytes).await?;
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
                let key_id = key_id_of(&options.unlock, &options.random);
                (RepositoryKey::random(&options.random), Some(key_id))
            }
        };
        let mut root = Root::new(id, options.suite, note.now.clone());
        root.first_key = opened_by;
        let root_bytes = root.encode();
        let keys = Arc::new(Keys::of_repository(root.suite.suite(), &key));
        let sealed = SealedStore::new(store.clone(), keys, options.random.clone());
        let repository = Self { store, root, root_bytes, key, sealed, options, opened_by };
        if let Some(key_id) = opened_by {
            let unlock = repository.options.unlock.clone();
            repository.put_wrap(key_id, &unlock, note).await?;
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
    /// When its keys cannot be read, or made.
    pub async fn domain(&self, name: &Name) -> Result<SealedStore, RepoError> {
        let mut epochs = self.epochs(name).await?;
        if epochs.is_empty() {
            let first = first_domain_keys(&self.options.random);
            self.put_epoch(name, &first).await?;
            // Another host may have been first: its keys hold.
            epochs = self.fetch_epochs(name).await?;
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
    /// bounds how much is sealed under one pair of keys, and locks nobody out.
    ///
    /// # Errors
    /// When another host started one at the same time ([`RepoError::Collision`]), or the store
    /// fails.
    pub async fn rotate(&self, name: &Name, rotation: Rotation) -> Result<u32, RepoError> {
        let epochs = self.fetch_epochs(name).await?;
        let newest = epochs.iter().max_by_key(|document| document.epoch);
        let next = match newest {
            Some(newest) => next_domain_keys(newest, rotation, &self.options.random),
            None => first_domain_keys(&self.options.random),
        };
        match self.put_epoch(name, &next).await? {
            Stored::Mine => Ok(next.epoch),
            Stored::Other => Err(RepoError::Invalid {
                what: format!("epoch {} of domain {name}", next.epoch),
                reason: "another host started it at this moment; that rotation holds".into(),
            }),
        }
    }

    /// The keys that open the repository, with the number of the log entry that says so.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn key_log(&self) -> Result<(u64, KeyLog), RepoError> {
        let log = names::key_log();
        if let Some(newest) = self.sealed.newest(Kind::KeyLog, &log).await? {
            return Ok(newest);
        }
        // `init` may have died between the root and the log: the root names the one key that was.
        let living = match self.root.first_key {
            Some(id) => vec![self.living(&self.wrap(id).await?)],
            None => vec![],
        };
        let first = KeyLog { living, change: "the repository was made".into() };
        self.sealed.put(Kind::KeyLog, &log.entry(0), &first).await?;
        let newest = self.sealed.newest(Kind::KeyLog, &log).await?;
        newest.ok_or_else(|| RepoError::NoRepository { url: self.store.url() })
    }

    /// Adds a key: its wrap first, then the log's next entry.
    ///
    /// # Errors
    /// When the repository is in the clear, the log has ever named the key, another host changed
    /// the keys at the same time, or the store fails.
    pub async fn add_key(&self, unlock: &Unlock, note: &KeyNote) -> Result<KeyId, RepoError> {
        let id = key_id_of(unlock, &self.options.random);
        self.require_new(id).await?;
        let wrap = self.put_wrap(id, unlock, note).await?;
        let living = self.living(&wrap);
        let change = format!("added {id} ({})", note.label);
        self.change_keys(change, async |log| {
            self.require_new(id).await?;
            log.living.push(living.clone());
            Ok(())
        })
        .await?;
        Ok(id)
    }

    /// A key that was removed never comes back: the delete of its wrap may still be on its way.
    async fn require_new(&self, id: KeyId) -> Result<(), RepoError> {
        let log = names::key_log();
        for object in self.sealed.list(log.prefix()).await? {
            if log.number(&object.key).is_none() {
                continue;
            }
            let entry: KeyLog = self.sealed.get(Kind::KeyLog, &object.key).await?;
            if entry.living.iter().any(|key| key.id == id) {
                return Err(RepoError::Invalid {
                    what: format!("key {id}"),
                    reason: "the repository knows it, or knew it once: make a new one".into(),
                });
            }
        }
        Ok(())
    }

    /// Removes a key, while another one has been opened and tested: the one that `proof` opens.
    ///
    /// # Errors
    /// When the key is unknown, or is the only one that is known to work.
    pub async fn remove_key(&self, id: KeyId, proof: &Unlock) -> Result<(), RepoError> {
        let tested = self.test_key(proof).await?;
        let invalid = |reason: String| RepoError::Invalid { what: format!("key {id}"), reason };
        if tested == id {
            let reason = "it is the key that this very command opened the repository with: use \
                          another one to remove it, so that one is known to work"
                .to_owned();
            return Err(invalid(reason));
        }
        self.change_keys(format!("removed {id}"), async |log| {
            if !log.living.iter().any(|key| key.id == tested) {
                return Err(invalid(format!("the key {tested} was removed at this moment")));
            }
            let before = log.living.len();
            log.living.retain(|key| key.id != id);
            if log.living.len() == before {
                return Err(invalid("the repository has no such key".into()));
            }
            Ok(())
        })
        .await?;
        // The wrap opens nothing any more by our own rule; without it, by nobody's.
        Ok(self.store.delete(&names::wrap(id)).await?)
    }

    async fn test_key(&self, unlock: &Unlock) -> Result<KeyId, RepoError> {
        let mut options = self.options.clone();
        options.unlock = unlock.clone();
        options.cache = None;
        let (key, id) = self::unlock(&self.store, &options, &self.root, &self.root_bytes).await?;
        if key != self.key {
            return Err(wrong_key(&self.store, unlock, "it opens another repository key"));
        }
        Ok(id)
    }

    async fn change_keys(
        &self,
        change: String,
        edit: impl AsyncFn(&mut KeyLog) -> Result<(), RepoError>,
    ) -> Result<(), RepoError> {
        for _ in 0..16 {
            let (number, mut log) = self.key_log().await?;
            edit(&mut log).await?;
            log.change.clone_from(&change);
            let entry = names::key_log().entry(number + 1);
            if self.sealed.put(Kind::KeyLog, &entry, &log).await? == Stored::Mine {
                return Ok(());
            }
        }
        Err(RepoError::Invalid {
            what: "the key log".into(),
            reason: "other hosts keep changing it; try again".into(),
        })
    }

    async fn put_wrap(
        &self,
        id: KeyId,
        unlock: &Unlock,
        note: &KeyNote,
    ) -> Result<Wrap, RepoError> {
        let method = match unlock {
            Unlock::KeyFile(_) => WrapMethod::KeyFile,
            Unlock::Passphrase(_) => WrapMethod::PASSPHRASE,
            Unlock::Nothing => {
                return Err(RepoError::Invalid {
                    what: "the repository".into(),
                    reason: "an encrypted one needs a key file or a passphrase".into(),
                });
            }
        };
        let outline = Wrap::outline(id, note.label.clone(), note.now.clone(), method);
        let wrap = self.key.wrap(unlock, outline, &self.root_bytes, &self.options.random)?;
        let name = names::wrap(id);
        match self.store.put_if_absent(&name, wrap.encode().into()).await {
            Put::Created => Ok(wrap),
            // The wrap has a random salt, so it cannot be compared; opening it is the proof.
            Put::Exists => {
                match RepositoryKey::unwrap(&self.wrap(id).await?, unlock, &self.root_bytes)? {
                    Some(key) if key == self.key => self.wrap(id).await,
                    _ => Err(RepoError::Invalid {
                        what: format!("key {id}"),
                        reason: "the store holds another wrap under its id".into(),
                    }),
                }
            }
            Put::Unknown(source) => Err(RepoError::Unknown { object: name.to_string(), source }),
        }
    }

    async fn wrap(&self, id: KeyId) -> Result<Wrap, RepoError> {
        let name = names::wrap(id);
        let bytes = self.store.get(&name, WRAP_BYTES_MAX).await?;
        Wrap::decode(&bytes).map_err(|error| RepoError::format(&name, error))
    }

    fn living(&self, wrap: &Wrap) -> LivingKey {
        LivingKey {
            id: wrap.id,
            label: wrap.label.clone(),
            method: wrap.method.name().into(),
            added: wrap.added.clone(),
        }
    }

    async fn require_living(&self) -> Result<(), RepoError> {
        // With a cache, the caller has chosen speed: a removed key is noticed by every other
        // command, and what it may still do is push.
        let Some(id) = self.opened_by.filter(|_| self.options.cache.is_none()) else {
            return Ok(());
        };
        let (number, log) = self.key_log().await?;
        if log.living.iter().any(|key| key.id == id) {
            return Ok(());
        }
        let reason = format!("the key log's entry {number} does not name it: it was removed");
        Err(wrong_key(&self.store, &self.options.unlock, &reason))
    }

    fn with_epochs(
        &self,
        name: &Name,
        epochs: &[DomainKeysDocument],
    ) -> Result<SealedStore, RepoError> {
        let keys = Keys::of_domain(self.root.suite.suite(), name, epochs)
            .map_err(|error| RepoError::format(names::domain_keys(name).prefix(), error))?;
        Ok(SealedStore::new(self.store.clone(), Arc::new(keys), self.options.random.clone()))
    }

    async fn put_epoch(
        &self,
        name: &Name,
        document: &DomainKeysDocument,
    ) -> Result<Stored, RepoError> {
        let entry = names::domain_keys(name).entry(document.epoch.into());
        self.sealed.put(Kind::DomainKeys, &entry, document).await
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
        for entry in self.sealed.list(log.prefix()).await? {
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

fn key_id_of(unlock: &Unlock, random: &SharedRandom) -> KeyId {
    match unlock {
        Unlock::KeyFile(file) => file.id,
        Unlock::Passphrase(_) | Unlock::Nothing => KeyId::random(random),
    }
}

/// Passphrase wraps that are tried before giving up: each costs 64 MiB and a good part of a second.
const PASSPHRASE_TRIES_MAX: usize = 16;

async fn unlock(
    store: &Arc<dyn Store>,
    options: &OpenOptions,
    root: &Root,
    root_bytes: &[u8],
) -> Result<(RepositoryKey, KeyId), RepoError> {
    match &options.unlock {
        Unlock::KeyFile(file) => {
            let wrap = key_file_wrap(store, options, root, file.id).await?;
            match RepositoryKey::unwrap(&wrap, &options.unlock, root_bytes)? {
                Some(key) => Ok((key, file.id)),
                None => {
                    let reason = format!(
                        "it does not open {}: one of these two and {} is not what it was",
                        names::wrap(file.id),
                        names::root()
                    );
                    Err(wrong_key(store, &options.unlock, &reason))
                }
            }
        }
        Unlock::Passphrase(_) => passphrase_key(store, options, root_bytes).await,
        Unlock::Nothing => {
            let reason = "the repository is encrypted, and neither a key file nor a passphrase \
                          is configured";
            Err(wrong_key(store, &options.unlock, reason))
        }
    }
}

async fn key_file_wrap(
    store: &Arc<dyn Store>,
    options: &OpenOptions,
    root: &Root,
    id: KeyId,
) -> Result<Wrap, RepoError> {
    let name = names::wrap(id);
    let cached = options.cache.as_ref().and_then(|cache| cache.get(root.id, name.as_str()));
    if let Some(wrap) = cached.and_then(|bytes| Wrap::decode(&bytes).ok()) {
        return Ok(wrap);
    }
    let bytes = match store.get(&name, WRAP_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == pgrecall_store::ErrorKind::NotFound => {
            let reason = "the repository does not know this key (was it removed, or is it another \
                          repository's?)";
            return Err(wrong_key(store, &options.unlock, reason));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(cache) = &options.cache {
        cache.put(root.id, name.as_str(), &bytes);
    }
    Wrap::decode(&bytes).map_err(|error| RepoError::format(&name, error))
}

async fn passphrase_key(
    store: &Arc<dyn Store>,
    options: &OpenOptions,
    root_bytes: &[u8],
) -> Result<(RepositoryKey, KeyId), RepoError> {
    use futures::TryStreamExt;
    let listed: Vec<_> = store.list(&names::wraps()).try_collect().await?;
    let mut tried = 0;
    for object in listed {
        let Ok(id) = object.key.file_name().parse::<KeyId>() else { continue };
        let bytes = store.get(&names::wrap(id), WRAP_BYTES_MAX).await?;
        let Ok(wrap) = Wrap::decode(&bytes) else { continue };
        let counts = wrap.id == id && matches!(wrap.method, WrapMethod::Passphrase { .. });
        if !counts || tried >= PASSPHRASE_TRIES_MAX {
            continue;
        }
        tried += 1;
        if let Some(key) = RepositoryKey::unwrap(&wrap, &options.unlock, root_bytes)? {
            return Ok((key, id));
        }
    }
    let reason = format!(
        "{tried} keys of the repository are passphrases, and it is none of them, unless {}, which \
         they are bound to, was changed",
        names::root()
    );
    Err(wrong_key(store, &options.unlock, &reason))
}

fn wrong_key(store: &Arc<dyn Store>, unlock: &Unlock, reason: &str) -> RepoError {
    let key = match unlock {
        Unlock::KeyFile(file) => format!("the key file (key {})", file.id),
        Unlock::Passphrase(_) => "the passphrase".into(),
        Unlock::Nothing => "no key".into(),
    };
    RepoError::WrongKey { key, url: store.url(), reason: reason.into() }
}
