//! Two timelines, and a restore through each; a moment just before the promotion too.

use std::path::Path;

use pgrecall_testkit::postgres::{Cluster, Stop};

use crate::fresh::Restored;
use crate::ground::{back_up, restored};
use crate::site::{Site, newest_major, switch};

fn rows(cluster: &Cluster) -> String {
    cluster.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM kept")
}

#[test]
fn a_fork_is_seen_and_each_branch_can_be_restored() {
    let site = Site::new();
    let first = site.primary(newest_major());
    first.psql("CREATE TABLE kept (n int)");
    back_up(&site, &first);
    first.psql("INSERT INTO kept VALUES (1)");
    let lsn = first.psql("SELECT pg_current_wal_lsn()");
    first.psql("INSERT INTO kept VALUES (2)");
    site.wait_archived(&first, &switch(&first));
    // Another server goes on from there, on a timeline of its own.
    let flags = ["--as", "primary", "--to-latest"];
    let second = restored(&site, newest_major(), "second", &flags);
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
        let copy = restored(&site, newest_major(), "copy", &["--timeline", timeline]);
        assert_eq!(rows(&copy), expected);
    }
    let flags = ["--to-lsn", &lsn, "--exclusive"];
    let copy = Restored::started(&site, newest_major(), "before", &flags);
    copy.wait_until_paused();
    assert_eq!(rows(&copy), "1");
}
