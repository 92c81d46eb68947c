//! WAL records: header, checksum, block references and data (`xlogrecord.h`, `DecodeXLogRecord` of
//! `xlogreader.c`).

use crate::error::FormatError;
use crate::field::{to_usize, u8_at, u16_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::page::PAGE_SIZE_DEFAULT_BYTES;
use crate::relation::{Fork, RelationLocator};
use crate::resource_manager::ResourceManager;
use crate::timeline::TimelineId;
use crate::version::Major;

/// The header of a record (`SizeOfXLogRecord`).
pub const RECORD_HEADER_BYTES: u32 = 24;
/// No server can read a longer record (`MaxAllocSize`); writers stop at 1020 MiB from 16 on.
pub const RECORD_MAX_BYTES: u32 = 0x3FFF_FFFF;

/// How much of the header the checksum covers: all but itself.
const CRC_OFFSET: usize = 20;
/// The header as an index.
const HEADER_LEN: usize = 24;
/// `XLR_MAX_BLOCK_ID`.
const BLOCK_ID_MAX: u8 = 32;
const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOPLEVEL_XID: u8 = 252;
const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_RELATION: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;

/// The header of a record (`XLogRecord`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The record's length in bytes, this header included.
    pub total_len: u32,
    /// The transaction, 0 if none.
    pub xid: u32,
    /// The record before.
    pub previous: Lsn,
    /// Upper four bits: the kind of record; lower four: [`Self::special_relation_update`] and the
    /// like.
    pub info: u8,
    /// Whose record it is.
    pub resource_manager: ResourceManager,
    /// The stored checksum.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads the first 24 bytes of a record.
    #[must_use]
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            total_len: u32_at(bytes, 0)?,
            xid: u32_at(bytes, 4)?,
            previous: Lsn(u64_at(bytes, 8)?),
            info: u8_at(bytes, 16)?,
            resource_manager: ResourceManager(u8_at(bytes, 17)?),
            crc: u32_at(bytes, CRC_OFFSET)?,
        })
    }

    /// What the record says, among those of its resource manager (`xl_info & ~XLR_INFO_MASK`).
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.info & 0xF0
    }

    /// Whether it changes relation files in ways that its block references do not tell
    /// (`XLR_SPECIAL_REL_UPDATE`).
    #[must_use]
    pub const fn special_relation_update(&self) -> bool {
        self.info & 0x01 != 0
    }
}

/// The checksum that a whole record ought to carry; nothing if it is shorter than its header.
#[must_use]
#[inline]
pub fn record_checksum(bytes: &[u8]) -> Option<u32> {
    let data = bytes.get(HEADER_LEN..)?;
    let header = bytes.get(..CRC_OFFSET)?;
    Some(crc32c::crc32c_append(crc32c::crc32c(data), header))
}

/// A whole record whose checksum has been verified.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it starts.
    pub lsn: Lsn,
    /// The position after it (`EndRecPtr`); after a switch record, the end of the segment.
    pub end_lsn: Lsn,
    /// The timeline of the page on which it ends.
    pub timeline: TimelineId,
    /// The major that wrote it.
    pub major: Major,
    /// Its header.
    pub header: RecordHeader,
    /// All of it, header included, without the page headers in between.
    pub bytes: &'a [u8],
}

/// How a page image is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageCompression {
    /// Not at all.
    None,
    /// PostgreSQL's own.
    Pglz,
    /// LZ4, from 15 on.
    Lz4,
    /// zstd, from 15 on.
    Zstd,
}

/// Whether replay restores a page image, or it is there for `wal_consistency_checking` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageUse {
    /// Replay restores it (`BKPIMAGE_APPLY`).
    Restored,
    /// It is there to be compared.
    Compared,
}

/// A full-page image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockImage {
    /// Bytes of the image as stored.
    pub len: u16,
    /// Where the hole of zeroes begins that is not stored.
    pub hole_offset: u16,
    /// The hole's length, 0 without one.
    pub hole_len: u16,
    /// How it is compressed.
    pub compression: ImageCompression,
    /// What it is for.
    pub used: ImageUse,
    /// Where in the record it starts.
    at: u32,
}

/// A block that a record changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockReference {
    /// Its number among the record's blocks; they rise, with gaps.
    pub id: u8,
    /// The relation.
    pub locator: RelationLocator,
    /// The fork.
    pub fork: Fork,
    /// The block's number within the fork.
    pub block: u32,
    /// Whether replay makes the page from nothing (`BKPBLOCK_WILL_INIT`).
    pub init: PageInit,
    /// The page's image, if there is one.
    pub image: Option<BlockImage>,
    /// Bytes of data about this block.
    pub data_len: u16,
    data_at: u32,
}

