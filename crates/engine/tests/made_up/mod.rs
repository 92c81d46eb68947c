//! WAL that never was: records at chosen positions with chosen times, and the summaries that real
//! segments with such records would have.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgrecall_engine::details::{BackupDetails, BackupStats, Method, Position, TakenFrom};
use pgrecall_engine::error::EngineError;
use pgrecall_engine::restore::plan::BackupRow;
use pgrecall_engine::restore::wal_view::{Look, Mark, StoredWal, WalRecord, WalView};
use pgrecall_engine::unreadable::Unreadable;
use pgrecall_pgformat::control::{Checkpoint, DataChecksums, FullPageWrites};
use pgrecall_pgformat::end_of_wal::{EndOfWal, EndReason};
use pgrecall_pgformat::event::CheckpointKind;
use pgrecall_pgformat::record::record_checksum;
use pgrecall_pgformat::segment_summary::{
    Capped, CheckpointRecord, HeadExtent, RestorePoint, SPANNING_BYTES_MAX, SegmentEnd,
    SegmentHead, SegmentIdentity, SegmentSummary, TimeOrder, TransactionDigest,
};
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::unfinished::{Base64Bytes, UnfinishedRecord};
use pgrecall_pgformat::xact::{TransactionEnd, TransactionOutcome};
use pgrecall_pgformat::{
    ArchiveName, Lsn, Major, SegmentName, SegmentNumber, SegmentSize, TimelineId, Timestamp,
};
use pgrecall_repo::id::BackupId;

pub(crate) const SEGMENT: u64 = 1 << 20;
/// Length of every record but those that span segments.
pub(crate) const RECORD: u64 = 0x100;

pub(crate) fn size() -> SegmentSize {
    SegmentSize::from_bytes(SEGMENT).unwrap()
}

/// Seconds of the made-up day, as a moment.
pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(1_700_000_000 + secs)
}

pub(crate) fn tli(number: u32) -> TimelineId {
    TimelineId(number)
}

/// What a record is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Commit { xid: u32, time: Timestamp },
    Abort { xid: u32, time: Timestamp },
    Point { name: String, time: Timestamp },
    Checkpoint { time: Timestamp },
    Other,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rec {
    pub(crate) lsn: Lsn,
    pub(crate) end: Lsn,
    pub(crate) what: What,
}

impl Rec {
    fn mark(&self) -> Mark {
        match &self.what {
            What::Commit { .. } | What::Abort { .. } => {
                Mark::Transaction(self.transaction().unwrap())
            }
            What::Point { name, time } => {
                Mark::RestorePoint { time: *time, name: name.as_str().into() }
            }
            _ => Mark::Other,
        }
    }

    pub(crate) fn transaction(&self) -> Option<TransactionEnd> {
        let (xid, time, outcome) = match self.what {
            What::Commit { xid, time } => (xid, time, TransactionOutcome::Commit),
            What::Abort { xid, time } => (xid, time, TransactionOutcome::Abort),
            _ => return None,
        };
        Some(TransactionEnd { lsn: self.lsn, end_lsn: self.end, xid, time, outcome })
    }
}

/// The WAL of a cluster, by the timeline in the segments' names. A timeline that begins within a
/// segment has the records of its parent up to there.
#[derive(Debug, Clone)]
pub(crate) struct MadeUp {
    pub(crate) records: BTreeMap<TimelineId, Vec<Rec>>,
    pub(crate) stored: StoredWal,
    pub(crate) broken: BTreeMap<SegmentName, Lsn>,
    pub(crate) unreadable: Vec<ArchiveName>,
    /// Segments whose first record follows another one than the last of the segment before.
    pub(crate) foreign: Vec<SegmentName>,
    /// What the trailers of some segments say instead.
    pub(crate) replaced: Vec<SegmentSummary>,
}

impl MadeUp {
    pub(crate) fn new() -> Self {
        Self {
            records: BTreeMap::new(),
            stored: StoredWal::empty(size()),
            broken: BTreeMap::new(),
            unreadable: Vec::new(),
            foreign: Vec::new(),
            replaced: Vec::new(),
        }
    }

    /// Appends a record of the usual length and gives its position.
    pub(crate) fn add(&mut self, timeline: u32, what: What) -> Lsn {
        self.add_long(timeline, what, RECORD)
    }

