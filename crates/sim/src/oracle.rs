//! What must hold after every change, told from the stored objects and from what processes were
//! told, outside of the protocol.
//!
//! S1 each chunk of a valid backup lies in an existing pack; I1 an index object names it there; S2
//! what was told "committed" is committed; S4 the last good backup is never expired; S5 manifests
//! and WAL go only when the log says so; H1 what was said to be held stays; WAL that was
//! acknowledged is there as long as a valid backup needs it. S3 (when a manifest lands, what it
//! names exists) is S1 at that moment.

mod holds;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentNumber, SegmentSize};
use pgrecall_repo::format::bytes::Reader;
use pgrecall_repo::format::document::{Expired, KeyLog};
use pgrecall_repo::format::header::{Header, Kind};
use pgrecall_repo::format::pack::decode_directory;
use pgrecall_repo::id::{BackupId, ChunkId, KeyId, PackId};
use pgrecall_repo::index;
use pgrecall_repo::keys::Keys;
use pgrecall_repo::names::{self, ClusterRef};
use pgrecall_repo::object::{self, TrailerRead};
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{Key, MemoryStore, Store as _};

use crate::chance::Chance;
use crate::request::ProcessId;

use holds::Holders;

/// What a backup is, as the one who takes it knows.
#[derive(Debug, Clone)]
pub struct Truth {
    /// Every chunk that it refers to.
    pub chunks: BTreeSet<ChunkId>,
    /// The bytes of its files.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Where its WAL begins.
    pub start: Lsn,
    /// Where it is consistent.
    pub stop: Lsn,
}

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The property, by its name in the protocol.
    pub property: &'static str,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}

/// Why an object has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A process has deleted it.
    By(ProcessId),
    /// It was not durable.
    PowerLoss,
}

/// What a collection may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// Entries of index objects for packs that are gone: `gc` merges those of which it pays.
    StaleEntries,
}

/// Looks at every change.
#[derive(Debug)]
pub struct Oracle {
    at: ClusterRef,
    segment_size: SegmentSize,
    keys: Option<Arc<Keys>>,
    wants_keys: bool,
    repository_keys: Option<Arc<Keys>>,
    /// Where each chunk is.
    copies: BTreeMap<ChunkId, BTreeSet<PackId>>,
    packs: BTreeMap<PackId, Vec<ChunkId>>,
    /// Which index objects say so.
    named: BTreeMap<(ChunkId, PackId), u32>,
    /// What index objects named that a loss of power took: their packs tell of it themselves.
    unnamed: BTreeSet<(ChunkId, PackId)>,
    indexes: BTreeMap<Key, Vec<(ChunkId, PackId)>>,
    manifests: BTreeSet<BackupId>,
    expired: BTreeMap<u64, Expired>,
    wal: BTreeSet<SegmentNumber>,
    wraps: BTreeSet<KeyId>,
    key_logs: BTreeMap<u64, KeyLog>,
    truths: BTreeMap<BackupId, Truth>,
    committed: BTreeSet<BackupId>,
    acknowledged: BTreeSet<SegmentNumber>,
    /// Backups that an expiry wrote into the log, and nobody else.
    rightly_expired: BTreeSet<BackupId>,
    expiring: BTreeSet<ProcessId>,
    holders: Holders,
    violation: Option<Violation>,
}

impl Oracle {
    /// An oracle of one cluster.
    #[must_use]
    pub fn new(at: ClusterRef, segment_size: SegmentSize) -> Self {
        Self {
            at,
            segment_size,
            keys: None,
            wants_keys: false,
            repository_keys: None,
            copies: BTreeMap::new(),
            packs: BTreeMap::new(),
            named: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            indexes: BTreeMap::new(),
            manifests: BTreeSet::new(),
            expired: BTreeMap::new(),
            wal: BTreeSet::new(),
            wraps: BTreeSet::new(),
            key_logs: BTreeMap::new(),
            truths: BTreeMap::new(),
            committed: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            rightly_expired: BTreeSet::new(),
            expiring: BTreeSet::new(),
            holders: Holders::default(),
            violation: None,
        }
    }

