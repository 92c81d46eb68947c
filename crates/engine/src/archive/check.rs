//! Whether a file is what its name says, before it is acknowledged under that name.

use pgrecall_pgformat::page::PageHeader;
use pgrecall_pgformat::segment_summary::{SegmentEnd, SegmentSummary};
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::{ArchiveName, SegmentName};

use crate::cluster::ClusterFacts;
use crate::error::{EngineError, ErrorKind};

/// Nothing but segments is longer: history files take a line for each timeline.
pub(super) const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;

/// The largest file that may have this name.
pub(super) fn limit_bytes(name: ArchiveName, facts: &ClusterFacts) -> u64 {
    match name {
        ArchiveName::Segment(_) | ArchiveName::Partial(_) => facts.wal_segment_size.bytes().into(),
        ArchiveName::History(_) | ArchiveName::BackupHistory { .. } => SMALL_FILE_BYTES_MAX,
    }
}

/// Checks what can be told by a file's size and its first frame.
pub(super) fn before_walk(
    name: ArchiveName,
    size: u64,
    first: &[u8],
    facts: &ClusterFacts,
) -> Result<(), EngineError> {
    match name {
        ArchiveName::Segment(segment) | ArchiveName::Partial(segment) => {
            first_page(name, segment, (size, first), facts)
        }
        // As long as a frame at most, so that this is all of it.
        ArchiveName::History(timeline) => match History::parse(timeline, first) {
            Ok(_) => Ok(()),
            Err(source) => {
                let path = name.file_name(facts.wal_segment_size);
                Err(EngineError::Postgres { path, source })
            }
        },
        ArchiveName::BackupHistory { .. } => Ok(()),
    }
}

fn first_page(
    name: ArchiveName,
    segment: SegmentName,
    (found_bytes, first): (u64, &[u8]),
    facts: &ClusterFacts,
) -> Result<(), EngineError> {
    let size = facts.wal_segment_size;
    let file = name.file_name(size);
    let unfit = |what: &str, expected: String, found: String| {
        let message = format!("{file} does not fit: {what} is {found}, expected {expected}");
        Err(EngineError::refused(ErrorKind::Invalid, message))
    };
    let other = |what: &str, expected: String, found: String| {
        unfit(what, expected, found).map_err(|error| {
            error.hint(
                "The file belongs to another cluster, or --pgdata names another cluster's data \
                 directory.",
            )
        })
    };
    if found_bytes != u64::from(size.bytes()) {
        return unfit("its size in bytes", size.bytes().to_string(), found_bytes.to_string());
    }
    let header = PageHeader::decode(first).filter(|header| header.long.is_some());
    let Some((header, long)) = header.and_then(|header| Some((header, header.long?))) else {
        return unfit("its first page", "a segment's first page".into(), "something else".into());
    };
    let expected = format!("PostgreSQL {}", facts.major.number());
    match header.major() {
        None => {
            let expected = format!("the magic number of {expected}");
            return unfit("the first page's magic", expected, format!("{:04X}", header.magic));
        }
        Some(major) if major != facts.major => {
            let found = format!("PostgreSQL {}", major.number());
            return other("the major that wrote it", expected, found);
        }
        Some(_) => {}
    }
    if long.system_identifier != facts.system_identifier {
        let (expected, found) = (facts.system_identifier, long.system_identifier);
        return other("the system identifier", expected.to_string(), found.to_string());
    }
    if long.segment_size_bytes != size.bytes() {
        let (expected, found) = (size.bytes(), long.segment_size_bytes);
        return other("the segment size in bytes", expected.to_string(), found.to_string());
    }
    let start = segment.number.start(size);
    if header.address != start {
        return unfit("the first page's address", start.to_string(), header.address.to_string());
    }
    timeline_fits(&file, segment, header.timeline.0)
}

fn timeline_fits(file: &str, segment: SegmentName, found: u32) -> Result<(), EngineError> {
    let named = segment.timeline.0;
    if (1..=named).contains(&found) {
        return Ok(());
    }
    let message = format!(
        "{file} does not fit: it has pages of timeline {found}, and its name says timeline {named}"
    );
    Err(EngineError::refused(ErrorKind::Invalid, message))
}

/// Checks what the walk found: refuses timelines above the name's, and words what is wrong with
/// WAL that is archived all the same.
pub(super) fn after_walk(
    name: ArchiveName,
    file: &str,
    summary: &SegmentSummary,
) -> Result<Vec<String>, EngineError> {
    for start in &summary.timelines {
        timeline_fits(file, summary.name, start.timeline.0)?;
    }
    let SegmentEnd::Early(end) = summary.end else { return Ok(Vec::new()) };
    if let Some(bad) = summary.bad_checksum {
        // The end of a partial segment looks the same: what came after it was never written.
        if matches!(name, ArchiveName::Segment(_)) {
            return Ok(vec![format!(
                "{file}: the WAL record at {} is DAMAGED (its checksum is {:08X}, its bytes give \
                 {:08X}). The segment is archived as it is, but no recovery gets past this \
                 record: take a new backup now.",
                bad.lsn, bad.found, bad.expected
            )]);
        }
    }
    if matches!(name, ArchiveName::Segment(_)) {
        return Ok(vec![format!(
            "{file}: its WAL ENDS EARLY at {} ({:?}). The segment is archived as it is, but no \
             recovery gets past this point: take a new backup now.",
            end.lsn, end.reason
        )]);
    }
    Ok(Vec::new())
}
