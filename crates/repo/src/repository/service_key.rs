//! Opening the repository key by a key management service: which wrap is its key's, and whether
//! what it opens is to be believed.

use std::sync::Arc;

use pgrecall_store::{ErrorKind as StoreErrorKind, KeyService, Store};

use super::OpenOptions;
use super::key_log::names_living;
use super::unlock::{open_wrap, wrong_key};
use crate::error::{ErrorKind, RepoError};
use crate::format::root::Root;
use crate::format::wrap::{WRAP_BYTES_MAX, Wrap, WrapMethod};
use crate::id::KeyId;
use crate::keys::{RepositoryKey, root_digest};
use crate::names;

/// Wraps that a key management service is asked about before giving up: each costs a request.
const SERVICE_TRIES_MAX: usize = 16;

/// Under which name a host keeps its copy of the wrap that a service has opened. No object is
/// called so: an id has 26 characters.
const SERVICE_WRAP_COPY: &str = "keys/kms";

/// Looks for the wrap that a key management service opens.
pub(super) struct ServiceKey<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) options: &'a OpenOptions,
    pub(super) root: &'a Root,
    pub(super) root_bytes: &'a [u8],
    pub(super) service: &'a dyn KeyService,
}

impl ServiceKey<'_> {
    /// The host's copy first, then every wrap that may be this key's. One that does not open, or
    /// that somebody else has made, does not hide the next.
    pub(super) async fn find(&self) -> Result<(RepositoryKey, KeyId), RepoError> {
        use futures::TryStreamExt;
        if let Some(found) = self.by_copy().await? {
            return Ok(found);
        }
        let listed: Vec<_> = self.store.list(&names::wraps()).try_collect().await?;
        let (mut tried, mut of_other_roots, mut left, mut because) = (0, 0, 0, None);
        for object in listed {
            let Ok(id) = object.key.file_name().parse::<KeyId>() else { continue };
            let name = names::wrap(id);
            let bytes = match self.store.get(&name, WRAP_BYTES_MAX).await {
                Ok(bytes) => bytes,
                // Removed since it was listed, or too long for a wrap.
                Err(error)
                    if matches!(
                        error.kind(),
                        StoreErrorKind::NotFound | StoreErrorKind::Corrupt
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let wrap = match Wrap::decode(&bytes) {
                Ok(wrap) => wrap,
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    because.get_or_insert(RepoError::format(&name, error));
                    continue;
                }
                Err(_) => continue,
            };
            if wrap.id != id || !self.may_be(&wrap) {
                continue;
            }
            if !self.is_of_root(&wrap) {
                of_other_roots += 1;
                continue;
            }
            if tried >= SERVICE_TRIES_MAX {
                left += 1;
                continue;
            }
            tried += 1;
            match self.try_living(&wrap).await {
                Ok(Some(key)) => {
                    if let Some(cache) = &self.options.cache {
                        cache.put(self.root.id, SERVICE_WRAP_COPY, &bytes);
                    }
                    return Ok((key, id));
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => {
                    because.get_or_insert(error);
                }
            }
        }
        if left > 0 {
            tracing::warn!(left, "more wraps may be the KMS key's, and were not tried");
        }
        Err(because.unwrap_or_else(|| self.not_found(tried + of_other_roots)))
    }

    fn not_found(&self, tried: usize) -> RepoError {
        let reason = match tried {
            0 => "no key of the repository is wrapped by it".to_owned(),
            tried => format!(
                "{tried} keys of the repository may be wrapped by it, and it opens none of them: \
                 these, or {}, which they are bound to, are not what they were",
                names::root()
            ),
        };
        wrong_key(self.store, &self.options.unlock, &reason)
    }

    /// Each `init` that lost a race to another has left a wrap of another root: no request is worth
    /// it.
    fn is_of_root(&self, wrap: &Wrap) -> bool {
        wrap.root_sha256 == root_digest(self.root_bytes)
    }

    fn may_be(&self, wrap: &Wrap) -> bool {
        matches!(&wrap.method, WrapMethod::Kms { key, .. } if self.service.may_be(key))
    }

    async fn by_copy(&self) -> Result<Option<(RepositoryKey, KeyId)>, RepoError> {
        let Some(cache) = &self.options.cache else { return Ok(None) };
        let copy = cache.get(self.root.id, SERVICE_WRAP_COPY);
        let Some(wrap) = copy.and_then(|bytes| Wrap::decode(&bytes).ok()) else { return Ok(None) };
        if !self.may_be(&wrap) || !self.is_of_root(&wrap) {
            return Ok(None);
        }
        match self.try_one(&wrap).await {
            Ok(key) => Ok(key.map(|key| (key, wrap.id))),
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
            Err(error) => {
                tracing::debug!("looking for another wrap than the copy's: {error}");
                Ok(None)
            }
        }
    }

    /// What a wrap holds, if it opens and the configuration does not pin another key. Whoever may
    /// encrypt by the service's key and write to the store can make one that opens.
    async fn try_one(&self, wrap: &Wrap) -> Result<Option<RepositoryKey>, RepoError> {
        let unlock = &self.options.unlock;
        let Some(key) = open_wrap(wrap, unlock, self.root.id, self.root_bytes).await? else {
            return Ok(None);
        };
        let found = key.fingerprint();
        match self.options.fingerprint.clone().filter(|pinned| *pinned != found) {
            Some(expected) => Err(RepoError::OtherKey { expected, found }),
            None => Ok(Some(key)),
        }
    }

    /// The same of a wrap whose key was not removed: who may not delete leaves such wraps behind,
    /// and the service's key may have been added again since.
    async fn try_living(&self, wrap: &Wrap) -> Result<Option<RepositoryKey>, RepoError> {
        let Some(key) = self.try_one(wrap).await? else { return Ok(None) };
        if names_living(self.store, self.options, self.root, &key, wrap.id).await? {
            return Ok(Some(key));
        }
        let reason = format!("its key {} was removed from the repository", wrap.id);
        Err(wrong_key(self.store, &self.options.unlock, &reason))
    }
}

#[cfg(test)]
mod tests;
