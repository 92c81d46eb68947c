//! The planner stops where PostgreSQL would, from the backup that gets there, and refuses what
//! cannot work: each case over WAL that was made up for it.

mod made_up;

use made_up::{MadeUp, Rec, SEGMENT, What, at, backup, size, tli};
use pgrecall_engine::restore::plan::{BackupRow, RestorePlan, Stop, plan};
use pgrecall_engine::restore::refusal::{PlanError, Refusal};
use pgrecall_engine::restore::target::{BackupChoice, Bound, Request, Target};
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentNumber, TimelineId};

fn request(target: Target) -> Request {
    Request { target, bound: Bound::Inclusive, timeline: None, backup: BackupChoice::Best }
}

fn run(wal: &MadeUp, backups: &[BackupRow], request: &Request) -> Result<RestorePlan, Refusal> {
    match futures::executor::block_on(plan(wal, backups, request)) {
        Ok(plan) => Ok(plan),
        Err(PlanError::Refused(refusal)) => {
            assert!(!refusal.hints().is_empty(), "a refusal without a way out: {refusal}");
            Err(refusal)
        }
        Err(PlanError::Failed(error)) => panic!("{error}"),
    }
}

fn to_time(wal: &MadeUp, backups: &[BackupRow], secs: i64) -> Result<RestorePlan, Refusal> {
    run(wal, backups, &request(Target::Time(at(secs))))
}

const fn before(lsn: Lsn) -> Stop {
    Stop::Lsn { lsn, bound: Bound::Exclusive }
}

const fn after(lsn: Lsn) -> Stop {
    Stop::Lsn { lsn, bound: Bound::Inclusive }
}

/// Commits at 10, 20; a backup from 30 to 35; commits at 40, 50, an idle hour, 5000; a segment
/// each.
struct Simple {
    wal: MadeUp,
    backups: Vec<BackupRow>,
    commits: Vec<Lsn>,
}

fn take(wal: &mut MadeUp, number: u8, timeline: u32, secs: i64) -> BackupRow {
    let start = wal.checkpoint(timeline, secs);
    wal.add(timeline, What::Other);
    let stop = wal.next(timeline);
    wal.switch(timeline);
    backup(number, timeline, start, stop, secs)
}

