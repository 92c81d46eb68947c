//! A store that goes away in the middle of a recovery to a target: the server stops, with nothing
//! decided, and when the store is back it goes on to exactly that target.

use pgrecall_testkit::commit_log::{Inclusion, Target, sql_timestamp};
use pgrecall_testkit::postgres::majors;
use pgrecall_testkit::workload::{Workload, WorkloadOptions};

use crate::fresh::Restored;
use crate::ground::back_up;
use crate::site::{Site, switch};

/// Once, as this segment is asked for, the repository is moved away before it can be fetched.
fn goes_away_at(copy: &Restored, segment: &str) {
    let site = copy.site();
    let (repository, happened) = (site.repository().display(), site.scratch().path().join("cut"));
    let happened = happened.display();
    let command = format!(
        "if [ %f = {segment} ] && [ ! -e {happened} ]; then \
         mv {repository} {repository}.away && touch {happened}; fi; {}",
        site.restore_command()
    );
    copy.append_to("postgresql.auto.conf", &format!("restore_command = '{command}'\n"));
}

#[test]
fn recovery_to_a_target_outlives_a_store_that_goes_away_midway() {
    for major in majors() {
        goes_away_and_comes_back(major);
    }
}

fn goes_away_and_comes_back(major: u32) {
    let site = Site::new();
    let primary = site.primary(major);
    let workload = Workload::start(&primary, &WorkloadOptions::new(3));
    workload.wait_commits(50);
    back_up(&site, &primary);
    let mut segments = Vec::new();
    for _ in 0..3 {
        workload.wait_commits(30);
        segments.push(switch(&primary));
    }
    workload.wait_commits(30);
    let target = workload.mark(&primary);
    workload.wait_commits(30);
    let log = workload.finish(&primary);
    site.wait_archived(&primary, &switch(&primary));

    let time = sql_timestamp(target.time);
    let copy = Restored::written(&site, major, "copy", &["--to-time", &time]);
    goes_away_at(&copy, &segments[2]);
    copy.spawn();
    let status = copy.wait_exit();
    let said = copy.log();
    assert!(!status.success(), "{said}");
    let fetched = format!("restored log file \"{}\" from archive", segments[1]);
    for part in [&fetched, "the directory does not exist", "consistent recovery state reached"] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    for part in ["archive recovery complete", "selected new timeline", "recovery stopping"] {
        assert!(!said.contains(part), "{part:?} in:\n{said}");
    }
    assert!(copy.data_dir().join("recovery.signal").exists());

    copy.site().bring_back();
    copy.start();
    copy.wait_until_paused();
    log.assert_equals(&copy, &Target::Time(target.time, Inclusion::Inclusive));
    assert!(copy.log().contains("recovery stopping before"), "{}", copy.log());
}
