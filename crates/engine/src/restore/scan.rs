//! PostgreSQL's way through the WAL, without PostgreSQL: where replay along a timeline path would
//! stop (`recoveryStopsBefore` and `recoveryStopsAfter` in `xlogrecovery.c`), or how far it gets.

use std::sync::Arc;

use pgrecall_pgformat::event::Event;
use pgrecall_pgformat::segment_digest::join_spanning;
use pgrecall_pgformat::segment_summary::{HeadExtent, SegmentEnd, SegmentSummary};
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::xact::TransactionEnd;
use pgrecall_pgformat::{Lsn, SegmentName, SegmentNumber, SegmentSize, Timestamp};

use super::target::Bound;
use super::wal_view::{Mark, StoredWal, WalRecord, WalView};
use crate::error::EngineError;

/// Trailers asked for at once.
const BATCH_SEGMENTS: usize = 64;

/// Segments along a timeline path, named as PostgreSQL asks for them.
#[derive(Debug, Clone)]
pub struct WalPath {
    history: History,
    size: SegmentSize,
}

impl WalPath {
    /// The path that ends on this timeline.
    #[must_use]
    pub const fn new(history: History, size: SegmentSize) -> Self {
        Self { history, size }
    }

    /// The ancestry.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The name under which a segment is asked for first: of the newest timeline that begins in it
    /// or before it (`XLogFileReadAnyTLI`).
    #[must_use]
    pub fn name_of(&self, number: SegmentNumber) -> SegmentName {
        let begun = |start: Lsn| SegmentNumber::containing(start, self.size) <= number;
        let spans = self.history.spans();
        let newest = spans.iter().rev().find(|span| begun(span.start));
        let timeline = newest.map_or_else(|| self.history.timeline(), |span| span.timeline);
        SegmentName { timeline, number }
    }

    /// The last segment of the path that is stored.
    #[must_use]
    pub fn last_stored(&self, stored: &StoredWal) -> Option<SegmentNumber> {
        let spans = self.history.spans();
        let newest = spans.iter().rev().filter_map(|span| {
            let numbers = stored.segments.get(&span.timeline)?;
            numbers.iter().rev().find(|number| self.name_of(**number).timeline == span.timeline)
        });
        newest.copied().max()
    }
}

/// Where replay is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Before the first commit or abort later than this (or, exclusive, not earlier).
    Later {
        /// The time.
        time: Timestamp,
        /// Whether a transaction of that very time is kept.
        bound: Bound,
    },
    /// At the end of this transaction; ids are compared for equality only.
    Xid(u32),
    /// At the first restore point of this name.
    Name(String),
    /// At the first record that starts here or later.
    Reached(Lsn),
    /// Nowhere: as far as it goes.
    Never,
}

impl Rule {
    /// Whether a transaction of this time lies beyond the target.
    #[must_use]
    pub fn is_beyond(time: Timestamp, target: Timestamp, bound: Bound) -> bool {
        match bound {
            Bound::Inclusive => time > target,
            Bound::Exclusive => time >= target,
        }
    }

    fn stops_at(&self, record: &WalRecord) -> bool {
        match (self, &record.mark) {
            (Self::Later { time, bound }, Mark::Transaction(end)) => {
                Self::is_beyond(end.time, *time, *bound)
            }
            (Self::Xid(xid), Mark::Transaction(end)) => end.xid == *xid,
            (Self::Name(wanted), Mark::RestorePoint { name, .. }) => **name == **wanted,
            (Self::Reached(lsn), _) => record.lsn >= *lsn,
            _ => false,
        }
    }

    /// Whether the stop may be among the records that start and end in a segment.
    fn may_stop_in(&self, summary: &SegmentSummary) -> bool {
        let transactions = &summary.transactions;
        match self {
            Self::Later { time, bound } => {
                transactions.latest.is_some_and(|end| Self::is_beyond(end.time, *time, *bound))
            }
            Self::Xid(xid) => transactions
                .xid_min
                .zip(transactions.xid_max)
                .is_some_and(|(min, max)| (min..=max).contains(xid)),
            Self::Name(name) => {
                let points = &summary.restore_points;
                points.left_out > 0 || points.items.iter().any(|point| point.name == *name)
            }
            Self::Reached(lsn) => summary.last_record.is_some_and(|last| last >= *lsn),
            Self::Never => false,
        }
    }
}

