//! Which rows must be there at a recovery target, and how a restored cluster differs from that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use pgrecall_pgformat::{Lsn, Timestamp};

use super::wal_records::XactEnd;
use super::{Attempt, Change, CommitLog, Outcome, Row, RowId, TABLE, sql_timestamp};
use crate::postgres::Cluster;

/// How many rows of a kind a difference shows.
const ROWS_SHOWN: usize = 8;

/// `recovery_target_inclusive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inclusion {
    /// Stop just after the target.
    Inclusive,
    /// Stop just before it.
    Exclusive,
}

/// Where recovery is told to stop, with the meaning that PostgreSQL gives it
/// (`recoveryStopsBefore` and `recoveryStopsAfter` in `xlogrecovery.c`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All that is in the WAL.
    Latest,
    /// Before the first commit or abort record that is later (exclusive: not earlier).
    Time(Timestamp, Inclusion),
    /// After (exclusive: before) the first record that starts at or after this position.
    Lsn(Lsn, Inclusion),
    /// After (exclusive: before) the end of this transaction.
    Xid(u64, Inclusion),
    /// After the restore point of this name.
    Name(String),
    /// Every record that starts before this position, such as a backup's stop LSN.
    Before(Lsn),
}

/// The rows of the workload's table at a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Exactly these are there, in these versions.
    pub must_have: BTreeMap<RowId, Row>,
    /// Keys that were used and must not be there.
    pub must_not_have: BTreeSet<RowId>,
    /// Keys touched by a commit that nobody answered, beyond the end of the WAL that was read.
    /// Empty unless that WAL is cut off.
    pub undetermined: BTreeSet<RowId>,
}

/// A row found in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Owner and version.
    pub row: Row,
    /// Whether the payload is the one that belongs to the key and version.
    pub payload: Payload,
}

/// Whether a row's payload is what its client wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// As written.
    Intact,
    /// Something else.
    Damaged,
}

/// How a cluster differs from what must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    lines: Vec<String>,
}

impl CommitLog {
    /// The exact sets for `target`. [`CommitLog::resolve`] comes first.
    pub fn expected_at(&self, target: &Target) -> Expected {
        let stop = self.stop_of(target);
        let mut must_have = self.base.clone();
        let mut used: BTreeSet<RowId> = self.base.keys().copied().collect();
        for attempt in &self.attempts {
            used.extend(attempt.changes.iter().map(|(id, _)| *id));
        }
        for attempt in self.commits() {
            if attempt.record.is_some_and(|record| stop.admits(record.start)) {
                apply(&mut must_have, &attempt.changes);
            }
        }
        let undetermined = self.undetermined(stop);
        must_have.retain(|id, _| !undetermined.contains(id));
        let is_absent = |id: &RowId| !must_have.contains_key(id) && !undetermined.contains(id);
        let must_not_have = used.into_iter().filter(is_absent).collect();
        Expected { must_have, must_not_have, undetermined }
    }

    /// Reads the table in `cluster` and compares it with the rows expected at `target`, both ways.
    pub fn compare(&self, cluster: &Cluster, target: &Target) -> Result<(), Difference> {
        let expected = self.expected_at(target);
        let found = read_rows(cluster);
        let mut lines = Vec::new();
        let missing = expected.must_have.iter().filter(|(id, _)| !found.contains_key(*id));
        self.list(&mut lines, "missing", missing.map(|(id, row)| (*id, format!("{row:?}"))));
        let known =
            |id: &RowId| expected.must_have.contains_key(id) || expected.undetermined.contains(id);
        let surplus = found.iter().filter(|(id, _)| !known(id));
        self.list(&mut lines, "unexpected", surplus.map(|(id, row)| (*id, format!("{row:?}"))));
        let other = expected.must_have.iter().filter_map(|(id, row)| {
            let wanted = Found { row: *row, payload: Payload::Intact };
            let found = found.get(id).filter(|found| **found != wanted)?;
            Some((*id, format!("expected {row:?}, found {found:?}")))
        });
        self.list(&mut lines, "different", other);
        if lines.is_empty() { Ok(()) } else { Err(Difference { lines }) }
    }

    /// As [`CommitLog::compare`], panicking with what differs.
    pub fn assert_equals(&self, cluster: &Cluster, target: &Target) {
        if let Err(difference) = self.compare(cluster, target) {
            panic!(
                "{} is not as it was at {target:?}:\n{difference}",
                cluster.data_dir().display()
            );
        }
    }

