//! A walk over one WAL segment in one pass, with a summary at its end.

use crate::cursor::{Cursor, Step, Window};
use crate::event::Event;
use crate::field::{to_u64, to_usize};
use crate::lsn::Lsn;
use crate::record::{BlockReference, Record};
use crate::segment::{SegmentName, SegmentSize};
use crate::segment_summary::{
    HeadExtent, SPANNING_BYTES_MAX, SegmentEnd, SegmentHead, SegmentIdentity, SegmentSummary,
    TimelineStart,
};
use crate::timeline::TimelineId;

/// What the walk shows its caller on the way.
#[derive(Debug)]
pub struct Visited<'a> {
    /// The record; its checksum has been verified.
    pub record: &'a Record<'a>,
    /// What it says, if it is one of those.
    pub event: Option<&'a Event>,
}

/// A walk over a segment that is given in pieces of any size, from its first byte on.
///
/// Whole pieces are read where they are; only a record that two pieces share is copied.
#[derive(Debug)]
pub struct SegmentWalk {
    cursor: Cursor,
    summary: SegmentSummary,
    end: Lsn,
    /// Where the next piece belongs.
    fed_until: Lsn,
    /// The end of the last piece, if the next record needs it.
    leftover: Vec<u8>,
    scratch: Vec<u8>,
    blocks: Vec<BlockReference>,
    state: State,
    /// How much to keep of records that other segments share.
    spanning_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Reading, nothing to be had before this position.
    Reading { needed_until: Lsn },
    /// At the segment's end, or where WAL ends.
    Done,
}

/// The summary of a segment that is in memory; it may be shorter than the segment (`.partial` files
/// are not).
#[must_use]
pub fn digest_segment(name: SegmentName, size: SegmentSize, bytes: &[u8]) -> SegmentSummary {
    visit_segment(name, size, bytes, &mut |_| {})
}

