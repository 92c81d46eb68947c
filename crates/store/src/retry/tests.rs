//! Retrying on a clock that stands still unless somebody sleeps.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Act;

use super::*;

/// Sleeping moves this clock, nothing else does.
#[derive(Debug, Default)]
struct SleepClock(Arc<Mutex<Duration>>);

impl Timing for SleepClock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let clock = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::task::yield_now().await;
            *clock.lock().unwrap() += time;
        })
    }

    fn fraction(&self) -> f64 {
        1.0
    }
}

fn error(kind: ErrorKind, what: &str) -> StoreError {
    StoreError::new(kind, Act::Get, "s3://b/k", what)
}

fn stalled(what: String) -> StoreError {
    error(ErrorKind::Unavailable, &what)
}

fn again() -> Failure {
    Failure { error: error(ErrorKind::Unavailable, "503"), again: Again::Yes }
}

fn retry(options: RetryOptions) -> (Retry, Arc<SleepClock>) {
    let clock = Arc::new(SleepClock::default());
    (Retry::new(options, Arc::clone(&clock) as Arc<dyn Timing>), clock)
}

#[tokio::test]
async fn a_transient_failure_is_sent_again_and_a_final_one_is_not() {
    let (retry, clock) = retry(RetryOptions::default());
    let sent = &AtomicU32::new(0);
    let done = retry
        .run(stalled, |_: Progress| async move {
            match sent.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(again()),
                sent => Ok(sent),
            }
        })
        .await;
    assert_eq!(done.unwrap(), 3);
    // 100, 200 and 400 ms.
    assert_eq!(clock.now(), Duration::from_millis(700));

    let sent = &AtomicU32::new(0);
    let failed: Result<(), _> = retry
        .run(stalled, |_: Progress| async move {
            sent.fetch_add(1, Ordering::Relaxed);
            Err(Failure { error: error(ErrorKind::Denied, "403"), again: Again::No })
        })
        .await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(sent.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn without_progress_it_gives_up_after_the_idle_budget() {
    let (retry, clock) = retry(RetryOptions::default());
    let failed: Result<(), _> = retry.run(stalled, |_: Progress| async move { Err(again()) }).await;
    let failed = failed.unwrap_err();
    assert!(failed.to_string().contains("no progress for 30s"), "{failed}");
    assert!(std::error::Error::source(&failed).unwrap().to_string().contains("503"));
    assert!(clock.now() <= Duration::from_secs(30));
    assert!(clock.now() >= Duration::from_secs(24), "gave up too early: {:?}", clock.now());
}

#[tokio::test]
async fn a_request_that_the_budget_cuts_short_does_not_hide_what_was_wrong_before() {
    let options = RetryOptions { idle_max: Duration::from_secs(2), ..RetryOptions::default() };
    let (retry, _) = retry(options);
    let sent = &AtomicU32::new(0);
    let failed: Result<(), _> = retry
        .run(stalled, |_: Progress| async move {
            if sent.fetch_add(1, Ordering::Relaxed) < 2 {
                return Err(again());
            }
            std::future::pending().await
        })
        .await;
    let failed = failed.unwrap_err();
    let cause = std::error::Error::source(&failed).expect("what the last whole one said");
    assert_eq!(cause.to_string(), error(ErrorKind::Unavailable, "503").to_string());
    assert_eq!(sent.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn an_answer_that_comes_as_the_time_ends_is_the_one_to_tell() {
    let options = RetryOptions { idle_max: Duration::from_secs(2), ..RetryOptions::default() };
    let (retry, clock) = retry(options);
    let (sent, clock) = (&AtomicU32::new(0), &clock);
    let failed: Result<(), _> = retry
        .run(stalled, |_: Progress| async move {
            if sent.fetch_add(1, Ordering::Relaxed) == 0 {
                return Err(again());
            }
            // It answers at the very moment at which it would have been given up.
            *clock.0.lock().unwrap() += Duration::from_secs(5);
            Err(Failure { error: error(ErrorKind::Conflict, "409"), again: Again::Yes })
        })
        .await;
    let failed = failed.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Conflict);
    let cause = std::error::Error::source(&failed).expect("the last answer");
    assert_eq!(cause.to_string(), error(ErrorKind::Conflict, "409").to_string());
}

#[tokio::test]
async fn bytes_that_are_sent_again_are_no_progress() {
    let (retry, clock) = retry(RetryOptions::default());
    let failed: Result<(), _> = retry
        .run(stalled, |progress: Progress| async move {
            progress.add(1000);
            Err(again())
        })
        .await;
    assert!(failed.unwrap_err().to_string().contains("no progress for 30s"));
    assert!(clock.now() <= Duration::from_secs(31));
}

#[tokio::test]
async fn new_bytes_prolong_it_up_to_the_total() {
    let (retry, clock) = retry(RetryOptions { attempts_max: 1000, ..RetryOptions::default() });
    let farthest = &AtomicU32::new(0);
    let failed: Result<(), _> = retry
        .run(stalled, |progress: Progress| async move {
            progress.add(u64::from(farthest.fetch_add(1, Ordering::Relaxed)) + 1);
            Err(again())
        })
        .await;
    assert!(failed.unwrap_err().to_string().contains("600s"), "the total ends it");
    assert!(clock.now() >= Duration::from_secs(590));
}

#[tokio::test]
async fn a_silent_request_is_given_up_and_the_next_one_sent() {
    let (retry, clock) = retry(RetryOptions::default());
    let sent = &AtomicU32::new(0);
    let done = retry
        .run(stalled, |_: Progress| async move {
            match sent.fetch_add(1, Ordering::Relaxed) {
                0 => std::future::pending().await,
                sent => Ok(sent),
            }
        })
        .await;
    assert_eq!(done.unwrap(), 1);
    assert!(clock.now() >= Duration::from_secs(15) && clock.now() < Duration::from_secs(16));
}

#[tokio::test]
async fn attempts_are_counted() {
    let (retry, _) = retry(RetryOptions { attempts_max: 3, ..RetryOptions::default() });
    let sent = &AtomicU32::new(0);
    let failed: Result<(), _> = retry
        .run(stalled, |_: Progress| async move {
            sent.fetch_add(1, Ordering::Relaxed);
            Err(again())
        })
        .await;
    assert!(failed.unwrap_err().to_string().contains("gave up after 3 requests"));
    assert_eq!(sent.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn once_means_once() {
    let (retry, clock) = retry(RetryOptions::default());
    let failed: Result<(), _> =
        retry.run_once(stalled, |_: Progress| async move { std::future::pending().await }).await;
    assert!(failed.unwrap_err().to_string().contains("no byte moved for 15s"));
    assert_eq!(clock.now(), Duration::from_secs(15));
}

/// Clients that fail at the same moment must not come back at the same moment.
#[tokio::test]
async fn pauses_are_spread_between_nothing_and_their_bound() {
    let options = RetryOptions::default();
    let retry = Retry::new(options.clone(), Arc::new(SystemTiming::new()));
    for (attempts, bound) in [(1, options.delay_first), (3, options.delay_first * 4)] {
        let pauses: Vec<Duration> = (0..1000).map(|_| retry.delay(attempts)).collect();
        assert!(pauses.iter().all(|pause| *pause <= bound), "{pauses:?}");
        // Of a thousand each tenth gets a hundred; thirty is a chance of one in 10^16.
        for tenth in 0..10_u32 {
            let (from, to) = (bound * tenth / 10, bound * (tenth + 1) / 10);
            let within = pauses.iter().filter(|pause| **pause >= from && **pause <= to).count();
            assert!(within > 30, "{within} of 1000 between {from:?} and {to:?}");
        }
    }
    let late: Vec<Duration> = (0..1000).map(|_| retry.delay(50)).collect();
    assert!(late.iter().all(|pause| *pause <= options.delay_max));
    assert!(late.iter().any(|pause| *pause > options.delay_max / 2));
}
