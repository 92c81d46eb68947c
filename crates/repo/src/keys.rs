//! The key hierarchy: key files, passphrases and keys of a service wrap the repository key, that
//! wraps the domains' keys, those make each object's own key. Nothing here prints a key.

mod ids;
mod key_file;
mod repository_key;
mod restore_key;
mod rotation;
mod secret;
mod service_secret;

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

pub use self::ids::{Digester, IdKeys};
pub use self::key_file::KeyFile;
pub(crate) use self::repository_key::root_digest;
pub use self::repository_key::{RepositoryKey, Unlock};
pub use self::restore_key::{RestoreKey, RestoreKeyPublic};
pub use self::rotation::{Rotation, first_domain_keys, next_domain_keys};
use self::secret::{Secret, derive};
pub(crate) use self::service_secret::ServiceSecret;
use crate::error::FormatError;
use crate::format::document::DomainKeysDocument;
use crate::format::frame::FrameCipher;
use crate::format::header::{KeyClass, KeyMethod, Kind, Sealing, Suite};
use crate::id::{ChunkId, Digest};
use crate::names::{self, Name};
use crate::random::SharedRandom;

/// The keys that seal and name the objects of one domain, or those of no domain.
pub struct Keys {
    suite: Suite,
    domain: String,
    epoch: u32,
    id_generation: u32,
    /// By class and epoch.
    classes: BTreeMap<(KeyClass, u32), Secret>,
    /// By epoch, whom data is sealed for that no key of `classes` opens.
    data_for: BTreeMap<u32, RestoreKeyPublic>,
    /// What opens it, as far as it is here.
    restore_keys: Vec<RestoreKey>,
    /// Of `id_generation`.
    ids: IdKeys,
    /// Of the generations before.
    earlier_ids: BTreeMap<u32, IdKeys>,
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
            data_for: BTreeMap::new(),
            restore_keys: Vec::new(),
            ids: IdKeys::of(&id_key),
            earlier_ids: BTreeMap::new(),
        }
    }

    /// The keys of a domain, from the documents of its epochs, the newest of which seals. Data that
    /// is sealed for a restore key is opened by those that are given.
    ///
    /// # Errors
    /// When a document is malformed, or there is none.
    pub fn of_domain(
        suite: Suite,
        domain: &Name,
        epochs: &[DomainKeysDocument],
        restore_keys: &[RestoreKey],
    ) -> Result<Self, FormatError> {
        let newest = epochs.iter().max_by_key(|d| d.epoch).ok_or(FormatError::Unexpected {
            what: "the domain's keys",
            expected: "at least one epoch".into(),
            found: "none".into(),
        })?;
        let (mut classes, mut earlier_ids) = (BTreeMap::new(), BTreeMap::new());
        let mut data_for = BTreeMap::new();
        for document in epochs {
            if document.id_generation != newest.id_generation {
                let id_key = Secret::from_hex("id key", &document.id_key)?;
                earlier_ids.entry(document.id_generation).or_insert_with(|| IdKeys::of(&id_key));
            }
            let meta = Secret::from_hex("meta key", &document.meta_key)?;
            match RestoreKeyPublic::parse(&document.data_key)? {
                Some(public) => {
                    data_for.insert(document.epoch, public);
                }
                None => {
                    let data = Secret::from_hex("data key", &document.data_key)?;
                    classes.insert((KeyClass::Data, document.epoch), data);
                }
            }
            classes.insert((KeyClass::Meta, document.epoch), meta);
        }
        let id_key = Secret::from_hex("id key", &newest.id_key)?;
        Ok(Self {
            suite,
            domain: domain.as_str().to_owned(),
            epoch: newest.epoch,
            id_generation: newest.id_generation,
            classes,
            data_for,
            restore_keys: restore_keys.to_vec(),
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
            || (class == KeyClass::Data && self.data_for.contains_key(&epoch))
    }

    /// Whom new data is sealed for, where those who write cannot read it again.
    #[must_use]
    pub fn sealed_for(&self) -> Option<&RestoreKeyPublic> {
        self.data_for.get(&self.epoch)
    }

    /// The restore keys that some data is sealed for and that are not here.
    #[must_use]
    pub fn restore_keys_missing(&self) -> Vec<&RestoreKeyPublic> {
        let mut missing: Vec<&RestoreKeyPublic> = Vec::new();
        for public in self.data_for.values() {
            if self.restore_key(public).is_none() && !missing.contains(&public) {
                missing.push(public);
            }
        }
        missing
    }

    /// The restore key that new data is sealed for, where it is not here.
    #[must_use]
    pub fn new_data_locked(&self) -> Option<&RestoreKeyPublic> {
        self.sealed_for().filter(|public| self.restore_key(public).is_none())
    }

    /// The restore key that an object's body is sealed for, where it is not here.
    #[must_use]
    pub fn locked(&self, sealing: &Sealing) -> Option<&RestoreKeyPublic> {
        let is_public = sealing.method == KeyMethod::PublicKey;
        let public = self.data_for.get(&sealing.epoch).filter(|_| is_public)?;
        self.restore_key(public).is_none().then_some(public)
    }

    fn restore_key(&self, public: &RestoreKeyPublic) -> Option<&RestoreKey> {
        self.restore_keys.iter().find(|key| key.public() == public)
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

    /// [`IdKeys::chunk_ids`] of new chunks.
    #[must_use]
    pub fn chunk_ids(&self, plains: &[&[u8]]) -> Vec<ChunkId> {
        self.ids.chunk_ids(plains)
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

    /// What a new object's header says, with a salt of its own, and the cipher of its body.
    ///
    /// # Errors
    /// When the class has no key, which opening the domain has ruled out.
    pub fn begin(
        &self,
        class: KeyClass,
        kind: Kind,
        name: &str,
        random: &SharedRandom,
    ) -> Result<(Sealing, FrameCipher), FormatError> {
        let mut sealing = Sealing {
            suite: self.suite,
            method: match self.suite {
                Suite::Clear => KeyMethod::None,
                Suite::Aes256Gcm => KeyMethod::Hkdf,
            },
            class,
            epoch: self.epoch,
            id_generation: self.id_generation,
            salt: random.bytes(),
            method_field: Vec::new(),
        };
        let public = self.sealed_for().filter(|_| class == KeyClass::Data);
        let Some(public) = public.filter(|_| self.suite != Suite::Clear) else {
            let cipher = self.cipher(&sealing, class, kind, name)?;
            return Ok((sealing, cipher));
        };
        let context = self.restore_context(&sealing)?;
        let (field, key) = public.encapsulate(&self.domain, &*context, random)?;
        (sealing.method, sealing.method_field) = (KeyMethod::PublicKey, field);
        Ok((sealing, FrameCipher::new(self.suite, &key, kind, &self.domain, name)))
    }

    /// The cipher for the frames of an object, under the key of `class` (an object's trailer is
    /// under the meta key even where its body is under the data key).
    ///
    /// # Errors
    /// [`FormatError::NoRestoreKey`] when only a restore key opens it that is not here; when the
    /// object is of another suite, or its epoch's key is not here.
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
        let key = match (self.suite, sealing.method) {
            (Suite::Aes256Gcm, KeyMethod::PublicKey) if sealing.class == KeyClass::Data => {
                if class == KeyClass::Data {
                    self.open_for_restore(sealing)?
                } else {
                    self.derived(sealing, class)?
                }
            }
            (Suite::Clear, KeyMethod::None) | (Suite::Aes256Gcm, KeyMethod::Hkdf) => {
                self.derived(sealing, class)?
            }
            (_, method) => {
                return Err(FormatError::UnknownFeature {
                    what: "the object",
                    feature: format!("key method {method:?}"),
                });
            }
        };
        Ok(FrameCipher::new(self.suite, &key, kind, &self.domain, name))
    }

    fn derived(
        &self,
        sealing: &Sealing,
        class: KeyClass,
    ) -> Result<Zeroizing<[u8; 32]>, FormatError> {
        let Some(key) = self.classes.get(&(class, sealing.epoch)) else {
            return Err(self.no_epoch(sealing.epoch));
        };
        let info = [b"pgrecall object ".as_slice(), &[class.byte()]].concat();
        Ok(Zeroizing::new(derive(key, &sealing.salt, &info)))
    }

    fn open_for_restore(&self, sealing: &Sealing) -> Result<Zeroizing<[u8; 32]>, FormatError> {
        let Some(public) = self.data_for.get(&sealing.epoch) else {
            return Err(self.no_epoch(sealing.epoch));
        };
        let key = self
            .restore_key(public)
            .ok_or_else(|| FormatError::NoRestoreKey { fingerprint: public.fingerprint() })?;
        key.open(&self.domain, &*self.restore_context(sealing)?, &sealing.method_field)
    }

    /// What is mixed into the key that HPKE exports: whoever has the public half alone makes
    /// nothing that opens, and nothing opens in another repository.
    fn restore_context(&self, sealing: &Sealing) -> Result<Zeroizing<[u8; 32]>, FormatError> {
        let meta = self.classes.get(&(KeyClass::Meta, sealing.epoch));
        let meta = meta.ok_or_else(|| self.no_epoch(sealing.epoch))?;
        Ok(Zeroizing::new(derive(meta, &sealing.salt, b"pgrecall restore key")))
    }

    fn no_epoch(&self, epoch: u32) -> FormatError {
        let keys = match self.domain.parse() {
            Ok(domain) => names::domain_keys(&domain).entry(epoch.into()).to_string(),
            // The repository's own objects.
            Err(_) => "the repository key".into(),
        };
        FormatError::NoKeys { epoch, keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