/// As [`digest_segment`], showing every record to `visit`, in order: for finding an exact recovery
/// target. The record that goes on in the next segment is not among them; see
/// [`SegmentChain`](crate::segment_chain::SegmentChain).
pub fn visit_segment(
    name: SegmentName,
    size: SegmentSize,
    bytes: &[u8],
    visit: &mut dyn FnMut(Visited<'_>),
) -> SegmentSummary {
    let mut walk = SegmentWalk::new(name, size);
    walk.feed_with(bytes, visit);
    walk.finish()
}

impl SegmentWalk {
    /// A walk that starts at the segment's first byte.
    #[must_use]
    pub fn new(name: SegmentName, size: SegmentSize) -> Self {
        let start = name.number.start(size);
        Self {
            cursor: Cursor::new(size, start, None),
            summary: SegmentSummary::new(name, start),
            end: name.number.end(size),
            fed_until: start,
            leftover: Vec::new(),
            scratch: Vec::new(),
            blocks: Vec::new(),
            state: State::Reading { needed_until: start },
            spanning_bytes_max: SPANNING_BYTES_MAX,
        }
    }

    /// A walk whose summary keeps all that the segment has of records that others share, however
    /// long they are.
    #[must_use]
    pub fn keeping_all(name: SegmentName, size: SegmentSize) -> Self {
        Self { spanning_bytes_max: usize::MAX, ..Self::new(name, size) }
    }

    /// Reads the next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.feed_with(bytes, &mut |_| {});
    }

    /// Reads the next piece, showing every record. Bytes beyond the segment's size are passed over.
    pub fn feed_with(&mut self, bytes: &[u8], visit: &mut dyn FnMut(Visited<'_>)) {
        let piece_start = self.fed_until;
        let room = usize::try_from(self.end.bytes_since(piece_start)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.fed_until = piece_start.saturating_add(to_u64(bytes.len()));
        if !self.leftover.is_empty() {
            self.read_leftover(piece_start, bytes, visit);
        }
        if self.leftover.is_empty() {
            let window = Window { start: piece_start, bytes };
            self.read(window, self.end, visit);
            self.keep_leftover(window);
        }
    }

    /// The summary; the walk is over.
    #[must_use]
    pub fn finish(mut self) -> SegmentSummary {
        if self.state != State::Done {
            self.summary.end = if self.fed_until >= self.end {
                SegmentEnd::Full
            } else {
                SegmentEnd::Cut { lsn: self.fed_until }
            };
            let start = self.fed_until.saturating_sub(to_u64(self.leftover.len()));
            let window = Window { start, bytes: &self.leftover };
            self.summary.tail = self.cursor.unfinished(window, self.spanning_bytes_max);
        }
        if self.summary.head.extent == HeadExtent::None && self.cursor.begins_with_overwrite() {
            self.summary.head.extent = HeadExtent::Overwrites;
        }
        self.summary.timelines = self
            .cursor
            .timelines()
            .iter()
            .map(|(page_lsn, timeline)| TimelineStart { page_lsn: *page_lsn, timeline: *timeline })
            .collect();
        let identity = self.cursor.long_header().zip(self.cursor.major());
        self.summary.identity = identity.map(|(long, major)| SegmentIdentity {
            major,
            system_identifier: long.system_identifier,
            segment_size_bytes: long.segment_size_bytes,
            page_size_bytes: long.page_size_bytes,
        });
        self.summary
    }

    /// Adds as much of the new piece to the old bytes as their last record needs, and reads that.
    fn read_leftover(
        &mut self,
        piece_start: Lsn,
        piece: &[u8],
        visit: &mut dyn FnMut(Visited<'_>),
    ) {
        let leftover_start = piece_start.saturating_sub(to_u64(self.leftover.len()));
        let mut leftover = std::mem::take(&mut self.leftover);
        let mut added = 0;
        while let State::Reading { needed_until } = self.state {
            if self.cursor.position() >= piece_start {
                // The rest can be read where it is.
                let offset = self.cursor.position().bytes_since(piece_start);
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                let start = self.cursor.position();
                let bytes = piece.get(offset..).unwrap_or_default();
                let window = Window { start, bytes };
                self.read(window, self.end, visit);
                self.keep_leftover(window);
                return;
            }
            let wanted = usize::try_from(needed_until.bytes_since(piece_start)).unwrap_or(0);
            let upto = wanted.max(added + 1).min(piece.len());
            leftover.extend_from_slice(piece.get(added..upto).unwrap_or_default());
            let is_all = upto <= added || upto == piece.len();
            added = upto.max(added);
            let window = Window { start: leftover_start, bytes: &leftover };
            // One record at a time: the next one may lie in the new piece alone.
            self.read(window, piece_start, visit);
            if is_all && self.cursor.position() < piece_start {
                if self.state != State::Done {
                    // Kept as it is: a record may be as long as many pieces.
                    let read = self.cursor.position().bytes_since(leftover_start);
                    let read = usize::try_from(read).unwrap_or(usize::MAX).min(leftover.len());
                    leftover.drain(..read);
                    self.leftover = leftover;
                }
                return;
            }
        }
    }

    /// Reads records that start before `stop` for as long as the window goes.
    fn read(&mut self, window: Window<'_>, stop: Lsn, visit: &mut dyn FnMut(Visited<'_>)) {
        let window_end = window.start.saturating_add(to_u64(window.bytes.len()));
        while let State::Reading { needed_until } = self.state {
            let at = self.cursor.position();
            if at >= stop || window_end < needed_until || at >= window_end {
                return;
            }
            let step = self.cursor.step(window, &mut self.scratch);
            let summary = &mut self.summary;
            match step {
                Step::Record(record) => {
                    add_record(summary, &record, &mut self.blocks, visit);
                    if record.end_lsn >= self.end
                        && matches!(summary.end, SegmentEnd::Switch { .. })
                    {
                        self.state = State::Done;
                    }
                }
                Step::Continuation { lsn, bytes, remaining_bytes } => {
                    let timeline = self.cursor.timeline();
                    keep_head(&mut summary.head, bytes, remaining_bytes, self.spanning_bytes_max);
                    if remaining_bytes == 0 {
                        end_head(&mut summary.head, lsn, bytes, timeline);
                    }
                }
                Step::NeedMore { until } => self.state = State::Reading { needed_until: until },
                Step::End(end) => {
                    summary.set_early_end(end);
                    self.state = State::Done;
                }
            }
        }
    }

    /// Keeps what the next record needs of a piece that has been read.
    fn keep_leftover(&mut self, window: Window<'_>) {
        if self.state == State::Done {
            return;
        }
        let read = self.cursor.position().bytes_since(window.start);
        let read = usize::try_from(read).unwrap_or(usize::MAX);
        self.leftover = window.bytes.get(read..).unwrap_or_default().to_vec();
    }
}

fn add_record(
    summary: &mut SegmentSummary,
    record: &Record<'_>,
    blocks: &mut Vec<BlockReference>,
    visit: &mut dyn FnMut(Visited<'_>),
) {
    summary.records = summary.records.saturating_add(1);
    summary.first_record.get_or_insert(record.lsn);
    summary.first_previous.get_or_insert(record.header.previous);
    summary.last_record = Some(record.lsn);
    summary.last_record_end = Some(record.end_lsn);
    // A record whose checksum is right but whose parts are not says nothing here; replay would stop
    // at it.
    let event = if Event::is_candidate(record.header.resource_manager) {
        let body = record.decode_body(blocks).ok();
        body.and_then(|body| Event::decode(record, &body).ok().flatten())
    } else {
        None
    };
    visit(Visited { record, event: event.as_ref() });
    match event {
        Some(Event::Switch) => summary.end = SegmentEnd::Switch { lsn: record.lsn },
        Some(event) => summary.add_event(record.lsn, record.end_lsn, event),
        None => {}
    }
}

fn keep_head(head: &mut SegmentHead, bytes: &[u8], remaining_bytes: u32, bytes_max: usize) {
    if head.extent == HeadExtent::None {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        head.remaining_bytes = remaining_bytes.saturating_add(len);
        head.extent = HeadExtent::NoEnd;
    }
    let room = bytes_max.saturating_sub(head.bytes.len());
    head.bytes.0.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
}

fn end_head(head: &mut SegmentHead, lsn: Lsn, bytes: &[u8], timeline: Option<TimelineId>) {
    let is_whole = head.bytes.len() == to_usize(head.remaining_bytes);
    head.extent = if is_whole { HeadExtent::Whole } else { HeadExtent::TooLong };
    head.end_lsn = Some(lsn.saturating_add(to_u64(bytes.len())).align_up());
    head.timeline = timeline;
}