/// How far replay got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// The last whole record: where it starts and the position after it.
    pub last_record: Option<(Lsn, Lsn)>,
    /// The last end of a transaction.
    pub last_transaction: Option<TransactionEnd>,
    /// The latest time that a record before the stop names: WAL is known to go so far.
    pub latest_time: Option<Timestamp>,
}

impl Reach {
    fn saw_time(&mut self, time: Timestamp) {
        self.latest_time = Some(self.latest_time.map_or(time, |latest| latest.max(time)));
    }

    fn add_record(&mut self, record: &WalRecord) {
        self.last_record = Some((record.lsn, record.end_lsn));
        match &record.mark {
            Mark::Transaction(end) => {
                self.last_transaction = Some(*end);
                self.saw_time(end.time);
            }
            Mark::RestorePoint { time, .. } => self.saw_time(*time),
            Mark::Other => {}
        }
    }

    /// All of a segment from `from` on.
    fn add_segment(&mut self, summary: &SegmentSummary, from: Lsn) {
        if let Some(last) = summary.last_record.zip(summary.last_record_end)
            && last.0 >= from
        {
            self.last_record = Some(last);
        }
        if let Some(last) = summary.transactions.last.filter(|end| end.lsn >= from) {
            self.last_transaction = Some(last);
        }
        if let Some(latest) = summary.transactions.latest {
            self.saw_time(latest.time);
        }
        self.add_times(summary);
    }

    /// Times of records that are no ends of transactions.
    fn add_times(&mut self, summary: &SegmentSummary) {
        for checkpoint in &summary.checkpoints.items {
            self.saw_time(Timestamp::from_unix_secs(checkpoint.checkpoint.time_unix_secs));
        }
        for point in &summary.restore_points.items {
            self.saw_time(point.time);
        }
        for end in &summary.ends_of_recovery.items {
            self.saw_time(end.time);
        }
    }
}

/// How a scan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanEnd {
    /// At this record, which the reach does not count.
    Stop(WalRecord),
    /// At the position it was told to go to.
    Until,
    /// No more WAL is stored.
    EndOfWal,
    /// A segment is missing while later ones are stored.
    Missing(SegmentName),
    /// WAL breaks off in a segment while later ones are stored.
    Broken {
        /// The segment.
        segment: SegmentName,
        /// Where.
        lsn: Lsn,
    },
}

/// A scan's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// How it ended.
    pub end: ScanEnd,
    /// How far it got.
    pub reach: Reach,
}

/// Replays from `from` on, to the rule's stop, to `until`, or as far as WAL goes.
///
/// # Errors
/// When stored WAL cannot be read.
pub async fn scan<V: WalView>(
    view: &V,
    path: &WalPath,
    from: Lsn,
    until: Option<Lsn>,
    rule: &Rule,
) -> Result<Scan, EngineError> {
    let stored = view.stored();
    let last = path.last_stored(stored);
    let mut scanner = Scanner { from, until, rule, reach: Reach::default(), before: None };
    let mut number = SegmentNumber::containing(from, path.size);
    loop {
        let names = batch(path, stored, number, last);
        if names.is_empty() {
            let end = match last {
                Some(last) if number <= last => ScanEnd::Missing(path.name_of(number)),
                _ => ScanEnd::EndOfWal,
            };
            return Ok(Scan { end, reach: scanner.reach });
        }
        let summaries = view.summaries(&names).await?;
        for (name, summary) in names.iter().zip(summaries) {
            if until.is_some_and(|until| name.number.start(path.size) >= until) {
                return Ok(Scan { end: ScanEnd::Until, reach: scanner.reach });
            }
            if let Some(end) = scanner.segment(view, *name, summary).await? {
                let end = match end {
                    // What no later segment follows is an end like any other.
                    ScanEnd::Broken { .. } if Some(name.number) == last => ScanEnd::EndOfWal,
                    end => end,
                };
                return Ok(Scan { end, reach: scanner.reach });
            }
            number = name.number.next();
        }
    }
}

