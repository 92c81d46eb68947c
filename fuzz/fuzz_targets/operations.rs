//! Sequences of everything that is done to a repository, as `crates/engine/tests/operations.rs`
//! runs them: after each operation it has the backups that it was given, and no others.
#![no_main]

#[path = "../../crates/testkit/src/chunked_backups.rs"]
#[allow(dead_code, reason = "what other tests use and this does not")]
mod chunked_backups;
#[path = "../../crates/engine/tests/operations/ground.rs"]
mod ground;
#[path = "../../crates/engine/tests/operations/model.rs"]
mod model;
#[path = "../../crates/testkit/src/repositories.rs"]
#[allow(dead_code, reason = "what other tests use and this does not")]
mod repositories;
#[path = "../../crates/engine/tests/operations/sequence.rs"]
mod sequence;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(sequence::run(bytes));
});
