//! The directory of a pack.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::format::pack::{decode_directory, encode_directory};

fuzz_target!(|bytes: &[u8]| {
    let Ok(entries) = decode_directory(bytes) else { return };
    assert_eq!(encode_directory(&entries), bytes);
});