/// The next stored segments without a hole.
fn batch(
    path: &WalPath,
    stored: &StoredWal,
    first: SegmentNumber,
    last: Option<SegmentNumber>,
) -> Vec<SegmentName> {
    let mut names = Vec::new();
    let mut number = first;
    while names.len() < BATCH_SEGMENTS && last.is_some_and(|last| number <= last) {
        let name = path.name_of(number);
        if !stored.has(name) {
            break;
        }
        names.push(name);
        number = number.next();
    }
    names
}

struct Scanner<'a> {
    from: Lsn,
    until: Option<Lsn>,
    rule: &'a Rule,
    reach: Reach,
    /// The record that the segment before did not end, with that segment; the segment is gone when
    /// the record is longer than one.
    before: Option<(Lsn, Option<Arc<SegmentSummary>>)>,
}

impl Scanner<'_> {
    async fn segment<V: WalView>(
        &mut self,
        view: &V,
        name: SegmentName,
        summary: Arc<SegmentSummary>,
    ) -> Result<Option<ScanEnd>, EngineError> {
        if let Some(end) = self.spanning(&summary) {
            return Ok(Some(end));
        }
        if self.rule.may_stop_in(&summary) || self.ends_within(&summary) {
            for record in view.records(name).await? {
                if record.lsn < self.from {
                    continue;
                }
                if let Some(end) = self.record(record) {
                    return Ok(Some(end));
                }
            }
            self.reach.add_times(&summary);
        } else {
            self.reach.add_segment(&summary, self.from);
        }
        match summary.end {
            SegmentEnd::Full | SegmentEnd::Switch { .. } => {}
            SegmentEnd::Early(end) => {
                return Ok(Some(ScanEnd::Broken { segment: name, lsn: end.lsn }));
            }
            SegmentEnd::Cut { lsn } => return Ok(Some(ScanEnd::Broken { segment: name, lsn })),
        }
        if let Some(tail) = &summary.tail {
            self.before = Some((tail.lsn, Some(summary.clone())));
        }
        Ok(None)
    }

    fn ends_within(&self, summary: &SegmentSummary) -> bool {
        self.until.zip(summary.last_record).is_some_and(|(until, last)| last >= until)
    }

    fn record(&mut self, record: WalRecord) -> Option<ScanEnd> {
        if self.until.is_some_and(|until| record.lsn >= until) {
            return Some(ScanEnd::Until);
        }
        if self.rule.stops_at(&record) {
            return Some(ScanEnd::Stop(record));
        }
        self.reach.add_record(&record);
        None
    }

    /// The record that began in the segment before (or earlier) and ends here.
    fn spanning(&mut self, after: &SegmentSummary) -> Option<ScanEnd> {
        let (lsn, before) = self.before.take()?;
        match after.head.extent {
            // Its writer gave it up: something else stands in its place.
            HeadExtent::None => return None,
            HeadExtent::NoEnd => {
                self.before = Some((lsn, None));
                return None;
            }
            HeadExtent::Whole | HeadExtent::TooLong => {}
        }
        if lsn < self.from {
            return None;
        }
        let end_lsn = after.head.end_lsn?;
        let mark = before.map_or(Mark::Other, |before| mark_of_spanning(&before, after));
        self.record(WalRecord { lsn, end_lsn, mark })
    }
}

/// What a record of two segments is. Records too long to be kept in trailers (64 KiB) are taken for
/// none of those that a target stops at; a commit of many thousand subtransactions can be one, and
/// then recovery stops at the next one.
fn mark_of_spanning(before: &SegmentSummary, after: &SegmentSummary) -> Mark {
    let joined = match join_spanning(before, after) {
        Ok(Some(joined)) => joined,
        Ok(None) => return Mark::Other,
        Err(error) => {
            tracing::debug!(segment = ?after.name, %error, "a record of two segments is unknown");
            return Mark::Other;
        }
    };
    let record = joined.record();
    let mut blocks = Vec::new();
    let event = record
        .decode_body(&mut blocks)
        .ok()
        .and_then(|body| Event::decode(&record, &body).ok().flatten());
    event.map_or(Mark::Other, |event| mark_of(&event))
}

/// What an event is to a recovery target.
pub(crate) fn mark_of(event: &Event) -> Mark {
    match event {
        Event::Transaction(end) => Mark::Transaction(*end),
        Event::RestorePoint { time, name } => {
            Mark::RestorePoint { time: *time, name: name.as_str().into() }
        }
        _ => Mark::Other,
    }
}
