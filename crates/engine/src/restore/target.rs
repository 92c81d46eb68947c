//! What a person asks for: the moment recovery goes to, from which backup, along which timeline.

use pgrecall_pgformat::{Lsn, TimelineId, Timestamp};
use serde::Serialize;

/// The moment recovery goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A time, compared with those of commits and aborts.
    Time(Timestamp),
    /// A position in the WAL.
    Lsn(Lsn),
    /// A transaction: the low 32 bits of its id, as WAL has them.
    Xid(u32),
    /// A restore point.
    Name(String),
    /// As soon as the backup is consistent.
    Immediate,
    /// As far as the stored WAL goes.
    Latest,
}

/// Whether what is at the target is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Kept (`recovery_target_inclusive = true`).
    Inclusive,
    /// Left out.
    Exclusive,
}

/// What PostgreSQL does at the target (`recovery_target_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Stops replaying and lets people look.
    Pause,
    /// Becomes writable on a new timeline.
    Promote,
    /// Shuts down.
    Shutdown,
}

impl Action {
    /// The setting's value.
    #[must_use]
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Which backup to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupChoice {
    /// The one that gets there with the least WAL.
    Best,
    /// The newest one, whether it gets there or not.
    Latest,
    /// The only one whose id begins so.
    Prefix(String),
}

/// What is asked of the planner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The moment.
    pub target: Target,
    /// Whether what is there is kept; no matter for names, `Immediate` and `Latest`.
    pub bound: Bound,
    /// The timeline to follow; the one that the target lies on if not given.
    pub timeline: Option<TimelineId>,
    /// The backup.
    pub backup: BackupChoice,
}
