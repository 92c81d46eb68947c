//! The time, handed in so that a run can be replayed. Clocks decide what is shown and what is
//! polite, never what is safe.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// Tells the time.
pub trait TimeSource: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;
}

/// A shared clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn TimeSource>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl Clock {
    /// Wraps a source.
    pub fn new(source: impl TimeSource) -> Self {
        Self(Arc::new(source))
    }

    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(System(std::time::Instant::now()))
    }

    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// The wall clock in whole seconds, which read better where nothing rests on more.
    #[must_use]
    pub fn now_in_seconds(&self) -> Timestamp {
        Timestamp::from_second(self.now().as_second()).unwrap_or_default()
    }

    /// [`now_in_seconds`](Self::now_in_seconds), RFC 3339 in UTC.
    #[must_use]
    pub fn now_text(&self) -> String {
        self.now_in_seconds().to_string()
    }

    /// Time since some fixed moment; never goes back.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

struct System(std::time::Instant);

impl TimeSource for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
