//! That the stored WAL makes a backup consistent: presence is not enough, for damaged segments are
//! archived too (loudly), and another server may have archived under the same names.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _};
use pgrecall_pgformat::segment_summary::{SegmentEnd, SegmentSummary};
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentSize};

use crate::archive::holder;
use crate::archive::trailer::{self, StoredFile};
use crate::cluster::ClusterStore;
use crate::details::{BackupDetails, TakenFrom};
use crate::error::{EngineError, ErrorKind};
use crate::wal_place;

/// Trailers read at once.
const READS_AT_ONCE: usize = 8;

/// Checks the segments that a backup needs, from start to stop.
///
/// # Errors
/// `Incomplete` when they cannot make it consistent, `Conflict` when they are another server's.
pub async fn check(
    cluster: &ClusterStore,
    pgdata: &Path,
    details: &BackupDetails,
    segments: &[SegmentName],
) -> Result<(), EngineError> {
    let size = cluster.facts.wal_segment_size;
    let files: Vec<StoredFile> = futures::stream::iter(segments.to_vec())
        .map(|segment| read(cluster, segment, size))
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let summaries: Vec<&SegmentSummary> =
        files.iter().filter_map(|file| file.trailer.summary.as_ref()).collect();
    for summary in &summaries {
        if let Some(problem) = problem_of(summary, details.stop.lsn) {
            let name = summary.name.file_name(size);
            return Err(inconsistent(&format!("WAL segment {name} {problem}")));
        }
    }
    if details.from == TakenFrom::Standby {
        // A standby's own copies may end otherwise, and the backup's end is in its pg_control.
        return Ok(());
    }
    if !has_end(&summaries, details.start.lsn, details.stop.lsn) {
        return Err(inconsistent(&format!(
            "the stored WAL up to {} has no end of the backup that started at {}",
            details.stop.lsn, details.start.lsn
        )));
    }
    for (segment, file) in segments.iter().zip(&files) {
        compare_with_local(cluster, pgdata, *segment, file).await?;
    }
    Ok(())
}

async fn read(
    cluster: &ClusterStore,
    segment: SegmentName,
    size: SegmentSize,
) -> Result<StoredFile, EngineError> {
    let object = wal_place::object(&cluster.at, ArchiveName::Segment(segment), size)?;
    let sealed = &cluster.sealed;
    holder::read(sealed, &object, async |object| trailer::read(sealed, object).await).await
}

fn inconsistent(problem: &str) -> EngineError {
    EngineError::refused(
        ErrorKind::Incomplete,
        format!("{problem}: the backup could never be made consistent, so it is not committed"),
    )
    .hint(
        "What was copied is in the repository: another backup is quick, and does not need this \
         WAL.",
    )
}

/// What keeps recovery from reading a segment up to `stop`.
fn problem_of(summary: &SegmentSummary, stop: Lsn) -> Option<String> {
    if let Some(bad) = summary.bad_checksum.filter(|bad| bad.lsn < stop) {
        return Some(format!("has a record with a wrong checksum at {}", bad.lsn));
    }
    match summary.end {
        SegmentEnd::Early(end) if end.lsn < stop => Some(format!("ends early, at {}", end.lsn)),
        SegmentEnd::Cut { lsn } if lsn < stop => Some(format!("is cut off at {lsn}")),
        _ => None,
    }
}

/// Whether the record that ends the backup is among these.
fn has_end(summaries: &[&SegmentSummary], start: Lsn, stop: Lsn) -> bool {
    summaries.iter().any(|summary| {
        let ends = &summary.backup_ends;
        ends.items.iter().any(|end| end.start_lsn == start)
            || ends.left_out > 0
            // It began in the segment before: such records are not taken apart.
            || summary.head.end_lsn == Some(stop)
    })
}

/// Compares a stored segment with the server's own file, while that is still there.
async fn compare_with_local(
    cluster: &ClusterStore,
    pgdata: &Path,
    segment: SegmentName,
    stored: &StoredFile,
) -> Result<(), EngineError> {
    let size = cluster.facts.wal_segment_size;
    let name = segment.file_name(size);
    let path = pgdata.join("pg_wal").join(&name);
    let object = wal_place::object(&cluster.at, ArchiveName::Segment(segment), size)?;
    let (keys, file) = (cluster.sealed.keys().clone(), stored.clone());
    let same = crate::backup::run::blocking(move || match local_bytes(&path)? {
        Some(bytes) => file.is_of(&keys, &object, &bytes),
        None => Ok(true),
    })
    .await?;
    if same {
        return Ok(());
    }
    Err(EngineError::refused(
        ErrorKind::Conflict,
        format!(
            "WAL segment {name} is stored with other content than the server has in pg_wal: it \
             was pushed by {} at {}",
            stored.trailer.host, stored.trailer.pushed
        ),
    )
    .hint(
        "Two servers write one timeline: find out which one is the true primary, and stop the \
         other.",
    )
    .hint(format!("Then settle it: pgrecall wal resolve {name} shows both contents.")))
}

/// The bytes of a segment; nothing when it is gone, or was taken for a new one while it was read
/// (PostgreSQL renames a file before it writes to it again).
fn local_bytes(path: &Path) -> Result<Option<Vec<u8>>, EngineError> {
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.ino());
    let before = inode(path);
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EngineError::file("read", path, error)),
    };
    Ok((before.is_some() && before == inode(path)).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use pgrecall_pgformat::SegmentNumber;
    use pgrecall_pgformat::TimelineId;
    use pgrecall_pgformat::segment_digest::digest_segment;
    use pgrecall_pgformat::segment_summary::{BackupEndRecord, BadChecksum};

    use super::*;

    fn summary() -> SegmentSummary {
        let name = SegmentName { timeline: TimelineId(1), number: SegmentNumber(2) };
        let size = SegmentSize::from_bytes(16 << 20).unwrap();
        let mut summary = digest_segment(name, size, &[]);
        summary.end = SegmentEnd::Full;
        summary
    }

    #[test]
    fn damage_counts_before_the_stop_only() {
        let stop = Lsn(0x0200_4000);
        assert_eq!(problem_of(&summary(), stop), None);
        let bad = |lsn| SegmentSummary {
            bad_checksum: Some(BadChecksum { lsn: Lsn(lsn), expected: 1, found: 2 }),
            ..summary()
        };
        assert!(problem_of(&bad(0x0200_3ff8), stop).unwrap().contains("checksum"));
        assert_eq!(problem_of(&bad(0x0200_4000), stop), None);
        let cut = |lsn| SegmentSummary { end: SegmentEnd::Cut { lsn: Lsn(lsn) }, ..summary() };
        assert!(problem_of(&cut(0x0200_1000), stop).unwrap().contains("cut"));
        assert_eq!(problem_of(&cut(0x0200_4000), stop), None);
    }

    #[test]
    fn the_end_must_be_that_of_this_backup() {
        let (start, stop) = (Lsn(0x0200_0028), Lsn(0x0200_4000));
        let mut summary = summary();
        assert!(!has_end(&[&summary], start, stop));
        let end = |start_lsn| BackupEndRecord { lsn: Lsn(0x0200_3fd0), start_lsn };
        summary.backup_ends.items.push(end(Lsn(0x0100_0028)));
        assert!(!has_end(&[&summary], start, stop));
        summary.backup_ends.items.push(end(start));
        assert!(has_end(&[&summary], start, stop));
    }
}
