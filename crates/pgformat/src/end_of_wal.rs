//! Why reading WAL stopped, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// The first position from which nothing can be read, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfWal {
    /// Where the record (or page) starts that cannot be read.
    pub lsn: Lsn,
    /// Why not.
    #[serde(flatten)]
    pub reason: EndReason,
}

/// Why a record or page cannot be read; the checks of `xlogreader.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum EndReason {
    /// Zeroes: never written. The usual end of the newest segment of a new cluster, and of
    /// `.partial` files.
    Zeroes,
    /// A record's length cannot be.
    RecordLength {
        /// The length found.
        found: u32,
    },
    /// No resource manager has this id.
    ResourceManager {
        /// The id found.
        found: u8,
    },
    /// A record that does not follow the one before: the usual end in a recycled segment.
    PreviousLink {
        /// The record before; unknown for a segment's first record, which must only point
        /// backwards.
        expected: Option<Lsn>,
        /// Where the record points.
        found: Lsn,
    },
    /// A record's checksum is wrong: torn at the end of WAL, damaged elsewhere.
    Checksum {
        /// The checksum of the bytes.
        expected: u32,
        /// The checksum stored.
        found: u32,
    },
    /// A page that is of no known major, or of another one than those before.
    PageMagic {
        /// The magic found.
        found: u16,
    },
    /// A page with flags that PostgreSQL does not know, or a segment's first page without its long
    /// header.
    PageFlags {
        /// The flags found.
        found: u16,
    },
    /// A page that belongs elsewhere: the usual end in a recycled segment.
    PageAddress {
        /// Where it belongs.
        found: Lsn,
    },
    /// A page of an older timeline than the page before.
    Timeline {
        /// The timeline before.
        expected: TimelineId,
        /// The timeline found.
        found: TimelineId,
    },
    /// A segment's first page names other sizes than the segment has.
    Sizes {
        /// The segment size found, in bytes.
        segment_size_bytes: u32,
        /// The page size found, in bytes.
        page_size_bytes: u32,
    },
    /// A page that should go on with a record and does not, or the other way round.
    Continuation {
        /// Bytes that the record still needs; 0 if none should go on here.
        expected_bytes: u32,
        /// Bytes that the page says; 0 if it starts with a new record.
        found_bytes: u32,
    },
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeroes => f.write_str("nothing was written from there on"),
            Self::RecordLength { found } => write!(f, "no record has a length of {found} bytes"),
            Self::ResourceManager { found } => write!(f, "there is no resource manager {found}"),
            Self::PreviousLink { expected: Some(expected), found } => write!(
                f,
                "its record follows one at {found}, and the record before is at {expected}: it is \
                 WAL of another history"
            ),
            Self::PreviousLink { expected: None, found } => {
                write!(f, "its first record follows one at {found}, which lies behind it")
            }
            Self::Checksum { expected, found } => write!(
                f,
                "the checksum of its record is {found:#010x}, and that of its bytes {expected:#010x}"
            ),
            Self::PageMagic { found } => write!(f, "a page has the magic {found:#06x}"),
            Self::PageFlags { found } => write!(f, "a page has the flags {found:#06x}"),
            Self::PageAddress { found } => write!(f, "a page says that it belongs at {found}"),
            Self::Timeline { expected, found } => write!(
                f,
                "a page of timeline {} comes after one of timeline {}",
                found.0, expected.0
            ),
            Self::Sizes { segment_size_bytes, page_size_bytes } => write!(
                f,
                "its first page speaks of segments of {segment_size_bytes} bytes and pages of \
                 {page_size_bytes}"
            ),
            Self::Continuation { expected_bytes, found_bytes } => write!(
                f,
                "{expected_bytes} bytes of a record should go on there, and {found_bytes} do"
            ),
        }
    }
}
