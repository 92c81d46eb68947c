//! A block of an index object; the first byte says how many packs its head names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::format::index::{decode_block, encode_block};

fuzz_target!(|bytes: &[u8]| {
    let Some((&packs, block)) = bytes.split_first() else { return };
    let Ok(entries) = decode_block(block, packs.into()) else { return };
    assert_eq!(encode_block(&entries), block);
});
