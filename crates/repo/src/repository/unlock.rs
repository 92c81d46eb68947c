//! Opening the repository key with what a caller has.

use std::sync::Arc;

use pgrecall_store::Store;

use super::OpenOptions;
use super::service_key::ServiceKey;
use crate::error::RepoError;
use crate::format::root::Root;
use crate::format::wrap::{WRAP_BYTES_MAX, Wrap, WrapMethod};
use crate::id::{KeyId, RepositoryId};
use crate::keys::{RepositoryKey, ServiceSecret, Unlock};
use crate::names;

/// Passphrase wraps that are tried before giving up: each costs 64 MiB and a good part of a second.
const PASSPHRASE_TRIES_MAX: usize = 16;

pub(super) async fn open(
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
        Unlock::Kms(service) => {
            ServiceKey { store, options, root, root_bytes, service: &**service }.find().await
        }
        Unlock::Nothing => {
            let reason = "the repository is encrypted, and no key file, KMS key or passphrase is \
                          configured";
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

/// Opens a wrap with whatever it takes.
pub(super) async fn open_wrap(
    wrap: &Wrap,
    unlock: &Unlock,
    repository: RepositoryId,
    root_bytes: &[u8],
) -> Result<Option<RepositoryKey>, RepoError> {
    let Unlock::Kms(service) = unlock else {
        return RepositoryKey::unwrap(wrap, unlock, root_bytes);
    };
    match ServiceSecret::of(wrap, &**service, repository).await? {
        Some(secret) => secret.unwrap(wrap, root_bytes),
        None => Ok(None),
    }
}

pub(super) fn wrong_key(store: &Arc<dyn Store>, unlock: &Unlock, reason: &str) -> RepoError {
    let key = match unlock {
        Unlock::KeyFile(file) => format!("the key file (key {})", file.id),
        Unlock::Passphrase(_) => "the passphrase".into(),
        Unlock::Kms(service) => format!("the KMS key {}", service.key()),
        Unlock::Nothing => "no key".into(),
    };
    RepoError::WrongKey { key, url: store.url(), reason: reason.into() }
}
