//! When to send again: backoff with full jitter, a number of attempts, and two budgets of time, one
//! for the whole act and one for the time without a byte of progress.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};

use crate::error::{ErrorKind, StoreError};

/// How often, how long and how patiently a failed request is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryOptions {
    /// Requests in all, the first one included; at least one is sent.
    pub attempts_max: u32,
    /// The longest pause before the second request; it doubles from there. Each pause is drawn
    /// between zero and that.
    pub delay_first: Duration,
    /// What the longest pause never exceeds.
    pub delay_max: Duration,
    /// The time for the whole act.
    pub total_max: Duration,
    /// The time without a byte of progress, over all requests of an act: bytes that are only sent
    /// again do not count.
    pub idle_max: Duration,
    /// The time without a byte in either direction after which one request is given up.
    pub attempt_idle_max: Duration,
}

impl Default for RetryOptions {
    /// 30 s without a byte of progress, 10 min in all; one request is given up after 15 s of
    /// silence.
    fn default() -> Self {
        Self {
            attempts_max: 100,
            delay_first: Duration::from_millis(100),
            delay_max: Duration::from_secs(5),
            total_max: Duration::from_secs(600),
            idle_max: Duration::from_secs(30),
            attempt_idle_max: Duration::from_secs(15),
        }
    }
}

/// What retrying asks of the outside world: a clock, sleep, and chance. Handed in, so that a run
/// can be replayed.
pub trait Timing: fmt::Debug + Send + Sync + 'static {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;
    /// Ends when that time has passed.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
    /// A random number from 0 to 1.
    fn fraction(&self) -> f64;
}

/// Tokio's clock and the system's random numbers.
#[derive(Debug)]
pub struct SystemTiming(tokio::time::Instant);

impl SystemTiming {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Default for SystemTiming {
    fn default() -> Self {
        Self::new()
    }
}

impl Timing for SystemTiming {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn fraction(&self) -> f64 {
        // Without random numbers the pauses are merely alike.
        getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
    }
}

/// The bytes that an act has moved, shared with whatever moves them.
#[derive(Debug, Clone)]
pub struct Progress {
    timing: Arc<dyn Timing>,
    state: Arc<Mutex<ProgressState>>,
}

#[derive(Debug)]
struct ProgressState {
    /// Bytes of the request under way.
    moved: u64,
    /// Bytes of the request that came farthest.
    farthest: u64,
    /// When a byte was last moved.
    moved_at: Duration,
    /// When a byte was last moved that no request had moved before.
    progress_at: Duration,
}

impl Progress {
    fn new(timing: Arc<dyn Timing>) -> Self {
        let now = timing.now();
        let state = ProgressState { moved: 0, farthest: 0, moved_at: now, progress_at: now };
        Self { timing, state: Arc::new(Mutex::new(state)) }
    }

    fn with<T>(&self, look: impl FnOnce(&mut ProgressState) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// So many bytes more went in or out.
    pub fn add(&self, bytes: u64) {
        let now = self.timing.now();
        self.with(|state| {
            state.moved += bytes;
            state.moved_at = now;
            if state.moved > state.farthest {
                state.farthest = state.moved;
                state.progress_at = now;
            }
        });
    }

    fn start_attempt(&self) {
        let now = self.timing.now();
        self.with(|state| {
            state.moved = 0;
            state.moved_at = now;
        });
    }
}

/// A failed request, and whether it makes sense to send it again.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: StoreError,
    pub(crate) again: Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Yes,
    No,
}

/// How a request failed.
enum Failed {
    /// By itself.
    Ended(Failure),
    /// It was given up: nothing moved, or the time was over.
    GivenUp(StoreError),
}

/// The policy together with its clock.
#[derive(Debug, Clone)]
pub struct Retry {
    options: RetryOptions,
    timing: Arc<dyn Timing>,
}

impl Retry {
    /// A policy on that clock.
    #[must_use]
    pub fn new(options: RetryOptions, timing: Arc<dyn Timing>) -> Self {
        Self { options, timing }
    }

