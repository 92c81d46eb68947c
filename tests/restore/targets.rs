//! Every kind of target, with clients at work before, during and after the backup.

use std::path::Path;

use pgrecall_testkit::commit_log::{CommitLog, Inclusion, Target, sql_timestamp};
use pgrecall_testkit::postgres::{Cluster, Stop, majors};
use pgrecall_testkit::workload::{Workload, WorkloadOptions};

use crate::fresh::Restored;
use crate::ground::back_up;
use crate::site::{Site, switch};

/// A cluster with a backup in the middle of its history, and what its clients know.
struct Past {
    log: CommitLog,
    middle: pgrecall_testkit::commit_log::Moment,
    primary: Cluster,
    site: Site,
}

fn past(major: u32) -> Past {
    let site = Site::new();
    let primary = site.primary(major);
    let workload = Workload::start(&primary, &WorkloadOptions::new(3));
    workload.wait_commits(50);
    back_up(&site, &primary);
    workload.wait_commits(80);
    workload.restore_point(&primary, "half way");
    let middle = workload.mark(&primary);
    workload.wait_commits(80);
    let log = workload.finish(&primary);
    let last = switch(&primary);
    site.wait_archived(&primary, &last);
    Past { log, middle, primary, site }
}

#[test]
fn a_time_an_lsn_a_transaction_and_a_name_are_met_exactly() {
    for major in majors() {
        meets_all(major);
    }
}

fn meets_all(major: u32) {
    let Past { log, middle, primary, site } = past(major);
    let commits = log.commits();
    let chosen = commits[commits.len() * 2 / 3];
    let xid = chosen.xid.expect("a commit has an xid");
    let time = sql_timestamp(middle.time);
    let (lsn, xid_text) = (middle.lsn.to_string(), xid.to_string());
    let cases: [(&str, Vec<&str>, Target); 6] = [
        ("time", vec!["--to-time", &time], Target::Time(middle.time, Inclusion::Inclusive)),
        ("lsn", vec!["--to-lsn", &lsn], Target::Lsn(middle.lsn, Inclusion::Inclusive)),
        ("xid", vec!["--to-xid", &xid_text], Target::Xid(xid, Inclusion::Inclusive)),
        (
            "before",
            vec!["--to-xid", &xid_text, "--exclusive"],
            Target::Xid(xid, Inclusion::Exclusive),
        ),
        ("name", vec!["--to-name", "half way"], Target::Name("half way".into())),
        ("latest", vec!["--action", "pause"], Target::Latest),
    ];
    for (name, flags, target) in cases {
        let copy = Restored::started(&site, major, name, &flags);
        copy.wait_until_paused();
        log.assert_equals(&copy, &target);
        copy.psql("SELECT pg_wal_replay_resume()");
        copy.wait_until_recovered();
        log.assert_equals(&copy, &target);
        assert_eq!(copy.psql("SHOW archive_mode"), "off");
    }
    drop(primary);
}

#[test]
fn every_major_comes_back_to_a_time_and_is_sound() {
    for major in majors() {
        let Past { log, middle, primary, site } = past(major);
        let time = sql_timestamp(middle.time);
        let target = Target::Time(middle.time, Inclusion::Inclusive);
        let flags = ["--to-time", &time, "--action", "promote"];
        let copy = Restored::started(&site, major, "copy", &flags);
        copy.wait_until_recovered();
        log.assert_equals(&copy, &target);
        drop((copy, primary));
    }
}

#[test]
fn a_delta_over_a_crashed_primary_keeps_its_wal_and_comes_back() {
    for major in majors() {
        let Past { log, middle, primary, site } = past(major);
        let dir = primary.data_dir().to_string_lossy().into_owned();
        let time = sql_timestamp(middle.time);
        let words = ["restore", &dir, "--as", "copy", "--delta", "--to-time", &time];
        let refused = site.run(Path::new("/"), &words);
        refused.expect_code(12);
        assert!(refused.stderr.contains("running server"), "{}", refused.stderr);
        primary.psql("CREATE TABLE later AS SELECT generate_series(1, 1000) n");
        primary.stop(Stop::Immediate);
        let flags = ["--delta", "--to-time", &time];
        let copy = Restored::written_to(&site, major, primary.data_dir(), &flags);
        let aside = std::fs::read_dir(primary.data_dir().parent().expect("a parent"))
            .expect("a listing")
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("pg_wal.before-restore-"));
        assert!(aside, "the old pg_wal is kept");
        copy.start();
        copy.wait_until_paused();
        log.assert_equals(&copy, &Target::Time(middle.time, Inclusion::Inclusive));
        assert_eq!(copy.psql("SELECT to_regclass('later') IS NULL"), "t");
    }
}