    fn stop_of(&self, target: &Target) -> StopAt {
        let wal = self.wal.as_ref().expect("CommitLog::resolve comes before a target");
        match target {
            Target::Latest => StopAt::Never,
            Target::Time(time, inclusion) => {
                let later = |found: Timestamp| match inclusion {
                    Inclusion::Inclusive => found > *time,
                    Inclusion::Exclusive => found >= *time,
                };
                wal.first_xact(later).map_or(StopAt::Never, StopAt::Before)
            }
            Target::Lsn(lsn, Inclusion::Inclusive) => {
                wal.first_start_from(*lsn).map_or(StopAt::Never, StopAt::After)
            }
            Target::Lsn(lsn, Inclusion::Exclusive) | Target::Before(lsn) => StopAt::Before(*lsn),
            Target::Xid(xid, inclusion) => {
                let known = self.attempts.iter().find(|attempt| attempt.xid == Some(*xid));
                let before = known.and_then(|attempt| attempt.before);
                let record = wal.xact_of(*xid, before);
                let start = record.unwrap_or_else(|| panic!("xid {xid} is not in the WAL")).start;
                match inclusion {
                    Inclusion::Inclusive => StopAt::After(start),
                    Inclusion::Exclusive => StopAt::Before(start),
                }
            }
            Target::Name(name) => {
                let point = wal.restore_point(name);
                StopAt::After(point.unwrap_or_else(|| panic!("no restore point {name:?}")))
            }
        }
    }

    fn undetermined(&self, stop: StopAt) -> BTreeSet<RowId> {
        let end = self.wal.as_ref().map_or(Lsn::INVALID, |wal| wal.last_start());
        let beyond = |attempt: &&Attempt| {
            attempt.outcome == Outcome::Unknown
                && attempt.record.is_none()
                && attempt.before.is_some_and(|m| m.lsn > end && stop.admits(m.lsn))
        };
        let open = self.attempts.iter().filter(beyond);
        open.flat_map(|attempt| attempt.changes.iter().map(|(id, _)| *id)).collect()
    }

    /// Lists the first rows of a kind, each with the last transaction that touched it.
    fn list(
        &self,
        lines: &mut Vec<String>,
        kind: &str,
        rows: impl Iterator<Item = (RowId, String)>,
    ) {
        let rows: Vec<(RowId, String)> = rows.collect();
        if rows.is_empty() {
            return;
        }
        lines.push(format!("{kind}: {} rows", rows.len()));
        for (id, text) in rows.iter().take(ROWS_SHOWN) {
            lines.push(format!("  row {id}: {text}; touched by {}", self.story_of(*id)));
        }
    }

    fn story_of(&self, id: RowId) -> String {
        let mut story = String::new();
        for attempt in self.attempts.iter().filter(|a| a.changes.iter().any(|(row, _)| *row == id))
        {
            let xid = attempt.xid.map_or("none".to_owned(), |xid| xid.to_string());
            let _ = write!(story, "[xid {xid}");
            if let Some(record) = attempt.record {
                let end = if record.end == XactEnd::Commit { "commit" } else { "abort" };
                let _ = write!(story, " {end} at {} {}", record.start, sql_timestamp(record.time));
            }
            story.push(']');
        }
        if story.is_empty() { "nobody in this log".to_owned() } else { story }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// Where replay stops, by the start of records.
#[derive(Debug, Clone, Copy)]
enum StopAt {
    Never,
    Before(Lsn),
    After(Lsn),
}

impl StopAt {
    fn admits(self, start: Lsn) -> bool {
        match self {
            Self::Never => true,
            Self::Before(lsn) => start < lsn,
            Self::After(lsn) => start <= lsn,
        }
    }
}

fn apply(rows: &mut BTreeMap<RowId, Row>, changes: &[(RowId, Change)]) {
    for (id, change) in changes {
        match change {
            Change::Write(row) => {
                rows.insert(*id, *row);
            }
            Change::Delete => {
                rows.remove(id);
            }
            Change::TakenBack => {}
        }
    }
}

/// All rows of the workload's table, none if there is no such table.
fn read_rows(cluster: &Cluster) -> BTreeMap<RowId, Found> {
    if cluster.psql(&format!("SELECT to_regclass('{TABLE}') IS NULL")) == "t" {
        return BTreeMap::new();
    }
    // The heap, not an index: an index that misses a row would hide it.
    let text = cluster.psql(&format!(
        "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; \
         SELECT id, client, version, payload = {TABLE}_payload(id, version, pieces) FROM {TABLE}"
    ));
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [id, client, version, intact] = fields[..] else { panic!("a row like {line:?}") };
        let number = |text: &str| text.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
        let payload = if intact == "t" { Payload::Intact } else { Payload::Damaged };
        let row = Row { client: number(client), version: number(version) };
        let id: RowId = id.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
        let twice = rows.insert(id, Found { row, payload });
        assert!(twice.is_none(), "row {id} is there twice");
    }
    rows
}
