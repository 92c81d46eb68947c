//! A wrap of the repository key, tried with a key file; passphrases would cost Argon2id's time, so
//! they stop at its parameters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::format::wrap::{Wrap, WrapMethod};
use pgrecall_repo::keys::{KeyFile, RepositoryKey, Unlock};

/// The key of the golden repositories.
const KEY: &str = include_str!("../../tests/fixtures/repo/v2/encrypted/key");
const ROOT: &[u8] =
    include_bytes!("../../tests/fixtures/repo/v2/encrypted/repository/pgrecall.json");

fuzz_target!(|bytes: &[u8]| {
    let Ok(wrap) = Wrap::decode(bytes) else { return };
    let _ = wrap.associated();
    if matches!(wrap.method, WrapMethod::KeyFile) {
        let unlock = Unlock::KeyFile(KeyFile::parse(KEY).expect("the golden key"));
        let _ = RepositoryKey::unwrap(&wrap, &unlock, ROOT);
    }
});
