//! One WAL record: its header, the headers of its blocks, and what it says. The first byte picks
//! the major.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::event::Event;
use pgrecall_pgformat::record::{Record, RecordHeader};
use pgrecall_pgformat::{Lsn, Major, TimelineId};

fuzz_target!(|bytes: &[u8]| {
    let Some((&major, bytes)) = bytes.split_first() else { return };
    let major = Major::ALL[usize::from(major) % Major::ALL.len()];
    let Some(header) = RecordHeader::decode(bytes) else { return };
    let (lsn, end_lsn) = (Lsn(0x0100_0028), Lsn(0x0100_0100));
    let record = Record { lsn, end_lsn, timeline: TimelineId(1), major, header, bytes };
    let mut blocks = Vec::new();
    let Ok(body) = record.decode_body(&mut blocks) else { return };
    let _ = Event::decode(&record, &body);
    for block in &blocks {
        assert!(record.block_data(block).is_some());
        assert!(block.image.as_ref().is_none_or(|image| record.image_bytes(image).is_some()));
    }
});
