//! The one place that knows how records lie on pages: steps through a window of WAL, record by
//! record.
//!
//! A cursor holds a position and what it has learnt, never bytes. Its callers ([`crate::stream`],
//! [`crate::segment_digest`]) hold the window, and give a longer one when a step says so; a step
//! that needs more leaves the position where it was. The order of checks is that of
//! `XLogDecodeNextRecord` in `xlogreader.c`.

use crate::end_of_wal::{EndOfWal, EndReason};
use crate::field::{to_u64, to_usize, u32_at};
use crate::lsn::Lsn;
use crate::page::SHORT_HEADER_BYTES;
use crate::page::{LONG_HEADER_BYTES, LongHeader, PAGE_SIZE_DEFAULT_BYTES, PageHeader};
use crate::record::{RECORD_HEADER_BYTES, RECORD_MAX_BYTES, Record, RecordHeader, record_checksum};
use crate::resource_manager::ResourceManager;
use crate::segment::SegmentSize;
use crate::timeline::TimelineId;
use crate::unfinished::UnfinishedRecord;
use crate::version::Major;

/// `XLOG_SWITCH`, among the records of [`ResourceManager::XLOG`].
pub(crate) const KIND_SWITCH: u8 = 0x40;

/// What a step came to.
pub(crate) enum Step<'a> {
    /// A whole record, its checksum verified.
    Record(Record<'a>),
    /// A piece of a record that began before the cursor did.
    Continuation { lsn: Lsn, bytes: &'a [u8], remaining_bytes: u32 },
    /// The window must reach this position.
    NeedMore { until: Lsn },
    /// Nothing more can be read.
    End(EndOfWal),
}

/// Why a step could not be made.
enum Halt {
    NeedMore(Lsn),
    End(EndOfWal),
    /// The record was given up by its writer; its place is taken from this page on.
    Overwritten(Lsn),
}

/// What a page must begin with.
#[derive(Clone, Copy)]
enum Expected {
    /// Anything: it is the first page seen.
    Anything,
    /// A new record.
    NewRecord,
    /// This many bytes of a record under way.
    Continuation(u32),
}

/// A slice of WAL and where it starts.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) start: Lsn,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Window<'a> {
    /// All bytes from `lsn` on.
    #[inline]
    fn from(self, lsn: Lsn) -> &'a [u8] {
        let offset = usize::try_from(lsn.bytes_since(self.start)).unwrap_or(usize::MAX);
        self.bytes.get(offset..).unwrap_or_default()
    }
}

/// A record that is being collected over several pages.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Where it starts.
    start: Lsn,
    /// The next byte to be collected.
    at: Lsn,
}

/// A position in the WAL, between records.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    segment_size: SegmentSize,
    page_size: u64,
    /// The next record, or the page on which it starts.
    at: Lsn,
    last_record: Option<Lsn>,
    /// Whether a page has been seen.
    started: bool,
    /// Whether the first page seen takes the place of a record that was given up.
    begins_with_overwrite: bool,
    /// Bytes still to be passed over of a record whose start is not known.
    skip: u32,
    carried: Option<UnfinishedRecord>,
    /// How far the record under way has been collected; its bytes are in the scratch space.
    progress: Option<Progress>,
    major: Option<Major>,
    timeline: Option<TimelineId>,
    long_header: Option<LongHeader>,
    timelines: Vec<(Lsn, TimelineId)>,
}

impl Cursor {
    /// At the start of a page, or of a record.
    pub(crate) fn new(
        segment_size: SegmentSize,
        at: Lsn,
        carried: Option<UnfinishedRecord>,
    ) -> Self {
        Self {
            segment_size,
            page_size: u64::from(PAGE_SIZE_DEFAULT_BYTES),
            at,
            last_record: None,
            started: false,
            begins_with_overwrite: false,
            skip: 0,
            carried,
            progress: None,
            major: None,
            timeline: None,
            long_header: None,
            timelines: Vec::new(),
        }
    }

    /// For a cursor that starts within a page, whose header it will not see.
    pub(crate) fn assume_major(&mut self, major: Major) {
        self.major.get_or_insert(major);
    }

