//! The repository key, and what wraps it: key files, passphrases and keys of a service.

use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use data_encoding::HEXLOWER;
use pgrecall_store::KeyService;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::key_file::KeyFile;
use super::secret::{Secret, derive};
use crate::error::RepoError;
use crate::format::wrap::{Wrap, WrapMethod};
use crate::id::RepositoryId;
use crate::random::SharedRandom;

/// What opens a repository.
#[derive(Clone)]
pub enum Unlock {
    /// A host's key file.
    KeyFile(KeyFile),
    /// A person's passphrase.
    Passphrase(Zeroizing<String>),
    /// A key of a key management service, for who may decrypt by it.
    Kms(Arc<dyn KeyService>),
    /// Nothing: the repository is in the clear.
    Nothing,
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyFile(key) => write!(f, "Unlock::KeyFile({})", key.id),
            Self::Passphrase(_) => f.write_str("Unlock::Passphrase"),
            Self::Kms(service) => write!(f, "Unlock::Kms({})", service.key()),
            Self::Nothing => f.write_str("Unlock::Nothing"),
        }
    }
}

/// The key that all others hang from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryKey(pub(super) Secret);

impl RepositoryKey {
    /// A new one.
    #[must_use]
    pub fn random(random: &SharedRandom) -> Self {
        Self(Secret::random(random))
    }

    /// The "key" of a repository in the clear: anybody can make it from the id.
    #[must_use]
    pub fn clear(id: RepositoryId) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"pgrecall clear repository");
        hash.update(id.as_bytes());
        Self(Secret::from_bytes(hash.finalize().into()))
    }

    /// 16 hex digits that a configuration can pin; they tell nothing of the key.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let derived = derive::<32>(&self.0, b"", b"pgrecall fingerprint");
        HEXLOWER.encode(derived.get(..8).unwrap_or_default())
    }

    /// Wraps the key for a key file or a passphrase.
    ///
    /// # Errors
    /// When Argon2id refuses its parameters, or it is neither.
    pub fn wrap(
        &self,
        unlock: &Unlock,
        outline: Wrap,
        root: &[u8],
        random: &SharedRandom,
    ) -> Result<Wrap, RepoError> {
        let outline = begun(outline, root, random);
        let key = wrapping_key(unlock, &outline)?;
        self.seal(&key, outline, random)
    }

    /// Wraps the key for who knows these bits.
    pub(super) fn wrap_by(
        &self,
        secret: &Secret,
        outline: Wrap,
        root: &[u8],
        random: &SharedRandom,
    ) -> Result<Wrap, RepoError> {
        let outline = begun(outline, root, random);
        let key = key_of_bits(secret, &salt_of(&outline)?);
        self.seal(&key, outline, random)
    }

    fn seal(
        &self,
        key: &Secret,
        mut outline: Wrap,
        random: &SharedRandom,
    ) -> Result<Wrap, RepoError> {
        let nonce: [u8; 12] = random.bytes();
        let aes = Aes256Gcm::new((&**key.expose()).into());
        let associated = outline.associated();
        let payload = Payload { msg: &**self.0.expose(), aad: &associated };
        let sealed = aes.encrypt(&Nonce::from(nonce), payload).map_err(|_| RepoError::Invalid {
            what: "the repository key".into(),
            reason: "it cannot be wrapped".into(),
        })?;
        outline.nonce = HEXLOWER.encode(&nonce);
        outline.wrapped = HEXLOWER.encode(&sealed);
        Ok(outline)
    }

    /// Opens a wrap.
    ///
    /// # Errors
    /// `None` when the key or passphrase is not the wrap's, or the wrap belongs to another root.
    pub fn unwrap(wrap: &Wrap, unlock: &Unlock, root: &[u8]) -> Result<Option<Self>, RepoError> {
        if wrap.root_sha256 != root_digest(root) {
            return Ok(None);
        }
        Ok(Self::open(wrap, &wrapping_key(unlock, wrap)?))
    }

    /// Opens a wrap by the bits that it was made for; nothing when it does not open, as by
    /// [`unwrap`](Self::unwrap).
    pub(super) fn unwrap_by(
        wrap: &Wrap,
        secret: &Secret,
        root: &[u8],
    ) -> Result<Option<Self>, RepoError> {
        if wrap.root_sha256 != root_digest(root) {
            return Ok(None);
        }
        Ok(Self::open(wrap, &key_of_bits(secret, &salt_of(wrap)?)))
    }

    fn open(wrap: &Wrap, key: &Secret) -> Option<Self> {
        let aes = Aes256Gcm::new((&**key.expose()).into());
        let nonce: Option<[u8; 12]> =
            HEXLOWER.decode(wrap.nonce.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let nonce = nonce?;
        let sealed = HEXLOWER.decode(wrap.wrapped.as_bytes()).unwrap_or_default();
        let associated = wrap.associated();
        let payload = Payload { msg: &sealed, aad: &associated };
        let opened = aes.decrypt(&Nonce::from(nonce), payload).map(Zeroizing::new).ok();
        let bytes: Option<[u8; 32]> = opened.and_then(|bytes| bytes.as_slice().try_into().ok());
        bytes.map(|bytes| Self(Secret::from_bytes(bytes)))
    }
}

