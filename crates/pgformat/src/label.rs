//! `backup_label`, and the backup history file that says the same with the end of the backup added.
//!
//! Written by `build_backup_content` (`xlogbackup.c`, before 15 in `xlog.c`), read at the start of
//! recovery by `read_backup_label` (`xlogrecovery.c`, before 15 in `xlog.c`).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::error::{FileKind, FormatError, excerpt};
use crate::lsn::Lsn;
use crate::segment::{ArchiveName, ArchiveNameKind};
use crate::timeline::TimelineId;
use crate::version::Major;

/// Which server a backup was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupFrom {
    /// A server out of recovery.
    Primary,
    /// A server in recovery: the backup's end is the minimum recovery point of its `pg_control`.
    Standby,
}

/// How a backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupMethod {
    /// `pg_backup_start` or `pg_basebackup`: recovery must reach the end-of-backup record.
    Streamed,
    /// A directory mended by `pg_rewind`.
    PgRewind,
}

/// The content of `backup_label`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupLabel {
    /// Where recovery starts: the redo position of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// The segment with that position, 24 digits; its timeline is the backup's first.
    pub start_segment: String,
    /// Where the record of the backup's checkpoint is.
    pub checkpoint_lsn: Lsn,
    /// How the backup was made.
    pub method: BackupMethod,
    /// Which server it was taken from.
    pub from: BackupFrom,
    /// When it started, as the server wrote it (in the server's `log_timezone`).
    pub start_time: String,
    /// The name it was given.
    pub label: String,
    /// The timeline on which it started.
    pub start_timeline: TimelineId,
    /// From 17 on, in PostgreSQL's own incremental backups: the backup it builds upon.
    pub incremental_from: Option<IncrementalFrom>,
}

/// The backup that one of PostgreSQL's own incremental backups builds upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncrementalFrom {
    /// The start of that backup.
    pub lsn: Lsn,
    /// The timeline on which it started.
    pub timeline: TimelineId,
}

/// The content of a backup history file, `<segment>.<offset>.backup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHistory {
    /// What `backup_label` says too.
    pub label: BackupLabel,
    /// The end of the backup.
    pub stop_lsn: Lsn,
    /// The segment with the last byte before it.
    pub stop_segment: String,
    /// When it ended, as the server wrote it.
    pub stop_time: String,
    /// The timeline on which it ended.
    pub stop_timeline: TimelineId,
}

impl BackupLabel {
    /// Reads `backup_label`.
    ///
    /// # Errors
    /// A missing or malformed line among those that recovery needs, a timeline that is not that of
    /// the start segment, or lines that no PostgreSQL writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let lines = Lines::read(FileKind::BackupLabel, bytes)?;
        lines.label()
    }

    /// The content of `backup_label`, byte for byte as this major writes it.
    #[must_use]
    pub fn compose(&self, major: Major) -> String {
        let mut text = self.compose_start(None, major);
        if let Some(from) = self.incremental_from {
            let _ = writeln!(text, "INCREMENTAL FROM LSN: {}", from.lsn.text_of(major));
            let _ = writeln!(text, "INCREMENTAL FROM TLI: {}", from.timeline.0);
        }
        text
    }

    fn compose_start(&self, stop: Option<&BackupHistory>, major: Major) -> String {
        let method = match self.method {
            BackupMethod::Streamed => "streamed",
            BackupMethod::PgRewind => "pg_rewind",
        };
        let from = match self.from {
            BackupFrom::Primary => "primary",
            BackupFrom::Standby => "standby",
        };
        let mut text = String::new();
        // Writing to a String cannot fail.
        let start = self.start_lsn.text_of(major);
        let _ = writeln!(text, "START WAL LOCATION: {start} (file {})", self.start_segment);
        if let Some(stop) = stop {
            let lsn = stop.stop_lsn.text_of(major);
            let _ = writeln!(text, "STOP WAL LOCATION: {lsn} (file {})", stop.stop_segment);
        }
        let _ = writeln!(text, "CHECKPOINT LOCATION: {}", self.checkpoint_lsn.text_of(major));
        let _ = writeln!(text, "BACKUP METHOD: {method}");
        let _ = writeln!(text, "BACKUP FROM: {from}");
        let _ = writeln!(text, "START TIME: {}", self.start_time);
        let _ = writeln!(text, "LABEL: {}", self.label);
        let _ = writeln!(text, "START TIMELINE: {}", self.start_timeline.0);
        text
    }
}

