//! Two timelines with clients at work on both, and a restore through each: to its end, and to a
//! moment on it; to one before the fork too. Every commit is there that its clients were told of by
//! then, and nothing of the other branch.

use std::path::Path;

use pgrecall_testkit::commit_log::{CommitLog, Inclusion, Moment, Target};
use pgrecall_testkit::postgres::{Cluster, Stop, majors};
use pgrecall_testkit::workload::{Workload, WorkloadOptions};

use crate::fresh::Restored;
use crate::ground::{back_up, restored};
use crate::site::{Site, switch};

/// One branch: what its clients know, and a moment in the middle.
struct Branch {
    log: CommitLog,
    middle: Moment,
}

/// Clients go on from where the branches part, and all of their WAL is archived.
fn go_on(site: &Site, cluster: &Cluster, fork: &CommitLog, seed: u64) -> Branch {
    let options = WorkloadOptions { seed, ..WorkloadOptions::new(3) };
    let workload = Workload::go_on_from(cluster, &fork.branch_at(&Target::Latest), &options);
    workload.wait_commits(50);
    let middle = workload.mark(cluster);
    workload.wait_commits(50);
    let log = workload.finish(cluster);
    site.wait_archived(cluster, &switch(cluster));
    Branch { log, middle }
}

/// A restore is refused, before a byte is written, since nobody has said which branch is meant.
fn assert_asked(site: &Site) {
    let dir = site.scratch().path().join("refused");
    let text = dir.to_string_lossy().into_owned();
    let refused = site.run(Path::new("/"), &["restore", &text, "--as", "copy"]);
    refused.expect_code(17);
    assert!(refused.stderr.contains("--timeline"), "{}", refused.stderr);
    assert!(!dir.exists(), "refused before a byte is written");
}

#[test]
fn a_fork_is_seen_and_each_branch_can_be_restored() {
    for major in majors() {
        each_branch_can_be_restored(major);
    }
}

fn each_branch_can_be_restored(major: u32) {
    let site = Site::new();
    let first = site.primary(major);
    let workload = Workload::start(&first, &WorkloadOptions::new(3));
    workload.wait_commits(50);
    back_up(&site, &first);
    workload.wait_commits(50);
    let before = workload.mark(&first);
    workload.wait_commits(50);
    let common = workload.finish(&first);
    site.wait_archived(&first, &switch(&first));
    // Another server goes on from there, on a timeline of its own.
    let flags = ["--as", "primary", "--to-latest"];
    let second = restored(&site, major, "second", &flags);
    common.assert_equals(&second, &Target::Latest);
    let theirs = go_on(&site, &second, &common, 2);
    second.stop(Stop::Fast);
    // And the first one was not dead.
    let ours = go_on(&site, &first, &common, 3);
    first.stop(Stop::Fast);

    assert_asked(&site);
    for (timeline, branch) in [("1", &ours), ("2", &theirs)] {
        let copy = restored(&site, major, "copy", &["--timeline", timeline]);
        branch.log.assert_equals(&copy, &Target::Latest);
        let lsn = branch.middle.lsn.to_string();
        let flags = ["--timeline", timeline, "--to-lsn", &lsn];
        let copy = Restored::started(&site, major, "middle", &flags);
        copy.wait_until_paused();
        let target = Target::Lsn(branch.middle.lsn, Inclusion::Inclusive);
        branch.log.assert_equals(&copy, &target);
    }
    let lsn = before.lsn.to_string();
    let copy = Restored::started(&site, major, "before", &["--to-lsn", &lsn, "--exclusive"]);
    copy.wait_until_paused();
    common.assert_equals(&copy, &Target::Lsn(before.lsn, Inclusion::Exclusive));
}