    pub(crate) fn position(&self) -> Lsn {
        self.at
    }

    pub(crate) fn major(&self) -> Option<Major> {
        self.major
    }

    pub(crate) fn timeline(&self) -> Option<TimelineId> {
        self.timeline
    }

    /// Whether the first page seen takes the place of a record that was given up.
    pub(crate) fn begins_with_overwrite(&self) -> bool {
        self.begins_with_overwrite
    }

    /// The long header of the last segment start that was seen.
    pub(crate) fn long_header(&self) -> Option<LongHeader> {
        self.long_header
    }

    /// The pages with which timelines began (the first ones only, if there are absurdly many).
    pub(crate) fn timelines(&self) -> &[(Lsn, TimelineId)] {
        &self.timelines
    }

    /// Makes a step. `scratch` takes records that lie on more than one page.
    pub(crate) fn step<'a>(&mut self, window: Window<'a>, scratch: &'a mut Vec<u8>) -> Step<'a> {
        match self.try_step(window, scratch) {
            Ok(step) => step,
            Err(Halt::NeedMore(until)) => Step::NeedMore { until },
            Err(Halt::End(end)) => Step::End(end),
            // Every page that takes another's place has been dealt with below.
            Err(Halt::Overwritten(page)) => Step::NeedMore { until: page },
        }
    }

    fn try_step<'a>(
        &mut self,
        window: Window<'a>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Step<'a>, Halt> {
        if let Some(carried) = self.carried.take() {
            let result = self.finish_carried(&carried, window, scratch);
            match result {
                Ok(end) => return self.whole(carried.lsn, end, scratch),
                Err(Halt::Overwritten(_)) => {}
                Err(halt) => {
                    self.carried = Some(carried);
                    return Err(halt);
                }
            }
        }
        loop {
            let start = match self.record_start(window) {
                Err(Halt::Overwritten(page)) => {
                    self.skip = 0;
                    self.at = page;
                    continue;
                }
                other => other?,
            };
            if self.skip != 0 {
                return self.pass_over(start, window);
            }
            match self.read_record(start, window, scratch)? {
                Gathered::InPlace(bytes) => {
                    let end = start.saturating_add(to_u64(bytes.len()));
                    return self.whole(start, end, bytes);
                }
                Gathered::InScratch(end) => return self.whole(start, end, scratch),
                Gathered::Overwritten(page) => self.at = page,
            }
        }
    }

    /// Past the page header, if the cursor stands before one.
    #[inline]
    fn record_start(&mut self, window: Window<'_>) -> Result<Lsn, Halt> {
        if self.at.offset_in(self.page_size) != 0 {
            self.started = true;
            return Ok(self.at);
        }
        let expected = match (self.started, self.skip) {
            (false, _) => Expected::Anything,
            (true, 0) => Expected::NewRecord,
            (true, remaining) => Expected::Continuation(remaining),
        };
        let header = self.enter_page(self.at, expected, window)?;
        if !self.started {
            self.begins_with_overwrite = header.overwrites_record();
            if header.flags.continues_record() {
                self.skip = header.remaining_bytes;
            }
        }
        // What the page has of a record from before may still be on its way: then it is entered
        // again, and must be judged as it was now.
        self.started |= self.skip == 0;
        Ok(self.at.saturating_add(u64::from(header.size_bytes())))
    }

