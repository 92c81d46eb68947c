//! A promotion in mid-segment: until the new timeline's first segment is stored, the last commits
//! are in the `.partial` that the promoted server archived, and nowhere else.

use pgrecall_testkit::commit_log::Target;
use pgrecall_testkit::postgres::{Cluster, Stop, majors};
use pgrecall_testkit::workload::{Workload, WorkloadOptions};
use serde_json::json;

use crate::fresh::{Restored, plan};
use crate::ground::back_up;
use crate::site::{Site, switch};

#[test]
fn commits_that_only_a_partial_segment_has_come_back() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        let standby = Cluster::standby_of(&primary);
        let workload = Workload::start(&primary, &WorkloadOptions::new(3));
        workload.wait_commits(50);
        back_up(&site, &primary);
        workload.wait_commits(50);
        let whole = switch(&primary);
        site.wait_archived(&primary, &whole);
        workload.wait_commits(50);
        let log = workload.finish(&primary);
        let last = log.commits().last().and_then(|commit| commit.record).expect("a commit");
        let left = primary.psql(&format!("SELECT pg_walfile_name('{}')", last.start));
        assert!(left > whole, "the last commits are in a segment of their own");
        standby.wait_caught_up(&primary);
        primary.stop(Stop::Immediate);
        standby.promote();
        let partial = format!("{left}.partial");
        let heir = format!("00000002{}", &left[8..]);
        for file in ["00000002.history", &partial] {
            site.wait_archived(&standby, file);
        }
        comes_back_from_the_partial(&site, major, &log, &left);
        // The same when the new timeline's first segment was stored, and is lost.
        site.wait_archived(&standby, &switch(&standby));
        std::fs::remove_file(site.object(&heir).expect("the first segment")).expect("removed");
        comes_back_from_the_partial(&site, major, &log, &left);
    }
}

fn comes_back_from_the_partial(
    site: &Site,
    major: u32,
    log: &pgrecall_testkit::commit_log::CommitLog,
    left: &str,
) {
    let heir = format!("00000002{}", &left[8..]);
    for file in [left, &heir] {
        assert!(site.object(file).is_none(), "{file} is stored");
    }
    let plan = plan(site, &["--to-latest"]);
    let partial = format!("{left}.partial");
    assert_eq!(plan["placed_in_pg_wal"], json!([{ "wanted": left, "stored": partial }]));
    let notes = plan["notes"].to_string();
    assert!(notes.contains(&format!("The last WAL comes from {partial}")), "{notes}");
    let copy = Restored::written(site, major, "copy", &["--to-latest"]);
    assert!(copy.data_dir().join("pg_wal").join(left).is_file(), "not placed in pg_wal");
    copy.start();
    copy.wait_until_recovered();
    log.assert_equals(&copy, &Target::Latest);
}
