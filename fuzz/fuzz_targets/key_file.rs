//! The text of a key file, as a person types it in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::keys::KeyFile;

fuzz_target!(|text: &str| {
    let Ok(key) = KeyFile::parse(text) else { return };
    assert_eq!(key.to_text().trim(), text.trim());
});
