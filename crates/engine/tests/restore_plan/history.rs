//! The way that WAL gives: timelines, partial segments, gaps, what does not read.

use pgrecall_engine::restore::plan::BackupRow;
use pgrecall_engine::restore::refusal::Refusal;
use pgrecall_engine::restore::target::{BackupChoice, Target};
use pgrecall_engine::unreadable::Unreadable;
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentNumber, TimelineId};

use crate::ground::{Simple, after, before, request, run, simple, take, to_time};
use crate::made_up::{MadeUp, SEGMENT, What, at, backup, size, tli};

#[test]
fn wal_of_another_history_ends_the_way() {
    let Simple { mut wal, backups, commits } = simple();
    wal.foreign.push(SegmentName { timeline: tli(1), number: SegmentNumber(5) });
    for target in [Target::Latest, Target::Time(at(3000)), Target::Xid(14)] {
        let refusal = run(&wal, &backups, &request(target)).unwrap_err();
        let Refusal::BrokenWal { segment, why, .. } = &refusal else { panic!("{refusal:?}") };
        assert_eq!(segment, "000000010000000000000005");
        assert!(why.reason.contains("another history"), "{}", why.reason);
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
    wal.stored.bad_histories.insert(tli(2), Unreadable::damaged("rot"));
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
