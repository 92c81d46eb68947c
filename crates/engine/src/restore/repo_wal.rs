//! The repository's WAL as the planner sees it, and the backups that it may start from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};
use pgrecall_pgformat::segment_digest::{SegmentWalk, visit_segment};
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_pgformat::{ArchiveName, SegmentName, SegmentSize};
use pgrecall_repo::RepoError;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::keys::RestoreKeyPublic;
use pgrecall_repo::object::Proof;
use pgrecall_repo::{archive, manifests};
use pgrecall_store::Key;

use super::plan::BackupRow;
use super::scan::mark_of;
use super::wal_view::{Look, Mark, StoredWal, WalRecord, WalView};
use crate::archive::holder::{Holders, settled_file};
use crate::archive::trailer;
use crate::catalog::chain;
use crate::catalog::wal::read_history;
use crate::catalog::wal_damage::KnownDamage;
use crate::cluster::ClusterStore;
use crate::details::BackupDetails;
use crate::error::{EngineError, ErrorKind};
use crate::unreadable::Unreadable;
use crate::wal_place;

/// Trailers read at once.
const READS_AT_ONCE: usize = 16;

/// Trailers kept in memory, about 1 KiB each.
const KEPT_MAX: usize = 8192;

/// The WAL of one lineage in segments of one size.
#[derive(Debug)]
pub struct RepoWal<'a> {
    cluster: &'a ClusterStore,
    stored: StoredWal,
    holders: Holders,
    damage: KnownDamage,
    kept: Mutex<HashMap<ArchiveName, Arc<SegmentSummary>>>,
}

