//! WAL page headers (`XLogPageHeaderData`, `XLogLongPageHeaderData` of `xlog_internal.h`).

use crate::field::{is_zero, u16_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::version::Major;

/// The size of WAL pages unless PostgreSQL was built otherwise (`XLOG_BLCKSZ`).
pub const PAGE_SIZE_DEFAULT_BYTES: u32 = 8192;
/// The header of every page but a segment's first.
pub const SHORT_HEADER_BYTES: u32 = 24;
/// The header of a segment's first page.
pub const LONG_HEADER_BYTES: u32 = 40;

/// `xlp_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFlags(pub u16);

impl PageFlags {
    const CONTINUES_RECORD: u16 = 0x0001;
    const LONG_HEADER: u16 = 0x0002;

    /// The page begins with the rest of a record of the page before (`XLP_FIRST_IS_CONTRECORD`).
    #[must_use]
    pub const fn continues_record(self) -> bool {
        self.0 & Self::CONTINUES_RECORD != 0
    }

    /// The header is a long one (`XLP_LONG_HEADER`).
    #[must_use]
    pub const fn has_long_header(self) -> bool {
        self.0 & Self::LONG_HEADER != 0
    }

    /// The page takes the place of the lost rest of a record
    /// (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`). 19 gave it the bit of `XLP_BKP_REMOVABLE`, which it
    /// no longer has.
    #[must_use]
    pub fn overwrites_record(self, major: Major) -> bool {
        let bit = if major >= Major::V19 { 0x0004 } else { 0x0008 };
        self.0 & bit != 0
    }

    /// Whether only bits are set that this major knows (`XLP_ALL_FLAGS`).
    #[must_use]
    pub fn are_known(self, major: Major) -> bool {
        let known = if major >= Major::V19 { 0x0007 } else { 0x000F };
        self.0 & !known == 0
    }
}

/// What only the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongHeader {
    /// The cluster (`xlp_sysid`).
    pub system_identifier: u64,
    /// The segment size in bytes, not checked (`xlp_seg_size`).
    pub segment_size_bytes: u32,
    /// The size of WAL pages in bytes, not checked (`xlp_xlog_blcksz`).
    pub page_size_bytes: u32,
}

/// The header of a WAL page; nothing in it has been judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// `xlp_magic`, which tells the major.
    pub magic: u16,
    /// `xlp_info`.
    pub flags: PageFlags,
    /// The timeline of the first record that starts on the page (`xlp_tli`).
    pub timeline: TimelineId,
    /// Where the page belongs (`xlp_pageaddr`); in a recycled segment, where it belonged.
    pub address: Lsn,
    /// Bytes still to come of a record that goes on here, on this page and after (`xlp_rem_len`).
    pub remaining_bytes: u32,
    /// The rest of a long header.
    pub long: Option<LongHeader>,
}

impl PageHeader {
    /// Reads a header; nothing if there are fewer bytes than its flags ask for.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let flags = PageFlags(u16_at(bytes, 2)?);
        let long = if flags.has_long_header() {
            Some(LongHeader {
                system_identifier: u64_at(bytes, 24)?,
                segment_size_bytes: u32_at(bytes, 32)?,
                page_size_bytes: u32_at(bytes, 36)?,
            })
        } else {
            None
        };
        Some(Self {
            magic: u16_at(bytes, 0)?,
            flags,
            timeline: TimelineId(u32_at(bytes, 4)?),
            address: Lsn(u64_at(bytes, 8)?),
            remaining_bytes: u32_at(bytes, 16)?,
            long,
        })
    }

    /// The major that writes such pages.
    #[must_use]
    pub fn major(&self) -> Option<Major> {
        Major::from_wal_magic(self.magic)
    }

    /// Whether the page takes the place of the lost rest of a record; a page of no known major
    /// does not.
    #[must_use]
    pub fn overwrites_record(&self) -> bool {
        self.major().is_some_and(|major| self.flags.overwrites_record(major))
    }

    /// How many bytes the header takes.
    #[must_use]
    pub const fn size_bytes(&self) -> u32 {
        if self.flags.has_long_header() { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES }
    }

    /// Whether these bytes are a header that was never written.
    pub(crate) fn is_unwritten(bytes: &[u8]) -> bool {
        bytes.get(..24).is_some_and(is_zero)
    }
}

#[cfg(test)]
mod tests {
    use super::{LongHeader, PageFlags, PageHeader};
    use crate::lsn::Lsn;
    use crate::version::Major;

    #[test]
    fn reads_both_kinds() {
        let mut bytes = vec![0; 40];
        bytes[..2].copy_from_slice(&0xD116_u16.to_le_bytes());
        bytes[2] = 0x03;
        bytes[4] = 7;
        bytes[8..16].copy_from_slice(&0x1_0100_0000_u64.to_le_bytes());
        bytes[16] = 9;
        bytes[24..32].copy_from_slice(&77_u64.to_le_bytes());
        bytes[35] = 1;
        bytes[37] = 0x20;
        let header = PageHeader::decode(&bytes).unwrap();
        assert_eq!(header.major(), Some(Major::V17));
        assert_eq!((header.timeline.0, header.remaining_bytes), (7, 9));
        assert_eq!(header.address, Lsn(0x1_0100_0000));
        assert!(header.flags.continues_record() && !header.overwrites_record());
        let long = LongHeader {
            system_identifier: 77,
            segment_size_bytes: 16 << 20,
            page_size_bytes: 8192,
        };
        assert_eq!((header.long, header.size_bytes()), (Some(long), 40));
        assert_eq!(PageHeader::decode(&bytes[..39]), None);
        bytes[2] = 0x01;
        assert_eq!(PageHeader::decode(&bytes[..24]).unwrap().size_bytes(), 24);
    }

    #[test]
    fn flags_mean_what_they_mean_in_their_major() {
        let (old, new) = (PageFlags(0x0008), PageFlags(0x0004));
        assert!(old.overwrites_record(Major::V18) && old.are_known(Major::V18));
        assert!(!old.overwrites_record(Major::V19) && !old.are_known(Major::V19));
        assert!(new.overwrites_record(Major::V19) && new.are_known(Major::V19));
        assert!(!new.overwrites_record(Major::V18) && new.are_known(Major::V18));
    }
}
