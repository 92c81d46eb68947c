//! The call works, but its answer gets lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use pgrecall_store::{ErrorKind, Store, StoreError};

use super::calls::Calls;
use super::hooked::{Call, Hook, Hooked};

/// Loses the answers of the first so many chosen calls: puts become unknown, all else unavailable.
#[derive(Debug)]
pub struct LoseAnswer {
    calls: Calls,
    first: u64,
    seen: AtomicU64,
}

impl LoseAnswer {
    /// Loses the answers of the first `first` of the chosen calls.
    pub fn over(inner: Arc<dyn Store>, calls: Calls, first: u64) -> Arc<Hooked<Self>> {
        Hooked::new(inner, Self { calls, first, seen: AtomicU64::new(0) })
    }

    /// How many answers were lost.
    pub fn lost(&self) -> u64 {
        self.seen.load(Ordering::SeqCst).min(self.first)
    }
}

#[async_trait]
impl Hook for LoseAnswer {
    async fn after(&self, call: &Call, _: u64) -> Result<(), StoreError> {
        if !self.calls.matches(call.kind, &call.name) {
            return Ok(());
        }
        match self.seen.fetch_add(1, Ordering::SeqCst) < self.first {
            true => Err(call.error(ErrorKind::Unavailable, "planted loss of the answer")),
            false => Ok(()),
        }
    }
}
