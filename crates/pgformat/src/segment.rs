//! WAL segments: their size, numbers and names, and every other name that an archive is asked to
//! keep.
//!
//! Names follow `xlog_internal.h` (`XLogFileName`, `TLHistoryFileName`, `BackupHistoryFileName`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{FileKind, FormatError, excerpt};
use crate::lsn::Lsn;
use crate::timeline::{TimelineId, hex_upper_word};

const MIB: u32 = 1024 * 1024;

/// The size of a cluster's WAL segments: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// What `initdb` takes unless told otherwise: 16 MiB.
    pub const DEFAULT: Self = Self(16 * MIB);

    /// A size in bytes.
    ///
    /// # Errors
    /// Anything but a power of two from 1 MiB to 1 GiB (`IsValidWalSegSize`).
    pub fn from_bytes(size_bytes: u64) -> Result<Self, FormatError> {
        u32::try_from(size_bytes)
            .ok()
            .filter(|size| size.is_power_of_two() && (MIB..=1024 * MIB).contains(size))
            .map(Self)
            .ok_or(FormatError::Size {
                what: "WAL segment size",
                expected: "a power of two from 1 MiB to 1 GiB",
                found: size_bytes,
            })
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The size in bytes, for arithmetic with positions.
    #[must_use]
    pub(crate) fn bytes_u64(self) -> u64 {
        u64::from(self.0)
    }

    /// Segments in 4 GiB, one "log" of the names.
    fn segments_per_log(self) -> u64 {
        (1_u64 << 32) >> self.0.trailing_zeros()
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> Self {
        size.0
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = FormatError;

    fn try_from(size_bytes: u32) -> Result<Self, FormatError> {
        Self::from_bytes(u64::from(size_bytes))
    }
}

/// The number of a segment: its first position divided by the segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The segment that holds the byte at `lsn` (`XLByteToSeg`).
    #[must_use]
    pub fn containing(lsn: Lsn, size: SegmentSize) -> Self {
        Self(lsn.0 >> size.0.trailing_zeros())
    }

    /// The segment that holds the byte before `lsn` (`XLByteToPrevSeg`): the last one needed to
    /// reach an end position.
    #[must_use]
    pub fn ending_at(lsn: Lsn, size: SegmentSize) -> Self {
        Self::containing(lsn.saturating_sub(1), size)
    }

    /// The segment's first position; saturates at the end of all positions.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.0.saturating_mul(size.bytes_u64()))
    }

    /// The first position after the segment; saturates at the end of all positions.
    #[must_use]
    pub fn end(self, size: SegmentSize) -> Lsn {
        self.start(size).saturating_add(size.bytes_u64())
    }

    /// The next segment's number.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number of the segment before, if there is one.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

/// A segment of a timeline. Its name depends on the segment size, so printing takes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentName {
    /// The timeline in the name; the segment may begin with pages of an older one.
    pub timeline: TimelineId,
    /// Which segment.
    pub number: SegmentNumber,
}

impl SegmentName {
    /// Reads 24 upper-case hexadecimal digits.
    ///
    /// # Errors
    /// Another shape, timeline 0, or a number that segments of this size cannot have.
    pub fn parse(name: &str, size: SegmentSize) -> Result<Self, FormatError> {
        parse_segment(name, size).ok_or_else(|| not_a_name(name, SEGMENT_SHAPE))
    }

    /// The file name: timeline, log and segment, 24 digits.
    #[must_use]
    pub fn file_name(self, size: SegmentSize) -> String {
        let per_log = size.segments_per_log();
        let (log, segment) =
            (self.number.0.checked_div(per_log), self.number.0.checked_rem(per_log));
        format!("{}{:08X}{:08X}", self.timeline, log.unwrap_or(0), segment.unwrap_or(0))
    }
}

/// What kind of name an archive is asked for, told from the shape alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchiveNameKind {
    /// A whole WAL segment.
    Segment,
    /// The last, unfinished segment of a timeline that was left.
    Partial,
    /// A timeline history file.
    History,
    /// A backup history file.
    BackupHistory,
}

