//! The text of a key file or of restore keys, as a person types it in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::keys::{KeyFile, RestoreKey};

fuzz_target!(|text: &str| {
    if let Ok(key) = KeyFile::parse(text) {
        assert_eq!(key.to_text().trim(), text.trim());
    }
    if let Ok(keys) = RestoreKey::parse_all(text) {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        assert!(keys.iter().map(|key| key.to_text().trim().to_owned()).eq(lines));
    }
});
