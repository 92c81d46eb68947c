//! Times: where PostgreSQL stops, and from which backup it gets there.

use pgrecall_engine::restore::refusal::Refusal;
use pgrecall_engine::restore::target::{BackupChoice, Bound, Target};
use pgrecall_pgformat::{Lsn, SegmentNumber};

use crate::ground::{Simple, after, before, consistent, request, run, simple, take, to_time};
use crate::made_up::{MadeUp, SEGMENT, What, at, backup, tli};

#[test]
fn a_time_stops_before_the_first_later_commit() {
    let Simple { wal, backups, commits } = simple();
    let plan = to_time(&wal, &backups, 45).unwrap();
    assert_eq!(plan.stop, before(commits[3]));
    assert_eq!(plan.last_kept.unwrap().xid, 12);
    assert_eq!(plan.first_left_out.unwrap().xid, 13);
    assert_eq!(plan.timeline, tli(1));
    // The very time of a commit keeps it, unless it is to be left out.
    assert_eq!(to_time(&wal, &backups, 50).unwrap().stop, before(commits[4]));
    let mut exclusive = request(Target::Time(at(50)));
    exclusive.bound = Bound::Exclusive;
    assert_eq!(run(&wal, &backups, &exclusive).unwrap().stop, before(commits[3]));
}

#[test]
fn only_the_segments_up_to_the_stop_are_needed() {
    let Simple { wal, backups, .. } = simple();
    let plan = to_time(&wal, &backups, 45).unwrap();
    assert_eq!(plan.segments.len(), 1);
    assert_eq!(plan.segments[0].first, SegmentNumber(2));
    assert_eq!(plan.segments[0].last, SegmentNumber(4));
    assert_eq!(plan.segment_count, 3);
    assert_eq!(plan.estimate.wal_bytes, 3 * SEGMENT);
}

#[test]
fn a_time_in_an_idle_hour_is_fine() {
    let Simple { wal, backups, commits } = simple();
    assert_eq!(to_time(&wal, &backups, 3000).unwrap().stop, before(commits[4]));
}

#[test]
fn a_time_after_the_last_commit_is_fine_where_wal_covers_it_only() {
    let Simple { mut wal, backups, commits } = simple();
    let refusal = to_time(&wal, &backups, 6000).unwrap_err();
    let Refusal::BeyondWal { latest, last_transaction, .. } = refusal else {
        panic!("{refusal:?}")
    };
    assert_eq!((latest, last_transaction), (Some(at(5000)), Some(at(5000))));
    wal.checkpoint(1, 7000);
    wal.switch(1);
    wal.archive();
    assert_eq!(to_time(&wal, &backups, 6000).unwrap().stop, after(commits[4]));
    assert!(to_time(&wal, &backups, 7001).is_err());
    wal.add(1, What::Point { name: "later".into(), time: at(8000) });
    wal.switch(1);
    wal.archive();
    assert_eq!(to_time(&wal, &backups, 7500).unwrap().stop, after(commits[4]));
}

#[test]
fn nothing_after_the_backup_means_its_end() {
    let mut wal = MadeUp::new();
    wal.commit(1, 10, 10);
    let backups = [take(&mut wal, 1, 1, 30)];
    wal.checkpoint(1, 500);
    wal.switch(1);
    wal.archive();
    let plan = to_time(&wal, &backups, 100).unwrap();
    assert_eq!(plan.stop, consistent(&wal, &backups[0]));
}

#[test]
fn a_target_before_the_first_backup_is_refused() {
    let Simple { wal, backups, commits } = simple();
    for secs in [5, 15, 29] {
        let refusal = to_time(&wal, &backups, secs).unwrap_err();
        assert!(matches!(refusal, Refusal::BeforeFirstBackup { .. }), "{secs}: {refusal:?}");
    }
    let refusal = run(&wal, &backups, &request(Target::Lsn(commits[0]))).unwrap_err();
    assert!(matches!(refusal, Refusal::BeforeFirstBackup { .. }), "{refusal:?}");
    let refusal = run(&wal, &backups, &request(Target::Xid(10))).unwrap_err();
    assert!(matches!(refusal, Refusal::UnknownXid { xid: 10 }), "{refusal:?}");
}

/// A commit within the backup, later than the target.
#[test]
fn a_target_inside_a_backup_takes_an_older_one_or_is_refused() {
    let mut wal = MadeUp::new();
    let old = take(&mut wal, 1, 1, 10);
    let kept = wal.commit(1, 20, 20);
    let start = wal.checkpoint(1, 30);
    let within = wal.commit(1, 21, 33);
    wal.add(1, What::Other);
    let stop = wal.next(1);
    wal.switch(1);
    wal.archive();
    let young = backup(2, 1, start, stop, 30);
    let both = [old.clone(), young.clone()];
    for target in [Target::Time(at(32)), Target::Lsn(kept), Target::Xid(20), Target::Xid(21)] {
        let plan = run(&wal, &both, &request(target.clone())).unwrap();
        assert_eq!(plan.backup.id, old.id, "{target:?}");
    }
    assert_eq!(to_time(&wal, &both, 32).unwrap().stop, before(within));
    let only = [young.clone()];
    let refusal = to_time(&wal, &only, 32).unwrap_err();
    assert!(matches!(refusal, Refusal::InsideBackup { .. }), "{refusal:?}");
    let refusal = run(&wal, &only, &request(Target::Xid(21))).unwrap_err();
    assert!(matches!(refusal, Refusal::InsideBackup { .. }), "{refusal:?}");
    let mut fixed = request(Target::Time(at(32)));
    fixed.backup = BackupChoice::Prefix(young.id.to_string()[..6].to_owned());
    assert!(matches!(run(&wal, &both, &fixed).unwrap_err(), Refusal::InsideBackup { .. }));
}