/// Whether replay needs a block's old content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageInit {
    /// It does (unless there is an image).
    Keeps,
    /// It makes the page from nothing.
    Initialises,
}

/// A record taken apart; the blocks go into the vector given.
#[derive(Clone, Copy, Debug)]
pub struct RecordBody<'a> {
    /// The data that belongs to no block.
    pub main_data: &'a [u8],
    /// The replication origin, if it has one.
    pub origin: Option<u16>,
    /// The top-level transaction, if the header names a subtransaction and `wal_level` is logical.
    pub toplevel_xid: Option<u32>,
}

impl<'a> Record<'a> {
    /// Takes the record apart. `blocks` is emptied first and can be used again for the next record.
    ///
    /// # Errors
    /// Parts that do not add up, as `DecodeXLogRecord` would refuse them.
    pub fn decode_body(
        &self,
        blocks: &mut Vec<BlockReference>,
    ) -> Result<RecordBody<'a>, FormatError> {
        blocks.clear();
        BodyReader::new(self).read(blocks)
    }

    /// The stored bytes of a block's image.
    #[must_use]
    pub fn image_bytes(&self, image: &BlockImage) -> Option<&'a [u8]> {
        let at = to_usize(image.at);
        self.bytes.get(at..at.checked_add(usize::from(image.len))?)
    }

    /// A block's own data.
    #[must_use]
    pub fn block_data(&self, block: &BlockReference) -> Option<&'a [u8]> {
        let at = to_usize(block.data_at);
        self.bytes.get(at..at.checked_add(usize::from(block.data_len))?)
    }
}

/// Reads the headers after the record header, then finds the data they speak of.
struct BodyReader<'a> {
    lsn: Lsn,
    major: Major,
    bytes: &'a [u8],
    at: usize,
    /// Bytes of data that the headers so far speak of.
    data_total: u32,
    last_id: Option<u8>,
    locator: Option<RelationLocator>,
}

impl<'a> BodyReader<'a> {
    fn new(record: &Record<'a>) -> Self {
        Self {
            lsn: record.lsn,
            major: record.major,
            bytes: record.bytes,
            at: HEADER_LEN,
            data_total: 0,
            last_id: None,
            locator: None,
        }
    }

