//! The bits that stand in a key file's place where a key management service opens the repository:
//! the wrap holds them as the service has encrypted them, bound to the repository's id.
//!
//! So the service never sees the repository key, and the wrap authenticates all of itself as any
//! other does: what the service decrypts is believed only when the wrap opens by it.

use data_encoding::HEXLOWER;
use pgrecall_store::{KeyContext, KeyService};

use super::repository_key::RepositoryKey;
use super::secret::Secret;
use crate::error::RepoError;
use crate::format::wrap::{SERVICE_BYTES_MAX, Wrap, WrapMethod};
use crate::id::RepositoryId;
use crate::random::SharedRandom;

/// What the service's ciphertext is bound to, beside the key.
const CONTEXT: &str = "pgrecall-repository";

/// The bits, and how a wrap keeps them.
pub(crate) struct ServiceSecret {
    secret: Secret,
    /// The method of the wrap.
    pub(crate) method: WrapMethod,
}

fn context(repository: RepositoryId) -> KeyContext {
    KeyContext { name: CONTEXT, value: repository.to_string() }
}

impl ServiceSecret {
    /// New ones, encrypted by the service.
    ///
    /// # Errors
    /// When the service fails, or answers with what no wrap holds.
    pub(crate) async fn new(
        service: &dyn KeyService,
        repository: RepositoryId,
        random: &SharedRandom,
    ) -> Result<Self, RepoError> {
        let secret = Secret::random(random);
        let sealed = service.encrypt(&**secret.expose(), &context(repository)).await?;
        let fits = |len: usize| (1..=SERVICE_BYTES_MAX).contains(&len);
        if !fits(sealed.key.len()) || !fits(sealed.blob.len()) {
            let (key, blob) = (sealed.key.len(), sealed.blob.len());
            return Err(RepoError::Invalid {
                what: format!("what the key {} has encrypted", service.key()),
                reason: format!(
                    "it has {blob} bytes, and its key's name {key}, where 1 to \
                     {SERVICE_BYTES_MAX} are expected"
                ),
            });
        }
        let method = WrapMethod::Kms { key: sealed.key, blob: HEXLOWER.encode(&sealed.blob) };
        Ok(Self { secret, method })
    }

    /// Those of a wrap, decrypted by the service; nothing when they are not this key's and this
    /// repository's.
    ///
    /// # Errors
    /// When the service fails.
    pub(crate) async fn of(
        wrap: &Wrap,
        service: &dyn KeyService,
        repository: RepositoryId,
    ) -> Result<Option<Self>, RepoError> {
        let WrapMethod::Kms { blob, .. } = &wrap.method else { return Ok(None) };
        let Ok(blob) = HEXLOWER.decode(blob.as_bytes()) else { return Ok(None) };
        let plain = service.decrypt(&blob, &context(repository)).await?;
        let bytes: Option<[u8; 32]> = plain.and_then(|bytes| bytes.as_slice().try_into().ok());
        Ok(bytes
            .map(|bytes| Self { secret: Secret::from_bytes(bytes), method: wrap.method.clone() }))
    }

    /// Wraps the repository key; the outline's method is this one's.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub(crate) fn wrap(
        &self,
        key: &RepositoryKey,
        outline: Wrap,
        root: &[u8],
        random: &SharedRandom,
    ) -> Result<Wrap, RepoError> {
        key.wrap_by(&self.secret, outline, root, random)
    }

    /// Opens the wrap that it is of; nothing when that was changed, or belongs to another root.
    ///
    /// # Errors
    /// When the wrap's salt is malformed.
    pub(crate) fn unwrap(
        &self,
        wrap: &Wrap,
        root: &[u8],
    ) -> Result<Option<RepositoryKey>, RepoError> {
        RepositoryKey::unwrap_by(wrap, &self.secret, root)
    }
}
