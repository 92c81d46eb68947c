//! All chance of a run, from one seed.

use std::sync::{Mutex, PoisonError};

use pgrecall_repo::random::{Random, SharedRandom};

/// A generator of numbers (SplitMix64): the same seed, the same numbers, on every machine.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// A generator with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    /// A place in a list of that length.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// True in so many of a thousand cases.
    pub fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// A generator of its own for a part of the run.
    pub fn branch(&mut self) -> Self {
        Self(self.draw())
    }

    /// As the product takes randomness.
    #[must_use]
    pub fn shared(self) -> SharedRandom {
        SharedRandom::new(Source(Mutex::new(self)))
    }
}

struct Source(Mutex<Chance>);

impl Random for Source {
    fn fill(&self, buffer: &mut [u8]) {
        let mut chance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for part in buffer.chunks_mut(8) {
            part.copy_from_slice(&chance.draw().to_le_bytes()[..part.len()]);
        }
    }
}
