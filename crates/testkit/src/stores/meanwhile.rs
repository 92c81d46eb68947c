//! Something else happens, from its beginning to its end, just before the Nth call.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pgrecall_store::{Store, StoreError};

use super::hooked::{Call, Hook, Hooked};

type Event = Box<dyn FnOnce() + Send>;

/// Lets something happen before the Nth call.
pub struct Meanwhile {
    nth: u64,
    seen: AtomicU64,
    event: Mutex<Option<Event>>,
}

impl Meanwhile {
    /// Runs `event` on a thread and in a runtime of its own before the Nth call (from 1). It has to
    /// go by another store than this one.
    pub fn over<F: Future<Output = ()>>(
        inner: Arc<dyn Store>,
        nth: u64,
        event: impl FnOnce() -> F + Send + 'static,
    ) -> Arc<Hooked<Self>> {
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(event());
        };
        let event = Mutex::new(Some(Box::new(run) as Event));
        Hooked::new(inner, Self { nth, seen: AtomicU64::new(0), event })
    }

    /// Whether it has happened.
    pub fn has_happened(&self) -> bool {
        self.event.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Meanwhile({})", self.nth)
    }
}

#[async_trait]
impl Hook for Meanwhile {
    async fn before(&self, _: &Call) -> Result<(), StoreError> {
        if self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.nth {
            let event = self.event.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(event) = event {
                std::thread::spawn(event).join().expect("what happens meanwhile goes well");
            }
        }
        Ok(())
    }
}
