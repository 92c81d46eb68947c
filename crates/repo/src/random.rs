//! Randomness is handed in, so that a whole run can be replayed from a seed.

use std::fmt;
use std::sync::Arc;

/// A source of random bytes. Ids, salts and keys come from it: in production it must be the
/// operating system's.
pub trait Random: Send + Sync + 'static {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// A shared source of randomness.
#[derive(Clone)]
pub struct SharedRandom(Arc<dyn Random>);

impl fmt::Debug for SharedRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedRandom")
    }
}

impl SharedRandom {
    /// Wraps a source.
    pub fn new(source: impl Random) -> Self {
        Self(Arc::new(source))
    }

    /// The operating system's generator.
    #[must_use]
    pub fn system() -> Self {
        Self::new(SystemRandom)
    }

    /// `N` random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// Fills the buffer.
    pub fn fill(&self, buffer: &mut [u8]) {
        self.0.fill(buffer);
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::expect_used, reason = "no bytes from outside decide whether there is chance")]
    fn fill(&self, buffer: &mut [u8]) {
        // A system without randomness cannot make a key or a name that is never used twice:
        // there is nothing sensible left to do.
        getrandom::fill(buffer).expect("the operating system has a source of randomness");
    }
}
