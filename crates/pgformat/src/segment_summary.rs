//! What a WAL segment holds, in a few hundred bytes: enough to plan a recovery without the segment
//! itself.
//!
//! A summary is serialisable; readers pass over fields they do not know, and missing ones get their
//! defaults.

use serde::{Deserialize, Serialize};

use crate::control::{Checkpoint, FullPageWrites, WalLevel};
use crate::end_of_wal::{EndOfWal, EndReason};
use crate::event::{CheckpointKind, Event};
use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::timeline::TimelineId;
use crate::timestamp::Timestamp;
use crate::unfinished::{Base64Bytes, UnfinishedRecord};
use crate::version::Major;
use crate::xact::TransactionEnd;

/// Of a record that goes on in another segment, at most this much is kept.
pub const SPANNING_BYTES_MAX: usize = 64 * 1024;

/// Items of which only the first so many are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capped<T> {
    /// The first ones, in WAL order.
    pub items: Vec<T>,
    /// How many more there were.
    pub left_out: u64,
}

impl<T> Default for Capped<T> {
    fn default() -> Self {
        Self { items: Vec::new(), left_out: 0 }
    }
}

impl<T> Capped<T> {
    /// Items kept of each kind.
    pub const ITEMS_MAX: usize = 128;

    fn push(&mut self, item: T) {
        if self.items.len() < Self::ITEMS_MAX {
            self.items.push(item);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

/// A page with which a timeline begins in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineStart {
    /// The page; the timeline's first record may come later on it.
    pub page_lsn: Lsn,
    /// The timeline.
    pub timeline: TimelineId,
}

/// What the segment's first page says about its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentIdentity {
    /// The major that wrote it.
    pub major: Major,
    /// The cluster.
    pub system_identifier: u64,
    /// The segment size in bytes.
    pub segment_size_bytes: u32,
    /// The size of WAL pages in bytes.
    pub page_size_bytes: u32,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SegmentEnd {
    /// Records reach its end (the last one may go on in the next).
    Full,
    /// A switch record ends it early; the rest is empty.
    Switch {
        /// The switch record.
        lsn: Lsn,
    },
    /// Records end before the segment does.
    Early(EndOfWal),
    /// The bytes given end before the segment does, in good order so far.
    Cut {
        /// Where the bytes end.
        lsn: Lsn,
    },
}

/// Whether commit times rise with the LSN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeOrder {
    /// They never fall.
    #[default]
    Rising,
    /// Some transaction has an earlier time than one before it.
    RunsBackwards,
}

/// The ends of transactions in a segment: of records that start and end in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransactionDigest {
    /// Commits, prepared ones too.
    pub commits: u64,
    /// Aborts, prepared ones too.
    pub aborts: u64,
    /// The first in WAL order.
    pub first: Option<TransactionEnd>,
    /// The last in WAL order.
    pub last: Option<TransactionEnd>,
    /// The first with the smallest time.
    pub earliest: Option<TransactionEnd>,
    /// The last with the largest time.
    pub latest: Option<TransactionEnd>,
    /// Whether times rise.
    pub time_order: TimeOrder,
    /// The smallest xid that ended, as a number (xids wrap round).
    pub xid_min: Option<u32>,
    /// The largest xid that ended, as a number.
    pub xid_max: Option<u32>,
}

impl TransactionDigest {
    fn add(&mut self, end: TransactionEnd) {
        let count = if end.outcome.is_commit() { &mut self.commits } else { &mut self.aborts };
        *count = count.saturating_add(1);
        self.first.get_or_insert(end);
        if self.last.is_some_and(|last| end.time < last.time) {
            self.time_order = TimeOrder::RunsBackwards;
        }
        self.last = Some(end);
        if self.earliest.is_none_or(|earliest| end.time < earliest.time) {
            self.earliest = Some(end);
        }
        if self.latest.is_none_or(|latest| end.time >= latest.time) {
            self.latest = Some(end);
        }
        if end.xid != 0 {
            self.xid_min = Some(self.xid_min.map_or(end.xid, |min| min.min(end.xid)));
            self.xid_max = Some(self.xid_max.map_or(end.xid, |max| max.max(end.xid)));
        }
    }
}

/// A restore point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Where its record starts.
    pub lsn: Lsn,
    /// The position after the record, where recovery to it stops.
    pub end_lsn: Lsn,
    /// When.
    pub time: Timestamp,
    /// Its name.
    pub name: String,
}

/// A checkpoint's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Where the record starts.
    pub lsn: Lsn,
    /// Which kind.
    pub kind: CheckpointKind,
    /// What it says.
    pub checkpoint: Checkpoint,
}

/// An end of recovery without a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfRecovery {
    /// Where the record starts.
    pub lsn: Lsn,
    /// When.
    pub time: Timestamp,
    /// The new timeline.
    pub timeline: TimelineId,
    /// The timeline left.
    pub previous_timeline: TimelineId,
}

/// A setting that changed in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change<T> {
    /// Where the record starts.
    pub lsn: Lsn,
    /// The value from there on.
    pub value: T,
}

/// An end of a backup, as recovery looks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupEndRecord {
    /// Where the record starts.
    pub lsn: Lsn,
    /// The redo position with which that backup started.
    pub start_lsn: Lsn,
}