    pub(crate) fn add_long(&mut self, timeline: u32, what: What, len: u64) -> Lsn {
        let records = self.records.entry(tli(timeline)).or_default();
        let lsn = records.last().map_or(Lsn(2 * SEGMENT + 0x28), |last| last.end);
        let rec = Rec { lsn, end: Lsn(lsn.0 + len), what };
        records.push(rec);
        lsn
    }

    pub(crate) fn commit(&mut self, timeline: u32, xid: u32, secs: i64) -> Lsn {
        self.add(timeline, What::Commit { xid, time: at(secs) })
    }

    pub(crate) fn checkpoint(&mut self, timeline: u32, secs: i64) -> Lsn {
        self.add(timeline, What::Checkpoint { time: at(secs) })
    }

    /// The position that the next record of a timeline gets.
    pub(crate) fn next(&self, timeline: u32) -> Lsn {
        let records = self.records.get(&tli(timeline));
        records.and_then(|r| r.last()).map_or(Lsn(2 * SEGMENT + 0x28), |last| last.end)
    }

    /// Fills the segment up: the next record starts the next one.
    pub(crate) fn switch(&mut self, timeline: u32) {
        let next = self.next(timeline);
        let end = (next.0 / SEGMENT + 1) * SEGMENT;
        self.add_long(timeline, What::Other, end - next.0);
    }

    /// A timeline that leaves another one where that is now.
    pub(crate) fn fork(&mut self, parent: u32, child: u32) -> Lsn {
        let left = self.next(parent);
        self.fork_at(parent, child, left);
        left
    }

    pub(crate) fn fork_at(&mut self, parent: u32, child: u32, left: Lsn) {
        let mut records = self.records[&tli(parent)].clone();
        records.retain(|record| record.end <= left);
        self.records.insert(tli(child), records);
        let history = self.stored.history(tli(parent));
        let history: History = history.fork(tli(child), left, "made up").unwrap();
        self.stored.histories.insert(tli(child), history);
    }

    /// Stores every whole segment: those of a child from the one that it begins in.
    pub(crate) fn archive(&mut self) {
        for (timeline, records) in &self.records {
            let Some(last) = records.last() else { continue };
            let history = self.stored.history(*timeline);
            let begin = history.switches().last().map_or(Lsn(2 * SEGMENT), |switch| switch.lsn);
            let first = begin.0 / SEGMENT;
            let numbers = (first..last.end.0 / SEGMENT).map(SegmentNumber);
            self.stored.segments.insert(*timeline, numbers.collect());
        }
    }

    /// Also the last, unfinished segments.
    pub(crate) fn archive_all(&mut self) {
        for timeline in self.records.keys().copied().collect::<Vec<_>>() {
            if !self.next(timeline.0).0.is_multiple_of(SEGMENT) {
                self.switch(timeline.0);
            }
        }
        self.archive();
    }

    pub(crate) fn lose(&mut self, timeline: u32, lsn: Lsn) {
        let number = SegmentNumber::containing(lsn, size());
        assert!(self.stored.segments.get_mut(&tli(timeline)).unwrap().remove(&number));
    }

    fn segment(&self, name: ArchiveName) -> SegmentName {
        match name {
            ArchiveName::Segment(name) => {
                assert!(self.stored.has(name), "asked for what is not stored");
                name
            }
            ArchiveName::Partial(name) => {
                assert!(self.stored.partials.contains(&name), "asked for what is not stored");
                name
            }
            other => panic!("{other:?} is no segment"),
        }
    }

