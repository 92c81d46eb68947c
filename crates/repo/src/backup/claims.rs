//! What a backup stores itself, and which old chunks it refers to.

use std::collections::HashSet;

use crate::format::document::DamagedChunk;
use crate::id::ChunkId;
use crate::index::{Short, short};

/// Old chunks that are read back before the manifest: 0.1 %, at least 8, at most 256.
const SAMPLE_MAX: usize = 256;
const SAMPLE_MIN: u64 = 8;

/// What the threads of a backup have agreed upon.
#[derive(Debug)]
pub(super) struct Claims {
    /// Chunks stored by this backup, or being stored.
    fresh: HashSet<Short>,
    /// Old chunks that this backup found bad: they are stored again.
    bad: HashSet<Short>,
    /// Those of them that are in no note yet.
    unnoted: Vec<DamagedChunk>,
    /// A sample of old chunks that the backup refers to, and how many it was drawn from.
    sample: Vec<ChunkId>,
    old: u64,
    draw: u64,
}

impl Claims {
    /// Nothing yet; `seed` is random.
    pub(super) fn new(seed: u64) -> Self {
        let (fresh, bad) = (HashSet::new(), HashSet::new());
        // The generator stays at zero for ever.
        let draw = seed.max(1);
        Self { fresh, bad, unnoted: Vec::new(), sample: Vec::new(), old: 0, draw }
    }

    /// Takes it upon the caller to store the chunk, unless somebody else has.
    pub(super) fn store(&mut self, chunk: &ChunkId) -> bool {
        self.fresh.insert(short(chunk))
    }

    pub(super) fn stores(&self, chunk: &ChunkId) -> bool {
        self.fresh.contains(&short(chunk))
    }

    pub(super) fn is_bad(&self, chunk: &ChunkId) -> bool {
        !self.bad.is_empty() && self.bad.contains(&short(chunk))
    }

    /// An old chunk was found bad.
    pub(super) fn found_bad(&mut self, damaged: DamagedChunk) {
        if self.bad.insert(short(&damaged.chunk)) {
            self.unnoted.push(damaged);
        }
    }

    /// What was found bad and is to be noted now.
    pub(super) fn take_unnoted(&mut self) -> Vec<DamagedChunk> {
        std::mem::take(&mut self.unnoted)
    }

    /// Refers to an old chunk: reservoir sampling.
    pub(super) fn refer(&mut self, chunk: &ChunkId) {
        self.old += 1;
        if self.sample.len() < SAMPLE_MAX {
            self.sample.push(*chunk);
            return;
        }
        let at = self.draw_below(self.old);
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| self.sample.get_mut(at)) {
            *slot = *chunk;
        }
    }

    /// The chunks to read back, each of those referred to as likely as any other.
    pub(super) fn draw_sample(&mut self) -> Vec<ChunkId> {
        let wanted = (self.old / 1000).max(SAMPLE_MIN);
        let mut left = self.sample.clone();
        let count = usize::try_from(wanted).unwrap_or(SAMPLE_MAX).min(left.len());
        let mut drawn = Vec::with_capacity(count);
        for _ in 0..count {
            let at = self.draw_below(left.len() as u64);
            drawn.push(left.swap_remove(usize::try_from(at).unwrap_or(0)));
        }
        drawn
    }

    /// xorshift64*: which chunks are read back need not be secret, only spread.
    fn draw_below(&mut self, end: u64) -> u64 {
        self.draw ^= self.draw >> 12;
        self.draw ^= self.draw << 25;
        self.draw ^= self.draw >> 27;
        (self.draw.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u64) -> ChunkId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        ChunkId::from_bytes(id)
    }

    #[test]
    fn every_chunk_referred_to_may_be_read_back() {
        for total in [20, 300] {
            let mut seen = HashSet::new();
            for seed in 1..2000_u64 {
                let mut claims = Claims::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                (0..total).for_each(|n| claims.refer(&chunk(n)));
                let drawn = claims.draw_sample();
                assert_eq!(drawn.len(), 8);
                assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 8, "none twice");
                seen.extend(drawn);
            }
            assert_eq!(seen.len() as u64, total);
        }
    }
}
