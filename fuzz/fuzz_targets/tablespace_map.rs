//! `tablespace_map`; what was read is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::tablespace_map;

fuzz_target!(|bytes: &[u8]| {
    let Ok(links) = tablespace_map::parse(bytes) else { return };
    assert_eq!(tablespace_map::parse(&tablespace_map::compose(&links)).as_ref(), Ok(&links));
});
