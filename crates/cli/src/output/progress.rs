//! Progress of long operations: a bar with rate and estimated end on a terminal, a log line every
//! ten seconds elsewhere.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::human;

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// What is being done: "copying", "waiting for WAL".
    pub(crate) phase: String,
    pub(crate) done_bytes: u64,
    /// `None` while nobody knows.
    pub(crate) total_bytes: Option<u64>,
}

/// Takes progress; called often and from several threads.
pub(crate) trait ProgressSink: Send + Sync {
    fn update(&self, progress: &Progress);
    /// Something that a person should know now.
    fn note(&self, text: &str);
    /// The operation has ended, well or not; nothing of the progress stays on the terminal.
    fn finish(&self);
}

/// The sink that fits standard error.
pub(crate) fn sink() -> Box<dyn ProgressSink> {
    if std::io::stderr().is_terminal() {
        Box::new(Bar::new())
    } else {
        Box::new(Lines::new(Duration::from_secs(10)))
    }
}

/// A bar on the terminal.
struct Bar {
    bar: ProgressBar,
    phase: Mutex<String>,
}

const KNOWN: &str =
    "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
const UNKNOWN: &str = "{spinner} {msg} {binary_bytes}, {elapsed}";

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        bar.set_style(style(UNKNOWN));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, phase: Mutex::new(String::new()) }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl ProgressSink for Bar {
    fn update(&self, progress: &Progress) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if *phase != progress.phase {
            phase.clone_from(&progress.phase);
            self.bar.reset();
            self.bar.set_style(style(if progress.total_bytes.is_some() { KNOWN } else { UNKNOWN }));
            self.bar.set_message(progress.phase.clone());
        }
        match progress.total_bytes {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_position(progress.done_bytes);
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| tracing::info!("{text}"));
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Log lines, one every `interval` and one for each phase.
struct Lines {
    interval: Duration,
    state: Mutex<Option<LinesState>>,
}

struct LinesState {
    phase: String,
    started: Instant,
    /// Bytes done when the phase began: a resumed operation does not count old bytes into its rate.
    started_bytes: u64,
    told: Instant,
}

impl Lines {
    fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::new(None) }
    }

    /// The line to log now, if one is due.
    fn line(&self, progress: &Progress, now: Instant) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.as_mut() {
            Some(state) if state.phase == progress.phase => {
                if now.duration_since(state.told) < self.interval {
                    return None;
                }
                state.told = now;
                let moved = progress.done_bytes.saturating_sub(state.started_bytes);
                Some(describe(progress, moved, now.duration_since(state.started)))
            }
            _ => {
                *state = Some(LinesState {
                    phase: progress.phase.clone(),
                    started: now,
                    started_bytes: progress.done_bytes,
                    told: now,
                });
                Some(describe(progress, 0, Duration::ZERO))
            }
        }
    }
}

/// `copying: 1.0 GiB of 4.0 GiB (25 %), 100.0 MiB/s, 30.7 s left`
fn describe(progress: &Progress, moved_bytes: u64, elapsed: Duration) -> String {
    // A phase that moves no bytes, such as waiting.
    if progress.total_bytes.is_none() && progress.done_bytes == 0 {
        return progress.phase.clone();
    }
    let mut text = format!("{}: {}", progress.phase, human::size(progress.done_bytes));
    let left_bytes = progress.total_bytes.map(|total| total.saturating_sub(progress.done_bytes));
    if let Some(total) = progress.total_bytes {
        let done = u128::from(progress.done_bytes.min(total));
        let percent = done * 100 / u128::from(total.max(1));
        text.push_str(&format!(" of {} ({percent} %)", human::size(total)));
    }
    let elapsed_ms = elapsed.as_millis();
    if elapsed_ms == 0 || moved_bytes == 0 {
        return text;
    }
    let per_second = u128::from(moved_bytes) * 1000 / elapsed_ms;
    text.push_str(&format!(", {}", human::rate(u64::try_from(per_second).unwrap_or(u64::MAX))));
    if let Some(left) = left_bytes.filter(|left| *left > 0) {
        let left_ms = u128::from(left) * elapsed_ms / u128::from(moved_bytes);
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(u64::MAX));
        text.push_str(&format!(", {} left", human::duration(left)));
    }
    text
}

impl ProgressSink for Lines {
    fn update(&self, progress: &Progress) {
        if let Some(line) = self.line(progress, Instant::now()) {
            tracing::info!("{line}");
        }
    }

    fn note(&self, text: &str) {
        tracing::info!("{text}");
    }

    fn finish(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(done: u64) -> Progress {
        Progress {
            phase: "copying".to_owned(),
            done_bytes: done << 20,
            total_bytes: Some(400 << 20),
        }
    }

    #[test]
    fn lines_come_with_each_phase_and_then_at_the_interval() {
        let lines = Lines::new(Duration::from_secs(10));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let first = lines.line(&at(0), start);
        assert_eq!(first.as_deref(), Some("copying: 0 B of 400.0 MiB (0 %)"));
        assert_eq!(lines.line(&at(90), after(9)), None);
        let second = lines.line(&at(100), after(10));
        let expected = "copying: 100.0 MiB of 400.0 MiB (25 %), 10.0 MiB/s, 30.0 s left";
        assert_eq!(second.as_deref(), Some(expected));
        let waiting =
            Progress { phase: "waiting for WAL".to_owned(), done_bytes: 0, total_bytes: None };
        assert_eq!(lines.line(&waiting, after(11)).as_deref(), Some("waiting for WAL"));
    }

    #[test]
    fn a_resumed_copy_counts_only_what_moved_now() {
        let lines = Lines::new(Duration::from_secs(10));
        let start = Instant::now();
        lines.line(&at(300), start);
        let line = lines.line(&at(350), start + Duration::from_secs(10)).unwrap_or_default();
        assert!(line.contains("5.0 MiB/s, 10.0 s left"), "{line}");
    }

    #[test]
    fn the_templates_of_the_bar_are_well_formed() {
        for template in [KNOWN, UNKNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
