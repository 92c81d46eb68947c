//! Restore keys: pairs of which a domain's writers have the public half, and only those who
//! restore the secret one. What is sealed for such a key its writer cannot read again.
//!
//! Each object has a key of its own, which HPKE (RFC 9180) in base mode exports:
//! DHKEM(X25519, HKDF-SHA256) and HKDF-SHA256, export only. What it encapsulates stands in the
//! object's header.

use std::convert::Infallible;
use std::fmt;

use data_encoding::HEXLOWER;
use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{
    Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _, setup_receiver,
    setup_sender_with_rng,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::error::{FormatError, RepoError};
use crate::id::BASE32;
use crate::random::SharedRandom;

type PublicHalf = <X25519HkdfSha256 as Kem>::PublicKey;
type SecretHalf = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

const FILE_MARK: &str = "pgrecall-restore-key-1";

/// How a public half is written where another epoch has a secret key.
const TEXT_MARK: &str = "x25519:";

/// The public half: writers seal for it.
#[derive(Clone, PartialEq, Eq)]
pub struct RestoreKeyPublic(PublicHalf);

impl fmt::Debug for RestoreKeyPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RestoreKeyPublic({})", self.fingerprint())
    }
}

impl RestoreKeyPublic {
    /// As a domain's keys have it: `x25519:` and 64 hex digits.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{TEXT_MARK}{}", HEXLOWER.encode(&self.0.to_bytes()))
    }

    /// Reads that text; nothing when it is of another kind.
    ///
    /// # Errors
    /// When it is malformed.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, FormatError> {
        let Some(digits) = text.strip_prefix(TEXT_MARK) else { return Ok(None) };
        let bytes = HEXLOWER.decode(digits.as_bytes()).unwrap_or_default();
        let public = PublicHalf::from_bytes(&bytes).map_err(|_| FormatError::Unexpected {
            what: "the public half of the restore key",
            expected: "64 hex digits".into(),
            found: format!("{} characters", digits.len()),
        })?;
        Ok(Some(Self(public)))
    }

    /// 16 hex digits that name the pair.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.0.to_bytes());
        HEXLOWER.encode(digest.get(..8).unwrap_or_default())
    }

    /// A new object's key, with what lets the secret half find it again.
    pub(super) fn encapsulate(
        &self,
        domain: &str,
        context: &[u8],
        random: &SharedRandom,
    ) -> Result<(Vec<u8>, Zeroizing<[u8; 32]>), FormatError> {
        let mut random = Rng(random);
        let (field, exporter) =
            setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &self.0,
                &info(domain),
                &mut random,
            )
            .map_err(|_| unauthentic())?;
        let mut key = Zeroizing::new([0; 32]);
        exporter.export(context, &mut *key).map_err(|_| unauthentic())?;
        Ok((field.to_bytes().to_vec(), key))
    }
}

/// The whole pair: what stands in a restore key's file.
#[derive(Clone)]
pub struct RestoreKey {
    seed: Secret,
    secret: SecretHalf,
    public: RestoreKeyPublic,
}

impl fmt::Debug for RestoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RestoreKey({})", self.public.fingerprint())
    }
}

impl RestoreKey {
    /// A new one.
    #[must_use]
    pub fn random(random: &SharedRandom) -> Self {
        Self::of(Secret::random(random))
    }

    fn of(seed: Secret) -> Self {
        let (secret, public) = X25519HkdfSha256::derive_keypair(&seed.expose()[..]);
        Self { seed, secret, public: RestoreKeyPublic(public) }
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &RestoreKeyPublic {
        &self.public
    }

    /// The text of the file: one line that a person can print and type in again.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(BASE32.encode(&self.seed.expose()[..]));
        let check = check_of(&seed);
        Zeroizing::new(format!("{FILE_MARK}:{}:{check}\n", *seed))
    }

