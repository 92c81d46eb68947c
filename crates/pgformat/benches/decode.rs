//! Speed of what backup and archiving do to every byte: page checksums.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgrecall_pgformat::page_check::page_checksum;

fn page_checksums(c: &mut Criterion) {
    let pages: Vec<u8> = (0..8192_u32 * 32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut group = c.benchmark_group("page_check");
    group.throughput(Throughput::Bytes(pages.len() as u64));
    group.bench_function("page_checksum", |b| {
        b.iter(|| {
            pages
                .chunks_exact(8192)
                .zip(0_u32..)
                .map(|(page, block)| page_checksum(black_box(page), block).map_or(0, u64::from))
                .sum::<u64>()
        });
    });
    group.finish();
}

criterion_group!(benches, page_checksums);
criterion_main!(benches);