    /// Gives it the keys that open the domain's objects and those of no domain.
    pub fn give_keys(&mut self, domain: Arc<Keys>, repository: Arc<Keys>) {
        self.keys = Some(domain);
        self.wants_keys = false;
        self.repository_keys = Some(repository);
    }

    /// Whether there are keys that it has not got.
    #[must_use]
    pub const fn wants_keys(&self) -> bool {
        self.wants_keys
    }

    /// The first violation.
    #[must_use]
    pub const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Something else was found to be wrong.
    pub fn violated(&mut self, property: &'static str, what: String) {
        self.violation.get_or_insert(Violation { property, what });
    }

    /// A backup will send a manifest that says this.
    pub fn will_commit(&mut self, id: BackupId, truth: Truth) {
        self.truths.insert(id, truth);
    }

    /// A backup was told that it is committed.
    pub fn told_committed(&mut self, id: BackupId) {
        self.committed.insert(id);
        self.check();
    }

    /// A process carries an expiry out.
    pub fn may_expire(&mut self, process: ProcessId) {
        self.expiring.insert(process);
    }

    /// A segment's archiver was told that it is stored.
    pub fn told_archived(&mut self, number: SegmentNumber) {
        self.acknowledged.insert(number);
        if !self.wal.contains(&number) && !self.wal_has_expired(number) {
            self.violated("WAL", format!("segment {} was acknowledged and is not there", number.0));
        }
    }

    /// Backups that are valid now, with what is true of them.
    #[must_use]
    pub fn valid(&self) -> BTreeMap<BackupId, Truth> {
        let truth = |id: &BackupId| Some((*id, self.truths.get(id)?.clone()));
        self.valid_ids().iter().filter_map(truth).collect()
    }

    /// Whether a backup is valid now.
    #[must_use]
    pub fn is_valid(&self, id: BackupId) -> bool {
        self.manifests.contains(&id) && !self.log().backups.contains(&id)
    }

    /// Packs without any chunk that a valid backup needs, and index objects that name packs which
    /// are gone.
    #[must_use]
    pub fn garbage(&self, left: Left) -> Vec<String> {
        let valid = self.valid();
        let live: BTreeSet<&ChunkId> = valid.values().flat_map(|truth| &truth.chunks).collect();
        let mut found = Vec::new();
        for (pack, chunks) in &self.packs {
            if !chunks.iter().any(|chunk| live.contains(chunk)) {
                found.push(format!("pack {pack} holds nothing that is needed"));
            }
        }
        for (_, pack) in self.named.keys() {
            if left == Left::Nothing && !self.packs.contains_key(pack) {
                found.push(format!("index objects still name pack {pack}, which is gone"));
            }
        }
        found
    }

    /// Whether an index object names this pack.
    #[must_use]
    pub fn names(&self, pack: PackId) -> bool {
        self.named.keys().any(|(_, named)| *named == pack)
    }

    /// Packs that are there.
    #[must_use]
    pub fn pack_ids(&self) -> Vec<PackId> {
        self.packs.keys().copied().collect()
    }

    fn log(&self) -> Expired {
        self.expired.last_key_value().map(|(_, entry)| entry.clone()).unwrap_or_default()
    }

    fn valid_ids(&self) -> BTreeSet<BackupId> {
        let log = self.log();
        let named: BTreeSet<&BackupId> = log.backups.iter().collect();
        self.manifests.iter().filter(|id| !named.contains(id)).copied().collect()
    }

    fn wal_has_expired(&self, number: SegmentNumber) -> bool {
        let log = self.log();
        let below = log.wal.iter().filter_map(|wal| wal.below.parse::<Lsn>().ok()).max();
        below.is_some_and(|below| number.end(self.segment_size) <= below)
    }

