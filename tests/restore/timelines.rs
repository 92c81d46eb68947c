//! Two timelines, and a restore through each; a moment just before the promotion too.

use std::path::Path;

use pgrecall_testkit::postgres::{Cluster, Stop};

use crate::fresh::fresh_copy;
use crate::site::{Site, newest_major, switch};

fn restored(site: &Site, name: &str, flags: &[&str]) -> Cluster {
    let dir = site.scratch().path().join(name);
    let text = dir.to_string_lossy().into_owned();
    let mut words = vec!["restore", &text];
    words.extend_from_slice(flags);
    site.run(Path::new("/"), &words).expect_code(0);
    let copy = Cluster::adopt(newest_major(), &dir);
    copy.start();
    copy
}

fn rows(cluster: &Cluster) -> String {
    cluster.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM kept")
}

#[test]
fn a_fork_is_seen_and_each_branch_can_be_restored() {
    let site = Site::new();
    let first = site.primary(newest_major());
    first.psql("CREATE TABLE kept (n int)");
    let pgdata = first.data_dir().to_string_lossy().into_owned();
    site.run(first.data_dir(), &["--pgdata", &pgdata, "backup", "--fast-checkpoint"])
        .expect_code(0);
    first.psql("INSERT INTO kept VALUES (1)");
    let lsn = first.psql("SELECT pg_current_wal_lsn()");
    first.psql("INSERT INTO kept VALUES (2)");
    site.wait_archived(&first, &switch(&first));
    // Another server goes on from there, on a timeline of its own.
    let second = restored(&site, "second", &["--as", "primary", "--to-latest"]);
    second.wait_until_recovered();
    second.psql("INSERT INTO kept VALUES (20)");
    site.wait_archived(&second, &switch(&second));
    second.stop(Stop::Fast);
    // And the first one was not dead.
    first.psql("INSERT INTO kept VALUES (10)");
    site.wait_archived(&first, &switch(&first));
    first.stop(Stop::Fast);

    let dir = site.scratch().path().join("refused");
    let text = dir.to_string_lossy().into_owned();
    let refused = site.run(Path::new("/"), &["restore", &text, "--as", "copy"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("--timeline"), "{}", refused.stderr);
    assert!(!dir.exists(), "refused before a byte is written");

    for (timeline, expected) in [("1", "1,2,10"), ("2", "1,2,20")] {
        let fresh = fresh_copy(&site, &["--timeline", timeline]);
        let copy = restored(&fresh, "copy", &["--as", "copy", "--timeline", timeline]);
        copy.wait_until_recovered();
        assert_eq!(rows(&copy), expected);
        copy.stop(Stop::Fast);
    }
    let site = fresh_copy(&site, &["--to-lsn", &lsn, "--exclusive"]);
    let copy = restored(&site, "before", &["--as", "copy", "--to-lsn", &lsn, "--exclusive"]);
    copy.wait_until_paused();
    assert_eq!(rows(&copy), "1");
}
