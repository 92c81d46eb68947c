//! The trailer of a WAL object, as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_engine::archive::trailer::Trailer;
use pgrecall_store::Key;

fuzz_target!(|bytes: &[u8]| {
    let name = Key::parse("clusters/c/1/wal/x").expect("a name");
    let Ok(trailer) = Trailer::decode(&name, bytes) else { return };
    let _ = trailer.timelines();
    assert_eq!(Trailer::decode(&name, &trailer.encode()).expect("what is written reads"), trailer);
});
