//! Why a target cannot be reached, found out before a byte is written, and what would work.

use pgrecall_pgformat::{Lsn, TimelineId, Timestamp};
use thiserror::Error;

use super::wal_view::StoredWal;
use crate::error::{EngineError, ErrorKind};
use crate::unreadable::{Cause, Unreadable};

/// One of several ways that a target could mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it left the one before; none for a first timeline.
    pub left: Option<(TimelineId, Lsn)>,
    /// What lies at its end, or where the target would be on it; a few words.
    pub what: String,
}

/// Why a plan was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is nothing to start from.
    #[error("the repository holds no backup of this cluster")]
    NoBackups,
    /// No backup has this id.
    #[error("no backup's id begins with {prefix}")]
    UnknownBackup {
        /// What was given.
        prefix: String,
    },
    /// Several have.
    #[error("more than one backup's id begins with {prefix}: {}", ids.join(", "))]
    AmbiguousBackup {
        /// What was given.
        prefix: String,
        /// Those that fit.
        ids: Vec<String>,
    },
    /// Nothing is stored of this timeline.
    #[error("the repository holds nothing of timeline {}", timeline.0)]
    UnknownTimeline {
        /// The timeline.
        timeline: TimelineId,
        /// Those that there are.
        known: Vec<TimelineId>,
    },
    /// No backup lies on the way to a timeline.
    #[error("no backup lies on the way to timeline {}", timeline.0)]
    NoBackupOnTimeline {
        /// The timeline.
        timeline: TimelineId,
    },
    /// The target lies before all backups on the way.
    #[error("the target lies before the first backup that could be used")]
    BeforeFirstBackup {
        /// When that backup ended, RFC 3339.
        first_ended: String,
        /// Where it is consistent.
        first_stop: Lsn,
    },
    /// The target lies in a backup, and there is no older one.
    #[error("the target lies within backup {backup}, which is consistent from {stop} on only")]
    InsideBackup {
        /// The backup.
        backup: String,
        /// Where it is consistent.
        stop: Lsn,
        /// When it ended, RFC 3339.
        ended: String,
    },
    /// WAL that is stored does not go so far.
    #[error("the stored WAL does not reach the target: it ends at {end}{}", at(*latest))]
    BeyondWal {
        /// The end of the stored WAL.
        end: Lsn,
        /// The latest time that the stored WAL shows.
        latest: Option<Timestamp>,
        /// The last commit or abort in it.
        last_transaction: Option<Timestamp>,
    },
    /// A segment on the way is not stored.
    #[error("WAL segment {segment} is missing")]
    MissingSegment {
        /// Its file name.
        segment: String,
        /// Where the WAL before it ends.
        end: Option<Lsn>,
        /// The last commit or abort before it.
        last_transaction: Option<Timestamp>,
        /// That transaction.
        last_xid: Option<u32>,
    },
    /// WAL breaks off on the way, or does not read.
    #[error("replay would end at {lsn}, in WAL segment {segment}: {}", why.reason)]
    BrokenWal {
        /// Its file name.
        segment: String,
        /// Where.
        lsn: Lsn,
        /// Why.
        why: Unreadable,
        /// The last commit or abort before it.
        last_transaction: Option<Timestamp>,
        /// That transaction.
        last_xid: Option<u32>,
    },
    /// No commit or abort of this transaction is stored.
    #[error("the stored WAL has no commit or abort of transaction {xid}")]
    UnknownXid {
        /// The transaction.
        xid: u32,
    },
    /// No restore point of this name is stored.
    #[error("the stored WAL has no restore point named {name:?}")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// Nobody knows where a timeline comes from.
    #[error(
        "the history of timeline {} {}",
        timeline.0,
        bad.as_ref().map_or("is not stored".into(), |bad| format!("does not read: {}", bad.reason))
    )]
    NoHistory {
        /// The timeline.
        timeline: TimelineId,
        /// What is wrong with its file, if there is one.
        bad: Option<Unreadable>,
    },
    /// The history forks, and the target does not say which branch is meant.
    #[error(
        "the history of the cluster forks, and the target can be reached on more than one timeline"
    )]
    TwoTimelines {
        /// The branches.
        ways: Vec<Way>,
    },
}

fn at(time: Option<Timestamp>) -> String {
    time.map(|time| format!(" ({})", show(time))).unwrap_or_default()
}

/// A time as people read it and `--to-time` takes it.
#[must_use]
pub fn show(time: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(time.to_unix_micros()).map_or_else(
        |_| "a time out of range".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string(),
    )
}

const OTHER_VERSION: &str = "Another version of pgrecall wrote it: use that one here too.";

