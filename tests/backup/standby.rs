//! Backups from a standby: of an idle primary and a busy one, and a promotion in the middle.

use pgrecall_testkit::cluster_check::assert_sound;
use pgrecall_testkit::postgres::Cluster;
use pgrecall_testkit::workload::{Workload, WorkloadOptions};
use rustix::process::Signal;

use crate::ground::{Running, back_up, objects, output, restored, try_backup};
use crate::site::{Site, newest_major, switch};

/// A primary that archives, its standby, and a configuration that knows both.
fn pair(site: &Site) -> (Cluster, Cluster) {
    let primary = site.primary(newest_major());
    primary.psql(
        "CREATE TABLE t AS SELECT i AS id, md5(i::text) AS v FROM generate_series(1, 50000) i",
    );
    let standby = Cluster::standby_of(&primary);
    standby.wait_caught_up(&primary);
    let config = std::fs::read_to_string(site.config()).expect("a configuration");
    let lines = format!(
        "{config}\n[cluster.primary]\nhost = \"{}\"\nport = {}\n",
        primary.socket_dir().display(),
        primary.port()
    );
    std::fs::write(site.config(), lines).expect("a configuration");
    (primary, standby)
}

#[test]
fn a_standby_of_an_idle_primary_is_backed_up() {
    let site = Site::new();
    let (primary, standby) = pair(&site);
    let told = back_up(&site, &standby);
    assert_eq!(told["from"], "standby");
    let copy = restored(&site, newest_major(), "copy", &["--to-immediate", "--action", "promote"]);
    assert_eq!(copy.psql("SELECT count(*), max(id) FROM t"), "50000|50000");
    assert_sound(&copy);
    drop((primary, standby));
}

#[test]
fn a_standby_of_a_busy_primary_is_backed_up() {
    let site = Site::new();
    let (primary, standby) = pair(&site);
    let workload = Workload::start(&primary, &WorkloadOptions::new(3));
    workload.wait_commits(50);
    back_up(&site, &standby);
    workload.wait_commits(50);
    let told = back_up(&site, &standby);
    assert_eq!(told["method"], "scan");
    let log = workload.finish(&primary);
    site.wait_archived(&primary, &switch(&primary));
    let copy = restored(&site, newest_major(), "copy", &["--to-latest"]);
    log.assert_equals(&copy, &pgrecall_testkit::commit_log::Target::Latest);
    assert_sound(&copy);
    drop((primary, standby));
}

#[test]
fn a_promotion_in_the_middle_voids_the_backup() {
    let site = Site::new();
    let (primary, standby) = pair(&site);
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

#[test]
fn a_standby_behind_what_has_expired_is_not_backed_up() {
    let site = Site::new();
    let (primary, standby) = pair(&site);
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

#[test]
fn the_directory_of_another_server_of_the_cluster_is_refused() {
    let site = Site::new();
    let (primary, standby) = pair(&site);
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
