//! Timelines and their history files: ancestry, which timeline owns a position, the path from one
//! to another.
//!
//! The rules are those of `readTimeLineHistory` and `writeTimeLineHistory` in
//! `src/backend/access/transam/timeline.c`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{FileKind, FormatError, excerpt};
use crate::lsn::Lsn;
use crate::version::Major;

/// A timeline id, printed as in file names: eight upper-case hexadecimal digits. Never 0 in a
/// cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl TimelineId {
    /// The timeline that every cluster starts with; it has no history file.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl FromStr for TimelineId {
    type Err = FormatError;

    /// Reads eight upper-case hexadecimal digits that are not all zero.
    fn from_str(text: &str) -> Result<Self, FormatError> {
        hex_upper_word(text).filter(|number| *number != 0).map(Self).ok_or_else(|| {
            FormatError::Text {
                file: FileKind::TimelineId,
                expected: "eight upper-case hexadecimal digits, not all zero",
                found: excerpt(text),
            }
        })
    }
}

/// Eight upper-case hexadecimal digits, as PostgreSQL's file names have them.
pub(crate) fn hex_upper_word(text: &str) -> Option<u32> {
    let plain =
        text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

/// A timeline that was left, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The timeline left.
    pub timeline: TimelineId,
    /// Its first position that no longer belongs to it.
    pub lsn: Lsn,
    /// Why, as the server wrote it.
    pub reason: String,
}

/// A stretch of WAL on one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineSpan {
    /// The timeline.
    pub timeline: TimelineId,
    /// First position.
    pub start: Lsn,
    /// First position that is no longer part of it; none for the newest timeline.
    pub end: Option<Lsn>,
}

/// A timeline with all its ancestors, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    timeline: TimelineId,
    switches: Vec<Switch>,
}

impl History {
    /// A timeline without ancestors; what PostgreSQL assumes when there is no history file.
    #[must_use]
    pub const fn without_ancestors(timeline: TimelineId) -> Self {
        Self { timeline, switches: Vec::new() }
    }

    /// Reads the content of `<timeline>.history`.
    ///
    /// As PostgreSQL does, empty lines and lines that begin with `#` are passed over and what
    /// follows the position is free text.
    ///
    /// # Errors
    /// A line that is no timeline and position, timelines that do not rise, one not below
    /// `timeline`, and (stricter than PostgreSQL, where such a file can only be damaged) positions
    /// that go back.
    pub fn parse(timeline: TimelineId, bytes: &[u8]) -> Result<Self, FormatError> {
        let text = String::from_utf8_lossy(bytes);
        let mut switches: Vec<Switch> = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |expected| FormatError::Line {
                file: FileKind::TimelineHistory,
                line: u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1),
                expected,
                found: excerpt(line),
            };
            let switch = parse_switch(line)
                .ok_or_else(|| wrong("timeline number, position X/Y and a reason"))?;
            if switch.timeline >= timeline {
                return Err(wrong("a timeline below the file's own"));
            }
            if let Some(last) = switches.last() {
                if switch.timeline <= last.timeline {
                    return Err(wrong("a timeline above that of the line before"));
                }
                if switch.lsn < last.lsn {
                    return Err(wrong("a position not before that of the line before"));
                }
            }
            switches.push(switch);
        }
        Ok(Self { timeline, switches })
    }

    /// The content of this timeline's history file, as this major writes it (a blank line before
    /// each further line).
    #[must_use]
    pub fn compose(&self, major: Major) -> String {
        let line = |Switch { timeline, lsn, reason }: &Switch| {
            format!("{}\t{}\t{reason}\n", timeline.0, lsn.text_of(major))
        };
        let lines: Vec<String> = self.switches.iter().map(line).collect();
        lines.join("\n")
    }

    /// The history of a timeline that leaves this one at `lsn`. Nothing if the ids or positions
    /// would not rise.
    #[must_use]
    pub fn fork(&self, child: TimelineId, lsn: Lsn, reason: &str) -> Option<Self> {
        if child <= self.timeline || self.switches.last().is_some_and(|last| lsn < last.lsn) {
            return None;
        }
        let mut switches = self.switches.clone();
        let reason = reason.replace('\n', " ");
        switches.push(Switch { timeline: self.timeline, lsn, reason });
        Some(Self { timeline: child, switches })
    }

    /// The timeline that this is the history of.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The ancestors and where each was left, oldest first.
    #[must_use]
    pub fn switches(&self) -> &[Switch] {
        &self.switches
    }

    /// Whether `timeline` is this one or an ancestor (`tliInHistory`).
    #[must_use]
    pub fn contains(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.switches.iter().any(|s| s.timeline == timeline)
    }

    /// Where `timeline` was left (`tliSwitchPoint`); nothing for this timeline and for strangers.
    #[must_use]
    pub fn switch_point(&self, timeline: TimelineId) -> Option<Lsn> {
        self.switches.iter().find(|s| s.timeline == timeline).map(|s| s.lsn)
    }

    /// The timeline that owns the byte at `lsn` (`tliOfPointInHistory`).
    #[must_use]
    pub fn owner_of(&self, lsn: Lsn) -> TimelineId {
        self.switches.iter().find(|s| lsn < s.lsn).map_or(self.timeline, |s| s.timeline)
    }

    /// All timelines with the WAL that each owns, oldest first; a span may be empty.
    #[must_use]
    pub fn spans(&self) -> Vec<TimelineSpan> {
        let mut start = Lsn(0);
        let mut spans = Vec::with_capacity(self.switches.len().saturating_add(1));
        for switch in &self.switches {
            spans.push(TimelineSpan { timeline: switch.timeline, start, end: Some(switch.lsn) });
            start = switch.lsn;
        }
        spans.push(TimelineSpan { timeline: self.timeline, start, end: None });
        spans
    }

    /// The way from position `lsn` of timeline `from` to this timeline: the spans to be replayed,
    /// in order, none of them empty but the last (it has no end). Nothing if `from` is a stranger
    /// or was left before `lsn`.
    #[must_use]
    pub fn path_from(&self, from: TimelineId, lsn: Lsn) -> Option<Vec<TimelineSpan>> {
        if !self.contains(from) || self.switch_point(from).is_some_and(|left| left < lsn) {
            return None;
        }
        let mut spans: Vec<TimelineSpan> = self.spans();
        spans.retain(|span| span.timeline >= from);
        if let Some(first) = spans.first_mut() {
            first.start = first.start.max(lsn);
        }
        spans.retain(|span| span.end.is_none_or(|end| end > span.start));
        Some(spans)
    }
}

