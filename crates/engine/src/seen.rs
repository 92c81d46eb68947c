//! What this host has seen of a repository: the last backup that it has taken there, and a late
//! segment that it has archived. A repository that was put back to an earlier state is whole in
//! itself: only who has seen more can tell.
//!
//! It is kept beside the copies of keys, for the user who runs the commands, and holds for the
//! store at that address: another copy of the repository may well be behind. Losing it loses the
//! warning and nothing else.

use std::time::Duration;

use pgrecall_pgformat::{ArchiveName, SegmentName, SegmentNumber, SegmentSize};
use pgrecall_repo::RepoError;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::id::{BackupId, RepositoryId};
use pgrecall_repo::keys::RestoreKeyPublic;
use pgrecall_repo::names::{self, ClusterRef};
use pgrecall_repo::repository::Cache as _;
use pgrecall_store::{ErrorKind as StoreErrorKind, Key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::archive::cache::{HostCache, Reading};
use crate::backup::BackupReport;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::retention::floor::Floors;
use crate::wal_place;

/// How often a segment that was archived takes the place of the one before.
const SEGMENT_EVERY: Duration = Duration::from_secs(3600);

/// How long a push may take to look for that one: it has stored its own already.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// The version of both records; those of another one say nothing.
const VERSION: u32 = 1;

/// A WAL segment that was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenSegment {
    version: u32,
    /// The address of the store.
    store: String,
    /// The file.
    file: String,
    /// The size of a segment, which its name depends on.
    size: SegmentSize,
}

/// A backup that was committed, and what the repository had then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenBackup {
    version: u32,
    /// The address of the store.
    store: String,
    /// The backup.
    backup: BackupId,
    /// When it ended, RFC 3339.
    ended: String,
    /// The segment in which it ended.
    wal: SeenSegment,
    /// The newest epoch of the domain's keys.
    epoch: u32,
    /// The highest entry of the log of expired backups.
    log: Option<u64>,
    /// The restore key that data was sealed for, by its fingerprint.
    restore_key: Option<String>,
}

/// The highest entry of the log of expired backups that this host has read or written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenLog {
    version: u32,
    /// The address of the store.
    store: String,
    /// Its number; none when there was none.
    entry: Option<u64>,
}

impl SeenLog {
    /// What these bytes of a file say; nothing when they do not read.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes, |seen: &Self| seen.version)
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl SeenSegment {
    fn new(store: String, segment: SegmentName, size: SegmentSize) -> Self {
        Self { version: VERSION, store, file: segment.file_name(size), size }
    }

    /// What these bytes of a file say; nothing when they do not read.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes, |seen: &Self| seen.version)
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl SeenBackup {
    /// What these bytes of a file say; nothing when they do not read.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes, |seen: &Self| seen.version)
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8], version: impl Fn(&T) -> u32) -> Option<T> {
    serde_json::from_slice(bytes).ok().filter(|seen| version(seen) == VERSION)
}

/// The place on this host where all this is kept, for one lineage.
#[derive(Debug, Clone)]
pub struct Memory {
    cache: HostCache,
    repository: RepositoryId,
    /// The address of the store.
    store: String,
    at: ClusterRef,
}

impl Memory {
    /// Beside the copies of this repository's keys.
    #[must_use]
    pub fn new(cache: &HostCache, repository: RepositoryId, cluster: &ClusterStore) -> Self {
        let cache = cache.reading(Reading::Copies);
        let store = cluster.sealed.store().url();
        Self { cache, repository, store, at: cluster.at.clone() }
    }

    /// Keeps a backup that was just committed.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn keep_backup(
        &self,
        report: &BackupReport,
        cluster: &ClusterStore,
    ) -> Result<(), EngineError> {
        let stop = report.details.stop;
        let size = report.details.wal_segment_size;
        let number = SegmentNumber::ending_at(stop.lsn, size);
        let segment = SegmentName { timeline: stop.timeline, number };
        let seen = SeenBackup {
            version: VERSION,
            store: self.store.clone(),
            backup: report.id,
            ended: report.details.ended.to_string(),
            wal: SeenSegment::new(self.store.clone(), segment, size),
            epoch: cluster.sealed.keys().epoch(),
            log: highest_entry(cluster).await?,
            restore_key: cluster.sealed.keys().sealed_for().map(RestoreKeyPublic::fingerprint),
        };
        // What was archived before was in an earlier state, if the repository was put back.
        let wal = seen.wal.encode();
        self.put_log(seen.log);
        self.put("backup", &seen.encode());
        self.put("wal", &wal);
        Ok(())
    }

