//! Random histories against a walk over every record from the chosen backup's start, which is
//! all that PostgreSQL does.

use pgrecall_engine::restore::plan::{BackupRow, Stop};
use pgrecall_engine::restore::refusal::Refusal;
use pgrecall_engine::restore::target::{Bound, Target};
use pgrecall_pgformat::Lsn;
use proptest::prelude::*;

use crate::ground::{after, request, run, take};
use crate::made_up::{MadeUp, Rec, SEGMENT, What, at, tli};

#[derive(Debug, Clone)]
enum Step {
    /// A commit so many seconds after (or before) the clock.
    Commit(i64),
    Abort(i64),
    Point,
    Checkpoint,
    /// A record that may reach into the next segment.
    Long(u64),
    Switch,
    Backup,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (-3_i64..4).prop_map(Step::Commit),
        2 => (-30_i64..4).prop_map(Step::Abort),
        1 => Just(Step::Point),
        1 => Just(Step::Checkpoint),
        2 => (0x100_u64..SEGMENT).prop_map(Step::Long),
        2 => Just(Step::Switch),
        1 => Just(Step::Backup),
    ]
}

fn history(steps: &[Step]) -> (MadeUp, Vec<BackupRow>) {
    let mut wal = MadeUp::new();
    let mut clock = 10;
    let mut backups = vec![take(&mut wal, 1, 1, clock)];
    for (number, step) in steps.iter().enumerate() {
        clock += 7;
        let xid = 100 + number as u32;
        match step {
            Step::Commit(by) => {
                wal.add(1, What::Commit { xid, time: at(clock + by) });
            }
            Step::Abort(by) => {
                wal.add(1, What::Abort { xid, time: at(clock + by) });
            }
            Step::Point => {
                let name = format!("p{}", number % 3);
                wal.add(1, What::Point { name, time: at(clock) });
            }
            Step::Checkpoint => {
                wal.checkpoint(1, clock);
            }
            Step::Long(len) => {
                wal.add_long(1, What::Other, len / 8 * 8);
            }
            Step::Switch => wal.switch(1),
            Step::Backup => {
                let id = 2 + backups.len() as u8;
                backups.push(take(&mut wal, id, 1, clock));
            }
        }
    }
    wal.archive_all();
    (wal, backups)
}

/// The first record from `from` on that `stops`.
fn walk(wal: &MadeUp, from: Lsn, stops: impl Fn(&Rec) -> bool) -> Option<&Rec> {
    wal.records[&tli(1)].iter().filter(|record| record.lsn >= from).find(|r| stops(r))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_time_stops_where_a_walk_over_all_records_does(
        steps in prop::collection::vec(step(), 0..60),
        secs in 0_i64..450,
        exclusive: bool,
    ) {
        let (wal, backups) = history(&steps);
        let time = at(secs);
        let mut asked = request(Target::Time(time));
        if exclusive {
            asked.bound = Bound::Exclusive;
        }
        let beyond = |r: &Rec| r.transaction().is_some_and(|end| {
            if exclusive { end.time >= time } else { end.time > time }
        });
        let usable = |backup: &BackupRow| {
            walk(&wal, backup.details.start.lsn, beyond)
                .is_none_or(|stop| stop.lsn >= backup.details.stop.lsn)
        };
        match run(&wal, &backups, &asked) {
            Ok(plan) => {
                let details = &plan.backup.details;
                prop_assert!(usable(&plan.backup));
                match (walk(&wal, details.start.lsn, beyond), plan.stop) {
                    (Some(stop), Stop::Lsn { lsn, bound }) => {
                        prop_assert_eq!((lsn, bound), (stop.lsn, Bound::Exclusive));
                        prop_assert_eq!(plan.first_left_out.unwrap().lsn, stop.lsn);
                    }
                    (None, Stop::Lsn { lsn, bound }) => {
                        prop_assert_eq!(bound, Bound::Inclusive);
                        let later = walk(&wal, Lsn(lsn.0 + 1), |r| r.transaction().is_some());
                        prop_assert!(later.is_none(), "not the last transaction");
                    }
                    (None, Stop::Consistency { .. }) => {
                        let after = walk(&wal, details.stop.lsn, |r| r.transaction().is_some());
                        prop_assert!(after.is_none(), "a transaction was lost");
                    }
                    (Some(_), Stop::Consistency { .. }) => prop_assert!(false, "stops early"),
                }
                // A newer backup that had begun by then would have got there too.
                let began = |backup: &BackupRow| {
                    let began: jiff::Timestamp = backup.details.began.parse().unwrap();
                    began.as_second() - 1_700_000_000
                };
                let better = backups.iter().find(|other| {
                    other.details.start.lsn > details.start.lsn
                        && began(other) + 2 <= secs
                        && usable(other)
                });
                prop_assert!(better.is_none(), "{:?} is nearer", better.map(|b| b.id));
            }
            Err(Refusal::BeyondWal { latest, .. }) => {
                prop_assert!(latest.is_none_or(|latest| latest < time));
            }
            Err(Refusal::BeforeFirstBackup { .. }) => {
                // The oldest began at 10.
                prop_assert!(secs <= 12);
            }
            Err(Refusal::InsideBackup { .. }) => {
                prop_assert!(!usable(&backups[0]));
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn transactions_and_names_stop_where_a_walk_does(
        steps in prop::collection::vec(step(), 1..60),
        pick in 0_usize..60,
    ) {
        let (wal, backups) = history(&steps);
        let xid = 100 + (pick % steps.len()) as u32;
        let is_it = |r: &Rec| r.transaction().is_some_and(|end| end.xid == xid);
        let expected = walk(&wal, backups[0].details.start.lsn, is_it);
        match (run(&wal, &backups, &request(Target::Xid(xid))), expected) {
            (Ok(plan), Some(stop)) => {
                prop_assert_eq!(plan.stop, after(stop.lsn));
                prop_assert!(plan.backup.details.stop.lsn <= stop.lsn);
            }
            (Err(Refusal::UnknownXid { .. }), None) => {}
            (found, expected) => prop_assert!(false, "{found:?}, expected {expected:?}"),
        }
        let name = format!("p{}", pick % 3);
        let named = |r: &Rec| matches!(&r.what, What::Point { name: n, .. } if *n == name);
        match run(&wal, &backups, &request(Target::Name(name.clone()))) {
            Ok(plan) => {
                let stop = walk(&wal, plan.backup.details.start.lsn, named);
                prop_assert_eq!(Some(plan.stop), stop.map(|record| after(record.lsn)));
            }
            Err(Refusal::UnknownName { .. }) => {
                let first = walk(&wal, backups[0].details.start.lsn, named);
                prop_assert!(first.is_none());
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}