impl Refusal {
    /// The reaction that it calls for.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoBackups | Self::UnknownBackup { .. } | Self::UnknownTimeline { .. } => {
                ErrorKind::NotFound
            }
            Self::UnknownXid { .. } | Self::UnknownName { .. } => ErrorKind::NotFound,
            Self::NoHistory { bad: None, .. } => ErrorKind::Incomplete,
            Self::NoHistory { bad: Some(why), .. } | Self::BrokenWal { why, .. } => {
                why.cause.kind()
            }
            Self::AmbiguousBackup { .. } | Self::TwoTimelines { .. } => ErrorKind::Invalid,
            Self::NoBackupOnTimeline { .. }
            | Self::BeforeFirstBackup { .. }
            | Self::InsideBackup { .. }
            | Self::BeyondWal { .. }
            | Self::MissingSegment { .. } => ErrorKind::Incomplete,
        }
    }

    /// What would work, sentences for people.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NoBackups => vec!["Run pgrecall backup while the cluster runs.".into()],
            Self::UnknownBackup { .. } | Self::AmbiguousBackup { .. } => {
                vec!["pgrecall list shows the backups.".into()]
            }
            Self::UnknownTimeline { known, .. } => {
                let known: Vec<String> = known.iter().map(|id| id.0.to_string()).collect();
                vec![format!("Timelines stored: {}.", known.join(", "))]
            }
            Self::NoBackupOnTimeline { .. } => {
                vec!["Leave --timeline out, or name one that a backup lies on.".into()]
            }
            Self::BeforeFirstBackup { first_ended, first_stop } => vec![format!(
                "The earliest moment that can be reached is the end of that backup: \
                 {first_ended} (LSN {first_stop})."
            )],
            Self::InsideBackup { stop, ended, .. } => vec![format!(
                "The earliest moment that can be reached with it is its end: {ended} (LSN \
                 {stop}); no older backup gets to the target."
            )],
            Self::BeyondWal { latest, last_transaction, .. } => {
                beyond_hints(*latest, *last_transaction)
            }
            Self::NoHistory {
                bad: Some(Unreadable { cause: Cause::OtherVersion, .. }), ..
            } => {
                vec![OTHER_VERSION.into()]
            }
            Self::BrokenWal { why, last_transaction, last_xid, .. }
                if why.cause == Cause::OtherVersion =>
            {
                let mut hints = gap_hints(*last_transaction, *last_xid);
                hints.insert(0, OTHER_VERSION.into());
                hints
            }
            Self::MissingSegment { last_transaction, last_xid, .. }
            | Self::BrokenWal { last_transaction, last_xid, .. } => {
                gap_hints(*last_transaction, *last_xid)
            }
            Self::UnknownXid { .. } => vec![
                "It may still have been running, or have been a subtransaction; aim at a time or \
                 an LSN instead."
                    .into(),
            ],
            Self::UnknownName { .. } => vec![
                "It may have been made after the last archived segment: pg_switch_wal() sends the \
                 current one."
                    .into(),
            ],
            Self::NoHistory { timeline, .. } => vec![
                format!(
                    "Store it: pgrecall wal push pg_wal/{:08X}.history, from a server that has been \
                     on that timeline.",
                    timeline.0
                ),
                "--timeline N follows another timeline; what was committed on this one is then \
                 left out."
                    .into(),
            ],
            Self::TwoTimelines { ways } => {
                let mut hints: Vec<String> = ways.iter().map(way).collect();
                hints.push("Choose with --timeline N.".into());
                hints
            }
        }
    }
}

fn way(way: &Way) -> String {
    let left = way
        .left
        .map(|(parent, lsn)| format!(" (left timeline {} at {lsn})", parent.0))
        .unwrap_or_default();
    format!("Timeline {}{left}: {}.", way.timeline.0, way.what)
}

fn beyond_hints(latest: Option<Timestamp>, last: Option<Timestamp>) -> Vec<String> {
    let mut hints = Vec::new();
    if let Some(latest) = latest {
        hints.push(format!("The latest time that can be asked for is {}.", show(latest)));
    }
    if let Some(last) = last {
        hints.push(format!("The last transaction stored ended at {}.", show(last)));
    }
    hints.push(
        "--to-latest goes as far as the stored WAL does; if the server still runs, \
         pg_switch_wal() sends more."
            .into(),
    );
    hints
}

fn gap_hints(last: Option<Timestamp>, xid: Option<u32>) -> Vec<String> {
    let mut hints = Vec::new();
    match (last, xid) {
        // A time can be aimed at only where what comes after it is stored.
        (Some(last), Some(xid)) => hints.push(format!(
            "The last transaction before it ended at {}: --to-xid {xid} goes there.",
            show(last)
        )),
        (Some(last), None) => {
            hints.push(format!("The last transaction before it ended at {}.", show(last)));
        }
        (None, _) => hints.push("--to-immediate goes to the end of the backup.".into()),
    }
    hints.push(
        "A server, or a standby, that still has the segment in its pg_wal can store it: pgrecall \
         wal push PATH."
            .into(),
    );
    hints.push("A later backup may reach the target.".into());
    hints
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// It cannot work.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be found out.
    #[error(transparent)]
    Failed(#[from] EngineError),
}

impl From<PlanError> for EngineError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Failed(error) => error,
            PlanError::Refused(refusal) => {
                let error = Self::refused(refusal.kind(), refusal.to_string());
                refusal.hints().into_iter().fold(error, Self::hint)
            }
        }
    }
}

/// All timelines that anything is stored of.
pub(crate) fn known_timelines(stored: &StoredWal) -> Vec<TimelineId> {
    let mut known: Vec<TimelineId> =
        stored.segments.keys().chain(stored.histories.keys()).copied().collect();
    known.sort_unstable();
    known.dedup();
    known
}
