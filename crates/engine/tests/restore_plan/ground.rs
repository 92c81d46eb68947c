//! Plans over WAL that was made up, and a simple life of a cluster.

use pgrecall_engine::restore::plan::{BackupRow, RestorePlan, Stop, plan};
use pgrecall_engine::restore::refusal::{PlanError, Refusal};
use pgrecall_engine::restore::target::{BackupChoice, Bound, Request, Target};
use pgrecall_pgformat::Lsn;

use crate::made_up::{MadeUp, What, at, backup, tli};

pub(crate) fn request(target: Target) -> Request {
    Request { target, bound: Bound::Inclusive, timeline: None, backup: BackupChoice::Best }
}

pub(crate) fn run(
    wal: &MadeUp,
    backups: &[BackupRow],
    request: &Request,
) -> Result<RestorePlan, Refusal> {
    match futures::executor::block_on(plan(wal, backups, request)) {
        Ok(plan) => Ok(plan),
        Err(PlanError::Refused(refusal)) => {
            assert!(!refusal.hints().is_empty(), "a refusal without a way out: {refusal}");
            Err(refusal)
        }
        Err(PlanError::Failed(error)) => panic!("{error}"),
    }
}

pub(crate) fn to_time(
    wal: &MadeUp,
    backups: &[BackupRow],
    secs: i64,
) -> Result<RestorePlan, Refusal> {
    run(wal, backups, &request(Target::Time(at(secs))))
}

pub(crate) const fn before(lsn: Lsn) -> Stop {
    Stop::Lsn { lsn, bound: Bound::Exclusive }
}

pub(crate) const fn after(lsn: Lsn) -> Stop {
    Stop::Lsn { lsn, bound: Bound::Inclusive }
}

/// Commits at 10, 20; a backup from 30 to 35; commits at 40, 50, an idle hour, 5000; a segment
/// each.
pub(crate) struct Simple {
    pub(crate) wal: MadeUp,
    pub(crate) backups: Vec<BackupRow>,
    pub(crate) commits: Vec<Lsn>,
}

pub(crate) fn take(wal: &mut MadeUp, number: u8, timeline: u32, secs: i64) -> BackupRow {
    let start = wal.checkpoint(timeline, secs);
    wal.add(timeline, What::Other);
    let stop = wal.next(timeline);
    wal.switch(timeline);
    backup(number, timeline, start, stop, secs)
}

pub(crate) fn simple() -> Simple {
    let mut wal = MadeUp::new();
    let mut commits = vec![wal.commit(1, 10, 10), wal.commit(1, 11, 20)];
    let backups = vec![take(&mut wal, 1, 1, 30)];
    for (xid, secs) in [(12, 40), (13, 50), (14, 5000)] {
        commits.push(wal.commit(1, xid, secs));
        wal.switch(1);
    }
    wal.archive();
    Simple { wal, backups, commits }
}

/// After the last record that starts before the end of the backup.
pub(crate) fn consistent(wal: &MadeUp, backup: &BackupRow) -> Stop {
    let lsn = backup.details.stop.lsn;
    let before = wal.records[&tli(1)].iter().rfind(|record| record.lsn < lsn);
    Stop::Consistency { lsn, after: before.unwrap().lsn }
}
