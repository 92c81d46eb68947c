//! A chunk of a file table, with the maps that stand in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::format::map::FileMap;
use pgrecall_repo::format::table::{self, PieceMap};

fuzz_target!(|bytes: &[u8]| {
    let Ok(entries) = table::decode(bytes) else { return };
    for entry in &entries {
        let path = entry.path.as_bytes();
        assert!(!path.is_empty() && !path.split(|byte| *byte == b'/').any(|part| part == b".."));
        let _ = entry.len();
        for piece in entry.pieces() {
            if let PieceMap::Inline(map) = &piece.map {
                let _ = FileMap::decode(map);
            }
        }
    }
    assert_eq!(table::decode(&table::encode(&entries)).as_ref(), Ok(&entries));
});
