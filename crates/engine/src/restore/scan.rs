//! PostgreSQL's way through the WAL, without PostgreSQL: where replay along a timeline path would
//! stop (`recoveryStopsBefore` and `recoveryStopsAfter` in `xlogrecovery.c`), or how far it gets.

use pgrecall_pgformat::event::Event;
use pgrecall_pgformat::record::Record;
use pgrecall_pgformat::segment_chain::{CutRecord, Link, SegmentChain};
use pgrecall_pgformat::segment_summary::{SegmentEnd, SegmentSummary};
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::xact::TransactionEnd;
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentNumber, SegmentSize, Timestamp};

use super::target::Bound;
use super::wal_view::{Mark, StoredWal, WalRecord, WalView};
use crate::error::{EngineError, ErrorKind};
use crate::unreadable::Unreadable;

/// The longest record that is put together from several segments. One that could be the end of a
/// transaction and is longer has some ten million subtransactions.
pub const JOINED_BYTES_MAX: u32 = 64 << 20;

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

    /// What goes on after the last whole segment: what the timeline before had of the segment in
    /// which it was left, whole or as the `.partial` of the server that was promoted. PostgreSQL
    /// takes the older timeline's file where the newer one's is not there, too.
    fn inherited(&self, stored: &StoredWal) -> Option<Piece> {
        let last = self.last_stored(stored);
        let spans = self.history.spans();
        spans.iter().rev().find_map(|span| {
            let of_span = |name: &SegmentName| {
                name.timeline == span.timeline
                    && last.is_none_or(|last| name.number == last.next())
                    && name.number.end(self.size) > span.start
                    && span.end.is_none_or(|end| name.number.start(self.size) < end)
            };
            let partial = || stored.partials.iter().rev().find(|name| of_span(name)).copied();
            let whole =
                last.map(|last| SegmentName { timeline: span.timeline, number: last.next() });
            let whole = whole.filter(|name| stored.has(*name) && of_span(name));
            let (name, stored_as) = match whole {
                Some(name) => (name, ArchiveName::Segment(name)),
                None => partial().map(|name| (name, ArchiveName::Partial(name)))?,
            };
            Some(Piece { name, stored: stored_as, until: span.end })
        })
    }

    /// The `.partial` that goes on after the last whole segment, if that is what does.
    #[must_use]
    pub fn last_partial(&self, stored: &StoredWal) -> Option<SegmentName> {
        let piece = self.inherited(stored)?;
        matches!(piece.stored, ArchiveName::Partial(_)).then_some(piece.name)
    }

    /// What has the content of a segment, under which name; up to `until` only if that is given.
    fn stored_as(&self, number: SegmentNumber, stored: &StoredWal) -> Option<Piece> {
        let name = self.name_of(number);
        if stored.has(name) {
            return Some(Piece { name, stored: ArchiveName::Segment(name), until: None });
        }
        self.inherited(stored).filter(|piece| piece.name.number == number)
    }
}

/// A segment on the way.
#[derive(Debug, Clone, Copy)]
struct Piece {
    name: SegmentName,
    stored: ArchiveName,
    until: Option<Lsn>,
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
    /// WAL breaks off in a segment while later ones are stored, or a segment does not follow the
    /// one before, or does not read.
    Broken {
        /// The segment.
        segment: SegmentName,
        /// Where.
        lsn: Lsn,
        /// Why.
        why: Unreadable,
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
    let last = path.last_stored(stored).max(path.inherited(stored).map(|piece| piece.name.number));
    let chain = SegmentChain::new(path.size);
    let mut scanner = Scanner { from, until, rule, reach: Reach::default(), chain };
    let mut number = SegmentNumber::containing(from, path.size);
    loop {
        let pieces = batch(path, stored, number, last);
        if pieces.is_empty() {
            let end = match last {
                Some(last) if number <= last => ScanEnd::Missing(path.name_of(number)),
                _ => ScanEnd::EndOfWal,
            };
            return Ok(Scan { end, reach: scanner.reach });
        }
        let names: Vec<ArchiveName> = pieces.iter().map(|piece| piece.stored).collect();
        let looks = view.summaries(&names).await?;
        for (piece, look) in pieces.iter().zip(looks) {
            let start = piece.name.number.start(path.size);
            if until.is_some_and(|until| start >= until) {
                return Ok(Scan { end: ScanEnd::Until, reach: scanner.reach });
            }
            let summary = match look {
                Ok(summary) => summary,
                Err(why) => {
                    let end = ScanEnd::Broken { segment: piece.name, lsn: start, why };
                    return Ok(Scan { end, reach: scanner.reach });
                }
            };
            if let Some(end) = scanner.border(view, piece.name, &summary).await? {
                return Ok(Scan { end, reach: scanner.reach });
            }
            let is_last = Some(piece.name.number) == last;
            if let Some(end) = scanner.piece(view, *piece, &summary, is_last).await? {
                return Ok(Scan { end, reach: scanner.reach });
            }
            number = piece.name.number.next();
        }
    }
}

/// The next stored segments without a hole.
fn batch(
    path: &WalPath,
    stored: &StoredWal,
    first: SegmentNumber,
    last: Option<SegmentNumber>,
) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut number = first;
    while pieces.len() < BATCH_SEGMENTS && last.is_some_and(|last| number <= last) {
        let Some(piece) = path.stored_as(number, stored) else { break };
        pieces.push(piece);
        number = number.next();
    }
    pieces
}

