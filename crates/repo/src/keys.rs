//! The key hierarchy: key files and passphrases wrap the repository key, that wraps the domains'
//! keys, those make each object's own key. Nothing here prints a key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_secret;
use zeroize::Zeroizing;

use crate::error::{FormatError, RepoError};
use crate::format::document::DomainKeysDocument;
use crate::format::frame::FrameCipher;
use crate::format::header::{KeyClass, KeyMethod, Kind, Sealing, Suite};
use crate::format::wrap::{Wrap, WrapMethod};
use crate::id::{BASE32, ChunkId, Digest, KeyId, RepositoryId};
use crate::names::Name;
use crate::random::SharedRandom;

/// 256 secret bits.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<[u8; 32]>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// New random bits.
    #[must_use]
    pub fn random(random: &SharedRandom) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill(&mut *bytes);
        Self(Arc::new(bytes))
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    fn expose(&self) -> &Zeroizing<[u8; 32]> {
        &self.0
    }

    fn from_hex(what: &'static str, text: &str) -> Result<Self, FormatError> {
        let bytes = Zeroizing::new(HEXLOWER.decode(text.as_bytes()).unwrap_or_default());
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| FormatError::Unexpected {
            what,
            expected: "64 hex digits".into(),
            found: format!("{} characters", text.len()),
        })?;
        Ok(Self::from_bytes(bytes))
    }

    fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0[..])
    }
}

/// A host's key: what stands in its key file.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// Its name in the repository.
    pub id: KeyId,
    secret: Secret,
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
        let secret = Zeroizing::new(BASE32.encode(&self.secret.0[..]));
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
pub struct RepositoryKey(Secret);

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
        let derived = derive(&self.0, b"", b"pgrecall fingerprint");
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
            Ok(Secret(Arc::new(bytes)))
        }
        _ => Err(mismatch("it is of another method")),
    }
}

/// HKDF-SHA-256 (RFC 5869).
fn derive(key: &Secret, salt: &[u8], info: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), &key.expose()[..])
        .expand(info, &mut out)
        .expect("32 bytes are within HKDF's limit");
    out
}

/// The keys that seal and name the objects of one domain, or those of no domain.
pub struct Keys {
    suite: Suite,
    domain: String,
    epoch: u32,
    id_generation: u32,
    /// By class and epoch.
    classes: BTreeMap<(KeyClass, u32), Secret>,
    /// Of `id_generation`.
    ids: IdKeys,
    /// Of the generations before.
    earlier_ids: BTreeMap<u32, IdKeys>,
}

/// What one generation of the id key makes: names of chunks, digests, hashes.
pub struct IdKeys {
    chunk_mac: Hmac<Sha256>,
    digest_mac: Hmac<Sha256>,
    page_secret: Zeroizing<Vec<u8>>,
    check_secret: Zeroizing<Vec<u8>>,
}

impl IdKeys {
    fn of(id_key: &Secret) -> Self {
        let mac = |info: &[u8]| {
            Hmac::<Sha256>::new_from_slice(&derive(id_key, b"", info))
                .expect("HMAC takes keys of any length")
        };
        let long = |info: &[u8]| {
            let mut out = Zeroizing::new(vec![0; 192]);
            Hkdf::<Sha256>::new(None, &id_key.expose()[..])
                .expand(info, &mut out)
                .expect("192 bytes are within HKDF's limit");
            out
        };
        Self {
            chunk_mac: mac(b"pgrecall chunk id"),
            digest_mac: mac(b"pgrecall digest"),
            page_secret: long(b"pgrecall page hash"),
            check_secret: long(b"pgrecall frame check"),
        }
    }

    /// A chunk's name.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        let mut mac = self.chunk_mac.clone();
        mac.update(plain);
        ChunkId::from_bytes(mac.finalize().into_bytes().into())
    }

    /// The digest of an object's plaintext.
    #[must_use]
    pub fn digest(&self, plain: &[u8]) -> Digest {
        let mut mac = self.digest_mac.clone();
        mac.update(plain);
        Digest(mac.finalize().into_bytes().into())
    }

    /// As [`digest`](Self::digest), piece by piece.
    #[must_use]
    pub fn digester(&self) -> Digester {
        Digester(self.digest_mac.clone())
    }

    /// A page's hash: it filters, it proves nothing.
    #[must_use]
    pub fn page_hash(&self, page: &[u8]) -> u64 {
        // The same function in a crate that picks the processor's best instructions when it runs;
        // it refuses secrets that are too short, and ours are not.
        twox_hash::XxHash3_64::oneshot_with_secret(&self.page_secret, page)
            .unwrap_or_else(|_| xxh3_64_with_secret(page, &self.page_secret))
    }

    /// The check of a sealed frame.
    #[must_use]
    pub fn frame_check(&self, sealed: &[u8]) -> u64 {
        xxh3_64_with_secret(sealed, &self.check_secret)
    }
}