/// What binds a wrap to its root.
pub(crate) fn root_digest(root: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(root))
}

/// Bound to its root, with a salt of its own.
fn begun(mut outline: Wrap, root: &[u8], random: &SharedRandom) -> Wrap {
    outline.root_sha256 = root_digest(root);
    outline.salt = HEXLOWER.encode(&random.bytes::<32>());
    outline
}

fn mismatch(wrap: &Wrap, reason: &str) -> RepoError {
    RepoError::Invalid { what: format!("key {}", wrap.id), reason: reason.into() }
}

fn salt_of(wrap: &Wrap) -> Result<[u8; 32], RepoError> {
    let salt = HEXLOWER.decode(wrap.salt.as_bytes()).unwrap_or_default();
    salt.try_into().map_err(|_| mismatch(wrap, "its salt is malformed"))
}

/// The wrapping key that comes of 256 random bits.
fn key_of_bits(secret: &Secret, salt: &[u8; 32]) -> Secret {
    Secret::from_bytes(derive(secret, salt, b"pgrecall wrap"))
}

fn wrapping_key(unlock: &Unlock, wrap: &Wrap) -> Result<Secret, RepoError> {
    let salt = salt_of(wrap)?;
    match (unlock, &wrap.method) {
        (Unlock::KeyFile(file), WrapMethod::KeyFile) => Ok(key_of_bits(&file.secret, &salt)),
        (Unlock::Passphrase(text), WrapMethod::Passphrase { memory_kib, passes, lanes }) => {
            let params = argon2::Params::new(*memory_kib, *passes, *lanes, Some(32))
                .map_err(|error| mismatch(wrap, &error.to_string()))?;
            let argon =
                argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
            let mut bytes = Zeroizing::new([0; 32]);
            argon
                .hash_password_into(text.as_bytes(), &salt, &mut *bytes)
                .map_err(|error| mismatch(wrap, &error.to_string()))?;
            Ok(Secret::from_bytes(*bytes))
        }
        _ => Err(mismatch(wrap, "it is of another method")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::KeyId;

    fn outline(id: KeyId, method: WrapMethod) -> Wrap {
        Wrap::outline(id, "db1".into(), "2026-11-22T00:00:00Z".into(), method)
    }

    #[test]
    fn only_the_right_key_and_root_open_a_wrap() {
        let random = SharedRandom::system();
        let repository = RepositoryKey::random(&random);
        let file = KeyFile::random(&random);
        let unlock = Unlock::KeyFile(file.clone());
        let wrap = repository
            .wrap(&unlock, outline(file.id, WrapMethod::KeyFile), b"root", &random)
            .unwrap();
        let opened = RepositoryKey::unwrap(&wrap, &unlock, b"root").unwrap();
        assert_eq!(opened, Some(repository.clone()));
        assert_eq!(RepositoryKey::unwrap(&wrap, &unlock, b"other").unwrap(), None);
        let other = Unlock::KeyFile(KeyFile::random(&random));
        assert_eq!(RepositoryKey::unwrap(&wrap, &other, b"root").unwrap(), None);
        let relabelled = Wrap { label: "other".into(), ..wrap };
        assert_eq!(RepositoryKey::unwrap(&relabelled, &unlock, b"root").unwrap(), None);
    }

    #[test]
    fn a_passphrase_opens_its_wrap() {
        let random = SharedRandom::system();
        let repository = RepositoryKey::random(&random);
        let unlock = Unlock::Passphrase(Zeroizing::new("correct horse".into()));
        let small = WrapMethod::Passphrase { memory_kib: 19 << 10, passes: 1, lanes: 1 };
        let id = KeyId::random(&random);
        let wrap = repository.wrap(&unlock, outline(id, small), b"root", &random).unwrap();
        let opened = RepositoryKey::unwrap(&wrap, &unlock, b"root").unwrap();
        assert_eq!(opened, Some(repository));
        let wrong = Unlock::Passphrase(Zeroizing::new("incorrect horse".into()));
        assert_eq!(RepositoryKey::unwrap(&wrap, &wrong, b"root").unwrap(), None);
    }
}
