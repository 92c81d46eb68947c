//! `global/pg_control`, of any length, with its checksum put right where each layout has it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::Major;
use pgrecall_pgformat::control::{CONTROL_FILE_SIZE_BYTES, Checkpoint, ControlFile};

fuzz_target!(|bytes: &[u8]| {
    let _ = ControlFile::decode(bytes);
    for major in Major::ALL {
        let _ = Checkpoint::decode(bytes, major);
    }
    let mut file = bytes.to_vec();
    file.resize(CONTROL_FILE_SIZE_BYTES, 0);
    // Where the checksum lies: 14 to 17, 18, and 19.
    for at in [288, 292, 308] {
        let crc = crc32c::crc32c(&file[..at]);
        file[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        let _ = ControlFile::decode(&file);
    }
});