/// Every name that `archive_command` and `restore_command` can be called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchiveName {
    /// `<24 digits>`: a whole WAL segment.
    Segment(SegmentName),
    /// `<24 digits>.partial`: the last, unfinished segment of a timeline that was left by a
    /// promotion.
    Partial(SegmentName),
    /// `<8 digits>.history`: the ancestry of a timeline.
    History(TimelineId),
    /// `<24 digits>.<8 digits>.backup`: that a backup started at this offset of the segment.
    BackupHistory {
        /// The segment in which the backup starts.
        segment: SegmentName,
        /// Where in the segment.
        offset_bytes: u32,
    },
}

const SEGMENT_SHAPE: &str = "24 upper-case hexadecimal digits that segments of this size can have";
const ARCHIVE_SHAPE: &str =
    "a segment (24 upper-case hexadecimal digits), .partial, .history or .backup";

impl ArchiveName {
    /// Reads a file name of `pg_wal` or an archive.
    ///
    /// # Errors
    /// Any name that PostgreSQL does not archive, or that segments of this size cannot have.
    pub fn parse(name: &str, size: SegmentSize) -> Result<Self, FormatError> {
        parse_archive(name, size).ok_or_else(|| not_a_name(name, ARCHIVE_SHAPE))
    }

    /// What a name is, without knowing the segment size; nothing for names that PostgreSQL does not
    /// archive.
    #[must_use]
    pub fn kind_of(name: &str) -> Option<ArchiveNameKind> {
        // The number of a segment wants a small size, the offset of a backup in it a large one.
        let mut sizes = (0..=10).map(|doublings| SegmentSize(MIB << doublings));
        Some(match sizes.find_map(|size| parse_archive(name, size))? {
            Self::Segment(_) => ArchiveNameKind::Segment,
            Self::Partial(_) => ArchiveNameKind::Partial,
            Self::History(_) => ArchiveNameKind::History,
            Self::BackupHistory { .. } => ArchiveNameKind::BackupHistory,
        })
    }

    /// The timeline in the name.
    #[must_use]
    pub const fn timeline(self) -> TimelineId {
        match self {
            Self::Segment(segment)
            | Self::Partial(segment)
            | Self::BackupHistory { segment, .. } => segment.timeline,
            Self::History(timeline) => timeline,
        }
    }

    /// The segment in the name, if there is one.
    #[must_use]
    pub const fn segment(self) -> Option<SegmentName> {
        match self {
            Self::Segment(segment)
            | Self::Partial(segment)
            | Self::BackupHistory { segment, .. } => Some(segment),
            Self::History(_) => None,
        }
    }

    /// The file name.
    #[must_use]
    pub fn file_name(self, size: SegmentSize) -> String {
        match self {
            Self::Segment(segment) => segment.file_name(size),
            Self::Partial(segment) => format!("{}.partial", segment.file_name(size)),
            Self::History(timeline) => format!("{timeline}.history"),
            Self::BackupHistory { segment, offset_bytes } => {
                format!("{}.{offset_bytes:08X}.backup", segment.file_name(size))
            }
        }
    }
}

fn parse_archive(name: &str, size: SegmentSize) -> Option<ArchiveName> {
    let Some((stem, rest)) = name.split_once('.') else {
        return parse_segment(name, size).map(ArchiveName::Segment);
    };
    match rest {
        "history" => TimelineId::from_str(stem).ok().map(ArchiveName::History),
        "partial" => parse_segment(stem, size).map(ArchiveName::Partial),
        _ => {
            let offset_bytes = hex_upper_word(rest.strip_suffix(".backup")?)?;
            let segment = parse_segment(stem, size)?;
            (offset_bytes < size.0).then_some(ArchiveName::BackupHistory { segment, offset_bytes })
        }
    }
}