/// One line, without the space before it.
fn parse_switch(line: &str) -> Option<Switch> {
    let (timeline, rest) = line.split_once(|c: char| c.is_ascii_whitespace())?;
    if !timeline.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let timeline = timeline.parse().ok().filter(|number| *number != 0).map(TimelineId)?;
    let rest = rest.trim_start();
    let (lsn, reason) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    Some(Switch { timeline, lsn: lsn.parse().ok()?, reason: reason.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{History, TimelineId, TimelineSpan};
    use crate::lsn::Lsn;
    use crate::version::Major;

    const FILE: &[u8] =
        b"# by hand\n1\t0/3000000\tno recovery target specified\n\n  2\t0/5000158\t\
        before 2026-11-22 14:03:07.123456+00\n4\t1/0\n";

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    #[test]
    fn reads_ancestry() {
        let history = History::parse(TimelineId(5), FILE).unwrap();
        assert_eq!(history.owner_of(lsn("0/2FFFFFF")), TimelineId(1));
        assert_eq!(history.owner_of(lsn("0/3000000")), TimelineId(2));
        assert_eq!(history.owner_of(lsn("0/5000158")), TimelineId(4));
        assert_eq!(history.owner_of(lsn("1/0")), TimelineId(5));
        assert!(history.contains(TimelineId(4)) && !history.contains(TimelineId(3)));
        assert_eq!(history.switch_point(TimelineId(2)), Some(lsn("0/5000158")));
        assert_eq!(history.switch_point(TimelineId(5)), None);
        assert_eq!(history.switches()[0].reason, "no recovery target specified");
        for major in Major::ALL {
            let text = history.compose(major);
            assert_eq!(History::parse(TimelineId(5), text.as_bytes()).unwrap(), history);
        }
    }

    #[test]
    fn finds_the_path() {
        let history = History::parse(TimelineId(5), FILE).unwrap();
        let path = history.path_from(TimelineId(2), lsn("0/4000000")).unwrap();
        let expected = [
            TimelineSpan {
                timeline: TimelineId(2),
                start: lsn("0/4000000"),
                end: Some(lsn("0/5000158")),
            },
            TimelineSpan {
                timeline: TimelineId(4),
                start: lsn("0/5000158"),
                end: Some(lsn("1/0")),
            },
            TimelineSpan { timeline: TimelineId(5), start: lsn("1/0"), end: None },
        ];
        assert_eq!(path, expected);
        assert_eq!(history.path_from(TimelineId(2), lsn("0/5000160")), None);
        assert_eq!(history.path_from(TimelineId(3), lsn("0/1000000")), None);
        let at_switch = history.path_from(TimelineId(2), lsn("0/5000158")).unwrap();
        assert_eq!(at_switch[0].timeline, TimelineId(4));
    }

    #[test]
    fn refuses_wrong_lines() {
        for bad in [
            "x",
            "1",
            "1\t0",
            "1\t0/1\n1\t0/2",
            "2\t0/1\n1\t0/2",
            "3\t0/1",
            "1 0/2\n2 0/1",
            "0 0/1",
        ] {
            assert!(History::parse(TimelineId(3), bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(History::parse(TimelineId(1), b"").unwrap().switches().is_empty());
    }

    #[test]
    fn forks() {
        let root = History::without_ancestors(TimelineId::FIRST);
        let child =
            root.fork(TimelineId(2), Lsn(0x300_0000), "no recovery target specified").unwrap();
        let line = "1\t0/3000000\tno recovery target specified\n";
        assert_eq!(child.compose(Major::V18), line);
        assert_eq!(child.compose(Major::V19), line.replace("0/3", "0/03"));
        assert!(child.fork(TimelineId(2), Lsn(0x400_0000), "").is_none());
        assert!(child.fork(TimelineId(3), Lsn(0x200_0000), "").is_none());
        let grandchild = child.fork(TimelineId(3), Lsn(0x400_0000), "r").unwrap();
        assert_eq!(
            grandchild.compose(Major::V18),
            "1\t0/3000000\tno recovery target specified\n\n2\t0/4000000\tr\n"
        );
    }

    #[test]
    fn timeline_ids_are_eight_upper_case_digits() {
        assert_eq!("0000000A".parse::<TimelineId>().unwrap(), TimelineId(10));
        assert_eq!(TimelineId(10).to_string(), "0000000A");
        for bad in ["", "A", "0000000a", "00000000", "0000000G", "000000001"] {
            assert!(bad.parse::<TimelineId>().is_err(), "{bad:?}");
        }
    }
}
