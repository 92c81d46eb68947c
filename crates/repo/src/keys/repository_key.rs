//! The repository key, and what wraps it: key files and passphrases.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use data_encoding::HEXLOWER;
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
    /// Nothing: the repository is in the clear.
    Nothing,
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyFile(key) => write!(f, "Unlock::KeyFile({})", key.id),
            Self::Passphrase(_) => f.write_str("Unlock::Passphrase"),
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
    /// When Argon2id refuses its parameters.
    pub fn wrap(
        &self,
        unlock: &Unlock,
        mut outline: Wrap,
        root: &[u8],
        random: &SharedRandom,
    ) -> Result<Wrap, RepoError> {
        outline.root_sha256 = root_digest(root);
        outline.salt = HEXLOWER.encode(&random.bytes::<32>());
        let nonce: [u8; 12] = random.bytes();
        let key = wrapping_key(unlock, &outline)?;
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
        let key = wrapping_key(unlock, wrap)?;
        let aes = Aes256Gcm::new((&**key.expose()).into());
        let nonce: Option<[u8; 12]> =
            HEXLOWER.decode(wrap.nonce.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let Some(nonce) = nonce else { return Ok(None) };
        let sealed = HEXLOWER.decode(wrap.wrapped.as_bytes()).unwrap_or_default();
        let associated = wrap.associated();
        let payload = Payload { msg: &sealed, aad: &associated };
        let opened = aes.decrypt(&Nonce::from(nonce), payload).map(Zeroizing::new).ok();
        let bytes: Option<[u8; 32]> = opened.and_then(|bytes| bytes.as_slice().try_into().ok());
        Ok(bytes.map(|bytes| Self(Secret::from_bytes(bytes))))
    }
}

fn root_digest(root: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(root))
}

fn wrapping_key(unlock: &Unlock, wrap: &Wrap) -> Result<Secret, RepoError> {
    let mismatch = |reason: &str| RepoError::Invalid {
        what: format!("key {}", wrap.id),
        reason: reason.into(),
    };
    let salt = HEXLOWER.decode(wrap.salt.as_bytes()).unwrap_or_default();
    if salt.len() != 32 {
        return Err(mismatch("its salt is malformed"));
    }
    match (unlock, wrap.method) {
        (Unlock::KeyFile(file), WrapMethod::KeyFile) => {
            Ok(Secret::from_bytes(derive(&file.secret, &salt, b"pgrecall wrap")))
        }
        (Unlock::Passphrase(text), WrapMethod::Passphrase { memory_kib, passes, lanes }) => {
            let params = argon2::Params::new(memory_kib, passes, lanes, Some(32))
                .map_err(|error| mismatch(&error.to_string()))?;
            let argon =
                argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
            let mut bytes = Zeroizing::new([0; 32]);
            argon
                .hash_password_into(text.as_bytes(), &salt, &mut *bytes)
                .map_err(|error| mismatch(&error.to_string()))?;
            Ok(Secret::from_bytes(*bytes))
        }
        _ => Err(mismatch("it is of another method")),
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
