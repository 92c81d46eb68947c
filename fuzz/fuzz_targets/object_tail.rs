//! The tail of an object and the trailer's frame before it, as they are and with the checksum put
//! right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::format::header::Tail;

fuzz_target!(|bytes: &[u8]| {
    let try_it = |end: &[u8]| {
        if let Ok(tail) = Tail::decode(end) {
            let _ = tail.trailer_frame(end);
        }
    };
    try_it(bytes);
    let Some(start) = bytes.len().checked_sub(16) else { return };
    let mut end = bytes.to_vec();
    let crc = crc32c::crc32c(&end[start..start + 8]);
    end[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    end[start + 12..].copy_from_slice(b"PGRT");
    try_it(&end);
});