struct Scanner<'a> {
    from: Lsn,
    until: Option<Lsn>,
    rule: &'a Rule,
    reach: Reach,
    chain: SegmentChain,
}

impl Scanner<'_> {
    async fn piece<V: WalView>(
        &mut self,
        view: &V,
        piece: Piece,
        summary: &SegmentSummary,
        is_last: bool,
    ) -> Result<Option<ScanEnd>, EngineError> {
        let segment = piece.name;
        let until = self.until;
        // Beyond the fork a `.partial` has another branch's records, if any.
        let edge = piece.until.filter(|edge| until.is_none_or(|until| *edge < until));
        self.until = edge.or(until);
        let end = self.records(view, piece, summary).await?;
        self.until = until;
        if let Some(end) = end {
            let at_edge = edge.is_some() && end == ScanEnd::Until;
            return Ok(Some(if at_edge { ScanEnd::EndOfWal } else { end }));
        }
        let (lsn, reason) = match summary.end {
            SegmentEnd::Full | SegmentEnd::Switch { .. } => return Ok(None),
            SegmentEnd::Early(end) => (end.lsn, end.reason.to_string()),
            SegmentEnd::Cut { lsn } => (lsn, "the file ends there".into()),
        };
        // What no later segment follows is an end like any other.
        Ok(Some(match is_last {
            true => ScanEnd::EndOfWal,
            false => ScanEnd::Broken { segment, lsn, why: Unreadable::damaged(reason) },
        }))
    }

    async fn records<V: WalView>(
        &mut self,
        view: &V,
        piece: Piece,
        summary: &SegmentSummary,
    ) -> Result<Option<ScanEnd>, EngineError> {
        if !self.rule.may_stop_in(summary) && !self.ends_within(summary) {
            self.reach.add_segment(summary, self.from);
            return Ok(None);
        }
        let records = match view.records(piece.stored).await? {
            Ok(records) => records,
            Err(why) => {
                let lsn = summary.first_record.unwrap_or_default();
                return Ok(Some(ScanEnd::Broken { segment: piece.name, lsn, why }));
            }
        };
        for record in records {
            if record.lsn < self.from {
                continue;
            }
            if let Some(end) = self.record(record) {
                return Ok(Some(end));
            }
        }
        self.reach.add_times(summary);
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

    /// The record that began in the segment before (or earlier) and ends here. What does not fit
    /// together is never taken for the mere end of the WAL: somebody stored what comes after it.
    async fn border<V: WalView>(
        &mut self,
        view: &V,
        name: SegmentName,
        after: &SegmentSummary,
    ) -> Result<Option<ScanEnd>, EngineError> {
        let (lsn, end_lsn, mark) = match self.chain.enter(after) {
            Ok(Link::Clean | Link::GoesOn) => return Ok(None),
            Ok(Link::Joined(joined)) => {
                let record = joined.record();
                (record.lsn, record.end_lsn, mark_of_record(&record))
            }
            Ok(Link::Cut(cut)) => match mark_of_cut(view, &cut, self.chain.segment_size()).await? {
                Ok(mark) => (cut.lsn, cut.end_lsn, mark),
                Err(why) => {
                    return Ok(Some(ScanEnd::Broken { segment: name, lsn: cut.lsn, why }));
                }
            },
            Err(end) => {
                let why = Unreadable::damaged(end.reason.to_string());
                return Ok(Some(ScanEnd::Broken { segment: name, lsn: end.lsn, why }));
            }
        };
        if lsn < self.from {
            return Ok(None);
        }
        Ok(self.record(WalRecord { lsn, end_lsn, mark }))
    }
}

/// What a record is whose bytes only the segments have.
async fn mark_of_cut<V: WalView>(
    view: &V,
    cut: &CutRecord,
    size: SegmentSize,
) -> Result<Result<Mark, Unreadable>, EngineError> {
    if cut.header.total_len > JOINED_BYTES_MAX {
        if !Event::is_candidate(cut.header.resource_manager) {
            return Ok(Ok(Mark::Other));
        }
        let message = format!(
            "the WAL record at {} has {} bytes, and may be a commit",
            cut.lsn, cut.header.total_len
        );
        return Err(EngineError::refused(ErrorKind::Unsupported, message)
            .hint("A target before it, or a backup taken after it, would work."));
    }
    let mut chain = SegmentChain::new(size);
    let mut last = Link::Clean;
    for name in &cut.segments {
        let summary = match view.whole_summary(ArchiveName::Segment(*name)).await? {
            Ok(summary) => summary,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        match chain.enter(&summary) {
            Ok(link) => last = link,
            Err(end) => return Ok(Err(Unreadable::damaged(end.reason.to_string()))),
        }
    }
    Ok(match last {
        Link::Joined(joined) => Ok(mark_of_record(&joined.record())),
        _ => Err(Unreadable::damaged("the record is not the one that its trailer tells of")),
    })
}

fn mark_of_record(record: &Record<'_>) -> Mark {
    let mut blocks = Vec::new();
    let body = record.decode_body(&mut blocks).ok();
    let event = body.and_then(|body| Event::decode(record, &body).ok().flatten());
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
