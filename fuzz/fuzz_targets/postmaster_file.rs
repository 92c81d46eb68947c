//! `postmaster.pid`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgserver::PostmasterFile;

fuzz_target!(|text: &str| {
    let Ok(file) = PostmasterFile::parse(text) else { return };
    let _ = file.host();
});
