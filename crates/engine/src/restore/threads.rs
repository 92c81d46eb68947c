//! The threads of a restore. What they still have in hand when the restore fails or is given up,
//! they write while the directory is locked, or not at all: their work ends before the restore
//! does, and holds the lock for itself where nobody waits for it.

use std::convert::Infallible;

use rayon::ThreadPool;
use tokio::sync::{mpsc, oneshot};

use super::target_dir::DirectoryLock;
use super::writeback::Writeback;
use crate::cancel::Cancel;
use crate::error::{EngineError, ErrorKind};

/// Threads for hashes, ciphers and writes.
pub struct Threads {
    pool: ThreadPool,
    going: Going,
    /// A clone is with each piece of work, and goes with it.
    in_hand: mpsc::Sender<Infallible>,
    none_in_hand: mpsc::Receiver<Infallible>,
    _over: Over,
}

/// Goes with each piece of work: says whether the restore still goes on, and keeps the directory
/// locked.
#[derive(Clone)]
pub(super) struct Going {
    cancel: Cancel,
    over: Cancel,
    writeback: Writeback,
    _lock: DirectoryLock,
}

impl Going {
    /// That of a restore into a folder that it marks.
    #[cfg(test)]
    pub(super) fn marking(folder: &std::path::Path, cancel: Cancel) -> Self {
        use super::target_dir::{Marked, Marker};
        let backup = pgrecall_repo::id::BackupId::from_bytes([1; 16]);
        let marker =
            Marker { system_identifier: 1, backup, began: String::new(), over_files: false };
        let lock = Marked::put(folder, &marker).unwrap().lock();
        Self { cancel, over: Cancel::new(), writeback: Writeback::start(), _lock: lock }
    }

    /// Who begins to write files to disk.
    pub(super) const fn writeback(&self) -> &Writeback {
        &self.writeback
    }

    /// Ends work of a restore that is to stop, or has failed elsewhere.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`].
    pub(super) fn check(&self) -> Result<(), EngineError> {
        self.cancel.check()?;
        self.over.check()
    }
}

/// Says that the restore is over when nobody waits for it any more.
struct Over(Cancel);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.raise();
    }
}

impl Threads {
    /// So many threads, at least one, that work in the locked directory.
    ///
    /// # Errors
    /// When the system gives none.
    pub(super) fn new(
        count: usize,
        lock: DirectoryLock,
        cancel: Cancel,
    ) -> Result<Self, EngineError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count.max(1))
            .thread_name(|number| format!("restore-{number}"))
            .build()
            .map_err(|error| EngineError::refused(ErrorKind::Unavailable, error.to_string()))?;
        let over = Cancel::new();
        let (in_hand, none_in_hand) = mpsc::channel(1);
        let writeback = Writeback::start();
        let going = Going { cancel, over: over.clone(), writeback, _lock: lock };
        Ok(Self { pool, going, in_hand, none_in_hand, _over: Over(over) })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Does a piece of work. It may take long, and is to ask now and then whether to go on.
    ///
    /// # Errors
    /// The work's own, and [`EngineError::Cancelled`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Going) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (done, waiting) = oneshot::channel();
        let (going, in_hand) = (self.going.clone(), self.in_hand.clone());
        self.pool.spawn(move || {
            let ended = going.check().and_then(|()| work(&going));
            // Nobody waits any more when another part failed.
            let _ = done.send(ended);
            drop((going, in_hand));
        });
        waiting.await.unwrap_or_else(|_| {
            let message = "a thread that writes files ended before its work was done";
            Err(EngineError::refused(ErrorKind::Internal, message))
        })
    }

    /// Waits for the work in hand, and has nothing begin any more.
    pub(super) async fn end(self) {
        let Self { going, in_hand, mut none_in_hand, .. } = self;
        going.over.raise();
        drop(in_hand);
        let _ = none_in_hand.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use pgrecall_repo::id::BackupId;

    use super::super::target_dir::{Marked, Marker};
    use super::*;

    fn marked(folder: &Path) -> Result<Marked, EngineError> {
        let backup = BackupId::from_bytes([1; 16]);
        Marked::put(
            folder,
            &Marker { system_identifier: 1, backup, began: String::new(), over_files: false },
        )
    }

    /// Work that tells when it began, and ends when it is let.
    fn work() -> (Receiver<()>, Sender<()>, impl FnOnce(&Going) -> Result<(), EngineError> + Send) {
        let ((begin, began), (let_end, end)) = (channel(), channel::<()>());
        let work = move |_: &Going| {
            begin.send(()).unwrap();
            let _ = end.recv();
            Ok(())
        };
        (began, let_end, work)
    }

    fn threads(lock: DirectoryLock) -> Threads {
        Threads::new(1, lock, Cancel::new()).unwrap()
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_keeps_the_directory_locked_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let mark = marked(folder.path()).unwrap();
        let threads = threads(mark.lock());
        let (began, let_end, held) = work();
        {
            let running = std::pin::pin!(threads.run(held));
            assert!(futures::poll!(running).is_pending());
        }
        began.recv().unwrap();
        drop(threads);
        drop(mark);
        assert_eq!(marked(folder.path()).unwrap_err().kind(), ErrorKind::Conflict);
        drop(let_end);
        while marked(folder.path()).is_err() {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn the_end_waits_for_work_in_hand_and_nothing_begins_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let mark = marked(folder.path()).unwrap();
        let threads = threads(mark.lock());
        let ((began, let_end, first), (second_began, _, second)) = (work(), work());
        {
            let mut running = std::pin::pin!(threads.run(first));
            let mut next = std::pin::pin!(threads.run(second));
            assert!(futures::poll!(&mut running).is_pending());
            assert!(futures::poll!(&mut next).is_pending());
        }
        began.recv().unwrap();
        let mut ending = std::pin::pin!(threads.end());
        assert!(futures::poll!(&mut ending).is_pending(), "the work is still in hand");
        drop(let_end);
        ending.await;
        drop(mark);
        assert!(second_began.recv().is_err(), "it was given up, and not begun");
        marked(folder.path()).unwrap();
    }

    #[tokio::test]
    async fn a_restore_that_is_to_stop_begins_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mark = marked(folder.path()).unwrap();
        let cancel = Cancel::new();
        let threads = Threads::new(1, mark.lock(), cancel.clone()).unwrap();
        threads.run(|going| going.check()).await.unwrap();
        cancel.raise();
        let begun = threads.run(|_| -> Result<(), EngineError> { panic!("it began") }).await;
        assert!(matches!(begun, Err(EngineError::Cancelled)));
    }
}
