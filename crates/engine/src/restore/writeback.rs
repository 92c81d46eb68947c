//! Having the system begin to write to disk what a restore has written to files, while the
//! processors are at work on the rest; otherwise all of it waits for the very end.
//!
//! That is asked for on a thread of its own: a disk that is behind, as one that is throttled is for
//! seconds, makes whoever asks wait for it.

use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::Advice;

/// Bytes of a file from which on it is worth asking.
const BYTES_MIN: u64 = 1 << 20;

/// Files that wait to be asked about, open until then.
const WAITING_MAX: usize = 128;

/// Bytes that were written to a file.
struct Written {
    file: File,
    from: u64,
    len: NonZeroU64,
}

/// Asks until the last clone of it is dropped.
#[derive(Debug, Clone)]
pub(super) struct Writeback(Option<SyncSender<Written>>);

impl Writeback {
    /// Starts the thread. Where the system gives none nothing is asked.
    pub(super) fn start() -> Self {
        let (send, receive) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("restore-writeback".into());
        Self(thread.spawn(move || ask_for_all(&receive)).ok().map(|_| send))
    }

    /// Has the system begin with these bytes. A hint, no promise: where too many wait it is left
    /// out.
    pub(super) fn begin(&self, file: File, bytes: Range<u64>) {
        let len = NonZeroU64::new(bytes.end.saturating_sub(bytes.start));
        if let (Some(send), Some(len)) = (&self.0, len.filter(|len| len.get() >= BYTES_MIN)) {
            let _ = send.try_send(Written { file, from: bytes.start, len });
        }
    }
}

fn ask_for_all(receive: &Receiver<Written>) {
    for Written { file, from, len } in receive {
        // Linux begins the writing, and drops only pages that are on disk.
        let _ = rustix::fs::fadvise(&file, from, Some(len), Advice::DontNeed);
    }
}
