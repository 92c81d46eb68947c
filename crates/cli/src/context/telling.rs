//! From the engine's events to what a person sees: a bar on a terminal, log lines elsewhere.

use std::sync::{Arc, Mutex, PoisonError};

use pgrecall_engine::progress::{Event, Progress, Sink};

use crate::output::progress::{self, ProgressSink};

/// Progress for one operation. Dropped or finished, it leaves nothing on the terminal.
pub(crate) struct Telling {
    shared: Arc<Shared>,
}

struct Shared {
    sink: Box<dyn ProgressSink>,
    state: Mutex<progress::Progress>,
}

impl Telling {
    /// The one that fits standard error.
    pub(crate) fn new() -> Self {
        let state = progress::Progress { phase: String::new(), done_bytes: 0, total_bytes: None };
        Self { shared: Arc::new(Shared { sink: progress::sink(), state: Mutex::new(state) }) }
    }

    /// What the engine takes.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(Listener(Arc::clone(&self.shared)))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.shared.sink.finish();
    }
}

struct Listener(Arc<Shared>);

impl Sink for Listener {
    fn event(&self, event: Event) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Phase { name, total_bytes } => {
                *state = progress::Progress { phase: name.to_owned(), done_bytes: 0, total_bytes };
            }
            Event::Advance { bytes } => state.done_bytes = state.done_bytes.saturating_add(bytes),
            Event::Note { text } => {
                self.0.sink.note(&text);
                return;
            }
        }
        self.0.sink.update(&state);
    }
}
