//! How WAL goes on from one segment to the next, from their summaries alone: the record that lies
//! on the border, and the links back that tie the first record to the last one before
//! (`XLogDecodeNextRecord` and `ValidXLogRecordHeader` of `xlogreader.c`).

use crate::end_of_wal::{EndOfWal, EndReason};
use crate::error::FormatError;
use crate::lsn::Lsn;
use crate::record::RecordHeader;
use crate::segment::{SegmentName, SegmentSize};
use crate::segment_summary::{HeadExtent, SPANNING_BYTES_MAX, SegmentSummary};
use crate::unfinished::{SpanningEnd, SpanningRecord, UnfinishedRecord};

/// What lies on the border before a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// No record, or one that its writer gave up.
    Clean,
    /// A record that does not end in this segment either.
    GoesOn,
    /// A record that ends in this segment; its checksum is right.
    Joined(SpanningRecord),
    /// A record that ends in this segment and is too long for the summaries to hold it whole.
    Cut(CutRecord),
}

/// A record whose bytes only the segments themselves hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutRecord {
    /// Where it starts.
    pub lsn: Lsn,
    /// The position after it.
    pub end_lsn: Lsn,
    /// Its header.
    pub header: RecordHeader,
    /// The segments that it lies in.
    pub segments: Vec<SegmentName>,
}

/// A walk from segment to segment. The first one entered is taken as it is.
#[derive(Clone, Debug)]
pub struct SegmentChain {
    size: SegmentSize,
    /// The last whole record.
    last_record: Option<Lsn>,
    open: Option<OpenRecord>,
}

/// A record that has begun and not ended.
#[derive(Clone, Debug)]
struct OpenRecord {
    tail: UnfinishedRecord,
    /// The first bytes of it, without a hole, as far as summaries have kept them.
    bytes: Vec<u8>,
    /// Bytes still to come; unknown once it has filled a whole segment.
    missing: Option<u32>,
    kept: Kept,
    segments: Vec<SegmentName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Whole,
    InPart,
}

impl OpenRecord {
    fn of(tail: &UnfinishedRecord, segment: SegmentName) -> Self {
        Self {
            bytes: tail.bytes.to_vec(),
            missing: Some(tail.total_len.saturating_sub(tail.present_bytes)),
            kept: if tail.is_kept_whole() { Kept::Whole } else { Kept::InPart },
            segments: vec![segment],
            tail: tail.clone(),
        }
    }

    fn broken(&self, reason: EndReason) -> EndOfWal {
        EndOfWal { lsn: self.tail.lsn, reason }
    }

    /// Takes in what the next segment has of it.
    fn add(&mut self, after: &SegmentSummary) -> Result<(), EndOfWal> {
        let head = &after.head;
        if let Some(expected_bytes) = self.missing
            && expected_bytes != head.remaining_bytes
        {
            let found_bytes = head.remaining_bytes;
            return Err(self.broken(EndReason::Continuation { expected_bytes, found_bytes }));
        }
        if self.kept == Kept::Whole {
            self.bytes.extend_from_slice(&head.bytes);
        }
        // A segment that a record fills holds more bytes than a summary keeps, unless it was told
        // to keep all.
        self.kept = match head.extent {
            HeadExtent::TooLong => Kept::InPart,
            HeadExtent::NoEnd if head.bytes.len() <= SPANNING_BYTES_MAX => Kept::InPart,
            _ => self.kept,
        };
        self.missing = None;
        self.segments.push(after.name);
        Ok(())
    }

    fn end(self, after: &SegmentSummary) -> Result<Link, EndOfWal> {
        let length = EndReason::RecordLength { found: self.tail.total_len };
        let ends = after.identity.zip(after.head.end_lsn).zip(after.head.timeline);
        let Some(((identity, end_lsn), timeline)) = ends else { return Err(self.broken(length)) };
        let header = RecordHeader::decode(&self.bytes).ok_or_else(|| self.broken(length))?;
        if self.kept == Kept::InPart {
            let (lsn, segments) = (self.tail.lsn, self.segments);
            return Ok(Link::Cut(CutRecord { lsn, end_lsn, header, segments }));
        }
        let whole =
            UnfinishedRecord::of(self.tail.lsn, self.tail.total_len, &self.bytes, self.bytes.len());
        let end = SpanningEnd { end_lsn, timeline, major: identity.major };
        match SpanningRecord::join(&whole, &[], end) {
            Ok(record) => Ok(Link::Joined(record)),
            Err(FormatError::RecordChecksum { expected, found, .. }) => {
                Err(self.broken(EndReason::Checksum { expected, found }))
            }
            Err(_) => Err(self.broken(length)),
        }
    }
}

impl SegmentChain {
    /// A walk over segments of this size.
    #[must_use]
    pub const fn new(size: SegmentSize) -> Self {
        Self { size, last_record: None, open: None }
    }

    /// The size of the segments.
    #[must_use]
    pub const fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Goes on into the next segment.
    ///
    /// # Errors
    /// Where and why replay would end: a record that does not go on, one that goes on and did not
    /// begin, or a first record that follows another one than the last.
    pub fn enter(&mut self, after: &SegmentSummary) -> Result<Link, EndOfWal> {
        let link = self.border(after)?;
        let header = match &link {
            Link::Joined(record) => Some((record.record().lsn, record.record().header)),
            Link::Cut(record) => Some((record.lsn, record.header)),
            Link::Clean | Link::GoesOn => None,
        };
        if let Some((lsn, header)) = header {
            self.check_previous(lsn, header.previous)?;
            self.last_record = Some(lsn);
        }
        if let Some((first, previous)) = after.first_record.zip(after.first_previous) {
            self.check_previous(first, previous)?;
        }
        self.last_record = after.last_record.or(self.last_record);
        if let Some(tail) = &after.tail {
            self.open = Some(OpenRecord::of(tail, after.name));
        }
        Ok(link)
    }

    fn check_previous(&self, lsn: Lsn, found: Lsn) -> Result<(), EndOfWal> {
        match self.last_record {
            Some(expected) if expected != found => {
                let reason = EndReason::PreviousLink { expected: Some(expected), found };
                Err(EndOfWal { lsn, reason })
            }
            _ => Ok(()),
        }
    }

    fn border(&mut self, after: &SegmentSummary) -> Result<Link, EndOfWal> {
        let head = &after.head;
        let Some(mut open) = self.open.take() else {
            let goes_on = !matches!(head.extent, HeadExtent::None | HeadExtent::Overwrites);
            // Before the first whole record nobody knows what had begun.
            if goes_on && self.last_record.is_some() {
                let found_bytes = head.remaining_bytes;
                let reason = EndReason::Continuation { expected_bytes: 0, found_bytes };
                return Err(EndOfWal { lsn: after.name.number.start(self.size), reason });
            }
            return Ok(Link::Clean);
        };
        match head.extent {
            HeadExtent::Overwrites => Ok(Link::Clean),
            HeadExtent::None => {
                let expected_bytes = open.missing.unwrap_or(1);
                let reason = EndReason::Continuation { expected_bytes, found_bytes: 0 };
                Err(open.broken(reason))
            }
            HeadExtent::NoEnd => {
                open.add(after)?;
                // Records after it: its writer gave it up on some page of this segment.
                if after.first_record.is_none() {
                    self.open = Some(open);
                    return Ok(Link::GoesOn);
                }
                Ok(Link::Clean)
            }
            HeadExtent::Whole | HeadExtent::TooLong => {
                open.add(after)?;
                open.end(after)
            }
        }
    }
}
