//! What can be wrong with PostgreSQL's bytes: which file kind, where, what was expected, what was
//! found.

use std::fmt;

use thiserror::Error;

use crate::lsn::Lsn;

/// How a caller should react to an error; a kind exists only where the reaction differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The bytes are damaged or are not what their name says.
    Corrupt,
    /// The bytes stop before their end.
    Incomplete,
    /// A major, a byte order or a format that this build does not know.
    Unsupported,
    /// The caller (or the user) gave something that cannot be.
    Invalid,
}

/// The kinds of files that this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `global/pg_control`.
    ControlFile,
    /// `backup_label`.
    BackupLabel,
    /// `tablespace_map`.
    TablespaceMap,
    /// `<timeline>.history`.
    TimelineHistory,
    /// `<segment>.<offset>.backup`.
    BackupHistory,
    /// `backup_manifest`.
    BackupManifest,
    /// `PG_VERSION`.
    Version,
    /// A file name in `pg_wal` or an archive.
    WalFileName,
    /// A WAL segment.
    WalSegment,
    /// A WAL record.
    WalRecord,
    /// A log sequence number as text.
    Lsn,
    /// A timeline id as text.
    TimelineId,
    /// A path below the data directory.
    Path,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlFile => "pg_control",
            Self::BackupLabel => "backup_label",
            Self::TablespaceMap => "tablespace_map",
            Self::TimelineHistory => "timeline history file",
            Self::BackupHistory => "backup history file",
            Self::BackupManifest => "backup_manifest",
            Self::Version => "PG_VERSION",
            Self::WalFileName => "WAL file name",
            Self::WalSegment => "WAL segment",
            Self::WalRecord => "WAL record",
            Self::Lsn => "LSN",
            Self::TimelineId => "timeline id",
            Self::Path => "path",
        })
    }
}

/// An error in bytes or text that PostgreSQL wrote (or should have written).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The file is shorter or longer than it must be.
    #[error("{file}: {expected} bytes expected, {found} found")]
    Length {
        /// The kind of file.
        file: FileKind,
        /// Bytes that must be there.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A checksum does not match; both as PostgreSQL would print them.
    #[error("{file}: checksum (CRC-32C) {expected:08x} expected, {found:08x} found")]
    Checksum {
        /// The kind of file.
        file: FileKind,
        /// The checksum computed from the bytes.
        expected: u32,
        /// The checksum stored in the bytes.
        found: u32,
    },
    /// The checksum of a WAL record does not match.
    #[error("WAL record at {lsn}: checksum (CRC-32C) {expected:08x} expected, {found:08x} found")]
    RecordChecksum {
        /// Where the record starts.
        lsn: Lsn,
        /// The checksum computed from the bytes.
        expected: u32,
        /// The checksum stored in the record.
        found: u32,
    },
    /// A version number that is of no major known here.
    #[error("{file}: {what} {found} is of no PostgreSQL version known here ({known})")]
    UnknownVersion {
        /// The kind of file.
        file: FileKind,
        /// Which number it is.
        what: &'static str,
        /// The number found, as PostgreSQL prints it.
        found: String,
        /// What is known, for people.
        known: &'static str,
    },
    /// The file was written on a big-endian machine.
    #[error("{file}: written on a machine of big-endian byte order, which is not supported")]
    ByteOrder {
        /// The kind of file.
        file: FileKind,
    },
    /// A field holds what it must not.
    #[error("{file}, byte {offset_bytes}: {field} must be {expected}, {found} found")]
    Field {
        /// The kind of file.
        file: FileKind,
        /// Where in the file.
        offset_bytes: u64,
        /// The field, by PostgreSQL's name.
        field: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A line of a text file is not as it must be.
    #[error("{file}, line {line}: {expected} expected, {found:?} found")]
    Line {
        /// The kind of file.
        file: FileKind,
        /// The line, from 1.
        line: u32,
        /// What would be right.
        expected: &'static str,
        /// The line as found, shortened.
        found: String,
    },
    /// A required line of a text file is missing.
    #[error("{file}: no line {field:?}")]
    MissingLine {
        /// The kind of file.
        file: FileKind,
        /// How the line begins.
        field: &'static str,
    },
    /// A piece of text (a name, a number) that cannot be read.
    #[error("{file}: {expected} expected, {found:?} found")]
    Text {
        /// What it should have been.
        file: FileKind,
        /// The shape that would be right.
        expected: &'static str,
        /// The text, shortened.
        found: String,
    },
    /// A WAL record whose parts do not add up.
    #[error("WAL record at {lsn}: {what}: {expected} expected, {found} found")]
    Record {
        /// Where the record starts.
        lsn: Lsn,
        /// Which part.
        what: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// WAL bytes that do not join what came before.
    #[error("WAL at {found} does not join {expected}")]
    Discontinuous {
        /// Where the next byte belongs.
        expected: Lsn,
        /// Where the bytes given belong.
        found: Lsn,
    },
    /// A size that PostgreSQL cannot be built or initialised with.
    #[error("{what} must be {expected}, {found} found")]
    Size {
        /// Which size.
        what: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What was given.
        found: u64,
    },
}

impl FormatError {
    /// How to react; part of the API, unlike the text.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Length { expected, found, .. } if found < expected => ErrorKind::Incomplete,
            Self::Length { .. }
            | Self::Checksum { .. }
            | Self::RecordChecksum { .. }
            | Self::Field { .. }
            | Self::Line { .. }
            | Self::MissingLine { .. }
            | Self::Record { .. } => ErrorKind::Corrupt,
            Self::UnknownVersion { .. } | Self::ByteOrder { .. } => ErrorKind::Unsupported,
            Self::Text { .. } | Self::Discontinuous { .. } | Self::Size { .. } => {
                ErrorKind::Invalid
            }
        }
    }
}

/// Shortens text from outside for an error, on a character boundary.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}