    /// Keeps the number of the newest entry of the log of expired backups, once this host has
    /// written one: what expires, and what is held, stands nowhere else.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn keep_log(&self, cluster: &ClusterStore) -> Result<(), EngineError> {
        let now = highest_entry(cluster).await?;
        self.put_log(now.max(self.seen_log()));
        Ok(())
    }

    fn put_log(&self, entry: Option<u64>) {
        let seen = SeenLog { version: VERSION, store: self.store.clone(), entry };
        self.put("log", &seen.encode());
    }

    fn seen_log(&self) -> Option<u64> {
        let seen = self.get("log").and_then(|bytes| SeenLog::decode(&bytes));
        seen.filter(|seen| seen.store == self.store)?.entry
    }

    /// Keeps a segment that was just stored, now and then: in place of one that is still there, or
    /// has expired. One that is gone is remembered until the next backup.
    pub async fn keep_segment(
        &self,
        segment: SegmentName,
        size: SegmentSize,
        cluster: &ClusterStore,
    ) {
        let is_young = |age: Duration| age < SEGMENT_EVERY;
        if self.cache.age(self.repository, &self.name("wal")).is_some_and(is_young) {
            return;
        }
        let before = self.get("wal").and_then(|bytes| SeenSegment::decode(&bytes));
        if let Some(before) = before.filter(|before| before.store == self.store) {
            // Whatever comes of it, the next look is due in an hour.
            self.put("wal", &before.encode());
            let looked = tokio::time::timeout(LOOK_MAX, is_gone(&before, cluster)).await;
            match looked {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => {
                    tracing::warn!(
                        "WAL segment {}, which this host has archived, is not there any more. \
                         {BRING_BACK} {GO_ON}",
                        before.file
                    );
                    return;
                }
                Ok(Err(_)) | Err(_) => return,
            }
        }
        self.put("wal", &SeenSegment::new(self.store.clone(), segment, size).encode());
    }

    /// Refuses to write what this host could read, where it was to be sealed for a restore key.
    ///
    /// # Errors
    /// `Denied`, with what to do.
    pub fn require_restore_key(&self, cluster: &ClusterStore) -> Result<(), EngineError> {
        let seen = self.get("backup").and_then(|bytes| SeenBackup::decode(&bytes));
        let seen = seen.filter(|seen| seen.store == self.store).and_then(|seen| seen.restore_key);
        let (Some(fingerprint), None) = (seen, cluster.sealed.keys().sealed_for()) else {
            return Ok(());
        };
        let message = format!(
            "data of the domain {} was sealed for the restore key {fingerprint}, and the \
             repository has the keys that say so no more",
            self.at.domain
        );
        Err(EngineError::refused(ErrorKind::Denied, message).hint(BRING_BACK).hint(
            "If they are lost, begin such an epoch again: pgrecall key rotate --restore-key FILE.",
        ))
    }

    /// What this host has seen and is neither there any more nor expired: sentences.
    ///
    /// # Errors
    /// When the store fails. Damage is no error here: others tell of it.
    pub async fn missing(&self, cluster: &ClusterStore) -> Result<Vec<String>, EngineError> {
        let backup = self.get("backup").and_then(|bytes| SeenBackup::decode(&bytes));
        let backup = backup.filter(|seen| seen.store == self.store);
        let segment = self.get("wal").and_then(|bytes| SeenSegment::decode(&bytes));
        let segment = segment.filter(|seen| seen.store == self.store);
        let mut missing = Vec::new();
        if let Some(seen) = &backup {
            missing = self.missing_of(seen, cluster).await?;
        }
        let log = backup.as_ref().and_then(|seen| seen.log).max(self.seen_log());
        if highest_entry(cluster).await? < log {
            missing.push(format!(
                "the log of expired backups and of holds had an entry {} when this host last \
                 looked",
                log.unwrap_or_default()
            ));
        }
        let ended_in = backup.map(|seen| (seen.wal, "in which the last backup of this host ended"));
        let pushed = segment.map(|segment| (segment, "which this host has archived"));
        for (segment, which) in ended_in.into_iter().chain(pushed) {
            if is_gone(&segment, cluster).await? {
                missing.push(format!("WAL segment {}, {which}, is not there", segment.file));
            }
        }
        Ok(missing)
    }

    async fn missing_of(
        &self,
        seen: &SeenBackup,
        cluster: &ClusterStore,
    ) -> Result<Vec<String>, EngineError> {
        let mut missing = Vec::new();
        let newest = cluster.sealed.keys().epoch();
        if newest < seen.epoch {
            missing.push(format!(
                "the keys of domain {} are of epoch {newest}, and this host has seen those of \
                 epoch {}",
                self.at.domain, seen.epoch
            ));
        }
        if !is_known(cluster, seen.backup).await? {
            missing.push(format!(
                "backup {}, which this host has taken and which ended at {}, is neither there nor \
                 expired",
                seen.backup, seen.ended
            ));
        }
        Ok(missing)
    }

    fn name(&self, what: &str) -> String {
        format!("seen/{}/{}/{what}.json", self.at.cluster, self.at.lineage)
    }

    fn put(&self, what: &str, bytes: &[u8]) {
        self.cache.put(self.repository, &self.name(what), bytes);
    }

    fn get(&self, what: &str) -> Option<Vec<u8>> {
        self.cache.get(self.repository, &self.name(what))
    }
}