    /// Hands out what this page has of a record from before.
    fn pass_over<'a>(&mut self, start: Lsn, window: Window<'a>) -> Result<Step<'a>, Halt> {
        let on_page = self.page_end(start).bytes_since(start);
        let len = u64::from(self.skip).min(on_page);
        let bytes = window
            .from(start)
            .get(..usize::try_from(len).unwrap_or(usize::MAX))
            .ok_or_else(|| Halt::NeedMore(start.saturating_add(len)))?;
        self.started = true;
        self.skip = self.skip.saturating_sub(u32::try_from(len).unwrap_or(u32::MAX));
        let end = start.saturating_add(len);
        self.at = if self.skip == 0 { end.align_up() } else { end };
        Ok(Step::Continuation { lsn: start, bytes, remaining_bytes: self.skip })
    }

    /// Reads the record that starts at `start`, without yet believing in it.
    fn read_record<'a>(
        &mut self,
        start: Lsn,
        window: Window<'a>,
        scratch: &mut Vec<u8>,
    ) -> Result<Gathered<'a>, Halt> {
        let end = |reason| Halt::End(EndOfWal { lsn: start, reason });
        let available = window.from(start);
        let total = u32_at(available, 0).ok_or_else(|| Halt::NeedMore(start.saturating_add(4)))?;
        if total == 0 {
            return Err(end(EndReason::Zeroes));
        }
        if !(RECORD_HEADER_BYTES..=RECORD_MAX_BYTES).contains(&total) {
            return Err(end(EndReason::RecordLength { found: total }));
        }
        let on_page = self.page_end(start).bytes_since(start);
        if on_page >= u64::from(RECORD_HEADER_BYTES) {
            let header = RecordHeader::decode(available).ok_or_else(|| {
                Halt::NeedMore(start.saturating_add(u64::from(RECORD_HEADER_BYTES)))
            })?;
            self.check_header(start, &header).map_err(end)?;
        }
        if u64::from(total) <= on_page {
            return match available.get(..to_usize(total)) {
                Some(bytes) => Ok(Gathered::InPlace(bytes)),
                None => Err(Halt::NeedMore(start.saturating_add(u64::from(total)))),
            };
        }
        let at = self.resume(start).unwrap_or_else(|| {
            scratch.clear();
            start
        });
        match self.gather(Progress { start, at }, total, window, scratch) {
            Ok(end) => Ok(Gathered::InScratch(end)),
            Err(Halt::Overwritten(page)) => Ok(Gathered::Overwritten(page)),
            Err(halt) => Err(halt),
        }
    }

    /// Where to go on with a record whose first bytes are in the scratch space already.
    fn resume(&mut self, start: Lsn) -> Option<Lsn> {
        self.progress.take().filter(|progress| progress.start == start).map(|progress| progress.at)
    }

    /// Collects the rest of a record, over as many pages as it takes; gives its end. What has been
    /// collected stays in the scratch space if there is more to come: the next page may show that
    /// the record was given up, so it is looked at as soon as it is there.
    fn gather(
        &mut self,
        mut progress: Progress,
        total: u32,
        window: Window<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Lsn, Halt> {
        loop {
            let got = u32::try_from(scratch.len()).unwrap_or(u32::MAX);
            let missing = total.saturating_sub(got);
            if missing == 0 {
                return Ok(progress.at);
            }
            let mut at = progress.at;
            if at.offset_in(self.page_size) == 0 {
                let header = self.enter_page(at, Expected::Continuation(missing), window);
                if let Err(Halt::NeedMore(_)) = header {
                    self.progress = Some(progress);
                }
                at = at.saturating_add(u64::from(header?.size_bytes()));
            }
            let wanted = u64::from(missing).min(self.page_end(at).bytes_since(at));
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            let available = window.from(at);
            let bytes = available.get(..wanted).unwrap_or(available);
            if bytes.len() < wanted && bytes.is_empty() {
                // Nothing beyond the page header: that is read again.
                self.progress = Some(progress);
                return Err(Halt::NeedMore(at.saturating_add(1)));
            }
            scratch.extend_from_slice(bytes);
            progress.at = at.saturating_add(to_u64(bytes.len()));
            if bytes.len() < wanted {
                self.progress = Some(progress);
                return Err(Halt::NeedMore(at.saturating_add(to_u64(wanted))));
            }
        }
    }

    /// Joins what a caller brought from before with the pages here.
    fn finish_carried(
        &mut self,
        carried: &UnfinishedRecord,
        window: Window<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Lsn, Halt> {
        let at = self.resume(carried.lsn).unwrap_or_else(|| {
            scratch.clear();
            scratch.extend_from_slice(&carried.bytes);
            self.at
        });
        let progress = Progress { start: carried.lsn, at };
        let end = self.gather(progress, carried.total_len, window, scratch)?;
        self.started = true;
        let header = RecordHeader::decode(scratch);
        let broken = EndReason::RecordLength { found: carried.total_len };
        let header = header.filter(|header| header.total_len == carried.total_len);
        let reason = match header {
            Some(header) => self.check_header(carried.lsn, &header),
            None => Err(broken),
        };
        reason.map_err(|reason| Halt::End(EndOfWal { lsn: carried.lsn, reason }))?;
        Ok(end)
    }

    /// Verifies a record that is all there, and moves past it.
    #[inline]
    fn whole<'a>(&mut self, lsn: Lsn, end: Lsn, bytes: &'a [u8]) -> Result<Step<'a>, Halt> {
        let halt = |reason| Halt::End(EndOfWal { lsn, reason });
        let header = RecordHeader::decode(bytes)
            .ok_or_else(|| halt(EndReason::RecordLength { found: 0 }))?;
        self.check_header(lsn, &header).map_err(halt)?;
        let expected = record_checksum(bytes).unwrap_or_default();
        if expected != header.crc {
            return Err(halt(EndReason::Checksum { expected, found: header.crc }));
        }
        let major = self.major.ok_or_else(|| halt(EndReason::PageMagic { found: 0 }))?;
        let mut end_lsn = end.align_up();
        let is_switch =
            header.resource_manager == ResourceManager::XLOG && header.kind() == KIND_SWITCH;
        if is_switch && end_lsn.offset_in(self.segment_size.bytes_u64()) != 0 {
            let size = self.segment_size.bytes_u64();
            end_lsn = Lsn(end_lsn.0 & !size.saturating_sub(1)).saturating_add(size);
        }
        self.at = end_lsn;
        self.last_record = Some(lsn);
        let timeline = self.timeline.unwrap_or(TimelineId(0));
        Ok(Step::Record(Record { lsn, end_lsn, timeline, major, header, bytes }))
    }

    /// `ValidXLogRecordHeader`.
    #[inline]
    fn check_header(&self, lsn: Lsn, header: &RecordHeader) -> Result<(), EndReason> {
        if !header.resource_manager.is_valid() {
            return Err(EndReason::ResourceManager { found: header.resource_manager.0 });
        }
        let follows = match self.last_record {
            Some(last) => header.previous == last,
            None => header.previous < lsn,
        };
        if follows {
            Ok(())
        } else {
            let expected = self.last_record;
            Err(EndReason::PreviousLink { expected, found: header.previous })
        }
    }

    /// Reads and checks the header of the page at `page` (`XLogReaderValidatePageHeader`).
    fn enter_page(
        &mut self,
        page: Lsn,
        expected: Expected,
        window: Window<'_>,
    ) -> Result<PageHeader, Halt> {
        let end = |reason| Halt::End(EndOfWal { lsn: page, reason });
        let bytes = window.from(page);
        let is_segment_start = page.offset_in(self.segment_size.bytes_u64()) == 0;
        let header_bytes = if is_segment_start { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES };
        let need = Halt::NeedMore(page.saturating_add(u64::from(header_bytes)));
        if bytes.len() < to_usize(header_bytes) {
            return Err(need);
        }
        if PageHeader::is_unwritten(bytes) {
            return Err(end(EndReason::Zeroes));
        }
        let Some(header) = PageHeader::decode(bytes) else {
            // A long header where none belongs.
            return Err(Halt::NeedMore(page.saturating_add(u64::from(LONG_HEADER_BYTES))));
        };
        let expected_major = |major: &Major| self.major.is_none_or(|known| known == *major);
        let Some(major) = header.major().filter(expected_major) else {
            return Err(end(EndReason::PageMagic { found: header.magic }));
        };
        if !header.flags.are_known(major) || (is_segment_start && header.long.is_none()) {
            return Err(end(EndReason::PageFlags { found: header.flags.0 }));
        }
        if let Some(long) = header.long {
            self.check_long_header(&long).map_err(end)?;
        }
        if header.address != page {
            return Err(end(EndReason::PageAddress { found: header.address }));
        }
        if let Some(last) = self.timeline.filter(|last| header.timeline < *last) {
            return Err(end(EndReason::Timeline { expected: last, found: header.timeline }));
        }
        check_continuation(page, expected, &header)?;
        self.learn(page, &header, major);
        Ok(header)
    }

    /// Sizes must be those of the segment; the first header seen tells the page size.
    fn check_long_header(&mut self, long: &LongHeader) -> Result<(), EndReason> {
        let page_size = u64::from(long.page_size_bytes);
        let page_fits = if self.started || self.carried.is_some() {
            page_size == self.page_size
        } else {
            long.page_size_bytes.is_power_of_two() && (1024..=65_536).contains(&page_size)
        };
        if long.segment_size_bytes != self.segment_size.bytes() || !page_fits {
            return Err(EndReason::Sizes {
                segment_size_bytes: long.segment_size_bytes,
                page_size_bytes: long.page_size_bytes,
            });
        }
        self.page_size = page_size;
        Ok(())
    }

    #[inline]
    fn learn(&mut self, page: Lsn, header: &PageHeader, major: Major) {
        const TIMELINES_MAX: usize = 64;
        self.major = Some(major);
        if header.long.is_some() {
            self.long_header = header.long;
        }
        if self.timeline != Some(header.timeline) {
            self.timeline = Some(header.timeline);
            if self.timelines.len() < TIMELINES_MAX {
                self.timelines.push((page, header.timeline));
            }
        }
    }

    /// The first position after the page that holds `lsn`.
    #[inline]
    fn page_end(&self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 & !self.page_size.saturating_sub(1)).saturating_add(self.page_size)
    }

    /// The record that has begun within the window and is not all there; `window` must be the last
    /// one stepped through. Only the first `bytes_max` bytes are kept.
    pub(crate) fn unfinished(
        &self,
        window: Window<'_>,
        bytes_max: usize,
    ) -> Option<UnfinishedRecord> {
        let mut probe = self.clone();
        probe.progress = None;
        let mut scratch = Vec::new();
        if let Some(carried) = probe.carried.take() {
            let outcome = probe.finish_carried(&carried, window, &mut scratch);
            let is_open = matches!(outcome, Err(Halt::NeedMore(_)));
            return is_open.then(|| {
                UnfinishedRecord::of(carried.lsn, carried.total_len, &scratch, bytes_max)
            });
        }
        let start = probe.record_start(window).ok()?;
        if probe.skip != 0 {
            return None;
        }
        let total = u32_at(window.from(start), 0)?;
        let outcome = probe.read_record(start, window, &mut scratch);
        if !matches!(outcome, Err(Halt::NeedMore(_))) {
            return None;
        }
        if scratch.is_empty() {
            let available = window.from(start);
            scratch.extend_from_slice(available.get(..to_usize(total)).unwrap_or(available));
        }
        Some(UnfinishedRecord::of(start, total, &scratch, bytes_max))
    }
}

/// A record's bytes, or why there are none.
enum Gathered<'a> {
    /// It lies on one page.
    InPlace(&'a [u8]),
    /// It was collected; here it ends.
    InScratch(Lsn),
    /// Its writer gave it up.
    Overwritten(Lsn),
}

fn check_continuation(page: Lsn, expected: Expected, header: &PageHeader) -> Result<(), Halt> {
    let goes_on = header.flags.continues_record();
    let found_bytes = if goes_on { header.remaining_bytes } else { 0 };
    let (fits, expected_bytes) = match expected {
        Expected::Anything => (!goes_on || found_bytes != 0, 0),
        Expected::NewRecord => (!goes_on, 0),
        Expected::Continuation(_) if header.overwrites_record() => {
            return Err(Halt::Overwritten(page));
        }
        Expected::Continuation(missing) => (goes_on && found_bytes == missing, missing),
    };
    if fits {
        return Ok(());
    }
    let reason = EndReason::Continuation { expected_bytes, found_bytes };
    Err(Halt::End(EndOfWal { lsn: page, reason }))
}
