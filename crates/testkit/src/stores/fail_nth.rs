//! The Nth call fails before it has any effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use pgrecall_store::{ErrorKind, Store, StoreError};

use super::calls::Calls;
use super::hooked::{Call, Hook, Hooked};

/// How long a failure lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// The Nth call alone fails.
    Once,
    /// The Nth call and all after it fail, as when the machine has lost the store, or the process
    /// has died.
    ForEver,
}

/// Fails the Nth of the chosen calls.
#[derive(Debug)]
pub struct FailNth {
    calls: Calls,
    nth: u64,
    lasting: Lasting,
    kind: ErrorKind,
    seen: AtomicU64,
}

impl FailNth {
    /// Fails the Nth (from 1) of the chosen calls with an error of that kind; 0 never fails, and
    /// counts.
    pub fn over(
        inner: Arc<dyn Store>,
        calls: Calls,
        nth: u64,
        lasting: Lasting,
        kind: ErrorKind,
    ) -> Arc<Hooked<Self>> {
        Hooked::new(inner, Self { calls, nth, lasting, kind, seen: AtomicU64::new(0) })
    }

    /// How many of the chosen calls there were, the failed ones included.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Whether a call has failed.
    pub fn has_failed(&self) -> bool {
        self.nth != 0 && self.seen() >= self.nth
    }
}

#[async_trait]
impl Hook for FailNth {
    async fn before(&self, call: &Call) -> Result<(), StoreError> {
        if !self.calls.matches(call.kind, &call.name) {
            return Ok(());
        }
        let number = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        let fails = match self.lasting {
            Lasting::Once => number == self.nth,
            Lasting::ForEver => self.nth != 0 && number >= self.nth,
        };
        match fails {
            true => Err(call.error(self.kind, &format!("planted failure of call {number}"))),
            false => Ok(()),
        }
    }
}