fn parse_segment(name: &str, size: SegmentSize) -> Option<SegmentName> {
    if name.len() != 24 {
        return None;
    }
    let timeline = name.get(..8)?.parse().ok()?;
    let log = u64::from(hex_upper_word(name.get(8..16)?)?);
    let segment = u64::from(hex_upper_word(name.get(16..)?)?);
    let per_log = size.segments_per_log();
    if segment >= per_log {
        return None;
    }
    let number = log.checked_mul(per_log)?.checked_add(segment)?;
    Some(SegmentName { timeline, number: SegmentNumber(number) })
}

fn not_a_name(name: &str, expected: &'static str) -> FormatError {
    FormatError::Text { file: FileKind::WalFileName, expected, found: excerpt(name) }
}

/// For messages, where the segment size is not at hand; [`SegmentName::file_name`] gives the name.
impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} of timeline {}", self.number.0, self.timeline.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{ArchiveName, ArchiveNameKind, SegmentName, SegmentNumber, SegmentSize};
    use crate::lsn::Lsn;
    use crate::timeline::TimelineId;

    fn sized(mib: u64) -> SegmentSize {
        SegmentSize::from_bytes(mib << 20).unwrap()
    }

    #[test]
    fn sizes_are_powers_of_two_within_bounds() {
        for good in [1, 2, 16, 64, 1024] {
            assert_eq!(u64::from(sized(good).bytes()), good << 20);
        }
        for bad in [0, 1, (1 << 20) - 1, 3 << 20, 2 << 30, u64::MAX] {
            assert!(SegmentSize::from_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_numbers_agree_for_each_size() {
        for (name, mib, start) in [
            ("000000010000000000000001", 16, 0x100_0000_u64),
            ("0000000100000001000000FF", 16, 0x1_FF00_0000),
            ("000000020000000100000FFF", 1, 0x1_FFF0_0000),
            ("000000020000000500000003", 1024, 0x5_C000_0000),
            ("00000002FFFFFFFF000000FF", 16, 0xFFFF_FFFF_FF00_0000),
        ] {
            let parsed = SegmentName::parse(name, sized(mib)).unwrap();
            assert_eq!(parsed.number.start(sized(mib)), Lsn(start), "{name}");
            assert_eq!(parsed.file_name(sized(mib)), name);
            assert_eq!(SegmentNumber::containing(Lsn(start), sized(mib)), parsed.number);
            let before = SegmentNumber::ending_at(Lsn(start), sized(mib));
            assert_eq!(Some(before), parsed.number.previous());
        }
        assert!(SegmentName::parse("000000010000000000000100", sized(16)).is_err());
        assert!(SegmentName::parse("000000010000000000000004", sized(1024)).is_err());
    }

    #[test]
    fn every_archive_name_is_read_and_printed() {
        let size = SegmentSize::DEFAULT;
        for (name, kind) in [
            ("00000001000000000000000A", ArchiveNameKind::Segment),
            ("00000001000000000000000A.partial", ArchiveNameKind::Partial),
            ("0000000B.history", ArchiveNameKind::History),
            ("00000001000000000000000A.00000028.backup", ArchiveNameKind::BackupHistory),
            ("00000001000000000000000A.00FFFFF8.backup", ArchiveNameKind::BackupHistory),
        ] {
            let parsed = ArchiveName::parse(name, size).unwrap();
            assert_eq!(parsed.file_name(size), name);
            assert_eq!(ArchiveName::kind_of(name), Some(kind));
        }
        assert_eq!(
            ArchiveName::parse("0000000B.history", size).unwrap().timeline(),
            TimelineId(11)
        );
        for bad in [
            "",
            ".",
            "00000001000000000000000a",
            "00000000000000000000000A",
            "00000001000000000000000A.PARTIAL",
            "00000001000000000000000A.partial.partial",
            "00000001000000000000000A.gz",
            "0000000B.history.tmp",
            "B.history",
            "00000001000000000000000A.0000028.backup",
            "00000001000000000000000A.01000000.backup",
            "00000001000000000000000A.backup",
            "../00000001000000000000000A",
            "RECOVERYXLOG",
            "0000000100000000000000é",
        ] {
            assert!(ArchiveName::parse(bad, size).is_err(), "{bad:?}");
        }
    }
}
