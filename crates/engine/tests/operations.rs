//! Whatever is done to a repository, one thing after the other: it has the backups that it was
//! given, byte for byte, and no others. `fuzz/fuzz_targets/operations.rs` runs the same sequences.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use pgrecall_testkit::{chunked_backups, repositories};

#[path = "operations/ground.rs"]
mod ground;
#[path = "operations/model.rs"]
mod model;
#[path = "operations/sequence.rs"]
mod sequence;

/// Sequences, unless the environment says otherwise.
const SEQUENCES: u64 = 300;

/// Bytes of a sequence: an operation takes two or three.
const BYTES: u64 = 90;

/// SplitMix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[tokio::test]
async fn a_repository_has_what_it_was_given_whatever_is_done_to_it() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let from: u64 = number("PGRECALL_SEQUENCES_FROM").unwrap_or(0);
    let count: u64 = number("PGRECALL_SEQUENCES").unwrap_or(SEQUENCES);
    for seed in from..from + count {
        let mut state = seed;
        let len = 1 + draw(&mut state) % BYTES;
        let bytes: Vec<u8> = (0..len).map(|_| draw(&mut state) as u8).collect();
        let ran = AssertUnwindSafe(sequence::run(&bytes)).catch_unwind().await;
        assert!(ran.is_ok(), "sequence {seed} went wrong, as told above");
    }
}