impl BackupHistory {
    /// Reads a backup history file.
    ///
    /// # Errors
    /// As [`BackupLabel::parse`], with the lines about the end of the backup.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let lines = Lines::read(FileKind::BackupHistory, bytes)?;
        let (stop_lsn, stop_segment) = lines.location("STOP WAL LOCATION")?;
        Ok(Self {
            label: lines.label()?,
            stop_lsn,
            stop_segment,
            stop_time: lines.required("STOP TIME")?.1.to_owned(),
            stop_timeline: lines.timeline("STOP TIMELINE")?,
        })
    }

    /// The content of the file, byte for byte as this major writes it.
    #[must_use]
    pub fn compose(&self, major: Major) -> String {
        let mut text = self.label.compose_start(Some(self), major);
        let _ = writeln!(text, "STOP TIME: {}", self.stop_time);
        let _ = writeln!(text, "STOP TIMELINE: {}", self.stop_timeline.0);
        text
    }
}

/// `field: value` lines with their numbers.
struct Lines<'a> {
    file: FileKind,
    lines: Vec<(u32, &'a str, &'a str)>,
}

impl<'a> Lines<'a> {
    fn read(file: FileKind, bytes: &'a [u8]) -> Result<Self, FormatError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FormatError::Text {
            file,
            expected: "UTF-8 text",
            found: excerpt(&String::from_utf8_lossy(bytes)),
        })?;
        let mut lines = Vec::new();
        // Not by lines(), to which a carriage return before the end of a line is a part of that.
        for (number, line) in (1_u32..).zip(text.split_terminator('\n')) {
            let (field, value) = line.split_once(": ").ok_or_else(|| FormatError::Line {
                file,
                line: number,
                expected: "a field, a colon and its value",
                found: excerpt(line),
            })?;
            lines.push((number, field, value));
        }
        Ok(Self { file, lines })
    }

    fn optional(&self, field: &str) -> Option<(u32, &'a str)> {
        self.lines
            .iter()
            .find(|(_, name, _)| *name == field)
            .map(|(line, _, value)| (*line, *value))
    }

    fn required(&self, field: &'static str) -> Result<(u32, &'a str), FormatError> {
        self.optional(field).ok_or(FormatError::MissingLine { file: self.file, field })
    }

    fn wrong(&self, (line, found): (u32, &str), expected: &'static str) -> FormatError {
        FormatError::Line { file: self.file, line, expected, found: excerpt(found) }
    }

    fn lsn(&self, field: &'static str) -> Result<Lsn, FormatError> {
        let line = self.required(field)?;
        line.1.parse().map_err(|_| self.wrong(line, "an LSN"))
    }

    fn timeline(&self, field: &'static str) -> Result<TimelineId, FormatError> {
        let line = self.required(field)?;
        parse_timeline(line.1).ok_or_else(|| self.wrong(line, "a timeline number"))
    }

    /// `X/Y (file <24 digits>)`.
    fn location(&self, field: &'static str) -> Result<(Lsn, String), FormatError> {
        let line = self.required(field)?;
        let read = || {
            let (lsn, file) = line.1.split_once(" (file ")?;
            let file = file.strip_suffix(')')?;
            let is_segment = ArchiveName::kind_of(file) == Some(ArchiveNameKind::Segment);
            is_segment.then_some((lsn.parse().ok()?, file.to_owned()))
        };
        read().ok_or_else(|| self.wrong(line, "an LSN and (file SEGMENT)"))
    }

    fn label(&self) -> Result<BackupLabel, FormatError> {
        let (start_lsn, start_segment) = self.location("START WAL LOCATION")?;
        let method = self.required("BACKUP METHOD")?;
        let from = self.required("BACKUP FROM")?;
        let start_timeline = self.timeline("START TIMELINE")?;
        let in_name = start_segment.get(..8).and_then(|text| text.parse::<TimelineId>().ok());
        if in_name != Some(start_timeline) {
            let line = self.required("START TIMELINE")?;
            return Err(self.wrong(line, "the timeline of the start segment"));
        }
        let incremental_from = match self.optional("INCREMENTAL FROM LSN") {
            Some(_) => Some(IncrementalFrom {
                lsn: self.lsn("INCREMENTAL FROM LSN")?,
                timeline: self.timeline("INCREMENTAL FROM TLI")?,
            }),
            None => None,
        };
        Ok(BackupLabel {
            start_lsn,
            start_segment,
            checkpoint_lsn: self.lsn("CHECKPOINT LOCATION")?,
            method: match method.1 {
                "streamed" => BackupMethod::Streamed,
                "pg_rewind" => BackupMethod::PgRewind,
                _ => return Err(self.wrong(method, "streamed or pg_rewind")),
            },
            from: match from.1 {
                "primary" => BackupFrom::Primary,
                "standby" => BackupFrom::Standby,
                _ => return Err(self.wrong(from, "primary or standby")),
            },
            start_time: self.required("START TIME")?.1.to_owned(),
            // pg_rewind writes no label.
            label: self.optional("LABEL").map_or_else(String::new, |(_, text)| text.to_owned()),
            start_timeline,
            incremental_from,
        })
    }
}