/// A record's checksum that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadChecksum {
    /// Where the record starts.
    pub lsn: Lsn,
    /// The checksum of the bytes.
    pub expected: u32,
    /// The checksum stored.
    pub found: u32,
}

/// Whether the rest of a record from before ends in this segment and has been kept whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadExtent {
    /// No record goes on at the segment's start.
    #[default]
    None,
    /// No record goes on, and the page says that it takes the place of one that was given up
    /// (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`).
    Overwrites,
    /// All bytes up to the record's end are kept.
    Whole,
    /// The record ends here, but there were too many bytes to keep.
    TooLong,
    /// The record does not end in this segment, or its writer gave it up.
    NoEnd,
}

/// The rest of the record that the segment before began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SegmentHead {
    /// Bytes that the first page says are still to come, here and after.
    pub remaining_bytes: u32,
    /// What has been kept of it, without page headers.
    pub bytes: Base64Bytes,
    /// Whether that is all.
    pub extent: HeadExtent,
    /// The position after the record, if it ends here.
    pub end_lsn: Option<Lsn>,
    /// The timeline of the page on which it ends, if it ends here.
    pub timeline: Option<TimelineId>,
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSummary {
    /// The segment, as its name says.
    pub name: SegmentName,
    /// What its first page says; nothing if that cannot be read.
    pub identity: Option<SegmentIdentity>,
    /// The timelines of its pages. After a switch in mid-segment the first one is an old one.
    #[serde(default)]
    pub timelines: Vec<TimelineStart>,
    /// Records that start and end here, all with a right checksum.
    #[serde(default)]
    pub records: u64,
    /// The first record that starts here and ends here.
    pub first_record: Option<Lsn>,
    /// The record that the first one follows, by its own word (`xl_prev`).
    #[serde(default)]
    pub first_previous: Option<Lsn>,
    /// The last record that starts here and ends here.
    pub last_record: Option<Lsn>,
    /// The position after that record (of a switch record: the segment's end).
    pub last_record_end: Option<Lsn>,
    /// How the segment ends.
    pub end: SegmentEnd,
    /// The first wrong checksum; nothing is read after it.
    pub bad_checksum: Option<BadChecksum>,
    /// Ends of transactions.
    #[serde(default)]
    pub transactions: TransactionDigest,
    /// Restore points.
    #[serde(default)]
    pub restore_points: Capped<RestorePoint>,
    /// Checkpoints.
    #[serde(default)]
    pub checkpoints: Capped<CheckpointRecord>,
    /// Ends of recovery.
    #[serde(default)]
    pub ends_of_recovery: Capped<EndOfRecovery>,
    /// Changes of `full_page_writes`.
    #[serde(default)]
    pub full_page_writes: Capped<Change<FullPageWrites>>,
    /// Values of `wal_level` from parameter-change records.
    #[serde(default)]
    pub wal_levels: Capped<Change<WalLevel>>,
    /// Ends of backups.
    #[serde(default)]
    pub backup_ends: Capped<BackupEndRecord>,
    /// The rest of the record that the segment before began.
    #[serde(default)]
    pub head: SegmentHead,
    /// The record that goes on in the next segment.
    pub tail: Option<UnfinishedRecord>,
}

impl SegmentSummary {
    /// A summary of nothing.
    pub(crate) fn new(name: SegmentName, start: Lsn) -> Self {
        Self {
            name,
            identity: None,
            timelines: Vec::new(),
            records: 0,
            first_record: None,
            first_previous: None,
            last_record: None,
            last_record_end: None,
            end: SegmentEnd::Cut { lsn: start },
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
        }
    }

    /// Whether the segment is what an archive should hold: whole, with every checksum right.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.end, SegmentEnd::Full | SegmentEnd::Switch { .. })
    }

    pub(crate) fn add_event(&mut self, lsn: Lsn, end_lsn: Lsn, event: Event) {
        match event {
            Event::Transaction(end) => self.transactions.add(end),
            Event::Checkpoint(kind, checkpoint) => {
                self.checkpoints.push(CheckpointRecord { lsn, kind, checkpoint });
            }
            Event::RestorePoint { time, name } => {
                self.restore_points.push(RestorePoint { lsn, end_lsn, time, name });
            }
            Event::EndOfRecovery { time, timeline, previous_timeline } => {
                let end = EndOfRecovery { lsn, time, timeline, previous_timeline };
                self.ends_of_recovery.push(end);
            }
            Event::FullPageWrites(value) => self.full_page_writes.push(Change { lsn, value }),
            Event::ParameterChange { wal_level } => {
                self.wal_levels.push(Change { lsn, value: wal_level });
            }
            Event::BackupEnd { start_lsn } => {
                self.backup_ends.push(BackupEndRecord { lsn, start_lsn });
            }
            Event::RedoPoint
            | Event::OverwriteContrecord { .. }
            | Event::Switch
            | Event::DatabaseCreate { .. }
            | Event::DatabaseDrop { .. }
            | Event::StorageCreate { .. }
            | Event::StorageTruncate { .. } => {}
        }
    }

    pub(crate) fn set_early_end(&mut self, end: EndOfWal) {
        if let EndReason::Checksum { expected, found } = end.reason {
            self.bad_checksum = Some(BadChecksum { lsn: end.lsn, expected, found });
        }
        self.end = SegmentEnd::Early(end);
    }
}
