//! Seeds out of what real PostgreSQL servers wrote, one of each kind a major.

use std::collections::BTreeSet;

use pgrecall_pgformat::resource_manager::ResourceManager;
use pgrecall_pgformat::segment_digest::{Visited, digest_segment, visit_segment};
use pgrecall_pgformat::{Major, SegmentName, SegmentSize};

use crate::corpus::{Corpus, fixtures};

const PAGE_BYTES: usize = 8192;
/// Longer ones only make the fuzzer slow.
const RECORD_BYTES_MAX: usize = 2048;

pub(crate) fn write(corpus: &Corpus) {
    for (number, major) in (0_u8..).zip(Major::ALL) {
        for (name, bytes) in fixtures(&format!("pg/{}", major.number())) {
            if name == "pg_control" {
                corpus.add("control_file", &bytes[..320]);
            }
            if let Some(segment) = name.strip_suffix(".head") {
                corpus.add("file_name", segment.as_bytes());
                write_segment(corpus, number, segment, &bytes);
            }
        }
    }
}

fn write_segment(corpus: &Corpus, major: u8, segment: &str, head: &[u8]) {
    let size = SegmentSize::from_bytes(1 << 20).expect("a size");
    let name = SegmentName::parse(segment, size).expect("a segment's name");
    for pages in [1, 3] {
        let wal = [&[7], &head[..pages * PAGE_BYTES]].concat();
        corpus.add("wal_stream", &wal);
        corpus.add("segment_digest", &wal);
    }
    // Two pages with a record that goes on from one to the other; its summary has a tail.
    let cut = digest_segment(name, size, &head[..PAGE_BYTES]);
    let whole = digest_segment(name, size, head);
    let json = |summary| serde_json::to_vec(summary).expect("a summary is JSON");
    corpus.add("segment_summary", &json(&whole));
    corpus.add("segment_summary", &[json(&cut), vec![0], json(&whole)].concat());
    let mut seen = BTreeSet::new();
    let mut images = 0;
    visit_segment(name, size, head, &mut |visited| {
        let header = visited.record.header;
        let bytes = visited.record.bytes;
        if bytes.len() <= RECORD_BYTES_MAX
            && seen.insert((header.resource_manager.0, header.info & 0xF0, bytes.len() > 256))
        {
            corpus.add("wal_record", &[&[major], bytes].concat());
            write_transaction(corpus, major, &visited);
        }
        if images < 2 && write_page(corpus, &visited) {
            images += 1;
        }
    });
}

fn write_transaction(corpus: &Corpus, major: u8, visited: &Visited<'_>) {
    let header = visited.record.header;
    if header.resource_manager == ResourceManager::TRANSACTION {
        let body = visited.record.decode_body(&mut Vec::new()).expect("a sound record");
        corpus.add("transaction_record", &[&[major, header.info], body.main_data].concat());
    }
}

/// A page as an image in WAL has it, its hole filled again.
fn write_page(corpus: &Corpus, visited: &Visited<'_>) -> bool {
    let mut blocks = Vec::new();
    if visited.record.decode_body(&mut blocks).is_err() {
        return false;
    }
    let Some(image) = blocks.iter().find_map(|block| block.image) else { return false };
    let Some(stored) = visited.record.image_bytes(&image) else { return false };
    let hole = usize::from(image.hole_offset).min(stored.len());
    let mut page = stored[..hole].to_vec();
    page.resize(hole + usize::from(image.hole_len), 0);
    page.extend_from_slice(&stored[hole..]);
    corpus.add("data_page", &[&[0], page.as_slice()].concat());
    corpus.add("data_page", &[&[1], page.as_slice()].concat());
    true
}
