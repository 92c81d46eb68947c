//! How long an archive command waits: some time without progress, and some time in all.
//!
//! A store over a network counts its own bytes and gives up by itself when none moves
//! ([`pgrecall_store::RetryOptions`]); a directory may be a dead network mount, where a system call
//! simply never returns. So each step on a directory is given the time without progress, and a step
//! that moves a file a second more for each 8 MiB.

use std::future::Future;
use std::time::Duration;

use crate::error::{EngineError, ErrorKind};

/// The slowest directory that still counts as moving.
const SLOWEST_BYTES_PER_SEC: u64 = 8 << 20;

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

    /// One step that moves up to `bytes`.
    ///
    /// # Errors
    /// Its own, or `Unavailable` when it makes no progress.
    pub(super) async fn for_step<T>(
        self,
        (watch, what, bytes): (Watch, &str, u64),
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        match watch {
            Watch::Store => work.await,
            Watch::Us => {
                let moving = Duration::from_secs(bytes / SLOWEST_BYTES_PER_SEC);
                let limit = self.progress.saturating_add(moving);
                limited(limit, what, "without progress", work).await
            }
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

    #[tokio::test]
    async fn a_step_and_the_whole_end_when_nothing_moves() {
        let error = SHORT.for_step((Watch::Us, "reading the root", 0), never()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "reading the root: given up after 0.02 s without progress");
        let step = SHORT.for_step((Watch::Store, "x", 0), never());
        let error = SHORT.for_all("pushing", step).await.unwrap_err();
        assert_eq!(error.to_string(), "pushing: given up after 0.06 s in all");
    }
}
