//! Every call, written down: what an operation costs, and that nothing is put twice.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pgrecall_store::{Store, StoreError};

use super::calls::{CallKind, Calls};
use super::hooked::{Call, Hook, Hooked};

/// One call that came through to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The method.
    pub kind: CallKind,
    /// The key, or the prefix of a listing.
    pub name: String,
    /// Bytes sent by a put.
    pub sent_bytes: u64,
    /// Bytes returned by a get; known once it has been answered.
    pub received_bytes: u64,
}

/// Writes down every call, in the order in which they began.
#[derive(Debug, Default)]
pub struct Record {
    log: Mutex<Vec<Recorded>>,
}

impl Record {
    /// Records the calls of that store.
    pub fn over(inner: Arc<dyn Store>) -> Arc<Hooked<Self>> {
        Hooked::new(inner, Self::default())
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Recorded> {
        self.with(|log| log.clone())
    }

    /// How many of the calls so far are among the chosen ones.
    pub fn count(&self, calls: &Calls) -> usize {
        self.with(|log| log.iter().filter(|call| calls.matches(call.kind, &call.name)).count())
    }

    /// Bytes that the chosen calls have sent.
    pub fn sent_bytes(&self, calls: &Calls) -> u64 {
        let chosen = |call: &&Recorded| calls.matches(call.kind, &call.name);
        self.with(|log| log.iter().filter(chosen).map(|call| call.sent_bytes).sum())
    }

    /// Bytes that the chosen calls have received.
    pub fn received_bytes(&self, calls: &Calls) -> u64 {
        let chosen = |call: &&Recorded| calls.matches(call.kind, &call.name);
        self.with(|log| log.iter().filter(chosen).map(|call| call.received_bytes).sum())
    }

    /// Forgets what was recorded.
    pub fn clear(&self) {
        self.with(Vec::clear);
    }

    fn with<T>(&self, look: impl FnOnce(&mut Vec<Recorded>) -> T) -> T {
        look(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Hook for Record {
    async fn before(&self, call: &Call) -> Result<(), StoreError> {
        let Call { kind, name, sent_bytes } = call.clone();
        self.with(|log| log.push(Recorded { kind, name, sent_bytes, received_bytes: 0 }));
        Ok(())
    }

    async fn after(&self, call: &Call, received_bytes: u64) -> Result<(), StoreError> {
        self.with(|log| {
            // With equal calls under way at once it does not matter which of them gets the bytes.
            let same = |made: &&mut Recorded| {
                made.kind == call.kind && made.name == call.name && made.received_bytes == 0
            };
            if let Some(made) = log.iter_mut().find(same) {
                made.received_bytes = received_bytes;
            }
        });
        Ok(())
    }
}