impl<'a> RepoWal<'a> {
    /// Lists what is stored in segments of one size, and reads the histories.
    ///
    /// # Errors
    /// When the store fails, or a history is damaged.
    pub async fn open(cluster: &'a ClusterStore, size: SegmentSize) -> Result<Self, EngineError> {
        let mut stored = StoredWal::empty(size);
        let sealed = &cluster.sealed;
        let of_size = wal_place::wal(&cluster.at, size)?;
        let sizes = sealed.list_folders(&wal_place::sizes(&cluster.at)?).await?;
        for other in sizes.iter().filter(|folder| **folder != of_size) {
            // A folder may be left over without an object.
            let first = sealed.store().list(other).try_next().await;
            stored.has_other_sizes |= first.map_err(RepoError::from)?.is_some();
        }
        let notes = KnownDamage::read(cluster).await?;
        let listed = sealed.list(&of_size).await?;
        let holders = Holders::of(sealed, &listed).await?;
        let there = listed.iter().map(|object| object.key.as_str());
        let damage = notes.of_listed(there, &holders);
        for object in &listed {
            // Of a settled collision only the settlement may be left.
            let file = settled_file(&object.key);
            let file = file.as_ref().unwrap_or(&object.key);
            match ArchiveName::parse(file.file_name(), size) {
                Ok(ArchiveName::Segment(name)) => {
                    stored.segments.entry(name.timeline).or_default().insert(name.number);
                }
                Ok(ArchiveName::Partial(name)) => {
                    stored.partials.insert(name);
                }
                // Backup history files, and contents of collisions.
                _ => {}
            }
        }
        for object in sealed.list(&wal_place::histories(&cluster.at)?).await? {
            let Ok(ArchiveName::History(timeline)) =
                ArchiveName::parse(object.key.file_name(), size)
            else {
                continue;
            };
            match read_history(cluster, timeline, &object.key).await {
                Ok(history) => {
                    stored.histories.insert(timeline, history);
                }
                Err(error) if error.is_unreadable() => {
                    stored.bad_histories.insert(timeline, Unreadable::from(&error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { cluster, stored, holders, damage, kept: Mutex::default() })
    }

    /// What a verification has found damaged of it.
    #[must_use]
    pub const fn damage(&self) -> &KnownDamage {
        &self.damage
    }

    /// The object that holds a file, or why nobody can tell.
    fn object(&self, name: ArchiveName) -> Result<Result<Key, Unreadable>, EngineError> {
        let file = wal_place::object(&self.cluster.at, name, self.stored.segment_size)?;
        Ok(match self.holders.unreadable.iter().find(|(unreadable, _)| *unreadable == file) {
            Some((_, error)) => Err(Unreadable::from(error)),
            None => Ok(self.holders.object(&file).clone()),
        })
    }

    /// The restore key that a segment is sealed for, by its fingerprint, where it is not here.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn locked(&self, name: SegmentName) -> Result<Option<String>, EngineError> {
        let Ok(object) = self.object(ArchiveName::Segment(name))? else { return Ok(None) };
        match self.cluster.sealed.header(&object).await {
            Ok(header) => {
                let locked = self.cluster.sealed.keys().locked(&header.sealing);
                Ok(locked.map(RestoreKeyPublic::fingerprint))
            }
            // The plan has looked at it; recovery tells the rest.
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn look(&self, name: ArchiveName) -> Result<Look, EngineError> {
        let known = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some(known) = known {
            return Ok(Ok(known));
        }
        let object = match self.object(name)? {
            Ok(object) => object,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        let file = match trailer::read(&self.cluster.sealed, &object).await {
            Ok(file) => file,
            Err(error) if error.is_unreadable() => return Ok(Err(Unreadable::from(&error))),
            // It was listed: a settlement may name what is not there.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Err(Unreadable::damaged(chain(&error))));
            }
            Err(error) => return Err(error),
        };
        let Some(summary) = file.trailer.summary else {
            let reason = format!("the trailer of {object} says nothing of its records");
            return Ok(Err(Unreadable::damaged(reason)));
        };
        if let Some(why) = self.noted(name, &object, &summary).await? {
            return Ok(Err(why));
        }
        let summary = Arc::new(summary);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(name, summary.clone());
        Ok(Ok(summary))
    }

    /// Why a segment does not read that was found damaged, if it does not yet: it is read anew, as
    /// far as that can be done on this host.
    async fn noted(
        &self,
        name: ArchiveName,
        object: &Key,
        summary: &SegmentSummary,
    ) -> Result<Option<Unreadable>, EngineError> {
        let ArchiveName::Segment(segment) = name else { return Ok(None) };
        let size = self.stored.segment_size;
        if self.damage.of_step(segment, None, size).is_none() {
            return Ok(None);
        }
        match read_segment(self.cluster, object, size).await {
            Ok(Err(why)) => Ok(Some(why)),
            Ok(Ok(bytes)) => {
                let mut walk = SegmentWalk::new(segment, size);
                walk.feed(&bytes);
                let why = "its trailer tells of other records than it holds";
                Ok((walk.finish() != *summary).then(|| Unreadable::damaged(why)))
            }
            Err(EngineError::Repo(RepoError::NoRestoreKey { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole file of a segment or `.partial`.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub async fn file(&self, name: ArchiveName) -> Result<Vec<u8>, EngineError> {
        match self.readable(name).await? {
            Ok(bytes) => Ok(bytes),
            Err(why) => Err(EngineError::refused(why.cause.kind(), why.reason)),
        }
    }

    /// As [`file`](Self::file); damage is no failure.
    async fn readable(
        &self,
        name: ArchiveName,
    ) -> Result<Result<Vec<u8>, Unreadable>, EngineError> {
        match self.object(name)? {
            Ok(object) => read_segment(self.cluster, &object, self.stored.segment_size).await,
            Err(unreadable) => Ok(Err(unreadable)),
        }
    }
}

/// All bytes of a segment's object; damage is no failure.
async fn read_segment(
    cluster: &ClusterStore,
    object: &Key,
    size: SegmentSize,
) -> Result<Result<Vec<u8>, Unreadable>, EngineError> {
    let mut bytes = Vec::new();
    let limit = u64::from(size.bytes());
    let fetched = archive::fetch(&cluster.sealed, object, limit, Proof::Hash, |part| {
        bytes.extend_from_slice(part);
    });
    match fetched.await.map_err(EngineError::from) {
        Ok(_) => Ok(Ok(bytes)),
        Err(error) if error.is_unreadable() => Ok(Err(Unreadable::from(&error))),
        Err(error) => Err(error),
    }
}

/// What a segment itself says, with all that it has of records which others share.
///
/// # Errors
/// When the store fails.
pub async fn whole_summary(
    cluster: &ClusterStore,
    object: &Key,
    segment: SegmentName,
    size: SegmentSize,
) -> Result<Look, EngineError> {
    Ok(read_segment(cluster, object, size).await?.map(|bytes| {
        let mut walk = SegmentWalk::keeping_all(segment, size);
        walk.feed(&bytes);
        Arc::new(walk.finish())
    }))
}

impl WalView for RepoWal<'_> {
    fn stored(&self) -> &StoredWal {
        &self.stored
    }

    async fn summaries(&self, names: &[ArchiveName]) -> Result<Vec<Look>, EngineError> {
        futures::stream::iter(names.to_vec())
            .map(|name| self.look(name))
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn whole_summary(&self, name: ArchiveName) -> Result<Look, EngineError> {
        let Some(segment) = segment_of(name) else { return Ok(Err(no_segment(name))) };
        match self.object(name)? {
            Ok(object) => {
                whole_summary(self.cluster, &object, segment, self.stored.segment_size).await
            }
            Err(unreadable) => Ok(Err(unreadable)),
        }
    }

    async fn records(
        &self,
        name: ArchiveName,
    ) -> Result<Result<Vec<WalRecord>, Unreadable>, EngineError> {
        let Some(segment) = segment_of(name) else { return Ok(Err(no_segment(name))) };
        Ok(self.readable(name).await?.map(|bytes| {
            let mut records = Vec::new();
            visit_segment(segment, self.stored.segment_size, &bytes, &mut |visited| {
                records.push(WalRecord {
                    lsn: visited.record.lsn,
                    end_lsn: visited.record.end_lsn,
                    mark: visited.event.map_or(Mark::Other, mark_of),
                });
            });
            records
        }))
    }
}

const fn segment_of(name: ArchiveName) -> Option<SegmentName> {
    match name {
        ArchiveName::Segment(segment) | ArchiveName::Partial(segment) => Some(segment),
        _ => None,
    }
}

fn no_segment(name: ArchiveName) -> Unreadable {
    Unreadable::damaged(format!("{name:?} is no segment"))
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
        let details = match BackupDetails::of(&manifest) {
            Ok(details) => details,
            Err(error) => {
                tracing::warn!(backup = %manifest.backup, error = %chain(&error),
                    "a manifest's details cannot be read, and its backup not be used");
                continue;
            }
        };
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
