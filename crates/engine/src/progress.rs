//! What an operation tells while it runs. It prints nothing itself.

use std::fmt;
use std::sync::Arc;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A phase began; its total in bytes, where it is known.
    Phase {
        /// A few words, such as "copying files".
        name: &'static str,
        /// Bytes to do.
        total_bytes: Option<u64>,
    },
    /// So many more bytes of the phase are done.
    Advance {
        /// Bytes.
        bytes: u64,
    },
    /// Something that a person should know and that is no error.
    Note {
        /// A sentence.
        text: String,
    },
}

/// Takes events, from several threads.
pub trait Sink: Send + Sync + 'static {
    /// One event.
    fn event(&self, event: Event);
}

/// A shared sink.
#[derive(Clone)]
pub struct Progress(Arc<dyn Sink>);

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

impl Progress {
    /// Wraps a sink.
    pub fn new(sink: impl Sink) -> Self {
        Self(Arc::new(sink))
    }

    /// Nobody listens.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(Silent)
    }

    /// A phase begins.
    pub fn phase(&self, name: &'static str, total_bytes: Option<u64>) {
        self.0.event(Event::Phase { name, total_bytes });
    }

    /// So many more bytes are done.
    pub fn advance(&self, bytes: u64) {
        self.0.event(Event::Advance { bytes });
    }

    /// Something that a person should know.
    pub fn note(&self, text: impl Into<String>) {
        self.0.event(Event::Note { text: text.into() });
    }
}

struct Silent;

impl Sink for Silent {
    fn event(&self, _: Event) {}
}
