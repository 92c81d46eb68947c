//! The clear header of a sealed object, as it is and with its checksum put right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::format::bytes::Reader;
use pgrecall_repo::format::header::Header;

/// Where the length of the method field lies, and the end of the fields of fixed length.
const METHOD_LEN: std::ops::Range<usize> = 14..16;
const FIXED_BYTES: usize = 88;

fuzz_target!(|bytes: &[u8]| {
    let _ = Header::decode(&mut Reader::new(bytes));
    let mut header = bytes.to_vec();
    let Some(method_len) = header.get(METHOD_LEN) else { return };
    let end = FIXED_BYTES + usize::from(u16::from_le_bytes([method_len[0], method_len[1]]));
    let Some(before) = header.get(..end) else { return };
    let crc = crc32c::crc32c(before).to_le_bytes();
    header.truncate(end);
    header.extend_from_slice(&crc);
    let Ok(read) = Header::decode(&mut Reader::new(&header)) else { return };
    let mut again = Vec::new();
    read.encode(&mut again);
    assert_eq!(again, header);
});