    /// An object has come to be.
    pub fn landed(&mut self, process: ProcessId, key: &Key, body: &Bytes) {
        let domain = self.at.domain.clone();
        if let Some((_, id)) = names::pack_of(&domain, key) {
            let chunks = self.directory_of(key, body);
            for chunk in &chunks {
                self.copies.entry(*chunk).or_default().insert(id);
            }
            self.packs.insert(id, chunks);
        } else if key.strip_prefix(&names::indexes(&domain)).is_some() {
            let entries = self.entries_of(key, body);
            for entry in &entries {
                *self.named.entry(*entry).or_default() += 1;
            }
            self.indexes.insert(key.clone(), entries);
            return;
        } else if let Some((_, id)) = names::manifest_of(&domain, key) {
            let kind = Header::decode(&mut Reader::new(body)).map(|header| header.kind);
            if kind != Ok(Kind::Manifest) {
                return;
            }
            self.manifests.insert(id);
        } else if let Some(number) = names::expired(&domain).number(key) {
            self.expired_landed(process, number, key, body);
        } else if let Some(number) = self.segment_of(key) {
            self.wal.insert(number);
            return;
        } else if let Some(number) = names::key_log().number(key) {
            self.key_log_landed(number, key, body);
        } else if names::domain_keys(&domain).number(key).is_some() {
            self.wants_keys = true;
            return;
        } else if let Some(id) = wrap_of(key) {
            self.wraps.insert(id);
            return;
        } else {
            return;
        }
        self.check();
    }

    /// An object has gone.
    pub fn deleted(&mut self, cause: Cause, key: &Key) {
        let process = match cause {
            Cause::By(process) => process.to_string(),
            Cause::PowerLoss => "a loss of power".to_owned(),
        };
        let domain = self.at.domain.clone();
        if let Some((_, id)) = names::pack_of(&domain, key) {
            for chunk in self.packs.remove(&id).unwrap_or_default() {
                if let Some(packs) = self.copies.get_mut(&chunk) {
                    packs.remove(&id);
                }
            }
        } else if let Some(entries) = self.indexes.remove(key) {
            for entry in entries {
                if let Some(count) = self.named.get_mut(&entry) {
                    *count -= 1;
                }
                if cause == Cause::PowerLoss {
                    self.unnamed.insert(entry);
                }
                self.named.retain(|_, count| *count > 0);
            }
        } else if let Some((_, id)) = names::manifest_of(&domain, key) {
            // What was not synced nobody was told of, or the checks that follow see it.
            let is_lost = self.manifests.remove(&id) && !self.log().backups.contains(&id);
            if is_lost && cause != Cause::PowerLoss {
                let what = format!("{process} deletes the manifest of {id}, not in the log");
                self.violated("S5", what);
            }
        } else if let Some(number) = names::expired(&domain).number(key) {
            let highest = self.expired.last_key_value().map(|(number, _)| *number);
            self.expired.remove(&number);
            if highest == Some(number) && cause != Cause::PowerLoss {
                self.violated("S5", format!("{process} deletes the log's highest entry {number}"));
            }
        } else if let Some(number) = self.segment_of(key) {
            self.wal.remove(&number);
            if self.acknowledged.contains(&number) && !self.wal_has_expired(number) {
                let what = format!("{process} deletes segment {}, not in the log", number.0);
                self.violated("WAL", what);
            }
        } else if let Some(id) = wrap_of(key) {
            self.wraps.remove(&id);
        } else {
            return;
        }
        self.check();
    }

    fn expired_landed(&mut self, process: ProcessId, number: u64, key: &Key, body: &Bytes) {
        let (before, log) = (self.valid_ids(), self.log());
        let entry: Option<Expired> = self.opened(key, body, Kind::Expired);
        let Some(entry) = entry else { return };
        if self.expiring.contains(&process) {
            self.rightly_expired.extend(entry.backups.iter().copied());
        }
        self.expired.insert(number, entry);
        self.holds_go_on(process, &log, &self.log());
        let after = self.valid_ids();
        if !before.is_empty() && after.is_empty() {
            self.violated("S4", format!("{process} expires the last good backup ({before:?})"));
        }
    }

    fn key_log_landed(&mut self, number: u64, key: &Key, body: &Bytes) {
        let Some(keys) = self.repository_keys.clone() else { return };
        let sealed = SealedStore::new(Arc::new(MemoryStore::new()), keys, Chance::new(0).shared());
        if let Ok(log) = sealed.open::<KeyLog>(Kind::KeyLog, key, body) {
            self.key_logs.insert(number, log);
        }
    }

    /// The properties of the state.
    fn check(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let found = self.find_violation();
        self.violation = found;
    }

