//! One branch of the history: the backup that gets to the target, and where recovery stops.

use pgrecall_pgformat::xact::TransactionEnd;
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentNumber, TimelineId, Timestamp};

use super::plan::{BackupRow, Stop, time_of};
use super::refusal::{PlanError, Refusal};
use super::scan::{Reach, Rule, Scan, ScanEnd, WalPath, scan};
use super::target::{Bound, Request, Target};
use super::wal_view::{Mark, WalRecord, WalView};
use crate::unreadable::Unreadable;

/// A checkpoint's time is in whole seconds and taken a moment before its redo point: commits up to
/// so much later may lie before that point.
const CHECKPOINT_SLACK_US: i64 = 2_000_000;

/// Segments looked through, before a backup's start, for the last transaction there.
const LOOK_BACK_SEGMENTS: usize = 16;

/// A way to the target.
#[derive(Debug, Clone)]
pub struct Route<'a> {
    /// The branch.
    pub path: WalPath,
    /// Where to start.
    pub backup: &'a BackupRow,
    /// Where to stop.
    pub stop: Stop,
    /// The position up to which WAL must be readable.
    pub needed_until: Lsn,
    /// The last commit or abort before the stop.
    pub last_kept: Option<TransactionEnd>,
    /// The commit or abort that recovery stops before.
    pub first_left_out: Option<TransactionEnd>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Route<'_> {
    /// The timeline that the stop lies on.
    #[must_use]
    pub fn owner(&self) -> TimelineId {
        let lsn = match self.stop {
            Stop::Lsn { .. } => self.needed_until.saturating_sub(1),
            Stop::Consistency { .. } => return self.backup.details.stop.timeline,
        };
        self.path.history().owner_of(lsn)
    }
}

/// Finds the way on one branch.
///
/// # Errors
/// [`PlanError::Refused`] when there is none.
pub async fn find<'a, V: WalView>(
    view: &V,
    path: &WalPath,
    backups: &[&'a BackupRow],
    request: &Request,
) -> Result<Route<'a>, PlanError> {
    let mut candidates: Vec<&'a BackupRow> =
        backups.iter().copied().filter(|backup| lies_on(path, backup)).collect();
    candidates
        .sort_by_key(|backup| std::cmp::Reverse((backup.details.stop.lsn, backup.id.to_string())));
    let Some(newest) = candidates.first().copied() else {
        let timeline = path.history().timeline();
        return Err(Refusal::NoBackupOnTimeline { timeline }.into());
    };
    let branch = Branch { view, path, backups: &candidates, request };
    match &request.target {
        Target::Immediate => branch.immediate().await,
        Target::Latest => branch.latest(newest).await,
        Target::Lsn(lsn) => branch.lsn(*lsn).await,
        Target::Time(time) => branch.time(*time).await,
        Target::Xid(xid) => branch.named(&Rule::Xid(*xid)).await,
        Target::Name(name) => branch.named(&Rule::Name(name.clone())).await,
    }
}

fn lies_on(path: &WalPath, backup: &BackupRow) -> bool {
    let (start, stop) = (&backup.details.start, &backup.details.stop);
    let on = |timeline, lsn| {
        path.history().contains(timeline)
            && path.history().switch_point(timeline).is_none_or(|left| lsn <= left)
    };
    on(start.timeline, start.lsn) && on(stop.timeline, stop.lsn)
}

struct Branch<'b, 'a, V> {
    view: &'b V,
    path: &'b WalPath,
    /// Newest first.
    backups: &'b [&'a BackupRow],
    request: &'b Request,
}