    /// Sends until an answer came that settles it, or the budget is used up.
    pub(crate) async fn run<T, S, A, F>(&self, stalled: S, attempt: A) -> Result<T, StoreError>
    where
        S: Fn(String) -> StoreError,
        A: Fn(Progress) -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        let start = self.timing.now();
        let progress = Progress::new(Arc::clone(&self.timing));
        let mut attempts = 0u32;
        let mut before: Option<StoreError> = None;
        loop {
            attempts += 1;
            let began = self.timing.now();
            let end = Some(start + self.options.total_max);
            let request = attempt(progress.clone());
            let failed = match self.attempt(&progress, end, &stalled, request).await {
                Ok(done) => return Ok(done),
                Err(Failed::Ended(Failure { error, again: Again::No })) => return Err(error),
                Err(failed) => failed,
            };
            let delay = self.delay(attempts);
            let now = self.timing.now();
            let after = now + delay;
            let idle_end = progress.with(|state| state.progress_at) + self.options.idle_max;
            let is_cut_short = now.saturating_sub(began) < self.options.attempt_idle_max;
            let error = match (failed, before.take()) {
                // A request that was cut short has no more to say than the one before.
                (Failed::GivenUp(_), Some(before)) if is_cut_short => before,
                (Failed::GivenUp(error) | Failed::Ended(Failure { error, .. }), _) => error,
            };
            let over = if attempts >= self.options.attempts_max {
                "as many as allowed".to_owned()
            } else if after >= start + self.options.total_max {
                format!("the {:?} for it are over", self.options.total_max)
            } else if after >= idle_end {
                format!("no progress for {:?}", self.options.idle_max)
            } else {
                tracing::debug!(%error, attempts, ?delay, "sending again");
                before = Some(error);
                self.timing.sleep(delay).await;
                continue;
            };
            return Err(given_up(error, attempts, &over));
        }
    }

    /// Sends once.
    pub(crate) async fn run_once<T, S, A, F>(&self, stalled: S, attempt: A) -> Result<T, StoreError>
    where
        S: Fn(String) -> StoreError,
        A: FnOnce(Progress) -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        let progress = Progress::new(Arc::clone(&self.timing));
        let end = Some(self.timing.now() + self.options.total_max);
        let done = self.attempt(&progress, end, &stalled, attempt(progress.clone())).await;
        done.map_err(|failed| match failed {
            Failed::GivenUp(error) | Failed::Ended(Failure { error, .. }) => error,
        })
    }

    /// One request, given up when nothing moves any more or the time is over.
    async fn attempt<T>(
        &self,
        progress: &Progress,
        end: Option<Duration>,
        stalled: &impl Fn(String) -> StoreError,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failed> {
        progress.start_attempt();
        let mut request = std::pin::pin!(request);
        loop {
            let (moved_at, progress_at) = progress.with(|s| (s.moved_at, s.progress_at));
            let quiet = moved_at + self.options.attempt_idle_max;
            let idle = (progress_at + self.options.idle_max).max(moved_at);
            let until = quiet.min(idle).min(end.unwrap_or(Duration::MAX));
            let now = self.timing.now();
            if now >= until {
                let what = match end {
                    Some(end) if now >= end => "not done in time".to_owned(),
                    _ => format!("no byte moved for {:?}", now.saturating_sub(moved_at)),
                };
                return Err(Failed::GivenUp(stalled(what)));
            }
            match select(request.as_mut(), self.timing.sleep(until.saturating_sub(now))).await {
                Either::Left((done, _)) => return done.map_err(Failed::Ended),
                Either::Right(_) => {}
            }
        }
    }

    /// Full jitter: anything from nothing to the exponential bound.
    fn delay(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(20);
        let bound = self.options.delay_first.saturating_mul(1 << doublings);
        bound.min(self.options.delay_max).mul_f64(self.timing.fraction().clamp(0.0, 1.0))
    }
}

fn given_up(last: StoreError, attempts: u32, why: &str) -> StoreError {
    if attempts == 1 {
        return last;
    }
    let kind = match last.kind() {
        ErrorKind::Conflict => ErrorKind::Conflict,
        _ => ErrorKind::Unavailable,
    };
    let what = format!("gave up after {attempts} requests ({why})");
    let error = StoreError::new(kind, last.act(), last.object(), what);
    let error = match last.hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    };
    error.caused_by(last)
}

#[cfg(test)]
mod tests;
