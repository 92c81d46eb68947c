//! A resumable decoder: push WAL in pieces of any size, pull records.
//!
//! ```
//! use pgrecall_pgformat::stream::{Item, StreamOptions, WalStream};
//! use pgrecall_pgformat::{Lsn, SegmentSize};
//!
//! # fn main() -> Result<(), pgrecall_pgformat::FormatError> {
//! let mut stream = WalStream::new(StreamOptions {
//!     start: Lsn(0x100_0000),
//!     segment_size: SegmentSize::DEFAULT,
//!     major: None,
//!     carried: None,
//! })?;
//! stream.push(Lsn(0x100_0000), &[0; 8192])?;
//! loop {
//!     match stream.next_item() {
//!         Item::Record(record) => drop(record.lsn),
//!         Item::Continuation { .. } => {}
//!         Item::NeedMore => break,
//!         Item::End(end) => {
//!             assert_eq!(end.lsn, Lsn(0x100_0000));
//!             break;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use crate::cursor::{Cursor, Step, Window};
use crate::end_of_wal::EndOfWal;
use crate::error::FormatError;
use crate::field::to_u64;
use crate::lsn::Lsn;
use crate::record::Record;
use crate::segment::SegmentSize;
use crate::timeline::TimelineId;
use crate::unfinished::UnfinishedRecord;
use crate::version::Major;

/// Where and how a stream starts.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The start of a page or of a record.
    pub start: Lsn,
    /// The cluster's segment size.
    pub segment_size: SegmentSize,
    /// The major; needed only if `start` is within a page, else the first page tells it.
    pub major: Option<Major>,
    /// The first part of the record that goes on at `start`, if the caller has it. Without it the
    /// rest of such a record is handed out as [`Item::Continuation`].
    pub carried: Option<UnfinishedRecord>,
}

/// What a stream has to say.
#[derive(Debug)]
pub enum Item<'a> {
    /// A whole record, its checksum verified.
    Record(Record<'a>),
    /// A piece of a record that began before the stream did; at most a page of it.
    Continuation {
        /// Where the piece starts.
        lsn: Lsn,
        /// The piece.
        bytes: &'a [u8],
        /// Bytes of the record still to come.
        remaining_bytes: u32,
    },
    /// Push more.
    NeedMore,
    /// The WAL ends here; the stream says so for ever after.
    End(EndOfWal),
}

/// A decoder of WAL that is given in pieces.
#[derive(Debug)]
pub struct WalStream {
    cursor: Cursor,
    /// Bytes not yet read, from `buffer_start` on.
    buffer: Vec<u8>,
    buffer_start: Lsn,
    scratch: Vec<u8>,
    /// Nothing can be read before the buffer reaches this.
    needed_until: Lsn,
    ended: Option<EndOfWal>,
}

impl WalStream {
    /// A stream that starts at a page or a record.
    ///
    /// # Errors
    /// A start within a page without a major.
    pub fn new(options: StreamOptions) -> Result<Self, FormatError> {
        let StreamOptions { start, segment_size, major, carried } = options;
        let page_size = u64::from(crate::page::PAGE_SIZE_DEFAULT_BYTES);
        let within_page = start.offset_in(page_size) != 0;
        if within_page && (major.is_none() || carried.is_some()) {
            return Err(FormatError::Size {
                what: "start of a WAL stream",
                expected: "the start of a page (or of a record, of a known major)",
                found: start.0,
            });
        }
        let mut cursor = Cursor::new(segment_size, start, carried);
        if let Some(major) = major.filter(|_| within_page) {
            cursor.assume_major(major);
        }
        Ok(Self {
            cursor,
            buffer: Vec::new(),
            buffer_start: start,
            scratch: Vec::new(),
            needed_until: start,
            ended: None,
        })
    }

    /// Adds the bytes that belong at `at`.
    ///
    /// # Errors
    /// Bytes that do not join those before.
    pub fn push(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), FormatError> {
        let expected = self.pushed_until();
        if at != expected {
            return Err(FormatError::Discontinuous { expected, found: at });
        }
        let done = self.cursor.position().bytes_since(self.buffer_start);
        let done = usize::try_from(done).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.drain(..done);
        self.buffer_start = self.buffer_start.saturating_add(to_u64(done));
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Where the next push belongs.
    #[must_use]
    pub fn pushed_until(&self) -> Lsn {
        self.buffer_start.saturating_add(to_u64(self.buffer.len()))
    }

    /// The next item.
    pub fn next_item(&mut self) -> Item<'_> {
        if let Some(end) = self.ended {
            return Item::End(end);
        }
        let reach = self.pushed_until();
        if reach < self.needed_until || self.cursor.position() >= reach {
            return Item::NeedMore;
        }
        let window = Window { start: self.buffer_start, bytes: &self.buffer };
        match self.cursor.step(window, &mut self.scratch) {
            Step::Record(record) => Item::Record(record),
            Step::Continuation { lsn, bytes, remaining_bytes } => {
                Item::Continuation { lsn, bytes, remaining_bytes }
            }
            Step::NeedMore { until } => {
                self.needed_until = until;
                Item::NeedMore
            }
            Step::End(end) => {
                self.ended = Some(end);
                Item::End(end)
            }
        }
    }

    /// The end of the last whole record, or where the stream started.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.cursor.position()
    }

    /// The major, once a page has been seen.
    #[must_use]
    pub fn major(&self) -> Option<Major> {
        self.cursor.major()
    }

    /// The timeline of the last page seen.
    #[must_use]
    pub fn timeline(&self) -> Option<TimelineId> {
        self.cursor.timeline()
    }

    /// The record that has begun and is not all there; nothing between records.
    #[must_use]
    pub fn unfinished(&self) -> Option<UnfinishedRecord> {
        if self.ended.is_some() {
            return None;
        }
        let window = Window { start: self.buffer_start, bytes: &self.buffer };
        self.cursor.unfinished(window, usize::MAX)
    }
}