fn simple() -> Simple {
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

/// After the last record that starts before the end of the backup.
fn consistent(wal: &MadeUp, backup: &BackupRow) -> Stop {
    let lsn = backup.details.stop.lsn;
    let before = wal.records[&tli(1)].iter().rfind(|record| record.lsn < lsn);
    Stop::Consistency { lsn, after: before.unwrap().lsn }
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

#[test]
fn wal_of_another_history_ends_the_way() {
    let Simple { mut wal, backups, commits } = simple();
    wal.foreign.push(SegmentName { timeline: tli(1), number: SegmentNumber(5) });
    for target in [Target::Latest, Target::Time(at(3000)), Target::Xid(14)] {
        let refusal = run(&wal, &backups, &request(target)).unwrap_err();
        let Refusal::BrokenWal { segment, reason, .. } = &refusal else { panic!("{refusal:?}") };
        assert_eq!(segment, "000000010000000000000005");
        assert!(reason.contains("another history"), "{reason}");
    }
    assert_eq!(to_time(&wal, &backups, 45).unwrap().stop, before(commits[3]));
}

#[test]
fn a_record_that_does_not_go_on_ends_the_way() {
    let mut wal = MadeUp::new();
    let backups = [take(&mut wal, 1, 1, 1)];
    wal.commit(1, 10, 10);
    let next = wal.next(1);
    wal.add_long(1, What::Other, SEGMENT - next.0 % SEGMENT - 64);
    wal.add(1, What::Commit { xid: 11, time: at(20) });
    wal.commit(1, 12, 30);
    wal.switch(1);
    wal.archive();
    // The next segment is that of a server on which the record at the border was another one.
    let records = wal.records.get_mut(&tli(1)).unwrap();
    let at_border = records.iter_mut().find(|r| matches!(r.what, What::Commit { xid: 11, .. }));
    at_border.unwrap().end.0 += 8;
    let unfit = wal.trailer(SegmentName { timeline: tli(1), number: SegmentNumber(4) });
    let records = wal.records.get_mut(&tli(1)).unwrap();
    let at_border = records.iter_mut().find(|r| matches!(r.what, What::Commit { xid: 11, .. }));
    at_border.unwrap().end.0 -= 8;
    wal.replaced.push(unfit);
    let refusal = to_time(&wal, &backups, 15).unwrap_err();
    assert!(matches!(refusal, Refusal::BrokenWal { .. }), "{refusal:?}");
}

#[test]
fn a_trailer_that_does_not_read_is_in_the_way_of_its_segment_only() {
    let Simple { mut wal, backups, commits } = simple();
    let name = SegmentName { timeline: tli(1), number: SegmentNumber(5) };
    wal.unreadable.push(ArchiveName::Segment(name));
    assert_eq!(to_time(&wal, &backups, 45).unwrap().stop, before(commits[3]));
    let refusal = run(&wal, &backups, &request(Target::Latest)).unwrap_err();
    let Refusal::BrokenWal { segment, .. } = &refusal else { panic!("{refusal:?}") };
    assert_eq!(segment, "000000010000000000000005");
}

#[test]
fn a_timeline_without_its_history_is_never_passed_over_in_silence() {
    let (mut wal, old, [_, _, c]) = promoted();
    wal.stored.histories.clear();
    let backups = [old];
    let no_history = |refusal: &Refusal| matches!(refusal, Refusal::NoHistory { timeline, .. } if *timeline == tli(2));
    let refusal = run(&wal, &backups, &request(Target::Latest)).unwrap_err();
    assert!(no_history(&refusal), "{refusal:?}");
    let mut of_two = request(Target::Latest);
    of_two.timeline = Some(tli(2));
    assert!(run(&wal, &backups, &of_two).is_err());
    // Its own backup cannot be told to go there either: PostgreSQL refuses such a target.
    let own = backup(2, 2, c, wal.next(2), 35);
    let refusal = run(&wal, &[own], &of_two).unwrap_err();
    assert!(no_history(&refusal), "{refusal:?}");
    // Timeline 1 by name is the user's word.
    of_two.timeline = Some(tli(1));
    assert_eq!(run(&wal, &backups, &of_two).unwrap().timeline, tli(1));
    // A damaged one is in the way of nothing else, and told.
    wal.stored.bad_histories.insert(tli(2), "rot".into());
    let plan = run(&wal, &backups, &request(Target::Immediate)).unwrap();
    assert_eq!(plan.timeline, tli(1));
    let refusal = run(&wal, &backups, &request(Target::Latest)).unwrap_err();
    assert!(refusal.to_string().contains("rot"), "{refusal}");
}

/// After a promotion, before the new timeline's first segment was archived: the last commits are
/// in what the promoted server had of the old one's segment.
#[test]
fn commits_in_a_partial_segment_are_not_lost() {
    let mut wal = MadeUp::new();
    let old = take(&mut wal, 1, 1, 1);
    let a = wal.commit(1, 10, 10);
    wal.switch(1);
    let b = wal.commit(1, 11, 20);
    let left = wal.fork(1, 2);
    wal.commit(1, 12, 30);
    wal.archive();
    let name = SegmentName { timeline: tli(1), number: SegmentNumber::containing(b, size()) };
    wal.stored.partials.insert(name);
    let backups = [old];
    for (target, stop) in
        [(Target::Latest, after(b)), (Target::Time(at(15)), before(b)), (Target::Xid(11), after(b))]
    {
        let plan = run(&wal, &backups, &request(target)).unwrap();
        assert_eq!((plan.timeline, plan.stop), (tli(1), stop));
        assert!(plan.notes.iter().any(|note| note.contains(".partial")), "{:?}", plan.notes);
        assert_eq!(plan.seeds.len(), 1);
        assert_eq!(plan.seeds[0].wanted, name);
        assert_eq!(plan.seeds[0].stored, ArchiveName::Partial(name));
    }
    assert!(b < left && to_time(&wal, &backups, 5).unwrap().stop == before(a));
    let refusal = run(&wal, &backups, &request(Target::Xid(12))).unwrap_err();
    assert_eq!(refusal, Refusal::UnknownXid { xid: 12 }, "what came after the fork");
}

/// As above, with the whole segment of a first server that was not dead.
#[test]
fn the_old_timelines_segment_serves_up_to_the_fork() {
    let mut wal = MadeUp::new();
    let backups = [take(&mut wal, 1, 1, 1)];
    let a = wal.commit(1, 10, 10);
    wal.fork(1, 2);
    wal.add(1, What::Other);
    wal.switch(1);
    wal.archive();
    wal.stored.segments.remove(&tli(2));
    let plan = run(&wal, &backups, &request(Target::Latest)).unwrap();
    assert_eq!((plan.timeline, plan.stop), (tli(1), after(a)));
    assert!(plan.seeds.is_empty());
}

#[test]
fn a_time_that_only_an_abandoned_branch_reaches_must_be_chosen() {
    let (wal, backup) = forked();
    // Timeline 2 ends at 40, and 1 went on to 60.
    let refusal = to_time(&wal, std::slice::from_ref(&backup), 50).unwrap_err();
    let Refusal::TwoTimelines { ways } = &refusal else { panic!("{refusal:?}") };
    assert_eq!(ways.len(), 2);
    let mut chosen = request(Target::Time(at(50)));
    chosen.timeline = Some(tli(1));
    assert!(run(&wal, std::slice::from_ref(&backup), &chosen).is_ok());
}

#[test]
fn a_missing_segment_is_named_only_when_it_is_needed() {
    let Simple { mut wal, backups, commits } = simple();
    wal.lose(1, commits[3]);
    let refusal = to_time(&wal, &backups, 3000).unwrap_err();
    let Refusal::MissingSegment { segment, last_transaction, .. } = &refusal else {
        panic!("{refusal:?}")
    };
    assert_eq!((segment.as_str(), *last_transaction), ("000000010000000000000004", Some(at(40))));
    assert!(run(&wal, &backups, &request(Target::Latest)).is_err());
    // A later backup gets round it.
    let young = take(&mut wal, 2, 1, 6000);
    let last = wal.commit(1, 20, 6100);
    wal.switch(1);
    wal.archive();
    wal.lose(1, commits[3]);
    let both = [backups[0].clone(), young];
    assert_eq!(to_time(&wal, &both, 6050).unwrap().stop, before(last));
    assert!(to_time(&wal, &both, 3000).is_err());
}

#[test]
fn wal_that_breaks_off_is_told() {
    let Simple { mut wal, backups, commits } = simple();
    let name = SegmentName { timeline: tli(1), number: SegmentNumber(4) };
    wal.broken.insert(name, commits[3]);
    let refusal = to_time(&wal, &backups, 3000).unwrap_err();
    assert!(matches!(refusal, Refusal::BrokenWal { .. }), "{refusal:?}");
    // What lies before it is fine.
    assert!(run(&wal, &backups, &request(Target::Xid(12))).is_ok());
}

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

/// Timeline 2 leaves 1 in mid-segment; 1 is gone.
fn promoted() -> (MadeUp, BackupRow, [Lsn; 3]) {
    let mut wal = MadeUp::new();
    let old = take(&mut wal, 1, 1, 1);
    let a = wal.commit(1, 10, 10);
    let b = wal.commit(1, 11, 20);
    wal.fork(1, 2);
    let c = wal.commit(2, 12, 30);
    wal.switch(2);
    wal.commit(2, 13, 40);
    wal.switch(2);
    wal.archive();
    (wal, old, [a, b, c])
}

#[test]
fn a_promotion_is_followed() {
    let (wal, old, [_, b, c]) = promoted();
    let plan = run(&wal, std::slice::from_ref(&old), &request(Target::Latest)).unwrap();
    assert_eq!((plan.timeline, plan.last_kept.unwrap().xid), (tli(2), 13));
    let timelines: Vec<TimelineId> = plan.path.iter().map(|span| span.timeline).collect();
    assert_eq!(timelines, [tli(1), tli(2)]);
    let plan = to_time(&wal, std::slice::from_ref(&old), 25).unwrap();
    assert_eq!((plan.timeline, plan.stop), (tli(2), before(c)));
    // Before the promotion the target lies on the old timeline; its last segment was never full,
    // and the new timeline's copy stands in for it.
    let plan = to_time(&wal, std::slice::from_ref(&old), 15).unwrap();
    assert_eq!((plan.timeline, plan.stop), (tli(1), before(b)));
    let number = SegmentNumber(3);
    assert_eq!(plan.seeds.len(), 1);
    assert_eq!(plan.seeds[0].wanted, SegmentName { timeline: tli(1), number });
    let copy = SegmentName { timeline: tli(2), number };
    assert_eq!(plan.seeds[0].stored, ArchiveName::Segment(copy));
}

/// Both timelines went on: the old primary was not dead.
fn forked() -> (MadeUp, BackupRow) {
    let (mut wal, old, _) = promoted();
    wal.commit(1, 50, 32);
    wal.switch(1);
    wal.commit(1, 51, 60);
    wal.switch(1);
    wal.archive();
    (wal, old)
}

#[test]
fn where_two_timelines_go_on_latest_is_refused_and_both_are_shown() {
    let (wal, old) = forked();
    let refusal = run(&wal, std::slice::from_ref(&old), &request(Target::Latest)).unwrap_err();
    let Refusal::TwoTimelines { ways } = &refusal else { panic!("{refusal:?}") };
    assert_eq!(ways.iter().map(|way| way.timeline).collect::<Vec<_>>(), [tli(1), tli(2)]);
    assert_eq!(ways[1].left.map(|left| left.0), Some(tli(1)));
    for (timeline, xid) in [(1, 51), (2, 13)] {
        let mut chosen = request(Target::Latest);
        chosen.timeline = Some(tli(timeline));
        let plan = run(&wal, std::slice::from_ref(&old), &chosen).unwrap();
        assert_eq!((plan.timeline, plan.last_kept.unwrap().xid), (tli(timeline), xid));
    }
}

#[test]
fn a_target_before_the_fork_is_clear_and_one_after_it_must_be_chosen() {
    let (wal, old) = forked();
    let old = [old];
    let plan = to_time(&wal, &old, 15).unwrap();
    assert_eq!(plan.timeline, tli(1));
    assert!(plan.seeds.is_empty(), "the old timeline's own segment is stored");
    let refusal = to_time(&wal, &old, 35).unwrap_err();
    assert!(matches!(refusal, Refusal::TwoTimelines { .. }), "{refusal:?}");
    // The newer timeline's WAL does not show what was true there then.
    let refusal = to_time(&wal, &old, 55).unwrap_err();
    assert!(matches!(refusal, Refusal::TwoTimelines { .. }), "{refusal:?}");
    // Only one of the timelines has these.
    assert_eq!(run(&wal, &old, &request(Target::Xid(51))).unwrap().timeline, tli(1));
    assert_eq!(run(&wal, &old, &request(Target::Xid(13))).unwrap().timeline, tli(2));
    let mut chosen = request(Target::Time(at(35)));
    chosen.timeline = Some(tli(2));
    assert_eq!(run(&wal, &old, &chosen).unwrap().timeline, tli(2));
    chosen.timeline = Some(tli(9));
    assert!(matches!(run(&wal, &old, &chosen).unwrap_err(), Refusal::UnknownTimeline { .. }));
}

#[test]
fn a_backup_of_an_abandoned_timeline_serves_that_one_only() {
    let (mut wal, old) = forked();
    let young = take(&mut wal, 2, 1, 70);
    wal.commit(1, 60, 80);
    wal.switch(1);
    wal.archive();
    let both = [old.clone(), young.clone()];
    let mut on_two = request(Target::Latest);
    on_two.timeline = Some(tli(2));
    assert_eq!(run(&wal, &both, &on_two).unwrap().backup.id, old.id);
    on_two.timeline = Some(tli(1));
    assert_eq!(run(&wal, &both, &on_two).unwrap().backup.id, young.id);
    // Naming the backup names its branch.
    let mut of_young = request(Target::Latest);
    of_young.backup = BackupChoice::Latest;
    assert_eq!(run(&wal, &both, &of_young).unwrap().timeline, tli(1));
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

mod property {
    //! Random histories against a walk over every record from the chosen backup's start, which is
    //! all that PostgreSQL does.

    use super::*;
    use proptest::prelude::*;

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
}