    fn in_segment(&self, name: SegmentName) -> Vec<Rec> {
        let (start, end) = (name.number.start(size()), name.number.end(size()));
        let broken = self.broken.get(&name).copied().unwrap_or(Lsn::MAX);
        let all = self.records.get(&name.timeline).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|r| r.lsn >= start && r.end <= end && r.lsn < broken).cloned().collect()
    }

    /// The record before the one at `lsn`.
    fn before(&self, timeline: TimelineId, lsn: Lsn) -> Lsn {
        let records = self.records.get(&timeline).map(Vec::as_slice).unwrap_or_default();
        let before = records.iter().take_while(|record| record.lsn < lsn).last();
        before.map_or(Lsn(0), |record| record.lsn)
    }

    /// What a trailer holds: no more than 64 KiB of a record that other segments share.
    pub(crate) fn trailer(&self, name: SegmentName) -> SegmentSummary {
        if let Some(replaced) = self.replaced.iter().find(|summary| summary.name == name) {
            return replaced.clone();
        }
        let mut summary = self.summary(name);
        let head = &mut summary.head;
        if head.bytes.0.len() > SPANNING_BYTES_MAX {
            head.bytes.0.truncate(SPANNING_BYTES_MAX);
            if head.extent == HeadExtent::Whole {
                head.extent = HeadExtent::TooLong;
            }
        }
        if let Some(tail) = &mut summary.tail {
            tail.bytes.0.truncate(SPANNING_BYTES_MAX);
        }
        summary
    }

    pub(crate) fn summary(&self, name: SegmentName) -> SegmentSummary {
        let (start, end) = (name.number.start(size()), name.number.end(size()));
        let records = self.in_segment(name);
        let all = &self.records[&name.timeline];
        let mut summary = SegmentSummary {
            name,
            identity: Some(SegmentIdentity {
                major: Major::V17,
                system_identifier: 7,
                segment_size_bytes: size().bytes(),
                page_size_bytes: 8192,
            }),
            timelines: vec![],
            records: records.len() as u64,
            first_record: records.first().map(|r| r.lsn),
            first_previous: records.first().map(|first| self.before(name.timeline, first.lsn)),
            last_record: records.last().map(|r| r.lsn),
            last_record_end: records.last().map(|r| r.end),
            end: SegmentEnd::Full,
            bad_checksum: None,
            transactions: TransactionDigest::default(),
            restore_points: Capped::default(),
            checkpoints: Capped::default(),
            ends_of_recovery: Capped::default(),
            full_page_writes: Capped::default(),
            wal_levels: Capped::default(),
            backup_ends: Capped::default(),
            head: SegmentHead::default(),
            tail: None,
        };
        if self.foreign.contains(&name) {
            summary.first_previous = summary.first_previous.map(|lsn| Lsn(lsn.0 - 0x38));
        }
        if let Some(lsn) = self.broken.get(&name) {
            let reason = EndReason::Checksum { expected: 1, found: 2 };
            summary.end = SegmentEnd::Early(EndOfWal { lsn: *lsn, reason });
        }
        for record in &records {
            note(&mut summary, record);
        }
        if let Some(record) = all.iter().find(|r| r.lsn < start && r.end > start) {
            let bytes = record_bytes(record, self.before(name.timeline, record.lsn));
            let present = (start.0 - record.lsn.0) as usize;
            let ends = record.end <= end;
            let here = if ends { bytes.len() } else { present + SEGMENT as usize };
            summary.head = SegmentHead {
                remaining_bytes: (bytes.len() - present) as u32,
                bytes: Base64Bytes(bytes[present..here].to_vec()),
                extent: if ends { HeadExtent::Whole } else { HeadExtent::NoEnd },
                end_lsn: ends.then_some(record.end),
                timeline: ends.then_some(name.timeline),
            };
        }
        if let Some(record) = all.iter().find(|r| r.lsn >= start && r.lsn < end && r.end > end) {
            let bytes = record_bytes(record, self.before(name.timeline, record.lsn));
            let present = (end.0 - record.lsn.0) as usize;
            summary.tail = Some(UnfinishedRecord {
                lsn: record.lsn,
                total_len: bytes.len() as u32,
                present_bytes: present as u32,
                bytes: Base64Bytes(bytes[..present].to_vec()),
            });
        }
        summary
    }
}

fn note(summary: &mut SegmentSummary, record: &Rec) {
    if let Some(end) = record.transaction() {
        let digest = &mut summary.transactions;
        digest.first.get_or_insert(end);
        if digest.last.is_some_and(|last| end.time < last.time) {
            digest.time_order = TimeOrder::RunsBackwards;
        }
        digest.last = Some(end);
        if digest.earliest.is_none_or(|earliest| end.time < earliest.time) {
            digest.earliest = Some(end);
        }
        if digest.latest.is_none_or(|latest| end.time >= latest.time) {
            digest.latest = Some(end);
        }
        digest.xid_min = Some(digest.xid_min.map_or(end.xid, |min| min.min(end.xid)));
        digest.xid_max = Some(digest.xid_max.map_or(end.xid, |max| max.max(end.xid)));
    }
    match &record.what {
        What::Point { name, time } => summary.restore_points.items.push(RestorePoint {
            lsn: record.lsn,
            end_lsn: record.end,
            time: *time,
            name: name.clone(),
        }),
        What::Checkpoint { time } => summary.checkpoints.items.push(CheckpointRecord {
            lsn: record.lsn,
            kind: CheckpointKind::Online,
            checkpoint: Checkpoint {
                redo: record.lsn,
                timeline: summary.name.timeline,
                previous_timeline: summary.name.timeline,
                full_page_writes: FullPageWrites::On,
                wal_level: None,
                next_full_xid: 3,
                next_oid: 20000,
                oldest_xid: 3,
                time_unix_secs: time.to_unix_micros().div_euclid(1_000_000),
                oldest_active_xid: 3,
            },
        }),
        _ => {}
    }
}

