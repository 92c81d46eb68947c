//! What this host remembers of the last backup that it has taken. A repository that was put back to
//! an earlier state is whole in itself: only who has seen more can tell.

use std::path::Path;

use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentNumber, TimelineId};
use pgrecall_repo::RepoError;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::names;
use pgrecall_store::{ErrorKind as StoreErrorKind, Key};
use serde::{Deserialize, Serialize};

use crate::backup::BackupReport;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::host_file;
use crate::retention::floor::Floors;
use crate::wal_place;

const VERSION: u32 = 1;

/// A backup that was committed here, and what the repository had then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    version: u32,
    /// The backup.
    backup: BackupId,
    /// When it ended, RFC 3339.
    ended: String,
    /// Where, and so up to where WAL was stored.
    timeline: u32,
    lsn: String,
    /// The newest epoch of the domain's keys.
    epoch: u32,
}

impl LastBackup {
    /// A backup that was just committed.
    #[must_use]
    pub fn of(report: &BackupReport, cluster: &ClusterStore) -> Self {
        let details = &report.details;
        Self {
            version: VERSION,
            backup: report.id,
            ended: details.ended.to_string(),
            timeline: details.stop.timeline.0,
            lsn: details.stop.lsn.to_string(),
            epoch: cluster.sealed.keys().epoch(),
        }
    }

    /// What a file says; nothing when it is not there, does not read, or is of another version.
    #[must_use]
    pub fn read(file: &Path) -> Option<Self> {
        Self::decode(&std::fs::read(file).ok()?)
    }

    /// What these bytes of a file say.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|last: &Self| last.version == VERSION)
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Keeps it in a file. That it cannot be kept is told in the log only.
    pub fn write(&self, file: &Path) {
        if let Err(error) = host_file::write(file, &self.encode()) {
            tracing::warn!(%error, "what this host knows of its last backup cannot be kept");
        }
    }

    /// Refuses a repository that has less than it had: whoever goes on in it builds on sand, and
    /// whoever deletes in it deletes by what is not so.
    ///
    /// # Errors
    /// `Corrupt` when the backup is neither there nor expired, the WAL of its end is gone, or keys
    /// are; the store's failures.
    pub async fn require(&self, cluster: &ClusterStore, file: &Path) -> Result<(), EngineError> {
        let Some(what) = self.missing(cluster).await? else { return Ok(()) };
        let message = format!(
            "the repository has less than it had: this host has taken backup {} of cluster {}, \
             which ended at {}, and {what}",
            self.backup, cluster.at.cluster, self.ended
        );
        Err(EngineError::refused(ErrorKind::Corrupt, message)
            .hint(
                "It was put back to an earlier state, or objects were deleted: bring them back \
                 from a version of the bucket, a snapshot or a copy.",
            )
            .hint(format!(
                "If it is to go on from this state, remove {}, and take a backup.",
                file.display()
            )))
    }

    /// What is not there any more, in words.
    async fn missing(&self, cluster: &ClusterStore) -> Result<Option<String>, EngineError> {
        let (sealed, at) = (&cluster.sealed, &cluster.at);
        let newest = sealed.keys().epoch();
        if newest < self.epoch {
            return Ok(Some(format!(
                "the domain's keys were of epoch {} then, and of epoch {newest} now",
                self.epoch
            )));
        }
        let there = is_there(cluster, &names::manifest(at, self.backup)).await?;
        // Manifests first, then the log: who expires writes the log, and then deletes.
        let log = ExpiredLog::read(sealed, cluster.domain()).await?;
        if !there && !log.entry().backups.contains(&self.backup) {
            return Ok(Some("it is neither there nor expired".to_owned()));
        }
        let Ok(lsn) = self.lsn.parse::<Lsn>() else { return Ok(None) };
        let size = cluster.facts.wal_segment_size;
        let number = SegmentNumber::ending_at(lsn, size);
        let segment = SegmentName { timeline: TimelineId(self.timeline), number };
        if Floors::of(cluster, &log)?.cover(segment.timeline, number.end(size)) {
            return Ok(None);
        }
        let object = wal_place::object(at, ArchiveName::Segment(segment), size)?;
        if is_there(cluster, &object).await? {
            return Ok(None);
        }
        // It may have expired since the log was read.
        let log = ExpiredLog::read(sealed, cluster.domain()).await?;
        let expired = Floors::of(cluster, &log)?.cover(segment.timeline, number.end(size));
        let file = segment.file_name(size);
        Ok((!expired).then(|| format!("WAL segment {file}, in which it ended, is not there")))
    }
}

async fn is_there(cluster: &ClusterStore, name: &Key) -> Result<bool, EngineError> {
    match cluster.sealed.store().head(name).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(false),
        Err(error) => Err(RepoError::from(error).into()),
    }
}
