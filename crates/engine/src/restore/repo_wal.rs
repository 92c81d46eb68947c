//! The repository's WAL as the planner sees it, and the backups that it may start from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};
use pgrecall_pgformat::segment_digest::visit_segment;
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::{ArchiveName, SegmentName};
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::{archive, manifests};

use super::plan::BackupRow;
use super::scan::mark_of;
use super::wal_view::{Mark, StoredWal, WalRecord, WalView};
use crate::archive::trailer;
use crate::cluster::ClusterStore;
use crate::details::BackupDetails;
use crate::error::{EngineError, ErrorKind};
use crate::wal_place;

/// Trailers read at once.
const READS_AT_ONCE: usize = 16;

/// Trailers kept in memory, about 1 KiB each.
const KEPT_MAX: usize = 8192;

/// A history file is a line for each promotion.
const HISTORY_BYTES_MAX: u64 = 1 << 20;

/// The WAL of one lineage.
#[derive(Debug)]
pub struct RepoWal<'a> {
    cluster: &'a ClusterStore,
    stored: StoredWal,
    kept: Mutex<HashMap<SegmentName, Arc<SegmentSummary>>>,
}

impl<'a> RepoWal<'a> {
    /// Lists what is stored, and reads the histories.
    ///
    /// # Errors
    /// When the store fails, or a history is damaged.
    pub async fn open(cluster: &'a ClusterStore) -> Result<Self, EngineError> {
        let size = cluster.facts.wal_segment_size;
        let mut stored = StoredWal::empty(size);
        let sealed = &cluster.sealed;
        for object in sealed.list(&wal_place::wal(&cluster.at, size)?).await? {
            match ArchiveName::parse(object.key.file_name(), size) {
                Ok(ArchiveName::Segment(name)) => {
                    stored.segments.entry(name.timeline).or_default().insert(name.number);
                }
                Ok(ArchiveName::Partial(name)) => {
                    stored.partials.insert(name);
                }
                // Backup history files, and contents and settlements of collisions.
                _ => {}
            }
        }
        for object in sealed.list(&wal_place::histories(&cluster.at)?).await? {
            let Ok(ArchiveName::History(timeline)) =
                ArchiveName::parse(object.key.file_name(), size)
            else {
                continue;
            };
            let mut bytes = Vec::new();
            archive::fetch(sealed, &object.key, HISTORY_BYTES_MAX, |part| {
                bytes.extend_from_slice(part);
            })
            .await?;
            let history = History::parse(timeline, &bytes)
                .map_err(|source| EngineError::Postgres { path: object.key.to_string(), source })?;
            stored.histories.insert(timeline, history);
        }
        Ok(Self { cluster, stored, kept: Mutex::default() })
    }

    async fn summary(&self, name: SegmentName) -> Result<Arc<SegmentSummary>, EngineError> {
        let known = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let size = self.stored.segment_size;
        let object = wal_place::object(&self.cluster.at, ArchiveName::Segment(name), size)?;
        let file = trailer::read(&self.cluster.sealed, &object).await?;
        let summary = file.trailer.summary.ok_or_else(|| {
            let message = format!("the trailer of {object} says nothing of its records");
            EngineError::refused(ErrorKind::Corrupt, message)
        })?;
        let summary = Arc::new(summary);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(name, summary.clone());
        Ok(summary)
    }

    /// The whole file of a segment or `.partial`.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub async fn file(&self, name: ArchiveName) -> Result<Vec<u8>, EngineError> {
        let size = self.stored.segment_size;
        let object = wal_place::object(&self.cluster.at, name, size)?;
        let mut bytes = Vec::new();
        let limit = u64::from(size.bytes());
        archive::fetch(&self.cluster.sealed, &object, limit, |part| bytes.extend_from_slice(part))
            .await?;
        Ok(bytes)
    }
}

impl WalView for RepoWal<'_> {
    fn stored(&self) -> &StoredWal {
        &self.stored
    }

    async fn summaries(
        &self,
        names: &[SegmentName],
    ) -> Result<Vec<Arc<SegmentSummary>>, EngineError> {
        futures::stream::iter(names.to_vec())
            .map(|name| self.summary(name))
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn records(&self, name: SegmentName) -> Result<Vec<WalRecord>, EngineError> {
        let bytes = self.file(ArchiveName::Segment(name)).await?;
        let mut records = Vec::new();
        visit_segment(name, self.stored.segment_size, &bytes, &mut |visited| {
            records.push(WalRecord {
                lsn: visited.record.lsn,
                end_lsn: visited.record.end_lsn,
                mark: visited.event.map_or(Mark::Other, mark_of),
            });
        });
        Ok(records)
    }
}

/// A lineage's backups, with their manifests.
///
/// # Errors
/// When they cannot be listed.
pub async fn backups(
    cluster: &ClusterStore,
) -> Result<(Vec<BackupRow>, Vec<Manifest>), EngineError> {
    let listed = manifests::list(&cluster.sealed, cluster.domain()).await?;
    for unreadable in listed.unreadable.iter().filter(|found| found.at == cluster.at) {
        tracing::warn!(backup = %unreadable.id, error = %unreadable.error,
            "a manifest cannot be read, and its backup not be used");
    }
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for backup in listed.valid.into_iter().filter(|backup| backup.at == cluster.at) {
        let manifest = backup.manifest;
        let details = BackupDetails::of(&manifest)?;
        rows.push(BackupRow {
            id: manifest.backup,
            bytes: manifest.bytes,
            entries: manifest.entries,
            details,
        });
        all.push(manifest);
    }
    Ok((rows, all))
}
