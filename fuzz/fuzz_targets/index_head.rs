//! The head of an index object: packs, fences, filter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::format::index::IndexHead;
use pgrecall_repo::id::ChunkId;

fuzz_target!(|bytes: &[u8]| {
    let Ok(head) = IndexHead::decode(bytes) else { return };
    assert_eq!(head.encode(), bytes);
    let wanted = bytes
        .first_chunk::<32>()
        .map_or(ChunkId::from_bytes([7; 32]), |bytes| ChunkId::from_bytes(*bytes));
    let _ = head.block_of(&wanted);
    let _ = head.filter.may_hold(&wanted);
});