    fn find_violation(&self) -> Option<Violation> {
        let violation = |property, what| Some(Violation { property, what });
        let valid = self.valid_ids();
        for id in &self.committed {
            if !valid.contains(id) && !self.rightly_expired.contains(id) {
                return violation("S2", format!("backup {id} was told committed and is not there"));
            }
        }
        for id in &valid {
            let Some(truth) = self.truths.get(id) else { continue };
            for chunk in &truth.chunks {
                let packs = self.copies.get(chunk).filter(|packs| !packs.is_empty());
                let Some(packs) = packs else {
                    return violation("S1", format!("chunk {chunk} of backup {id} is in no pack"));
                };
                let is_found = |pack: &PackId| {
                    let copy = (*chunk, *pack);
                    self.named.contains_key(&copy) || self.unnamed.contains(&copy)
                };
                if !packs.iter().any(is_found) {
                    let what = format!("chunk {chunk} of backup {id} is in {packs:?}, not indexed");
                    return violation("I1", what);
                }
            }
            if let Some(number) = self.missing_wal(*id, truth) {
                let what = format!("segment {} is missing, which backup {id} needs", number.0);
                return violation("WAL", what);
            }
        }
        self.find_key_violation()
    }

    /// The first segment that is missing of those that make a backup consistent, or of those that
    /// were acknowledged after them: one that was held may have been a state of its day to whoever
    /// expired WAL.
    fn missing_wal(&self, id: BackupId, truth: &Truth) -> Option<SegmentNumber> {
        let first = SegmentNumber::containing(truth.start, self.segment_size);
        let last = SegmentNumber::ending_at(truth.stop, self.segment_size).max(first);
        let own = (first.0..=last.0).map(SegmentNumber);
        let after = self.acknowledged.range(last..).copied();
        let after = after.filter(|_| !self.was_held(id));
        own.chain(after).find(|number| !self.wal.contains(number))
    }

    fn find_key_violation(&self) -> Option<Violation> {
        let (_, log) = self.key_logs.last_key_value()?;
        let opens = log.living.iter().any(|key| self.wraps.contains(&key.id));
        let what = "no key that the log names is left to open the repository".to_owned();
        (!opens).then_some(Violation { property: "keys", what })
    }

    fn segment_of(&self, key: &Key) -> Option<SegmentNumber> {
        let below = names::cluster_prefix(&self.at, "wal").ok()?;
        key.strip_prefix(&below)?;
        let name = ArchiveName::parse(key.file_name(), self.segment_size).ok()?;
        match name {
            ArchiveName::Segment(segment) => Some(segment.number),
            _ => None,
        }
    }

    fn directory_of(&self, key: &Key, body: &Bytes) -> Vec<ChunkId> {
        let read = || {
            let keys = self.keys.as_ref()?;
            let header = Header::decode(&mut Reader::new(body)).ok()?;
            match object::open_trailer(keys, &header, key, body).ok()? {
                TrailerRead::Trailer(plain) => decode_directory(&plain).ok(),
                TrailerRead::NeedMore(_) => None,
            }
        };
        let entries = read().unwrap_or_default();
        entries.iter().map(|entry| entry.chunk).collect()
    }

    fn entries_of(&self, key: &Key, body: &Bytes) -> Vec<(ChunkId, PackId)> {
        let read = || {
            let memory = Arc::new(MemoryStore::new());
            let _ = memory.put_once(key, body.clone()).now_or_never()?;
            let sealed = SealedStore::new(memory, self.keys.clone()?, no_random());
            index::read_object(&sealed, key).now_or_never()?.ok()
        };
        let Some(object) = read() else { return Vec::new() };
        let entries = object.entries.iter();
        entries.filter_map(|entry| Some((entry.chunk, object.pack(entry)?.id))).collect()
    }

    fn opened(&self, key: &Key, body: &Bytes, kind: Kind) -> Option<Expired> {
        let memory = Arc::new(MemoryStore::new());
        SealedStore::new(memory, self.keys.clone()?, no_random()).open(kind, key, body).ok()
    }
}

fn no_random() -> SharedRandom {
    Chance::new(0).shared()
}

fn wrap_of(key: &Key) -> Option<KeyId> {
    let rest = key.strip_prefix(&names::wraps())?;
    if rest.contains('/') { None } else { rest.parse().ok() }
}