impl fmt::Debug for IdKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKeys")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?}, epoch {})", self.domain, self.epoch)
    }
}

impl Keys {
    /// The keys of what belongs to no domain.
    #[must_use]
    pub fn of_repository(suite: Suite, key: &RepositoryKey) -> Self {
        let id_key = Secret::from_bytes(derive(&key.0, b"", b"pgrecall repository digests"));
        let classes = BTreeMap::from([((KeyClass::Repository, 0), key.0.clone())]);
        Self {
            suite,
            domain: String::new(),
            epoch: 0,
            id_generation: 0,
            classes,
            ids: IdKeys::of(&id_key),
            earlier_ids: BTreeMap::new(),
        }
    }

    /// The keys of a domain, from the documents of its epochs, the newest of which seals.
    ///
    /// # Errors
    /// When a document is malformed, or there is none.
    pub fn of_domain(
        suite: Suite,
        domain: &Name,
        epochs: &[DomainKeysDocument],
    ) -> Result<Self, FormatError> {
        let newest = epochs.iter().max_by_key(|d| d.epoch).ok_or(FormatError::Unexpected {
            what: "the domain's keys",
            expected: "at least one epoch".into(),
            found: "none".into(),
        })?;
        let (mut classes, mut earlier_ids) = (BTreeMap::new(), BTreeMap::new());
        for document in epochs {
            if document.id_generation != newest.id_generation {
                let id_key = Secret::from_hex("id key", &document.id_key)?;
                earlier_ids.entry(document.id_generation).or_insert_with(|| IdKeys::of(&id_key));
            }
            let data = Secret::from_hex("data key", &document.data_key)?;
            let meta = Secret::from_hex("meta key", &document.meta_key)?;
            classes.insert((KeyClass::Data, document.epoch), data);
            classes.insert((KeyClass::Meta, document.epoch), meta);
        }
        let id_key = Secret::from_hex("id key", &newest.id_key)?;
        Ok(Self {
            suite,
            domain: domain.as_str().to_owned(),
            epoch: newest.epoch,
            id_generation: newest.id_generation,
            classes,
            ids: IdKeys::of(&id_key),
            earlier_ids,
        })
    }

    /// How objects are sealed.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The epoch that new objects are sealed in.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The generation of the id key that new objects are named and digested by.
    #[must_use]
    pub const fn id_generation(&self) -> u32 {
        self.id_generation
    }

    /// The domain; empty for the repository's own objects.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// True when objects of this epoch can be opened.
    #[must_use]
    pub fn has_epoch(&self, class: KeyClass, epoch: u32) -> bool {
        self.classes.contains_key(&(class, epoch))
    }

    /// What names and digests new objects.
    #[must_use]
    pub const fn ids(&self) -> &IdKeys {
        &self.ids
    }

    /// What named and digested objects of a generation, as their headers say.
    ///
    /// # Errors
    /// When that generation's key is not here.
    pub fn ids_of(&self, generation: u32) -> Result<&IdKeys, FormatError> {
        if generation == self.id_generation {
            return Ok(&self.ids);
        }
        self.earlier_ids.get(&generation).ok_or_else(|| FormatError::Unexpected {
            what: "the id-key generation",
            expected: format!("one up to {}, whose keys were read", self.id_generation),
            found: generation.to_string(),
        })
    }

    /// Those of every generation, the newest first.
    pub fn all_ids(&self) -> impl Iterator<Item = &IdKeys> {
        std::iter::once(&self.ids).chain(self.earlier_ids.values().rev())
    }

