//! The small documents: JSON inside sealed blobs. Fields may be added; what a reader must not
//! overlook is a feature, by name.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::FormatError;
use crate::id::{BackupId, ChunkId, DamageId, KeyId, PackId};

/// A document with a version and a list of features that its reader must know.
pub trait Document: Serialize + DeserializeOwned {
    /// For messages.
    const WHAT: &'static str;
    /// The version that is written, and the highest that is read.
    const VERSION: u32;
    /// Features known.
    const FEATURES: &'static [&'static str] = &[];

    /// Its bytes.
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Envelope { version: Self::VERSION, features: vec![], body: self })
            .unwrap_or_default()
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it does not parse, is newer, or needs a feature that is unknown here.
    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let malformed = |error: serde_json::Error| FormatError::Document {
            what: Self::WHAT,
            reason: error.to_string(),
        };
        let outline: Outline = serde_json::from_slice(bytes).map_err(malformed)?;
        if outline.version > Self::VERSION {
            return Err(FormatError::Newer {
                what: Self::WHAT,
                found: outline.version.into(),
                known: Self::VERSION.into(),
            });
        }
        let known = |name: &&String| !Self::FEATURES.contains(&name.as_str());
        if let Some(feature) = outline.features.iter().find(known) {
            let feature = feature.clone();
            return Err(FormatError::UnknownFeature { what: Self::WHAT, feature });
        }
        let envelope: Envelope<Self> = serde_json::from_slice(bytes).map_err(malformed)?;
        Ok(envelope.body)
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    #[serde(default)]
    features: Vec<String>,
    body: T,
}

#[derive(Deserialize)]
struct Outline {
    version: u32,
    #[serde(default)]
    features: Vec<String>,
}

/// A backup. Its details (LSNs, timelines, settings, damage) are the engine's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The backup.
    pub backup: BackupId,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's system identifier.
    pub lineage: String,
    /// The file table's chunks, in order of their paths.
    pub tables: Vec<TableChunk>,
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// What the engine knows of the backup.
    pub details: serde_json::Value,
}

/// A chunk of a file table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChunk {
    /// The first path in it (bytes that are no UTF-8 replaced): a reader finds one file by it.
    pub first: String,
    /// Entries in it.
    pub entries: u64,
    /// The chunk.
    pub id: ChunkId,
    /// Bytes of its plaintext.
    pub plain_len: u32,
}

impl Document for Manifest {
    const WHAT: &'static str = "the manifest";
    const VERSION: u32 = 1;
}

/// The end of a backup that will never be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The backup that was given up.
    pub backup: BackupId,
    /// Why, for people.
    pub reason: String,
}

impl Document for Tombstone {
    const WHAT: &'static str = "the tombstone";
    const VERSION: u32 = 1;
}

/// A backup under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The backup.
    pub backup: BackupId,
    /// When it began, by its host's clock; for people and politeness, never for safety.
    pub began: String,
    /// Its host, for people.
    pub host: String,
    /// Its process id there.
    pub process: u32,
    /// What tells that process from a later one of the same number, in the engine's words; empty
    /// where the host does not say.
    #[serde(default)]
    pub incarnation: String,
}

impl Document for Intent {
    const WHAT: &'static str = "the intent";
    const VERSION: u32 = 1;
}

/// Where a backup under way starts, so that the WAL it needs is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The backup.
    pub backup: BackupId,
    /// The timeline, as the engine writes it.
    pub timeline: String,
    /// The start LSN, as the engine writes it.
    pub lsn: String,
}

impl Document for Start {
    const WHAT: &'static str = "the backup's start";
    const VERSION: u32 = 1;
}

/// A cluster's identity. Its details are the engine's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    /// Its system identifier.
    pub lineage: String,
    /// The domain that its backups share chunks and keys in.
    pub domain: String,
    /// What the engine knows of it.
    pub details: serde_json::Value,
}

impl Document for Identity {
    const WHAT: &'static str = "the cluster's identity";
    const VERSION: u32 = 1;
}

/// The keys that open the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLog {
    /// The living ones.
    pub living: Vec<LivingKey>,
    /// What this entry changed, for people.
    pub change: String,
}

/// A key that opens the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivingKey {
    /// The key.
    pub id: KeyId,
    /// Whose it is.
    pub label: String,
    /// "key file", "kms" or "passphrase".
    pub method: String,
    /// When it was added, RFC 3339.
    pub added: String,
    /// The key of a key management service; nothing for other methods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
}

impl Document for KeyLog {
    const WHAT: &'static str = "the key log";
    const VERSION: u32 = 1;
}

/// A domain's keys of one epoch, in hex; sealed by the repository key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainKeysDocument {
    /// The epoch.
    pub epoch: u32,
    /// The generation of the id key.
    pub id_generation: u32,
    /// The id key.
    pub id_key: String,
    /// The key of pages and WAL; or, behind `x25519:`, the public half of the restore key that they
    /// are sealed for.
    pub data_key: String,
    /// The key of metadata.
    pub meta_key: String,
}

impl std::fmt::Debug for DomainKeysDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DomainKeysDocument(epoch {})", self.epoch)
    }
}

impl Document for DomainKeysDocument {
    const WHAT: &'static str = "the domain's keys";
    const VERSION: u32 = 1;
}

