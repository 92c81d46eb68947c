//! The keys that open a repository: added, removed, and told by the log that counts.

use std::sync::Arc;

use futures::StreamExt as _;
use pgrecall_store::{Prefix, Put, Store};

use super::unlock::{open, open_wrap, wrong_key};
use super::{KeyNote, OpenOptions, Repository};
use crate::error::RepoError;
use crate::format::document::{KeyLog, LivingKey};
use crate::format::header::Kind;
use crate::format::root::Root;
use crate::format::wrap::{WRAP_BYTES_MAX, Wrap, WrapMethod};
use crate::id::KeyId;
use crate::keys::{Keys, RepositoryKey, ServiceSecret, Unlock};
use crate::names;
use crate::random::SharedRandom;
use crate::sealed_store::{SealedStore, Stored};

impl Repository {
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
        let (key, id) = open(&self.store, &options, &self.root, &self.root_bytes).await?;
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
            let entry = names::key_log().entry(number.saturating_add(1));
            if self.sealed.put(Kind::KeyLog, &entry, &log).await? == Stored::Mine {
                return Ok(());
            }
        }
        Err(RepoError::Invalid {
            what: "the key log".into(),
            reason: "other hosts keep changing it; try again".into(),
        })
    }

    /// Puts the wrap of the first key. One that stands there already, and is of no repository, was
    /// left by an `init` that was ended before its root: it opens nothing, and goes.
    pub(super) async fn put_first_wrap(
        &self,
        id: KeyId,
        note: &KeyNote,
    ) -> Result<Wrap, RepoError> {
        let unlock = self.options.unlock.clone();
        match self.put_wrap(id, &unlock, note).await {
            Err(RepoError::Invalid { .. }) if self.holds_wraps_alone().await? => {
                tracing::info!("an earlier init was ended before it was done: its key is put anew");
                self.store.delete(&names::wrap(id)).await?;
                self.put_wrap(id, &unlock, note).await
            }
            put => put,
        }
    }

    /// Whether the store holds but wraps: nothing was ever put for which one may be needed.
    async fn holds_wraps_alone(&self) -> Result<bool, RepoError> {
        let mut listed = self.store.list(&Prefix::root());
        while let Some(object) = listed.next().await {
            let key = object?.key;
            if !names::wraps().contains(&key) || names::key_log().number(&key).is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks once more: another `init` with the same key may have taken the wrap for debris before
    /// this one's root stood there.
    pub(super) async fn require_first_wrap(&self, id: KeyId, put: &Wrap) -> Result<(), RepoError> {
        match self.wrap(id).await {
            Ok(stored) if stored.encode() == put.encode() => Ok(()),
            Ok(_) => Err(another_init(id)),
            Err(error) if error.is_not_found() => Err(another_init(id)),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn put_wrap(
        &self,
        id: KeyId,
        unlock: &Unlock,
        note: &KeyNote,
    ) -> Result<Wrap, RepoError> {
        let wrap = self.make_wrap(id, unlock, note).await?;
        self.require_opens(&wrap, unlock).await?;
        let name = names::wrap(id);
        match self.store.put_if_absent(&name, wrap.encode().into()).await {
            Put::Created => Ok(wrap),
            // The wrap has a random salt, so it cannot be compared; opening it is the proof.
            Put::Exists => {
                let stored = self.wrap(id).await?;
                if self.opens(&stored, unlock).await? {
                    return Ok(stored);
                }
                Err(RepoError::Invalid {
                    what: format!("key {id}"),
                    reason: "the store holds another wrap under its id".into(),
                })
            }
            Put::Unknown(source) => Err(RepoError::Unknown { object: name.to_string(), source }),
        }
    }

    /// A key that has not opened anything is not counted on: who may encrypt by a key of KMS need
    /// not be allowed to decrypt by it, and would learn that when the key is needed.
    async fn require_opens(&self, wrap: &Wrap, unlock: &Unlock) -> Result<(), RepoError> {
        match self.opens(wrap, unlock).await? {
            true => Ok(()),
            false => Err(wrong_key(&self.store, unlock, "what it has wrapped it does not open")),
        }
    }

    async fn opens(&self, wrap: &Wrap, unlock: &Unlock) -> Result<bool, RepoError> {
        let opened = open_wrap(wrap, unlock, self.root.id, &self.root_bytes).await?;
        Ok(opened.is_some_and(|key| key == self.key))
    }

    async fn make_wrap(
        &self,
        id: KeyId,
        unlock: &Unlock,
        note: &KeyNote,
    ) -> Result<Wrap, RepoError> {
        let outline = |method| Wrap::outline(id, note.label.clone(), note.now.clone(), method);
        let (root, random) = (&self.root_bytes, &self.options.random);
        match unlock {
            Unlock::KeyFile(_) => self.key.wrap(unlock, outline(WrapMethod::KeyFile), root, random),
            Unlock::Passphrase(_) => {
                self.key.wrap(unlock, outline(WrapMethod::PASSPHRASE), root, random)
            }
            Unlock::Kms(service) => {
                let secret = ServiceSecret::new(&**service, self.root.id, random).await?;
                secret.wrap(&self.key, outline(secret.method.clone()), root, random)
            }
            Unlock::Nothing => Err(RepoError::Invalid {
                what: "the repository".into(),
                reason: "an encrypted one needs a key file, a KMS key or a passphrase".into(),
            }),
        }
    }

    async fn wrap(&self, id: KeyId) -> Result<Wrap, RepoError> {
        let name = names::wrap(id);
        let bytes = self.store.get(&name, WRAP_BYTES_MAX).await?;
        Wrap::decode(&bytes).map_err(|error| RepoError::format(&name, error))
    }

    pub(super) fn living(&self, wrap: &Wrap) -> LivingKey {
        LivingKey {
            id: wrap.id,
            label: wrap.label.clone(),
            method: wrap.method.name().into(),
            added: wrap.added.clone(),
            kms_key: match &wrap.method {
                WrapMethod::Kms { key, .. } => Some(key.clone()),
                WrapMethod::KeyFile | WrapMethod::Passphrase { .. } => None,
            },
        }
    }

    pub(super) async fn require_living(&self) -> Result<(), RepoError> {
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
}

pub(super) fn key_id_of(unlock: &Unlock, random: &SharedRandom) -> KeyId {
    match unlock {
        Unlock::KeyFile(file) => file.id,
        Unlock::Passphrase(_) | Unlock::Kms(_) | Unlock::Nothing => KeyId::random(random),
    }
}

/// Whether the log of keys names a key, for who has just opened a wrap and is about to believe it.
/// Where `init` has died before the log, the first key is the one.
pub(super) async fn names_living(
    store: &Arc<dyn Store>,
    options: &OpenOptions,
    root: &Root,
    key: &RepositoryKey,
    id: KeyId,
) -> Result<bool, RepoError> {
    let keys = Arc::new(Keys::of_repository(root.suite.suite(), key));
    let sealed = SealedStore::new(store.clone(), keys, options.random.clone());
    Ok(match sealed.newest::<KeyLog>(Kind::KeyLog, &names::key_log()).await? {
        Some((_, log)) => log.living.iter().any(|key| key.id == id),
        None => root.first_key == Some(id),
    })
}

fn another_init(id: KeyId) -> RepoError {
    RepoError::Invalid {
        what: format!("key {id}"),
        reason: "its wrap was replaced at this moment: another init with the same key runs".into(),
    }
}