    /// [`IdKeys::chunk_id`] of a new chunk.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        self.ids.chunk_id(plain)
    }

    /// As [`digest`](Self::digest), for plaintext that comes in parts.
    #[must_use]
    pub fn digester(&self) -> Digester {
        self.ids.digester()
    }

    /// [`IdKeys::digest`] of a new object.
    #[must_use]
    pub fn digest(&self, plain: &[u8]) -> Digest {
        self.ids.digest(plain)
    }

    /// [`IdKeys::page_hash`] of a new page.
    #[must_use]
    pub fn page_hash(&self, page: &[u8]) -> u64 {
        self.ids.page_hash(page)
    }

    /// [`IdKeys::frame_check`] of a new frame.
    #[must_use]
    pub fn frame_check(&self, sealed: &[u8]) -> u64 {
        self.ids.frame_check(sealed)
    }

    /// What a new object's header says, with a salt of its own.
    #[must_use]
    pub fn sealing(&self, class: KeyClass, random: &SharedRandom) -> Sealing {
        let method = match self.suite {
            Suite::Clear => KeyMethod::None,
            Suite::Aes256Gcm => KeyMethod::Hkdf,
        };
        Sealing {
            suite: self.suite,
            method,
            class,
            epoch: self.epoch,
            id_generation: self.id_generation,
            salt: random.bytes(),
            method_field: Vec::new(),
        }
    }

    /// The cipher for the frames of an object, under the key of `class` (an object's trailer is
    /// under the meta key even where its body is under the data key).
    ///
    /// # Errors
    /// When the object is of another suite, or its epoch's key is not here.
    pub fn cipher(
        &self,
        sealing: &Sealing,
        class: KeyClass,
        kind: Kind,
        name: &str,
    ) -> Result<FrameCipher, FormatError> {
        if sealing.suite != self.suite {
            // A writer to the store must not be able to talk a reader out of authentication.
            return Err(FormatError::Unexpected {
                what: "the object's crypto suite",
                expected: format!("{:?}", self.suite),
                found: format!("{:?}", sealing.suite),
            });
        }
        let expected = match self.suite {
            Suite::Clear => KeyMethod::None,
            Suite::Aes256Gcm => KeyMethod::Hkdf,
        };
        if sealing.method != expected {
            return Err(FormatError::UnknownFeature {
                what: "the object",
                feature: format!("key method {:?}", sealing.method),
            });
        }
        let Some(key) = self.classes.get(&(class, sealing.epoch)) else {
            return Err(FormatError::Unexpected {
                what: "the key epoch",
                expected: "one whose keys were read".into(),
                found: sealing.epoch.to_string(),
            });
        };
        let info = [b"pgrecall object ".as_slice(), &[class.byte()]].concat();
        let key = Zeroizing::new(derive(key, &sealing.salt, &info));
        Ok(FrameCipher::new(self.suite, &key, kind, &self.domain, name))
    }
}

/// Digests a plaintext piece by piece.
#[derive(Clone)]
pub struct Digester(Hmac<Sha256>);

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

impl Digester {
    /// The next piece.
    pub fn update(&mut self, plain: &[u8]) {
        self.0.update(plain);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into_bytes().into())
    }
}

/// What a new epoch changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The data and meta keys: what is stored goes on serving new backups.
    Sealing,
    /// The id key too: nothing stored before is known again, so the next backup stores everything.
    Ids,
}

/// The keys of a domain's first epoch.
#[must_use]
pub fn first_domain_keys(random: &SharedRandom) -> DomainKeysDocument {
    DomainKeysDocument {
        epoch: 0,
        id_generation: 0,
        id_key: Secret::random(random).to_hex(),
        data_key: Secret::random(random).to_hex(),
        meta_key: Secret::random(random).to_hex(),
    }
}

/// The keys of the epoch after another.
#[must_use]
pub fn next_domain_keys(
    before: &DomainKeysDocument,
    rotation: Rotation,
    random: &SharedRandom,
) -> DomainKeysDocument {
    let fresh = first_domain_keys(random);
    let (id_generation, id_key) = match rotation {
        Rotation::Sealing => (before.id_generation, before.id_key.clone()),
        Rotation::Ids => (before.id_generation + 1, fresh.id_key.clone()),
    };
    DomainKeysDocument { epoch: before.epoch + 1, id_generation, id_key, ..fresh }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(id: KeyId, method: WrapMethod) -> Wrap {
        Wrap::outline(id, "db1".into(), "2026-11-22T00:00:00Z".into(), method)
    }

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

    #[test]
    fn debug_prints_no_key() {
        let random = SharedRandom::system();
        let file = KeyFile::random(&random);
        let text = file.to_text();
        let secret = text.split(':').nth(2).unwrap();
        for shown in [format!("{file:?}"), format!("{:?}", Unlock::KeyFile(file.clone()))] {
            assert!(!shown.contains(secret));
        }
        let document = first_domain_keys(&random);
        assert!(!format!("{document:?}").contains(&document.data_key));
    }
}
