//! Backups from a standby: of an idle primary and a busy one, with and without a word on where the
//! primary is, and a promotion in the middle, of the standby itself or of what it streams from.

use pgrecall_testkit::commit_log::Target;
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, Stop, majors};
use pgrecall_testkit::workload::{Workload, WorkloadOptions};
use rustix::process::Signal;

use crate::ground::{Running, back_up, back_up_aloud, objects, output, restored, try_backup};
use crate::site::{Site, newest_major, switch};

/// A primary that archives, in small segments, and its standby.
fn servers(site: &Site, major: u32) -> (Cluster, Cluster) {
    let options = ClusterOptions::new(major).archive_command(&site.archive_command());
    let primary = Cluster::create(options.wal_segment_size_mib(1));
    primary.psql(
        "CREATE TABLE t AS SELECT i AS id, md5(i::text) AS v FROM generate_series(1, 50000) i",
    );
    let standby = Cluster::standby_of(&primary);
    standby.wait_caught_up(&primary);
    (primary, standby)
}

/// As [`servers`], and a configuration that knows where the primary is.
fn pair(site: &Site, major: u32) -> (Cluster, Cluster) {
    let (primary, standby) = servers(site, major);
    write_primary(site, &primary);
    (primary, standby)
}

fn write_primary(site: &Site, primary: &Cluster) {
    let config = std::fs::read_to_string(site.config()).expect("a configuration");
    let lines = format!(
        "{config}\n[cluster.primary]\nhost = \"{}\"\nport = {}\n",
        primary.socket_dir().display(),
        primary.port()
    );
    std::fs::write(site.config(), lines).expect("a configuration");
}

#[test]
fn a_standby_of_an_idle_primary_is_backed_up() {
    for major in majors() {
        let site = Site::new();
        let (primary, standby) = pair(&site, major);
        let told = back_up(&site, &standby);
        assert_eq!(told["from"], "standby");
        let flags = ["--to-immediate", "--action", "promote"];
        let copy = restored(&site, major, "copy", &flags);
        assert_eq!(copy.psql("SELECT count(*), max(id) FROM t"), "50000|50000");
        drop((primary, standby));
    }
}

#[test]
fn a_standby_of_a_busy_primary_is_backed_up() {
    for major in majors() {
        let site = Site::new();
        let (primary, standby) = pair(&site, major);
        let workload = Workload::start(&primary, &WorkloadOptions::new(3));
        workload.wait_commits(50);
        back_up(&site, &standby);
        workload.wait_commits(50);
        let told = back_up(&site, &standby);
        assert_eq!(told["method"], "scan");
        let log = workload.finish(&primary);
        site.wait_archived(&primary, &switch(&primary));
        let copy = restored(&site, major, "copy", &["--to-latest"]);
        log.assert_equals(&copy, &Target::Latest);
        drop((primary, standby));
    }
}

const NO_PRIMARY: &str = "no primary is configured: its last WAL segment is complete when the \
                          primary has filled it";

/// Nobody can close the last segment then but those who fill it.
#[test]
fn where_the_primary_is_not_known_a_busy_one_is_waited_for_and_an_idle_one_in_vain() {
    for major in majors() {
        let site = Site::new();
        let (primary, standby) = servers(&site, major);
        // The backup starts, and so ends, in the segment that is being written.
        primary.psql("INSERT INTO t SELECT i, 'more' FROM generate_series(50001, 50100) i");
        primary.psql("CHECKPOINT");
        standby.wait_caught_up(&primary);
        let ended = try_backup(&site, &standby, &["--fast-checkpoint", "--wal-timeout", "2s"]);
        ended.expect_code(18);
        for part in [NO_PRIMARY, "did not arrive within 2 s", "hint: Say in [cluster.primary]"] {
            assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
        }
        assert!(objects(&site, "backups").is_empty() && objects(&site, "intents").is_empty());

        let workload = Workload::start(&primary, &WorkloadOptions::new(3));
        let (told, stderr) = back_up_aloud(&site, &standby);
        assert_eq!(told["from"], "standby");
        assert!(stderr.contains(NO_PRIMARY), "{stderr}");
        let log = workload.finish(&primary);
        site.wait_archived(&primary, &switch(&primary));
        let copy = restored(&site, major, "copy", &["--to-latest"]);
        log.assert_equals(&copy, &Target::Latest);
        drop((primary, standby));
    }
}

