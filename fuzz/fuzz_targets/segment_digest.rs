//! A WAL segment in one pass, whole and in pieces, and what is kept of it.
#![no_main]

mod checksums;

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::segment_digest::{SegmentWalk, digest_segment};
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_pgformat::{SegmentName, SegmentNumber, SegmentSize, TimelineId};

fuzz_target!(|bytes: &[u8]| {
    let Some((&pieces, wal)) = bytes.split_first() else { return };
    let Ok(size) = SegmentSize::from_bytes(1 << 20) else { return };
    let wal = checksums::put_right(wal);
    let number = SegmentNumber::containing(checksums::start(&wal), size);
    let name = SegmentName { timeline: TimelineId(1), number };
    let summary = digest_segment(name, size, &wal);
    let mut walk = SegmentWalk::new(name, size);
    for piece in wal.chunks(64 * (usize::from(pieces) + 1)) {
        walk.feed(piece);
    }
    assert_eq!(walk.finish(), summary);
    let json = serde_json::to_vec(&summary).expect("a summary is JSON");
    let read: SegmentSummary = serde_json::from_slice(&json).expect("and reads again");
    assert_eq!(read, summary);
});
