//! Seeds of sequences of operations: made up, since no real one is written down anywhere.

use crate::corpus::Corpus;

/// What seldom comes about by chance, by the numbers that `sequence.rs` of the engine's tests has:
/// an operation, what it concerns, and which chunks it stores.
const TOLD: [&[u8]; 5] = [
    // Two backups that have chunks in common, one expires, and what only it needs goes.
    &[0, 0, 5, 0, 64, 0, 0, 5, 0, 130, 12, 0, 17, 0, 17, 0],
    // A hold comes between an expiry's plan and its end.
    &[0, 0, 5, 0, 64, 0, 0, 5, 0, 200, 10, 0, 13, 0, 11, 0, 14, 0, 12, 0],
    // Packs are retired while a backup is under way, which is taken for dead.
    &[0, 0, 5, 0, 64, 0, 0, 3, 0, 64, 18, 0, 15, 3, 16, 0, 7, 0, 17, 0],
    // The index is lost, a backup stores all again, and it is repaired and merged.
    &[0, 0, 5, 0, 255, 22, 0, 22, 3, 0, 0, 5, 0, 255, 23, 0, 19, 0, 17, 0],
    // The keys are rotated, both ways, and chunks of each epoch are copied.
    &[0, 0, 5, 0, 255, 20, 0, 0, 0, 5, 0, 255, 20, 1, 0, 0, 5, 0, 200, 12, 1, 17, 0, 21, 0],
];

/// Others, by chance.
const DRAWN: u64 = 40;

pub(crate) fn write(corpus: &Corpus) {
    for told in TOLD {
        corpus.add("operations", told);
    }
    let mut state = 1_u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..DRAWN {
        let len = 10 + draw() % 80;
        let bytes: Vec<u8> = (0..len).map(|_| (draw() >> 24) as u8).collect();
        corpus.add("operations", &bytes);
    }
}
