//! How long an archive command waits: some time without progress, and some time in all.
//!
//! A store over a network counts its own bytes and gives up by itself when none moves
//! ([`pgrecall_store::RetryOptions`]); a directory may be a dead network mount, where a system call
//! simply never returns. So each step on a directory is given the time without progress, and a step
//! that moves a file more for each of its bytes. Nobody counts these there: the time more is what a
//! slow disk takes for them. A push waits for a disk of 1 MiB a second: giving up would only have
//! PostgreSQL start the same push over, for ever. A standby waits for one of 8 MiB a second: it may
//! stream instead.

use std::future::Future;
use std::time::Duration;

use crate::error::{EngineError, ErrorKind};

/// The slowest directory that a push waits for.
const SLOWEST_PUSH_BYTES_PER_SEC: u64 = 1 << 20;

/// The slowest directory that a fetch waits for beyond its time without progress, which is all of
/// its time where no standby asks.
const SLOWEST_FETCH_BYTES_PER_SEC: u64 = 8 << 20;

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Without a byte of progress.
    pub progress: Duration,
    /// In all.
    pub total: Duration,
}

/// Who notices that a step makes no progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// The store counts its bytes itself.
    Store,
    /// Nobody but us.
    Us,
}

/// What a step moves, in bytes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moves {
    /// Documents.
    Little,
    /// A file into the repository.
    In(u64),
    /// A file out of it.
    Out(u64),
}

impl Moves {
    /// What a slow directory takes.
    const fn time(self) -> Duration {
        Duration::from_secs(match self {
            Self::Little => 0,
            Self::In(bytes) => bytes / SLOWEST_PUSH_BYTES_PER_SEC,
            Self::Out(bytes) => bytes / SLOWEST_FETCH_BYTES_PER_SEC,
        })
    }
}

impl Watch {
    pub(super) fn of(url: &str) -> Self {
        if url.starts_with("file:") { Self::Us } else { Self::Store }
    }
}

impl Patience {
    /// The whole operation.
    ///
    /// # Errors
    /// Its own, or `Unavailable` when the time is up.
    pub(super) async fn for_all<T>(
        self,
        what: &str,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        limited(self.total, what, "in all", work).await
    }

    const fn for_one(self, moves: Moves) -> Duration {
        self.progress.saturating_add(moves.time())
    }

    /// One step.
    ///
    /// # Errors
    /// Its own, or `Unavailable` when it makes no progress.
    pub(super) async fn for_step<T>(
        self,
        (watch, what, moves): (Watch, &str, Moves),
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        match watch {
            Watch::Store => work.await,
            Watch::Us => limited(self.for_one(moves), what, "without progress", work).await,
        }
    }
}

async fn limited<T>(
    limit: Duration,
    what: &str,
    how: &str,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, work).await {
        Ok(ended) => ended,
        Err(_) => {
            let message = format!("{what}: given up after {} s {how}", limit.as_secs_f64());
            Err(EngineError::refused(ErrorKind::Unavailable, message)
                .hint("Is the repository's store mounted, reachable and not overloaded?"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Patience =
        Patience { progress: Duration::from_millis(20), total: Duration::from_millis(60) };

    async fn never() -> Result<(), EngineError> {
        std::future::pending().await
    }

    #[test]
    fn a_push_waits_for_slow_disks_and_a_standby_does_not() {
        let of = |progress| Patience {
            progress: Duration::from_secs(progress),
            total: Duration::from_secs(600),
        };
        // A segment of 1 GiB at 2 MiB a second takes 512 s.
        assert!(of(30).for_one(Moves::In(1 << 30)) > Duration::from_secs(512));
        assert_eq!(of(5).for_one(Moves::Out(16 << 20)), Duration::from_secs(7));
        assert_eq!(of(30).for_one(Moves::Little), Duration::from_secs(30));
    }

    #[tokio::test]
    async fn a_step_and_the_whole_end_when_nothing_moves() {
        let error = SHORT
            .for_step((Watch::Us, "reading the root", Moves::Little), never())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "reading the root: given up after 0.02 s without progress");
        let step = SHORT.for_step((Watch::Store, "x", Moves::Little), never());
        let error = SHORT.for_all("pushing", step).await.unwrap_err();
        assert_eq!(error.to_string(), "pushing: given up after 0.06 s in all");
    }
}
