//! What `pgrecall check` tells: a line for each thing that was checked, and what to do about it.

use serde::Serialize;

use crate::failure::{Failure, Kind};
use crate::hint;
use crate::output::stdout::{Colour, Paint};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Pass,
    Warn,
    Fail,
}

/// One thing that was checked.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    check: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it.
    mend: Vec<String>,
    #[serde(skip)]
    pub(super) failed_as: Option<Kind>,
}

/// Everything that `check` tells. Its JSON is stable: members are added, never changed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) passed: bool,
    /// The one to put into a restored cluster's configuration.
    pub(super) restore_command: Option<String>,
    pub(super) lines: Vec<Line>,
}

impl Report {
    pub(super) fn pass(&mut self, check: &'static str, found: impl Into<String>) {
        let found = found.into();
        self.add(Line { check, verdict: Verdict::Pass, found, mend: vec![], failed_as: None });
    }

    pub(super) fn warn(&mut self, check: &'static str, found: impl Into<String>, mend: &str) {
        let (found, mend) = (found.into(), vec![mend.to_owned()]);
        self.add(Line { check, verdict: Verdict::Warn, found, mend, failed_as: None });
    }

    pub(super) fn fail(
        &mut self,
        check: &'static str,
        kind: Kind,
        found: impl Into<String>,
        mend: &str,
    ) {
        let (found, mend) = (found.into(), vec![mend.to_owned()]);
        self.add(Line { check, verdict: Verdict::Fail, found, mend, failed_as: Some(kind) });
    }

    /// A failure of something else is the line's.
    pub(super) fn failure(&mut self, check: &'static str, failure: &Failure) {
        self.add(Line {
            check,
            verdict: Verdict::Fail,
            found: failure.chain.join(": "),
            mend: mend(failure),
            failed_as: Some(failure.kind),
        });
    }

    fn add(&mut self, line: Line) {
        self.passed &= line.verdict != Verdict::Fail;
        self.lines.push(line);
    }
}

/// Its own hints, else what always holds for its kind: a line that fails says what to do.
fn mend(failure: &Failure) -> Vec<String> {
    if !failure.hints.is_empty() {
        return failure.hints.clone();
    }
    let general = match failure.kind {
        // "Run check" helps nobody here.
        Kind::Unavailable => None,
        kind => hint::for_kind(kind),
    };
    let general = general.unwrap_or(
        "Mend what the message names, and run pgrecall check again; --log-level debug says more.",
    );
    vec![general.to_owned()]
}

pub(super) fn render(report: &Report, colour: Colour) -> String {
    let wide = report.lines.iter().map(|line| line.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for line in &report.lines {
        let (paint, mark) = match line.verdict {
            Verdict::Pass => (Paint::Good, "PASS"),
            Verdict::Warn => (Paint::Warning, "WARN"),
            Verdict::Fail => (Paint::Bad, "FAIL"),
        };
        let mark = colour.paint(paint, mark);
        text.push_str(&format!("{mark}  {:wide$}  {}\n", line.check, line.found));
        for mend in &line.mend {
            text.push_str(&format!("      {:wide$}  -> {mend}\n", ""));
        }
    }
    if let Some(command) = &report.restore_command {
        text.push_str(&format!("\n{command}\n"));
    }
    text
}