    /// Reads the text of a file, one key a line.
    ///
    /// # Errors
    /// When a line is none, or a character is wrong; the text is not repeated.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, RepoError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys = lines.map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(invalid("it is empty"));
        }
        Ok(keys)
    }

    fn parse(line: &str) -> Result<Self, RepoError> {
        let mut parts = line.split(':');
        let (mark, seed, check) = (parts.next(), parts.next(), parts.next());
        let (Some(FILE_MARK), Some(seed), Some(check), None) = (mark, seed, check, parts.next())
        else {
            return Err(invalid("it does not read pgrecall-restore-key-1:<secret>:<check>"));
        };
        if check_of(seed) != check {
            return Err(invalid("its check does not match: a character is wrong or missing"));
        }
        let bytes = Zeroizing::new(BASE32.decode(seed.as_bytes()).unwrap_or_default());
        let bytes: [u8; 32] =
            bytes.as_slice().try_into().map_err(|_| invalid("its secret is malformed"))?;
        Ok(Self::of(Secret::from_bytes(bytes)))
    }

    /// The key of an object whose header has this field.
    pub(super) fn open(
        &self,
        domain: &str,
        context: &[u8],
        field: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, FormatError> {
        let field = Encapsulated::from_bytes(field).map_err(|_| unauthentic())?;
        let exporter = setup_receiver::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.secret,
            &field,
            &info(domain),
        )
        .map_err(|_| unauthentic())?;
        let mut key = Zeroizing::new([0; 32]);
        exporter.export(context, &mut *key).map_err(|_| unauthentic())?;
        Ok(key)
    }
}

fn info(domain: &str) -> Vec<u8> {
    [b"pgrecall data of ", domain.as_bytes()].concat()
}

fn unauthentic() -> FormatError {
    FormatError::Unauthentic { what: "the key in the object's header" }
}

fn invalid(reason: &str) -> RepoError {
    RepoError::Invalid { what: "the restore key's file".into(), reason: reason.into() }
}

fn check_of(seed: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(FILE_MARK);
    hash.update(seed);
    BASE32.encode(hash.finalize().get(..5).unwrap_or_default())
}

/// The randomness that was handed in, as HPKE asks for it.
struct Rng<'a>(&'a SharedRandom);

impl TryRng for Rng<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.0.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.0.bytes()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Rng<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_keys_round_trip_and_typing_errors_are_seen() {
        let random = SharedRandom::system();
        let (key, other) = (RestoreKey::random(&random), RestoreKey::random(&random));
        let both = format!("{}\n{}", *key.to_text(), *other.to_text());
        let read = RestoreKey::parse_all(&both).unwrap();
        assert_eq!(read.len(), 2);
        assert!(read[0].public() == key.public() && read[1].public() == other.public());
        let text = key.to_text();
        let wrong = text.replacen('a', "b", 1);
        assert!(wrong == **text || RestoreKey::parse_all(&wrong).is_err());
        let error = RestoreKey::parse_all(&text[..text.len() - 2]).unwrap_err().to_string();
        assert!(!error.contains(&text[30..60]), "the secret is not repeated");
        assert!(!format!("{key:?}").contains(&text[23..60]));
        assert!(RestoreKey::parse_all("\n").is_err());
        let public = key.public().to_text();
        assert_eq!(RestoreKeyPublic::parse(&public).unwrap().as_ref(), Some(key.public()));
        assert!(RestoreKeyPublic::parse("00ff").unwrap().is_none());
        assert!(RestoreKeyPublic::parse("x25519:00ff").is_err());
    }

    #[test]
    fn only_the_secret_half_finds_the_key_and_only_in_its_place() {
        let random = SharedRandom::system();
        let (key, other) = (RestoreKey::random(&random), RestoreKey::random(&random));
        let (field, sealed) = key.public().encapsulate("main", b"salt", &random).unwrap();
        assert_eq!(key.open("main", b"salt", &field).unwrap(), sealed);
        assert_ne!(key.open("other", b"salt", &field).unwrap(), sealed);
        assert_ne!(key.open("main", b"pepper", &field).unwrap(), sealed);
        assert_ne!(other.open("main", b"salt", &field).unwrap(), sealed);
        assert!(key.open("main", b"salt", &field[1..]).is_err());
        let (again, another) = key.public().encapsulate("main", b"salt", &random).unwrap();
        assert!(again != field && another != sealed, "each object has a key of its own");
    }
}
