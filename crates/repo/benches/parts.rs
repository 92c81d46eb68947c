//! What a chunk of a backup costs, part by part: the bare loop of library calls that no arrangement
//! can do without, and what comes on top of it.
//!
//! `PGRECALL_BENCH_FILE` names a relation's file to take pages from, such as that of
//! `pgbench_accounts`; without it pages like those are made up.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgrecall_repo::codec::{Level, compress};
use pgrecall_repo::format::frame::{Codec, FrameCipher, Place};
use pgrecall_repo::format::header::{Kind, Suite};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::keys::{Keys, first_domain_keys};
use pgrecall_repo::random::SharedRandom;
use zeroize::Zeroizing;

const PAGE_BYTES: usize = 8192;
const CHUNK_BYTES: usize = 256 << 10;

/// Pages as pgbench fills them: a few digits and 84 blanks in a row.
fn made_up(number: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    let mut id = number * 2000;
    while bytes.len() < CHUNK_BYTES {
        id += 1;
        bytes.extend_from_slice(&[0, 0, 0, 0, 2, 8, 24, 0]);
        bytes.extend_from_slice(&u32::try_from(id).unwrap_or_default().to_le_bytes());
        bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0xab]);
        bytes.extend_from_slice(&[b' '; 84]);
    }
    bytes.truncate(CHUNK_BYTES);
    bytes
}

fn chunks() -> Vec<Vec<u8>> {
    match std::env::var_os("PGRECALL_BENCH_FILE").map(PathBuf::from) {
        None => (0..64).map(made_up).collect(),
        Some(path) => {
            let bytes = std::fs::read(path).expect("the file is read");
            bytes.chunks_exact(CHUNK_BYTES).take(1024).map(<[u8]>::to_vec).collect()
        }
    }
}

fn parts(criterion: &mut Criterion) {
    let chunks = chunks();
    let document = first_domain_keys(&SharedRandom::system());
    let domain = "main".parse().expect("a name");
    let keys = Keys::of_domain(Suite::Aes256Gcm, &domain, &[document], &[]).expect("keys");
    let key = Zeroizing::new([7; 32]);
    let cipher = FrameCipher::new(Suite::Aes256Gcm, &key, Kind::DataPack, "main", "pack");
    let seal = |chunk: ChunkId, plain: &[u8], packed: &mut Vec<u8>, out: &mut Vec<u8>| {
        let codec = compress(plain, Level(1), packed);
        let payload = if codec == Codec::Stored { plain } else { packed };
        out.clear();
        cipher.seal(out, Place::chunk(0, chunk), codec, plain.len(), payload).expect("it fits")
    };
    let mut group = criterion.benchmark_group("a chunk");
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
    let mut next = (0..chunks.len()).cycle();
    let mut take = || &chunks[next.next().unwrap_or_default()];
    group.bench_function("HMAC-SHA-256", |b| b.iter(|| keys.chunk_id(black_box(take()))));
    let mut packed = Vec::new();
    group.bench_function("zstd 1", |b| {
        b.iter(|| compress(black_box(take()), Level(1), &mut packed));
    });
    let (mut packed, mut out) = (Vec::new(), Vec::new());
    group.bench_function("zstd 1 and AES-256-GCM", |b| {
        b.iter(|| seal(ChunkId::from_bytes([1; 32]), black_box(take()), &mut packed, &mut out));
    });
    group.bench_function("the bare loop: all three", |b| {
        b.iter(|| {
            let plain = black_box(take());
            seal(keys.chunk_id(plain), plain, &mut packed, &mut out)
        });
    });
    group.bench_function("page hashes", |b| {
        b.iter(|| {
            take()
                .chunks(PAGE_BYTES)
                .map(|page| keys.page_hash(black_box(page)))
                .fold(0, |a, h| a ^ h)
        });
    });
    group.finish();
}

criterion_group!(benches, parts);
criterion_main!(benches);
