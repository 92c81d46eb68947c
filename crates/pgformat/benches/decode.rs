//! Speed of what backup and archiving do to every byte: page checksums, and the walk over a
//! segment.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgrecall_pgformat::page_check::page_checksum;
use pgrecall_pgformat::record::record_checksum;
use pgrecall_pgformat::segment_digest::digest_segment;
use pgrecall_pgformat::{Major, SegmentName, SegmentNumber, SegmentSize, TimelineId};

const PAGE: usize = 8192;
const SEGMENT: usize = 16 << 20;

fn page_checksums(c: &mut Criterion) {
    let pages: Vec<u8> =
        (0..8192_u32 * 32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut group = c.benchmark_group("page_check");
    group.throughput(Throughput::Bytes(pages.len() as u64));
    group.bench_function("page_checksum", |b| {
        b.iter(|| {
            pages
                .chunks_exact(PAGE)
                .zip(0_u32..)
                .map(|(page, block)| page_checksum(black_box(page), block).map_or(0, u64::from))
                .sum::<u64>()
        });
    });
    group.finish();
}

/// A segment full of records; every `image_every`th is as long as one with a full-page image.
fn segment(image_every: usize) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT];
    let (mut at, mut previous, mut count) = (0_usize, 0_u64, 0_usize);
    loop {
        count += 1;
        let len: usize = if count % image_every == 0 { 7000 } else { 40 + count % 120 };
        let mut record = vec![0; 24];
        if len > 255 {
            record.push(254);
            record.extend_from_slice(&(len as u32).to_le_bytes());
        } else {
            record.extend_from_slice(&[255, len as u8]);
        }
        record.extend((0..len).map(|i| (i * 7 + count) as u8));
        // One in twenty is a commit.
        record[17] = if count % 20 == 0 { 1 } else { 10 };
        let total = record.len() as u32;
        record[..4].copy_from_slice(&total.to_le_bytes());
        record[8..16].copy_from_slice(&previous.to_le_bytes());
        let crc = record_checksum(&record).unwrap_or_default();
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        let mut written = 0;
        at = at.next_multiple_of(8);
        while written < record.len() {
            if at == SEGMENT {
                return bytes;
            }
            if at % PAGE == 0 {
                at = page(&mut bytes, at, if written == 0 { 0 } else { record.len() - written });
            }
            if written == 0 {
                previous = (SEGMENT + at) as u64;
            }
            let len = (record.len() - written).min(PAGE - at % PAGE);
            bytes[at..at + len].copy_from_slice(&record[written..written + len]);
            (at, written) = (at + len, written + len);
        }
    }
}

fn page(bytes: &mut [u8], at: usize, remaining: usize) -> usize {
    bytes[at..at + 2].copy_from_slice(&Major::V17.wal_magic().to_le_bytes());
    bytes[at + 2] = u8::from(remaining != 0) | if at == 0 { 2 } else { 0 };
    bytes[at + 4] = 1;
    bytes[at + 8..at + 16].copy_from_slice(&((SEGMENT + at) as u64).to_le_bytes());
    bytes[at + 16..at + 20].copy_from_slice(&(remaining as u32).to_le_bytes());
    if at != 0 {
        return at + 24;
    }
    bytes[32..36].copy_from_slice(&(SEGMENT as u32).to_le_bytes());
    bytes[36..40].copy_from_slice(&(PAGE as u32).to_le_bytes());
    40
}

fn segment_walks(c: &mut Criterion) {
    let name = SegmentName { timeline: TimelineId(1), number: SegmentNumber(1) };
    let mut group = c.benchmark_group("segment_digest");
    group.throughput(Throughput::Bytes(SEGMENT as u64));
    for (kind, image_every) in [("small_records", usize::MAX), ("one_image_in_eight", 8)] {
        let bytes = segment(image_every);
        let summary = digest_segment(name, SegmentSize::DEFAULT, &bytes);
        assert!(summary.is_complete(), "{:?}", summary.end);
        group.bench_function(kind, |b| {
            b.iter(|| digest_segment(name, SegmentSize::DEFAULT, black_box(&bytes)).records);
        });
    }
    group.finish();
}

criterion_group!(benches, page_checksums, segment_walks);
criterion_main!(benches);
