//! What a workload's clients were told, and what follows from it for a recovery target.
//!
//! The log holds every transaction the clients tried: its xid, what it changed, the WAL position
//! and the server's clock before and after `COMMIT`, and the answer. [`CommitLog::resolve`] then
//! reads the server's WAL with PostgreSQL's own `pg_waldump`, checks it against what the clients
//! saw, and learns where each commit record starts, for that is what recovery goes by. From there
//! on the rows that must be there at a target, and those that must not, are exact sets.

mod expected;
mod wal_records;

use std::collections::{BTreeMap, HashMap};

use pgrecall_pgformat::{Lsn, Timestamp};

use crate::postgres::Cluster;

pub use expected::{Difference, Expected, Found, Inclusion, Payload, Target};
use wal_records::WalRecords;
pub use wal_records::{XactEnd, XactRecord};

/// The table that workloads write.
pub const TABLE: &str = "pgrecall_workload";

/// The key of a row; no two workloads of a process use the same.
pub type RowId = i64;

/// A row as a client wrote it last. Its payload follows from its key and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The client that owns the row.
    pub client: u32,
    /// 1 when inserted, one more with each update.
    pub version: u32,
}

/// What a transaction did to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Inserted or updated it, to this.
    Write(Row),
    /// Deleted it.
    Delete,
    /// Inserted it and took that back, within the transaction.
    TakenBack,
}

/// A WAL position and the server's clock, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// `pg_current_wal_insert_lsn()`.
    pub lsn: Lsn,
    /// `clock_timestamp()`.
    pub time: Timestamp,
}

/// How a transaction ended, as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server confirmed `COMMIT`.
    Acknowledged {
        /// Read right after; `None` if the connection died in between.
        after: Option<Moment>,
        /// `pg_xact_commit_timestamp`, where `track_commit_timestamp` is on.
        commit_time: Option<Timestamp>,
    },
    /// Rolled back, or `COMMIT` was never sent.
    NotCommitted,
    /// `COMMIT` was sent and no answer came.
    Unknown,
}

/// One transaction of a client.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Which client.
    pub client: u32,
    /// Its transaction id; `None` if the connection died before it was known.
    pub xid: Option<u64>,
    /// The rows it touched, in order.
    pub changes: Vec<(RowId, Change)>,
    /// Read just before `COMMIT`: the commit record starts at or after that position.
    pub before: Option<Moment>,
    /// What the client was told.
    pub outcome: Outcome,
    /// The commit or abort record, once [`CommitLog::resolve`] has found it.
    pub record: Option<XactRecord>,
}

/// Everything the clients of a workload did.
#[derive(Debug, Clone, Default)]
pub struct CommitLog {
    pub(crate) base: BTreeMap<RowId, Row>,
    pub(crate) attempts: Vec<Attempt>,
    wal: Option<WalRecords>,
}

impl CommitLog {
    /// The transactions in the order of their commit or abort records; those without one, which
    /// nobody can see, are left out.
    pub fn in_wal_order(&self) -> Vec<&Attempt> {
        let mut found: Vec<&Attempt> =
            self.attempts.iter().filter(|a| a.record.is_some()).collect();
        found.sort_by_key(|attempt| attempt.record.map(|record| record.start));
        found
    }

    /// The committed transactions in WAL order: choose a target from these.
    pub fn commits(&self) -> Vec<&Attempt> {
        let mut commits = self.in_wal_order();
        commits.retain(|attempt| attempt.record.is_some_and(|r| r.end == XactEnd::Commit));
        commits
    }

    /// Every end of a transaction in the WAL that was read, whoever's, in its order.
    pub fn ends(&self) -> &[XactRecord] {
        self.wal.as_ref().map_or(&[], WalRecords::xacts)
    }

    /// How many commits the server acknowledged.
    pub fn acknowledged(&self) -> usize {
        let told = |a: &&Attempt| matches!(a.outcome, Outcome::Acknowledged { .. });
        self.attempts.iter().filter(told).count()
    }

    /// Reads the WAL in `cluster`'s `pg_wal`, whether its server runs or not, and gives each
    /// transaction its record.
    ///
    /// Panics where the WAL contradicts a client: an acknowledged commit is missing or was aborted,
    /// lies outside the bounds that its client saw, or bears another time than the server told.
    pub fn resolve(&mut self, cluster: &Cluster) {
        let wal = WalRecords::read(cluster);
        // After a crash an xid that left no trace in the WAL is given out again: the last attempt
        // that had it owns the record.
        let mut owners: HashMap<u64, &mut Attempt> = HashMap::new();
        self.attempts.sort_by_key(|attempt| attempt.before.map(|moment| moment.time));
        for attempt in &mut self.attempts {
            attempt.record = None;
            if let Some(xid) = attempt.xid {
                owners.insert(xid, attempt);
            }
        }
        for (xid, attempt) in owners {
            attempt.record = wal.xact_of(xid, attempt.before);
        }
        self.attempts.iter().for_each(check);
        self.wal = Some(wal);
    }

    /// The log of a cluster restored to `target`: its rows are what must be there then, and a
    /// workload that goes on from here ([`crate::workload::Workload::go_on_from`]) adds to them.
    #[must_use]
    pub fn branch_at(&self, target: &Target) -> Self {
        let expected = self.expected_at(target);
        assert!(expected.undetermined.is_empty(), "no branch from {:?}", expected.undetermined);
        Self { base: expected.must_have, attempts: Vec::new(), wal: None }
    }
}

/// Holds what a client saw of a transaction against its record.
fn check(attempt: &Attempt) {
    let Outcome::Acknowledged { after, commit_time } = attempt.outcome else {
        let committed = attempt.record.is_some_and(|record| record.end == XactEnd::Commit);
        let allowed = attempt.outcome == Outcome::Unknown;
        assert!(!committed || allowed, "commits what was rolled back: {attempt:?}");
        return;
    };
    let record = attempt.record.unwrap_or_else(|| panic!("not in the WAL: {attempt:?}"));
    assert_eq!(record.end, XactEnd::Commit, "acknowledged, yet aborted: {attempt:?}");
    let not_before = attempt.before.map_or(Lsn::INVALID, |moment| moment.lsn);
    let not_after = after.map_or(Lsn::MAX, |moment| moment.lsn);
    let between = not_before <= record.start && record.start < not_after;
    assert!(between, "the commit record lies outside its bounds: {attempt:?}");
    if let Some(time) = commit_time {
        assert_eq!(record.time, time, "commit times differ: {attempt:?}");
    }
}

/// A time as PostgreSQL reads it, with microseconds and zone, e.g. for `recovery_target_time`.
pub fn sql_timestamp(time: Timestamp) -> String {
    let micros = time.to_unix_micros();
    let moment = jiff::Timestamp::from_microsecond(micros)
        .unwrap_or_else(|e| panic!("{micros} microseconds: {e}"));
    moment.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
}