/// A real record of this length: a header, main data with the time, a right checksum.
fn record_bytes(record: &Rec, previous: Lsn) -> Vec<u8> {
    let len = (record.end.0 - record.lsn.0) as usize;
    let (xid, info, manager, time) = match record.what {
        What::Commit { xid, time } => (xid, 0x00, 1, time.0),
        What::Abort { xid, time } => (xid, 0x20, 1, time.0),
        What::Point { time, .. } => (0, 0x70, 0, time.0),
        _ => (0, 0x20, 0, 0), // XLOG_NOOP
    };
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(len as u32).to_le_bytes());
    bytes.extend_from_slice(&xid.to_le_bytes());
    bytes.extend_from_slice(&previous.0.to_le_bytes());
    bytes.extend_from_slice(&[info, manager, 0, 0]);
    bytes.extend_from_slice(&[0; 4]);
    // XLR_BLOCK_ID_DATA_LONG, the length, the data.
    bytes.push(254);
    bytes.extend_from_slice(&((len - 29) as u32).to_le_bytes());
    bytes.extend_from_slice(&time.to_le_bytes());
    if let What::Point { name, .. } = &record.what {
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes.resize(len, 0);
    let checksum = record_checksum(&bytes).unwrap();
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

impl WalView for MadeUp {
    fn stored(&self) -> &StoredWal {
        &self.stored
    }

    async fn summaries(&self, names: &[ArchiveName]) -> Result<Vec<Look>, EngineError> {
        Ok(names
            .iter()
            .map(|name| match self.unreadable.contains(name) {
                true => Err(Unreadable::damaged("made so")),
                false => Ok(Arc::new(self.trailer(self.segment(*name)))),
            })
            .collect())
    }

    async fn whole_summary(&self, name: ArchiveName) -> Result<Look, EngineError> {
        Ok(Ok(Arc::new(self.summary(self.segment(name)))))
    }

    async fn records(
        &self,
        name: ArchiveName,
    ) -> Result<Result<Vec<WalRecord>, Unreadable>, EngineError> {
        let records = self.in_segment(self.segment(name));
        Ok(Ok(records
            .iter()
            .map(|r| WalRecord { lsn: r.lsn, end_lsn: r.end, mark: r.mark() })
            .collect()))
    }
}

/// A backup whose checkpoint record is at `start` and says `began`.
pub(crate) fn backup(number: u8, timeline: u32, start: Lsn, stop: Lsn, began: i64) -> BackupRow {
    let text = |secs: i64| {
        let time = jiff::Timestamp::from_second(1_700_000_000 + secs).unwrap();
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    BackupRow {
        id: BackupId::from_bytes([number; 16]),
        bytes: 1000,
        entries: 10,
        details: BackupDetails {
            began: text(began),
            ended: jiff::Timestamp::from_second(1_700_000_005 + began).unwrap(),
            host: "db1".into(),
            major: Major::V17,
            server_version: 170_000,
            catalog_version: 1,
            from: TakenFrom::Primary,
            start: Position { timeline: tli(timeline), lsn: start },
            checkpoint_lsn: start,
            stop: Position { timeline: tli(timeline), lsn: stop },
            backup_label: String::new(),
            tablespace_map: String::new(),
            tablespaces: vec![],
            pg_wal_link: None,
            page_size_bytes: 8192,
            wal_segment_size: size(),
            relation_segment_pages: 131_072,
            data_checksums: DataChecksums::On { version: 1 },
            chunk_bytes: 262_144,
            method: Method::Full,
            reference: None,
            damage: vec![],
            stats: BackupStats::default(),
            saw_backups: vec![],
        },
    }
}