/// Refuses what deletes by what is there, where something is not there that should be.
///
/// # Errors
/// `Corrupt`, with all that is missing.
pub fn require_nothing(missing: &[String], cluster: &ClusterStore) -> Result<(), EngineError> {
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the repository at {} has less than it had: {}",
        cluster.sealed.store().url(),
        missing.join("; ")
    );
    Err(EngineError::refused(ErrorKind::Corrupt, message).hint(BRING_BACK).hint(GO_ON))
}

/// What to do about a repository that has less than it had.
pub const BRING_BACK: &str = "The repository was put back to an earlier state, or objects were deleted: bring them back \
     from a version of the bucket, a snapshot or a copy.";

/// How to go on without what is missing.
pub const GO_ON: &str =
    "If it is to go on as it is, take a backup: from then on this host goes by what is there.";

/// Whether a backup of this lineage is there, or has expired.
///
/// # Errors
/// When the store fails.
pub async fn is_known(cluster: &ClusterStore, id: BackupId) -> Result<bool, EngineError> {
    // Who expires writes the log, and then deletes.
    let there = is_there(cluster, &names::manifest(&cluster.at, id)).await?;
    Ok(there || log_says(cluster, |log| log.entry().backups.contains(&id)).await?)
}

async fn highest_entry(cluster: &ClusterStore) -> Result<Option<u64>, EngineError> {
    let log = names::expired(cluster.domain());
    let entries = cluster.sealed.list(log.prefix()).await?;
    Ok(entries.iter().filter_map(|entry| log.number(&entry.key)).max())
}

/// What the log says; true when it does not read, which is told elsewhere.
async fn log_says(
    cluster: &ClusterStore,
    what: impl Fn(&ExpiredLog) -> bool,
) -> Result<bool, EngineError> {
    match ExpiredLog::read(&cluster.sealed, cluster.domain()).await {
        Ok(log) => Ok(what(&log)),
        Err(error) if error.is_damage() => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Whether a segment is neither there nor expired.
async fn is_gone(seen: &SeenSegment, cluster: &ClusterStore) -> Result<bool, EngineError> {
    let Ok(Some(segment)) = ArchiveName::parse(&seen.file, seen.size).map(ArchiveName::segment)
    else {
        return Ok(false);
    };
    let object = wal_place::object(&cluster.at, ArchiveName::Segment(segment), seen.size)?;
    if is_there(cluster, &object).await? {
        return Ok(false);
    }
    // Read after: it may have expired meanwhile.
    let (timeline, end) = (segment.timeline, segment.number.end(seen.size));
    let covers = |log: &ExpiredLog| {
        Floors::of(cluster, log).map_or(true, |floors| floors.cover(timeline, end))
    };
    Ok(!log_says(cluster, covers).await?)
}

async fn is_there(cluster: &ClusterStore, name: &Key) -> Result<bool, EngineError> {
    match cluster.sealed.store().head(name).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(false),
        Err(error) => Err(RepoError::from(error).into()),
    }
}
