//! Key files: one line of text that opens a repository.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::error::RepoError;
use crate::id::{BASE32, KeyId};
use crate::random::SharedRandom;

/// A host's key: what stands in its key file.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// Its name in the repository.
    pub id: KeyId,
    pub(super) secret: Secret,
}

const KEY_FILE_MARK: &str = "pgrecall-key-1";

impl KeyFile {
    /// A new one.
    #[must_use]
    pub fn random(random: &SharedRandom) -> Self {
        Self { id: KeyId::random(random), secret: Secret::random(random) }
    }

    /// The text of the file: one line that a person can print and type in again.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(BASE32.encode(&self.secret.expose()[..]));
        let id = self.id;
        let check = key_file_check(&id.to_string(), &secret);
        Zeroizing::new(format!("{KEY_FILE_MARK}:{id}:{}:{check}\n", *secret))
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// When it is none, or a character is wrong; the text is not repeated.
    pub fn parse(text: &str) -> Result<Self, RepoError> {
        let invalid = |reason: &str| RepoError::Invalid {
            what: "the key file".into(),
            reason: reason.into(),
        };
        let mut parts = text.trim().split(':');
        let (mark, id, secret, check) = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(KEY_FILE_MARK), Some(id), Some(secret), Some(check), None) =
            (mark, id, secret, check, parts.next())
        else {
            return Err(invalid("it does not read pgrecall-key-1:<id>:<secret>:<check>"));
        };
        if key_file_check(id, secret) != check {
            return Err(invalid("its check does not match: a character is wrong or missing"));
        }
        let id = id.parse().map_err(|_| invalid("its id is malformed"))?;
        let bytes = Zeroizing::new(BASE32.decode(secret.as_bytes()).unwrap_or_default());
        let bytes: [u8; 32] =
            bytes.as_slice().try_into().map_err(|_| invalid("its secret is malformed"))?;
        Ok(Self { id, secret: Secret::from_bytes(bytes) })
    }
}

fn key_file_check(id: &str, secret: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(id);
    hash.update(":");
    hash.update(secret);
    BASE32.encode(hash.finalize().get(..5).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_round_trip_and_typing_errors_are_seen() {
        let key = KeyFile::random(&SharedRandom::system());
        let text = key.to_text();
        let read = KeyFile::parse(&text).unwrap();
        assert!(read.id == key.id && read.secret == key.secret);
        let wrong = text.replacen('a', "b", 1);
        assert!(wrong == **text || KeyFile::parse(&wrong).is_err());
        let cut = &text[..text.len() - 2];
        let error = KeyFile::parse(cut).unwrap_err().to_string();
        assert!(!error.contains(&text[42..60]), "the secret is not repeated");
    }
}
