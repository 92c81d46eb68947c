//! The summaries of segments in a row, as WAL objects carry them, and the records on the borders
//! between them. A zero byte ends each; the last one is entered twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::SegmentSize;
use pgrecall_pgformat::event::Event;
use pgrecall_pgformat::segment_chain::{Link, SegmentChain};
use pgrecall_pgformat::segment_summary::SegmentSummary;

fuzz_target!(|bytes: &[u8]| {
    let parts = bytes.split(|byte| *byte == 0);
    let mut row: Vec<SegmentSummary> =
        parts.map_while(|part| serde_json::from_slice(part).ok()).collect();
    row.extend(row.last().cloned());
    let Ok(size) = SegmentSize::from_bytes(1 << 20) else { return };
    let mut chain = SegmentChain::new(size);
    for summary in &row {
        let _ = summary.is_complete();
        let Ok(link) = chain.enter(summary) else { return };
        let Link::Joined(spanning) = link else { continue };
        let record = spanning.record();
        if let Ok(body) = record.decode_body(&mut Vec::new()) {
            let _ = Event::decode(&record, &body);
        }
    }
});
