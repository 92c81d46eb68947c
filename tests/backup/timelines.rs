//! A cluster that was promoted before anybody archived.

use pgrecall_testkit::postgres::{Cluster, ClusterOptions, majors};

use crate::ground::{back_up, objects, restored, try_backup};
use crate::site::Site;

/// A primary on timeline 2 whose archive knows nothing of its past.
fn promoted(site: &Site, major: u32) -> Cluster {
    let first = Cluster::create(ClusterOptions::new(major));
    first.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) n");
    let second = Cluster::standby_of(&first);
    second.wait_caught_up(&first);
    second.promote();
    second.psql(&format!("ALTER SYSTEM SET archive_command = '{}'", site.archive_command()));
    second.psql("ALTER SYSTEM SET archive_mode = on");
    second.restart();
    second
}

#[test]
fn the_history_of_an_earlier_promotion_is_stored_with_the_backup() {
    for major in majors() {
        let site = Site::new();
        let cluster = promoted(&site, major);
        let history = cluster.data_dir().join("pg_wal/00000002.history");
        let status = cluster.data_dir().join("pg_wal/archive_status");
        // As if it had been archived elsewhere, long ago.
        for end in ["ready", "done"] {
            let _ = std::fs::remove_file(status.join(format!("00000002.history.{end}")));
        }
        std::fs::write(status.join("00000002.history.done"), "").expect("written");
        assert!(history.exists());
        back_up(&site, &cluster);
        assert!(site.object("00000002.history").is_some());
        let copy = restored(&site, major, "copy", &["--to-latest"]);
        assert_eq!(copy.psql("SELECT count(*) FROM t"), "1000");
    }
}

#[test]
fn without_its_history_a_backup_is_refused() {
    for major in majors() {
        let site = Site::new();
        let cluster = promoted(&site, major);
        let away = site.scratch().path().join("00000002.history");
        std::fs::rename(cluster.data_dir().join("pg_wal/00000002.history"), &away).expect("moved");
        if let Some(stored) = site.object("00000002.history") {
            std::fs::remove_file(stored).expect("removed");
        }
        let ended = try_backup(&site, &cluster, &["--fast-checkpoint", "--wal-timeout", "60s"]);
        assert_ne!(ended.code, Some(0));
        assert!(ended.stderr.contains("00000002.history"), "{}", ended.stderr);
        assert!(objects(&site, "backups").is_empty());
    }
}