/// A standby of a standby goes over to the new timeline, and the segment that the old one was left in
/// is waited for in vain.
#[test]
fn a_promotion_of_what_the_standby_follows_ends_the_backup_and_the_next_is_whole() {
    for major in majors() {
        let site = Site::new();
        let (primary, between) = servers(&site, major);
        let standby = Cluster::standby_of(&between);
        standby.wait_caught_up(&primary);
        write_primary(&site, &between);
        let backup = Running::held_in_the_middle(&site, &standby);
        primary.stop(Stop::Fast);
        between.promote();
        between.psql("INSERT INTO t SELECT i, 'new' FROM generate_series(50001, 50100) i");
        standby.wait_caught_up(&between);
        backup.signal(Signal::CONT);
        let ended = backup.end();
        ended.expect_code(18);
        for part in
            ["was promoted while it was backed up", "timeline 1 went on as 2", "hint: Start"]
        {
            assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
        }
        assert!(objects(&site, "backups").is_empty() && objects(&site, "intents").is_empty());
        let told = back_up(&site, &standby);
        assert_eq!(told["from"], "standby");
        site.wait_archived(&between, &switch(&between));
        let copy = restored(&site, major, "copy", &["--to-latest"]);
        assert_eq!(copy.psql("SELECT count(*), max(id) FROM t"), "50100|50100");
        drop((primary, between, standby));
    }
}

#[test]
fn a_promotion_in_the_middle_voids_the_backup() {
    for major in majors() {
        let site = Site::new();
        let (primary, standby) = pair(&site, major);
        let backup = Running::held_in_the_middle(&site, &standby);
        standby.promote();
        backup.signal(Signal::CONT);
        let ended = backup.end();
        assert_ne!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("promoted"), "{}", ended.stderr);
        assert!(objects(&site, "backups").is_empty(), "nothing was committed");
        assert!(objects(&site, "intents").is_empty(), "nothing is left behind");
        drop((primary, standby));
    }
}

#[test]
fn a_standby_behind_what_has_expired_is_not_backed_up() {
    for major in majors() {
        let site = Site::new();
        let (primary, standby) = pair(&site, major);
        standby.psql("SELECT pg_wal_replay_pause()");
        for step in 0..2 {
            primary.psql(&format!("INSERT INTO t SELECT i, '{step}' FROM generate_series(1, 9) i"));
            site.wait_archived(&primary, &switch(&primary));
            back_up(&site, &primary);
        }
        output(&site, &primary, &["expire", "--keep-last", "1"]);
        let refused = try_backup(&site, &standby, &["--fast-checkpoint"]);
        refused.expect_code(18);
        assert!(refused.stderr.contains("this server is behind"), "{}", refused.stderr);
        assert!(refused.stderr.contains("caught up"), "{}", refused.stderr);
        assert!(objects(&site, "intents").is_empty(), "nothing is left behind");
        standby.psql("SELECT pg_wal_replay_resume()");
        standby.wait_caught_up(&primary);
        back_up(&site, &standby);
        drop((primary, standby));
    }
}

#[test]
fn the_directory_of_another_server_of_the_cluster_is_refused() {
    let site = Site::new();
    let (primary, standby) = pair(&site, newest_major());
    let config = std::fs::read_to_string(site.config()).expect("a configuration");
    let server = format!(
        "name = \"main\"\nhost = \"{}\"\nport = {}\n",
        primary.socket_dir().display(),
        primary.port()
    );
    let crossed = config.replace("name = \"main\"\n", &server);
    std::fs::write(site.config(), crossed).expect("a configuration");
    let ended = try_backup(&site, &standby, &["--fast-checkpoint"]);
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("is not the data directory"), "{}", ended.stderr);
    assert!(objects(&site, "backups").is_empty(), "nothing was committed");
}
