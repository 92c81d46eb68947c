//! Where the files of PostgreSQL's WAL archive live in the repository.

use pgrecall_pgformat::{ArchiveName, SegmentName, SegmentSize, TimelineId};
use pgrecall_repo::RepoError;
use pgrecall_repo::names::{self, ClusterRef};
use pgrecall_store::{Key, Prefix};

/// The object of an archived file: history files by timeline, all else by segment size, timeline
/// and log.
///
/// # Errors
/// When the cluster's lineage is no part of a name, which its validation rules out.
pub fn object(at: &ClusterRef, name: ArchiveName, size: SegmentSize) -> Result<Key, RepoError> {
    let file = name.file_name(size);
    match name.segment() {
        None => names::cluster_object(at, &format!("timelines/{file}")),
        Some(segment) => names::cluster_object(at, &format!("{}{file}", folder(segment, size))),
    }
}

/// The folder of history files.
///
/// # Errors
/// As [`object`].
pub fn histories(at: &ClusterRef) -> Result<Prefix, RepoError> {
    names::cluster_prefix(at, "timelines")
}

/// The folders of WAL, one for each size of segments.
///
/// # Errors
/// As [`object`].
pub fn sizes(at: &ClusterRef) -> Result<Prefix, RepoError> {
    names::cluster_prefix(at, "wal")
}

/// All WAL of segments of one size.
///
/// # Errors
/// As [`object`].
pub fn wal(at: &ClusterRef, size: SegmentSize) -> Result<Prefix, RepoError> {
    names::cluster_prefix(at, &format!("wal/{}", size_name(size)))
}

/// The WAL of one timeline.
///
/// # Errors
/// As [`object`].
pub fn timeline(
    at: &ClusterRef,
    timeline: TimelineId,
    size: SegmentSize,
) -> Result<Prefix, RepoError> {
    names::cluster_prefix(at, &format!("wal/{}/{timeline}", size_name(size)))
}

/// Sizes are in their names, since `pg_resetwal` can change a cluster's, and segments of different
/// sizes share names.
fn size_name(size: SegmentSize) -> String {
    format!("{}MiB", size.bytes() >> 20)
}

fn folder(segment: SegmentName, size: SegmentSize) -> String {
    let file = segment.file_name(size);
    let log = file.get(8..16).unwrap_or_default();
    format!("wal/{}/{}/{log}/", size_name(size), segment.timeline)
}
