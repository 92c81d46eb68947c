//! Calls that take their time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgrecall_store::{Store, StoreError};

use super::calls::Calls;
use super::hooked::{Call, Hook, Hooked};

/// Waits before each of the chosen calls (by tokio's clock, which tests may pause).
#[derive(Debug)]
pub struct Delay {
    calls: Calls,
    time: Duration,
}

impl Delay {
    /// Waits that long before each of the chosen calls.
    pub fn over(inner: Arc<dyn Store>, calls: Calls, time: Duration) -> Arc<Hooked<Self>> {
        Hooked::new(inner, Self { calls, time })
    }
}

#[async_trait]
impl Hook for Delay {
    async fn before(&self, call: &Call) -> Result<(), StoreError> {
        if self.calls.matches(call.kind, &call.name) {
            tokio::time::sleep(self.time).await;
        }
        Ok(())
    }
}