impl<'a, V: WalView> Branch<'_, 'a, V> {
    async fn scan(&self, backup: &BackupRow, rule: &Rule) -> Result<Scan, PlanError> {
        Ok(scan(self.view, self.path, backup.details.start.lsn, None, rule).await?)
    }

    fn route(
        &self,
        backup: &'a BackupRow,
        stop: Stop,
        needed_until: Lsn,
        reach: &Reach,
    ) -> Route<'a> {
        Route {
            path: self.path.clone(),
            backup,
            stop,
            needed_until,
            last_kept: reach.last_transaction,
            first_left_out: None,
            notes: Vec::new(),
        }
    }

    /// To the first record after which the backup is consistent.
    async fn consistency(&self, backup: &'a BackupRow) -> Result<Route<'a>, PlanError> {
        let lsn = backup.details.stop.lsn;
        let scan = self.scan(backup, &Rule::Reached(lsn)).await?;
        let reached = scan.reach.last_record.filter(|(_, end)| *end >= lsn);
        let (after, end) = match (reached, &scan.end) {
            (Some(record), _) => record,
            // Between the last record's end and the backup's there is only a page header.
            (None, ScanEnd::Stop(record)) => (record.lsn, record.end_lsn),
            (None, _) => return Err(self.blocked(backup, &scan).into()),
        };
        Ok(self.route(backup, Stop::Consistency { lsn, after }, end, &scan.reach))
    }

    async fn immediate(&self) -> Result<Route<'a>, PlanError> {
        let mut reason = None;
        for backup in self.backups {
            match self.consistency(backup).await {
                Err(PlanError::Refused(refusal)) => _ = reason.get_or_insert(refusal),
                found_or_failed => return found_or_failed,
            }
        }
        Err(reason.unwrap_or(Refusal::NoBackups).into())
    }

    async fn latest(&self, backup: &'a BackupRow) -> Result<Route<'a>, PlanError> {
        let scan = self.scan(backup, &Rule::Never).await?;
        if scan.end != ScanEnd::EndOfWal {
            return Err(self.blocked(backup, &scan).into());
        }
        match scan.reach.last_record {
            Some((lsn, end)) if lsn >= backup.details.stop.lsn => {
                let stop = Stop::Lsn { lsn, bound: Bound::Inclusive };
                Ok(self.route(backup, stop, end, &scan.reach))
            }
            Some((_, end)) if end >= backup.details.stop.lsn => self.consistency(backup).await,
            _ => Err(self.blocked(backup, &scan).into()),
        }
    }

    async fn lsn(&self, lsn: Lsn) -> Result<Route<'a>, PlanError> {
        let Some(backup) = self.backups.iter().find(|b| b.details.stop.lsn <= lsn) else {
            return Err(self.too_early(|backup| backup.details.start.lsn <= lsn).into());
        };
        let scan = self.scan(backup, &Rule::Reached(lsn)).await?;
        let ScanEnd::Stop(record) = &scan.end else {
            return Err(self.blocked(backup, &scan).into());
        };
        let stop = Stop::Lsn { lsn, bound: self.request.bound };
        let mut route = self.route(backup, stop, record.end_lsn, &scan.reach);
        add_record(&mut route, record, self.request.bound);
        Ok(route)
    }

    async fn time(&self, time: Timestamp) -> Result<Route<'a>, PlanError> {
        let rule = Rule::Later { time, bound: self.request.bound };
        let mut reason = None;
        for backup in self.backups {
            if self.started_after(backup, time).await? {
                reason.get_or_insert_with(|| self.inside_or_before(backup, Side::Before));
                continue;
            }
            let scan = self.scan(backup, &rule).await?;
            match self.judge_time(backup, &scan, time).await {
                // Only an older backup could get to an earlier stop.
                Err(PlanError::Refused(refusal @ Refusal::InsideBackup { .. })) => {
                    reason = Some(refusal);
                }
                found_or_failed => return found_or_failed,
            }
        }
        Err(reason.map_or_else(|| self.too_early(|_| false), |reason| self.earliest(reason)).into())
    }

    /// What a time means for one backup.
    async fn judge_time(
        &self,
        backup: &'a BackupRow,
        scan: &Scan,
        time: Timestamp,
    ) -> Result<Route<'a>, PlanError> {
        let consistent = backup.details.stop.lsn;
        match &scan.end {
            ScanEnd::Stop(record) if record.lsn >= consistent => {
                let stop = Stop::Lsn { lsn: record.lsn, bound: Bound::Exclusive };
                let mut route = self.route(backup, stop, record.end_lsn, &scan.reach);
                add_record(&mut route, record, Bound::Exclusive);
                Ok(route)
            }
            ScanEnd::Stop(_) => Err(self.inside_or_before(backup, Side::Inside).into()),
            ScanEnd::EndOfWal if scan.reach.latest_time.is_some_and(|seen| seen >= time) => {
                self.after_last(backup, &scan.reach).await
            }
            _ => Err(self.blocked(backup, scan).into()),
        }
    }

    /// The target is covered by WAL that has nothing later than it: the last transaction is kept.
    async fn after_last(
        &self,
        backup: &'a BackupRow,
        reach: &Reach,
    ) -> Result<Route<'a>, PlanError> {
        let consistent = backup.details.stop.lsn;
        match reach.last_transaction {
            Some(last) if last.lsn >= consistent => {
                let stop = Stop::Lsn { lsn: last.lsn, bound: Bound::Inclusive };
                Ok(self.route(backup, stop, last.end_lsn, reach))
            }
            _ => self.consistency(backup).await,
        }
    }

    /// Transactions and restore points are looked for from the newest backup backwards: the first
    /// match after the backup found so is where PostgreSQL stops with it.
    async fn named(&self, rule: &Rule) -> Result<Route<'a>, PlanError> {
        let mut until = None;
        let mut blocked = None;
        let mut late = None;
        for backup in self.backups {
            let start = backup.details.start.lsn;
            let stopped: Option<WalRecord> = late.take();
            let (record, reach) = match stopped {
                // The match lies within the backup after this one.
                Some(record) => {
                    let rule = Rule::Reached(record.lsn);
                    let scan = scan(self.view, self.path, start, None, &rule).await?;
                    match scan.end {
                        ScanEnd::Stop(record) => (record, scan.reach),
                        _ => return Err(self.blocked(backup, &scan).into()),
                    }
                }
                None => {
                    let scan = scan(self.view, self.path, start, until, rule).await?;
                    match &scan.end {
                        ScanEnd::Stop(record) => (record.clone(), scan.reach),
                        ScanEnd::Until | ScanEnd::EndOfWal => {
                            until = Some(start);
                            continue;
                        }
                        _ => {
                            blocked.get_or_insert(self.blocked(backup, &scan));
                            until = Some(start);
                            continue;
                        }
                    }
                }
            };
            if record.lsn < backup.details.stop.lsn {
                late = Some(record);
                continue;
            }
            let bound = match rule {
                Rule::Xid(_) => self.request.bound,
                _ => Bound::Inclusive,
            };
            let stop = Stop::Lsn { lsn: record.lsn, bound };
            let mut route = self.route(backup, stop, record.end_lsn, &reach);
            add_record(&mut route, &record, bound);
            return Ok(route);
        }
        if late.is_some() {
            return Err(self.too_early(|_| true).into());
        }
        let unknown = match rule {
            Rule::Xid(xid) => Refusal::UnknownXid { xid: *xid },
            Rule::Name(name) => Refusal::UnknownName { name: name.clone() },
            _ => Refusal::NoBackups,
        };
        Err(blocked.unwrap_or(unknown).into())
    }

    /// Whether a transaction beyond the target had ended when the backup started: then the target
    /// lies before it, whatever comes after.
    async fn started_after(&self, backup: &BackupRow, time: Timestamp) -> Result<bool, PlanError> {
        let began = self.checkpoint_time(backup).await?;
        if let Some(began) = began {
            if began > time {
                return Ok(true);
            }
            if time.0.saturating_sub(began.0) >= CHECKPOINT_SLACK_US {
                return Ok(false);
            }
        }
        Ok(match self.last_before(backup).await? {
            Ok(last) => last.is_some_and(|end| Rule::is_beyond(end.time, time, self.request.bound)),
            // An older backup is sure to be right.
            Err(_) => true,
        })
    }

    /// The time of the backup's start checkpoint, by the clock that commits have their times from.
    async fn checkpoint_time(&self, backup: &BackupRow) -> Result<Option<Timestamp>, PlanError> {
        let lsn = backup.details.checkpoint_lsn;
        let size = self.view.stored().segment_size;
        let name = self.path.name_of(SegmentNumber::containing(lsn, size));
        if self.view.stored().has(name) {
            let looks = self.view.summaries(&[ArchiveName::Segment(name)]).await?;
            let mut records = looks.iter().flatten().flat_map(|look| &look.checkpoints.items);
            if let Some(record) = records.find(|record| record.lsn == lsn) {
                return Ok(Some(Timestamp::from_unix_secs(record.checkpoint.time_unix_secs)));
            }
        }
        // The backup began by the clock of its own host, maybe before the checkpoint: what is
        // certain is that its checkpoint was over when it ended.
        Ok(Some(Timestamp::from_unix_micros(backup.details.ended.as_microsecond())))
    }

    /// The last commit or abort before the backup's redo point, where it is stored not far off.
    async fn last_before(
        &self,
        backup: &BackupRow,
    ) -> Result<Result<Option<TransactionEnd>, Unreadable>, PlanError> {
        let redo = backup.details.start.lsn;
        let stored = self.view.stored();
        let mut number = SegmentNumber::containing(redo, stored.segment_size);
        for step in 0..LOOK_BACK_SEGMENTS {
            let name = self.path.name_of(number);
            if !stored.has(name) {
                return Ok(if self.is_first(backup) {
                    Ok(None)
                } else {
                    Err(Unreadable::damaged("the WAL before the backup is not stored"))
                });
            }
            let name = ArchiveName::Segment(name);
            let looks = self.view.summaries(&[name]).await?;
            let summary = match looks.into_iter().next() {
                Some(Ok(summary)) => summary,
                Some(Err(unreadable)) => return Ok(Err(unreadable)),
                None => return Ok(Ok(None)),
            };
            let last = if step == 0 && summary.transactions.first.is_some_and(|end| end.lsn < redo)
            {
                let records = match self.view.records(name).await? {
                    Ok(records) => records,
                    Err(unreadable) => return Ok(Err(unreadable)),
                };
                records
                    .iter()
                    .take_while(|record| record.lsn < redo)
                    .filter_map(|record| match record.mark {
                        Mark::Transaction(end) => Some(end),
                        _ => None,
                    })
                    .last()
            } else {
                summary.transactions.last.filter(|end| end.lsn < redo)
            };
            if last.is_some() {
                return Ok(Ok(last));
            }
            match number.previous() {
                Some(previous) => number = previous,
                None => return Ok(Ok(None)),
            }
        }
        Ok(Ok(None))
    }

    /// Whether nothing is known of a time before the backup.
    fn is_first(&self, backup: &BackupRow) -> bool {
        let is_oldest = self.backups.last().is_some_and(|oldest| oldest.id == backup.id);
        is_oldest && !self.view.stored().has_other_sizes
    }

    fn inside_or_before(&self, backup: &BackupRow, side: Side) -> Refusal {
        let details = &backup.details;
        match side {
            Side::Inside => Refusal::InsideBackup {
                backup: backup.id.to_string(),
                stop: details.stop.lsn,
                ended: details.ended.to_string(),
            },
            Side::Before => Refusal::BeforeFirstBackup {
                first_ended: details.ended.to_string(),
                first_stop: details.stop.lsn,
            },
        }
    }

    /// The refusal in terms of the oldest backup, which reaches the earliest moment.
    fn earliest(&self, reason: Refusal) -> Refusal {
        match (&reason, self.backups.last()) {
            (Refusal::BeforeFirstBackup { .. }, Some(oldest)) => {
                self.inside_or_before(oldest, Side::Before)
            }
            _ => reason,
        }
    }

    /// No backup ends before the target.
    fn too_early(&self, inside: impl Fn(&BackupRow) -> bool) -> Refusal {
        let Some(oldest) = self.backups.last() else { return Refusal::NoBackups };
        let side = if inside(oldest) { Side::Inside } else { Side::Before };
        self.inside_or_before(oldest, side)
    }

    /// Why replay does not get there.
    fn blocked(&self, backup: &BackupRow, scan: &Scan) -> Refusal {
        let size = self.view.stored().segment_size;
        let reach = &scan.reach;
        let last_transaction = time_of(reach.last_transaction);
        let last_xid = reach.last_transaction.map(|end| end.xid).filter(|xid| *xid > 0);
        let end = reach.last_record.map(|(_, end)| end);
        match &scan.end {
            ScanEnd::Missing(segment) => {
                let segment = segment.file_name(size);
                Refusal::MissingSegment { segment, end, last_transaction, last_xid }
            }
            ScanEnd::Broken { segment, lsn, why } => Refusal::BrokenWal {
                segment: segment.file_name(size),
                lsn: *lsn,
                why: why.clone(),
                last_transaction,
                last_xid,
            },
            ScanEnd::Stop(_) | ScanEnd::Until | ScanEnd::EndOfWal => {
                let start = backup.details.start.lsn;
                if end.is_none_or(|end| end < backup.details.stop.lsn) {
                    let from = end.unwrap_or(start);
                    let number = SegmentNumber::containing(from, size);
                    let segment = self.path.name_of(number).file_name(size);
                    return Refusal::MissingSegment { segment, end, last_transaction, last_xid };
                }
                let end = end.unwrap_or(start);
                Refusal::BeyondWal { end, latest: reach.latest_time, last_transaction }
            }
        }
    }
}

/// On which side of a backup's end a target lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    Inside,
}

fn add_record(route: &mut Route<'_>, record: &WalRecord, bound: Bound) {
    if let Mark::Transaction(end) = record.mark {
        match bound {
            Bound::Inclusive => route.last_kept = Some(end),
            Bound::Exclusive => route.first_left_out = Some(end),
        }
    }
}