    fn read(mut self, blocks: &mut Vec<BlockReference>) -> Result<RecordBody<'a>, FormatError> {
        let mut main_len = 0;
        let mut origin = None;
        let mut toplevel_xid = None;
        let total = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        // What is left holds headers for as long as it exceeds the data they speak of.
        while self.remaining() > to_usize(self.data_total) {
            match self.u8("block id")? {
                ID_DATA_SHORT => {
                    main_len = u32::from(self.u8("main data length")?);
                    self.count(main_len)?;
                    break;
                }
                ID_DATA_LONG => {
                    main_len = self.u32("main data length")?;
                    self.count(main_len)?;
                    break;
                }
                ID_ORIGIN => origin = Some(self.u16("replication origin")?),
                ID_TOPLEVEL_XID => toplevel_xid = Some(self.u32("top-level transaction")?),
                id if id <= BLOCK_ID_MAX => {
                    let block = self.block(id)?;
                    blocks.push(block);
                }
                id => return Err(self.wrong("block id", "at most 32 or 252 to 255", id.into())),
            }
        }
        if self.remaining() != to_usize(self.data_total) {
            let found = u64::try_from(self.remaining()).unwrap_or(u64::MAX);
            let expected = format!("{} bytes", self.data_total);
            return Err(self.wrong("data after the headers", &expected, found));
        }
        place_data(blocks, total.saturating_sub(self.data_total));
        let start = self.bytes.len().saturating_sub(to_usize(main_len));
        let main_data = self.bytes.get(start..).unwrap_or_default();
        Ok(RecordBody { main_data, origin, toplevel_xid })
    }

    fn block(&mut self, id: u8) -> Result<BlockReference, FormatError> {
        if self.last_id.is_some_and(|last| id <= last) {
            return Err(self.wrong("block id", "one above that before", id.into()));
        }
        self.last_id = Some(id);
        let flags = self.u8("fork and flags")?;
        let data_len = self.u16("block data length")?;
        if (flags & HAS_DATA != 0) != (data_len != 0) {
            return Err(self.wrong("block data length", "what its flag says", data_len.into()));
        }
        self.count(u32::from(data_len))?;
        let image = if flags & HAS_IMAGE == 0 { None } else { Some(self.image()?) };
        if flags & SAME_RELATION == 0 {
            self.locator = Some(RelationLocator {
                tablespace: self.u32("tablespace")?,
                database: self.u32("database")?,
                relation: self.u32("relation")?,
            });
        }
        let Some(locator) = self.locator else {
            return Err(self.wrong("relation", "one to be the same as", id.into()));
        };
        let Some(fork) = Fork::from_number(flags & FORK_MASK) else {
            return Err(self.wrong("fork", "0 to 3", (flags & FORK_MASK).into()));
        };
        let init = if flags & WILL_INIT == 0 { PageInit::Keeps } else { PageInit::Initialises };
        let block = self.u32("block number")?;
        Ok(BlockReference { id, locator, fork, block, init, image, data_len, data_at: 0 })
    }

    fn image(&mut self) -> Result<BlockImage, FormatError> {
        let len = self.u16("image length")?;
        let hole_offset = self.u16("hole offset")?;
        let info = self.u8("image flags")?;
        let (compression, used) = self.image_flags(info)?;
        self.count(u32::from(len))?;
        let page_size = u16::try_from(PAGE_SIZE_DEFAULT_BYTES).unwrap_or(u16::MAX);
        let has_hole = info & IMAGE_HAS_HOLE != 0;
        let hole_len = match (has_hole, compression) {
            (false, _) => 0,
            (true, ImageCompression::None) => page_size.saturating_sub(len),
            (true, _) => self.u16("hole length")?,
        };
        if has_hole && (hole_offset == 0 || hole_len == 0) {
            return Err(self.wrong("hole", "an offset and a length", hole_offset.into()));
        }
        if !has_hole && hole_offset != 0 {
            return Err(self.wrong("hole offset", "0 without a hole", hole_offset.into()));
        }
        Ok(BlockImage { len, hole_offset, hole_len, compression, used, at: 0 })
    }

    /// `bimg_info`: 15 gave the bits new meanings.
    fn image_flags(&self, info: u8) -> Result<(ImageCompression, ImageUse), FormatError> {
        let (apply, compression) = if self.major == Major::V14 {
            let pglz = info & 0x02 != 0;
            (info & 0x04, if pglz { ImageCompression::Pglz } else { ImageCompression::None })
        } else {
            let compression = match info & 0x1C {
                0 => ImageCompression::None,
                0x04 => ImageCompression::Pglz,
                0x08 => ImageCompression::Lz4,
                0x10 => ImageCompression::Zstd,
                _ => return Err(self.wrong("image flags", "one compression", info.into())),
            };
            (info & 0x02, compression)
        };
        let used = if apply == 0 { ImageUse::Compared } else { ImageUse::Restored };
        Ok((compression, used))
    }

    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn count(&mut self, len: u32) -> Result<(), FormatError> {
        match self.data_total.checked_add(len) {
            Some(total) => {
                self.data_total = total;
                Ok(())
            }
            None => Err(self.wrong("data length", "less than 4 GiB", len.into())),
        }
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, FormatError> {
        let value = u8_at(self.bytes, self.at);
        self.step(1, value, what)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, FormatError> {
        let value = u16_at(self.bytes, self.at);
        self.step(2, value, what)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        let value = u32_at(self.bytes, self.at);
        self.step(4, value, what)
    }

    fn step<T>(
        &mut self,
        len: usize,
        value: Option<T>,
        what: &'static str,
    ) -> Result<T, FormatError> {
        self.at = self.at.saturating_add(len);
        value.ok_or_else(|| {
            self.wrong(what, "more bytes", u64::try_from(self.bytes.len()).unwrap_or(u64::MAX))
        })
    }

    fn wrong(&self, what: &'static str, expected: &str, found: u64) -> FormatError {
        FormatError::Record {
            lsn: self.lsn,
            what,
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }
}

/// Data follows the headers in the order of the blocks, for each its image, then its own data.
fn place_data(blocks: &mut [BlockReference], mut at: u32) {
    for block in blocks {
        if let Some(image) = &mut block.image {
            image.at = at;
            at = at.saturating_add(u32::from(image.len));
        }
        block.data_at = at;
        at = at.saturating_add(u32::from(block.data_len));
    }
}