/// What was found bad: chunks, so that the next backup stores them again, and WAL, so that no
/// backup is taken for good that cannot do without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Where each chunk was found bad.
    pub chunks: Vec<DamagedChunk>,
    /// WAL of one lineage, in a log of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wal: Vec<DamagedWal>,
    /// Who found it and when, for people.
    pub found: String,
    /// Notes of chunks that do not read, for which this one stands: all was read again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<DamageId>,
}

/// A chunk that failed to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DamagedChunk {
    /// The pack it was read from.
    pub pack: PackId,
    /// The chunk.
    pub chunk: ChunkId,
}

/// A WAL segment that recovery cannot read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DamagedWal {
    /// The object that was read.
    pub object: String,
    /// The name of the segment whose end it does not go on from, where it is that which is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The LSN beyond which recovery cannot go, as `16/B374D848`.
    pub from: String,
}

impl Document for Damage {
    const WHAT: &'static str = "the note of damage";
    const VERSION: u32 = 1;
}

/// What the probe found of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRecord {
    /// Whether of many racing puts exactly one won.
    pub put_if_absent: Promise,
    /// When, and by whom it was probed or vouched for; for people.
    pub note: String,
}

/// Whether the store keeps a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// The probe saw it kept.
    Kept,
    /// The probe saw it broken.
    Broken,
    /// The probe saw it broken, and a person vouches that there is one writer only.
    Vouched,
}

impl Document for StoreRecord {
    const WHAT: &'static str = "the store's record";
    const VERSION: u32 = 1;
}

/// How a WAL collision was settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// The object that holds from now on.
    pub object: String,
    /// The reason a person gave.
    pub reason: String,
    /// Who and when, for people.
    pub by: String,
    /// Whether a push wrote it, that stored the same content again: a person may say otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub heals: bool,
}

impl Document for Resolution {
    const WHAT: &'static str = "the settlement of a collision";
    const VERSION: u32 = 1;
}

/// Backups that were expired or ended, whose ids stay in it for ever, WAL that was, and backups
/// that people hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// The ids of those that are gone.
    pub backups: Vec<BackupId>,
    /// Up to where WAL was expired, one entry for each lineage.
    #[serde(default)]
    pub wal: Vec<ExpiredWal>,
    /// Backups that may not expire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Hold>,
}

/// That a domain's keys were deleted on purpose, and what nobody reads any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shredded {
    /// The domain.
    pub domain: String,
    /// When, RFC 3339.
    pub at: String,
    /// On which host, for people.
    pub host: String,
    /// Whose backups and WAL it held.
    pub lineages: Vec<ShreddedLineage>,
}

/// A cluster whose keys were deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShreddedLineage {
    /// The cluster's name.
    pub cluster: String,
    /// Its system identifier.
    pub lineage: String,
    /// Its backups.
    pub backups: u64,
    /// The digest of its identity, as in that object's header: another cluster may get the name.
    pub identity: String,
}

impl Document for Shredded {
    const WHAT: &'static str = "the note of shredded keys";
    const VERSION: u32 = 1;
}

/// A backup that a person keeps from expiring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The backup.
    pub backup: BackupId,
    /// Why, in that person's words.
    pub reason: String,
    /// Until when, RFC 3339; without, until it is taken off.
    #[serde(default)]
    pub until: Option<String>,
    /// Who put it there and when, for people.
    pub by: String,
}

/// WAL of one lineage that may have expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredWal {
    /// The cluster's name.
    pub cluster: String,
    /// Its system identifier.
    pub lineage: String,
    /// Of this timeline, and of those with lower numbers, …
    pub through: u32,
    /// … segments that end here or before may be gone; an LSN as PostgreSQL writes it.
    pub below: String,
}

impl Document for Expired {
    const WHAT: &'static str = "the log of expired backups";
    const VERSION: u32 = 1;
}

/// Packs that a collection is about to remove: no backup that begins from now on refers to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Their ids.
    pub packs: Vec<PackId>,
}

impl Document for Retired {
    const WHAT: &'static str = "the marker of a round";
    const VERSION: u32 = 1;
}

/// Backups that were under way once a round's marker was there: they may refer to its packs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredIntents {
    /// The names of their intents.
    pub intents: Vec<String>,
}

impl Document for RetiredIntents {
    const WHAT: &'static str = "the list of a round";
    const VERSION: u32 = 1;
}

/// What goes of a round's packs; the first one stored holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetireVerdict {
    /// Their ids.
    pub packs: Vec<PackId>,
}

impl Document for RetireVerdict {
    const WHAT: &'static str = "the verdict of a round";
    const VERSION: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn documents_round_trip_and_newer_ones_are_told() {
        let intent = Intent {
            backup: BackupId::from_bytes([1; 16]),
            began: "2026-11-22T00:00:00Z".into(),
            host: "db1".into(),
            process: 7,
            incarnation: String::new(),
        };
        let text = String::from_utf8(intent.encode()).unwrap();
        assert_eq!(Intent::decode(text.as_bytes()).unwrap(), intent);
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert_eq!(Intent::decode(newer.as_bytes()).unwrap_err().kind(), ErrorKind::Unsupported);
        let feature = text.replace("\"features\":[]", "\"features\":[\"x\"]");
        assert_eq!(Intent::decode(feature.as_bytes()).unwrap_err().kind(), ErrorKind::Unsupported);
        let longer = text.replace("\"host\"", "\"unknown\":1,\"host\"");
        assert_eq!(Intent::decode(longer.as_bytes()).unwrap(), intent);
    }
}
