//! Targets that are no times, and backups by their prefix.

use pgrecall_engine::restore::refusal::Refusal;
use pgrecall_engine::restore::target::{BackupChoice, Bound, Target};
use pgrecall_pgformat::Lsn;

use crate::ground::{Simple, after, before, consistent, request, run, simple, take};
use crate::made_up::{MadeUp, Rec, SEGMENT, What, at, backup, tli};

#[test]
fn xids_are_compared_for_equality_only() {
    let mut wal = MadeUp::new();
    let backups = [take(&mut wal, 1, 1, 1)];
    wal.commit(1, 30, 10);
    let wanted = wal.add(1, What::Abort { xid: 20, time: at(11) });
    wal.commit(1, 25, 12);
    wal.switch(1);
    wal.archive();
    let mut to_xid = request(Target::Xid(20));
    assert_eq!(run(&wal, &backups, &to_xid).unwrap().stop, after(wanted));
    to_xid.bound = Bound::Exclusive;
    assert_eq!(run(&wal, &backups, &to_xid).unwrap().stop, before(wanted));
    let refusal = run(&wal, &backups, &request(Target::Xid(26))).unwrap_err();
    assert_eq!(refusal, Refusal::UnknownXid { xid: 26 });
}

#[test]
fn the_first_restore_point_of_a_name_after_the_newest_backup_before_it_counts() {
    let mut wal = MadeUp::new();
    let point = |name: &str, secs| What::Point { name: name.into(), time: at(secs) };
    let old = take(&mut wal, 1, 1, 1);
    let first = wal.add(1, point("release", 10));
    wal.switch(1);
    let young = take(&mut wal, 2, 1, 20);
    let second = wal.add(1, point("release", 30));
    wal.add(1, point("release", 31));
    wal.switch(1);
    wal.archive();
    let both = [old.clone(), young];
    let by_name = request(Target::Name("release".into()));
    assert_eq!(run(&wal, &both, &by_name).unwrap().stop, after(second));
    assert_eq!(run(&wal, &both[..1], &by_name).unwrap().stop, after(first));
    assert!(run(&wal, &both, &request(Target::Name("other".into()))).is_err());
}

#[test]
fn an_lsn_must_be_covered_by_a_record() {
    let Simple { wal, backups, commits } = simple();
    let plan = run(&wal, &backups, &request(Target::Lsn(commits[3]))).unwrap();
    assert_eq!((plan.stop, plan.last_kept.unwrap().xid), (after(commits[3]), 13));
    let mut exclusive = request(Target::Lsn(commits[3]));
    exclusive.bound = Bound::Exclusive;
    let plan = run(&wal, &backups, &exclusive).unwrap();
    assert_eq!((plan.stop, plan.last_kept.unwrap().xid), (before(commits[3]), 12));
    let beyond = request(Target::Lsn(Lsn(commits[4].0 + 10 * SEGMENT)));
    assert!(matches!(run(&wal, &backups, &beyond).unwrap_err(), Refusal::BeyondWal { .. }));
}

#[test]
fn latest_goes_to_the_last_record_and_immediate_to_consistency() {
    let Simple { wal, backups, .. } = simple();
    let last: &Rec = wal.records[&tli(1)].last().unwrap();
    let plan = run(&wal, &backups, &request(Target::Latest)).unwrap();
    assert_eq!((plan.stop, plan.last_kept.unwrap().xid), (after(last.lsn), 14));
    let plan = run(&wal, &backups, &request(Target::Immediate)).unwrap();
    assert_eq!(plan.stop, consistent(&wal, &backups[0]));
    assert_eq!(plan.segment_count, 1);
}

#[test]
fn backups_are_found_by_their_prefix() {
    let Simple { wal, backups, .. } = simple();
    let mut named = request(Target::Latest);
    named.backup = BackupChoice::Prefix("zzz".into());
    assert!(matches!(run(&wal, &backups, &named).unwrap_err(), Refusal::UnknownBackup { .. }));
    named.backup = BackupChoice::Prefix(String::new());
    let two = [backups[0].clone(), backup(2, 1, Lsn(1), Lsn(2), 3)];
    assert!(matches!(run(&wal, &two, &named).unwrap_err(), Refusal::AmbiguousBackup { .. }));
    assert_eq!(run(&wal, &[], &named).unwrap_err(), Refusal::NoBackups);
}
