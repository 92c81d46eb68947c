//! `pgrecall.json`, which anybody who can write to the store could have written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_repo::format::root::Root;

fuzz_target!(|bytes: &[u8]| {
    let Ok(root) = Root::decode(bytes) else { return };
    let again = Root::decode(&root.encode()).expect("what is written reads");
    assert_eq!(again.id, root.id);
});