/// PostgreSQL itself would start from the young backup, see nothing later than the target until
/// the commit at 60, and bring back the one at 20 that nobody asked for.
#[test]
fn a_backup_that_already_holds_later_commits_is_passed_over() {
    let mut wal = MadeUp::new();
    let old = take(&mut wal, 1, 1, 1);
    wal.commit(1, 10, 10);
    let unwanted = wal.commit(1, 11, 20);
    wal.switch(1);
    let young = take(&mut wal, 2, 1, 30);
    wal.commit(1, 12, 60);
    wal.switch(1);
    wal.archive();
    let plan = to_time(&wal, &[old.clone(), young], 15).unwrap();
    assert_eq!((plan.backup.id, plan.stop), (old.id, before(unwanted)));
}

/// Checkpoints tell whole seconds: a commit of the same second may lie before the redo point.
#[test]
fn a_commit_in_the_second_of_the_checkpoint_decides_by_its_own_time() {
    let half = |secs: i64| pgrecall_pgformat::Timestamp(at(secs).0 + 500_000);
    let mut wal = MadeUp::new();
    let old = take(&mut wal, 1, 1, 1);
    let late = wal.add(1, What::Commit { xid: 9, time: half(30) });
    let young = take(&mut wal, 2, 1, 30);
    wal.commit(1, 10, 40);
    wal.switch(1);
    wal.archive();
    let both = [old.clone(), young.clone()];
    let plan = to_time(&wal, &both, 30).unwrap();
    assert_eq!((plan.backup.id, plan.stop), (old.id, before(late)));
    let plan = to_time(&wal, &both, 31).unwrap();
    assert_eq!(plan.backup.id, young.id);
}

/// Clocks step back: the first later commit in WAL order is where PostgreSQL stops, though one of
/// an earlier time follows.
#[test]
fn commit_times_that_run_backwards_stop_where_postgresql_does() {
    let mut wal = MadeUp::new();
    let backups = [take(&mut wal, 1, 1, 1)];
    wal.commit(1, 10, 10);
    let jumped = wal.commit(1, 11, 100);
    wal.commit(1, 12, 20);
    wal.switch(1);
    wal.commit(1, 13, 30);
    wal.switch(1);
    wal.commit(1, 14, 200);
    wal.switch(1);
    wal.archive();
    assert_eq!(to_time(&wal, &backups, 25).unwrap().stop, before(jumped));
    let plan = to_time(&wal, &backups, 150).unwrap();
    assert_eq!(plan.last_kept.unwrap().xid, 13);
}

/// A backup taken after the clock was set right again does not suffer from the wrong times.
#[test]
fn a_clock_that_was_wrong_before_the_backup_does_no_harm() {
    let mut wal = MadeUp::new();
    let old = take(&mut wal, 1, 1, 1);
    wal.commit(1, 10, 1_000_000);
    wal.commit(1, 11, 20);
    wal.switch(1);
    let young = take(&mut wal, 2, 1, 30);
    let next = wal.commit(1, 12, 60);
    wal.switch(1);
    wal.archive();
    let plan = to_time(&wal, &[old, young.clone()], 50).unwrap();
    assert_eq!((plan.backup.id, plan.stop), (young.id, before(next)));
}

#[test]
fn a_commit_that_spans_two_segments_is_seen() {
    let mut wal = MadeUp::new();
    let backups = [take(&mut wal, 1, 1, 1)];
    wal.commit(1, 10, 10);
    let next = wal.next(1);
    wal.add_long(1, What::Other, SEGMENT - next.0 % SEGMENT - 64);
    let spanning = wal.add(1, What::Commit { xid: 11, time: at(20) });
    wal.commit(1, 12, 30);
    wal.switch(1);
    wal.commit(1, 13, 40);
    wal.switch(1);
    wal.archive();
    let plan = to_time(&wal, &backups, 15).unwrap();
    assert_eq!(plan.stop, before(spanning));
    // Its header alone is not enough to see where it starts: both segments are needed.
    assert_eq!(plan.segments[0].last, SegmentNumber(4));
    let plan = run(&wal, &backups, &request(Target::Xid(11))).unwrap();
    assert_eq!((plan.stop, plan.last_kept.unwrap().xid), (after(spanning), 11));
    let plan = run(&wal, &backups, &request(Target::Lsn(Lsn(spanning.0 - 8)))).unwrap();
    assert_eq!(plan.segments[0].last, SegmentNumber(4));
}

/// A commit with thousands of subtransactions or dropped relations: trailers hold 64 KiB of it.
#[test]
fn a_commit_too_long_for_the_trailers_is_seen() {
    for (before_border, len) in [(200_000, 400_000), (64, 400_000), (300_000, 3 * SEGMENT)] {
        let mut wal = MadeUp::new();
        let backups = [take(&mut wal, 1, 1, 1)];
        wal.commit(1, 10, 10);
        let next = wal.next(1);
        wal.add_long(1, What::Other, SEGMENT - next.0 % SEGMENT - before_border);
        let spanning = wal.add_long(1, What::Commit { xid: 11, time: at(20) }, len);
        wal.commit(1, 12, 30);
        wal.switch(1);
        wal.commit(1, 13, 40);
        wal.switch(1);
        wal.archive();
        assert_eq!(to_time(&wal, &backups, 15).unwrap().stop, before(spanning), "{len}");
        let plan = run(&wal, &backups, &request(Target::Xid(11))).unwrap();
        assert_eq!((plan.stop, plan.last_kept.unwrap().xid), (after(spanning), 11));
    }
}