fn parse_timeline(text: &str) -> Option<TimelineId> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let number = if plain { text.parse().ok() } else { None };
    number.filter(|number| *number != 0).map(TimelineId)
}

#[cfg(test)]
mod tests {
    use super::{BackupFrom, BackupHistory, BackupLabel, BackupMethod};
    use crate::lsn::Lsn;
    use crate::timeline::TimelineId;
    use crate::version::Major;

    const LABEL: &str = "START WAL LOCATION: 0/9000028 (file 000000010000000000000009)\n\
        CHECKPOINT LOCATION: 0/9000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-22 14:03:07 UTC\nLABEL: a: b\nSTART TIMELINE: 1\n";
    const HISTORY: &str = "START WAL LOCATION: 0/9000028 (file 000000010000000000000009)\n\
        STOP WAL LOCATION: 0/9000138 (file 000000010000000000000009)\n\
        CHECKPOINT LOCATION: 0/9000060\nBACKUP METHOD: streamed\nBACKUP FROM: standby\n\
        START TIME: 2026-11-22 14:03:07 UTC\nLABEL: x\nSTART TIMELINE: 1\n\
        STOP TIME: 2026-11-22 14:03:09 UTC\nSTOP TIMELINE: 1\n";

    #[test]
    fn label_reads_and_composes_to_the_same_bytes() {
        let label = BackupLabel::parse(LABEL.as_bytes()).unwrap();
        assert_eq!(label.start_lsn, Lsn(0x900_0028));
        assert_eq!(label.checkpoint_lsn, Lsn(0x900_0060));
        assert_eq!((label.method, label.from), (BackupMethod::Streamed, BackupFrom::Primary));
        assert_eq!(label.label, "a: b");
        assert_eq!(label.compose(Major::V18), LABEL);
        let text = format!("{LABEL}INCREMENTAL FROM LSN: 0/4000028\nINCREMENTAL FROM TLI: 1\n");
        let incremental = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!(incremental.incremental_from.unwrap().lsn, Lsn(0x400_0028));
        assert_eq!(incremental.compose(Major::V18), text);
    }

    /// Found by the fuzzer.
    #[test]
    fn a_carriage_return_at_the_end_of_a_value_belongs_to_it() {
        let text = LABEL.replace("LABEL: a: b", "LABEL: a\r\r");
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!(label.label, "a\r\r");
        assert_eq!(label.compose(Major::V18), text);
    }

    #[test]
    fn history_reads_and_composes_to_the_same_bytes() {
        let history = BackupHistory::parse(HISTORY.as_bytes()).unwrap();
        assert_eq!(history.stop_lsn, Lsn(0x900_0138));
        assert_eq!(history.stop_timeline, TimelineId(1));
        assert_eq!(history.compose(Major::V18), HISTORY);
    }

    #[test]
    fn each_line_is_needed_and_checked() {
        for line in LABEL.lines().filter(|line| !line.starts_with("LABEL")) {
            let without = LABEL.replace(&format!("{line}\n"), "");
            assert!(BackupLabel::parse(without.as_bytes()).is_err(), "{line}");
        }
        for (from, to) in [
            ("0/9000028", "9000028"),
            ("000000010000000000000009", "nonsense"),
            ("TIMELINE: 1", "TIMELINE: 2"),
            ("primary", "nowhere"),
            ("METHOD: streamed", "METHOD: exclusive"),
            ("LABEL: a: b", "LABEL"),
        ] {
            let text = LABEL.replace(from, to);
            assert!(BackupLabel::parse(text.as_bytes()).is_err(), "{to}");
        }
        assert!(BackupLabel::parse(&[0xFF]).is_err());
    }
}
