//! Who a cluster is: a clone that archives into the place of the one it was copied from, a cluster
//! that `pg_upgrade` has made, one whose WAL `pg_resetwal` has begun anew, two standbys that are both
//! promoted. docs/identity.md tells what happens to each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_testkit::postgres::{Cluster, ClusterOptions, Stop};

use crate::ground::{back_up, json, number, objects, restored};
use crate::site::{Run, Site, newest_major, own_all, switch};

fn run(site: &Site, cluster: &Cluster, words: &[&str]) -> Run {
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    site.run(Path::new("/"), &[words, &["--pgdata", &pgdata]].concat())
}

fn system_id(cluster: &Cluster) -> String {
    cluster.psql("SELECT system_identifier FROM pg_control_system()")
}

/// The number of backups of each lineage that `list` tells of.
fn backups(site: &Site, cluster: &Cluster, system: &str) -> usize {
    let listed = json(site, cluster, &["list", "--system-id", system]);
    listed["clusters"][0]["backups"].as_array().expect("backups").len()
}

#[test]
fn a_clone_that_archives_into_the_same_place_is_told_and_harms_nothing() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    back_up(&site, &primary);
    primary.stop(Stop::Fast);
    let copy = site.scratch().path().join("clone");
    let copied = Command::new("cp").arg("-a").arg(primary.data_dir()).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    own_all(&copy);
    let clone = Cluster::adopt(newest_major(), &copy);
    primary.start();
    primary.psql("CREATE TABLE whose AS SELECT 'primary' AS text");
    let name = switch(&primary);
    site.wait_archived(&primary, &name);
    let stored = site.object(&name).expect("the segment");
    let bytes = std::fs::read(&stored).expect("it reads");
    clone.start();
    clone.psql("CREATE TABLE whose AS SELECT 'clone' AS text");
    assert_eq!(switch(&clone), name, "both write the same timeline");
    clone.wait_until("the clone is told", || clone.log().contains("OTHER CONTENT"));
    assert!(clone.log().contains("Two servers write one timeline"));
    assert!(std::fs::read(&stored).expect("it reads") == bytes, "what was first stays");
    // The true one goes on, and is told of nothing.
    let next = switch(&primary);
    site.wait_archived(&primary, &next);
    assert_eq!(primary.psql("SELECT failed_count FROM pg_stat_archiver"), "0");
    run(&site, &primary, &["verify"]).expect_code(0);
}

/// All WAL that is stored, by the names of its objects.
fn stored(site: &Site) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).expect("an object"));
    objects(site, "wal").into_iter().map(read).collect()
}

/// Where two standbys leave the timeline that they follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The second one before the first.
    Apart,
    Together,
}

/// A primary with a backup that is gone, and two standbys that know nothing of each other.
fn two_standbys(site: &Site, left: Left) -> [Cluster; 2] {
    let primary = site.primary(newest_major());
    primary.psql("CREATE TABLE whose (text text)");
    back_up(site, &primary);
    site.wait_archived(&primary, &switch(&primary));
    let [first, second] = [Cluster::standby_of(&primary), Cluster::standby_of(&primary)];
    second.wait_caught_up(&primary);
    if left == Left::Apart {
        second.stop(Stop::Fast);
    }
    primary.psql("INSERT INTO whose VALUES ('primary')");
    first.wait_caught_up(&primary);
    if left == Left::Together {
        second.wait_caught_up(&primary);
    }
    primary.stop(Stop::Immediate);
    if left == Left::Apart {
        second.start();
    }
    [first, second]
}

/// The second one is promoted onto the timeline of the first, and is told so.
fn promoted_twice(left: Left) {
    let site = Site::new();
    let [first, second] = two_standbys(&site, left);
    first.promote();
    first.psql("INSERT INTO whose VALUES ('first')");
    let name = switch(&first);
    site.wait_archived(&first, &name);
    let before = stored(&site);
    second.promote();
    second.psql("INSERT INTO whose VALUES ('second')");
    assert_eq!(switch(&second), name, "both write the same timeline");
    let ended = "archive command failed with exit code 12";
    second.wait_until("the second one is told", || second.log().contains(ended));
    let refused = match left {
        Left::Apart => "00000002.history",
        // The histories are the same.
        Left::Together => &name,
    };
    let log = second.log();
    assert!(log.contains(&format!("{refused} is stored already with OTHER CONTENT")), "{log}");
    let pushed = site.run(second.data_dir(), &["wal", "push", &format!("pg_wal/{refused}")]);
    assert!(pushed.expect_code(12).stderr.contains("Two servers write one timeline"), "{pushed:?}");
    assert!(stored(&site) == before, "what the first one has archived stays, and nothing else is");
    // The first one goes on, and is told of nothing.
    first.psql("INSERT INTO whose VALUES ('first again')");
    site.wait_archived(&first, &switch(&first));
    assert_eq!(first.psql("SELECT failed_count FROM pg_stat_archiver"), "0");
    run(&site, &first, &["verify", "--read-data"]).expect_code(0);
    let copy = restored(&site, newest_major(), "copy", &["--timeline", "2"]);
    let rows = copy.psql("SELECT string_agg(text, ',' ORDER BY text) FROM whose");
    assert_eq!(rows, "first,first again,primary");
}

#[test]
fn of_two_promotions_that_choose_one_timeline_the_second_is_refused_by_its_history() {
    promoted_twice(Left::Apart);
}

#[test]
fn of_two_promotions_at_the_same_place_the_second_is_refused_by_its_first_segment() {
    promoted_twice(Left::Together);
}

/// What `pg_upgrade` makes of a stopped cluster.
fn upgraded(site: &Site, old: &Cluster, major: u32) -> Cluster {
    let options = ClusterOptions::new(major).archive_command(&site.archive_command());
    let new = Cluster::create_stopped(options);
    let work = site.scratch().dir("upgrade");
    let mut upgrade = new.tool("pg_upgrade");
    upgrade.current_dir(&work).args(["--username", "postgres", "--socketdir"]).arg(&work);
    upgrade.arg("--old-bindir").arg(old.home().root().join("bin"));
    upgrade.arg("--new-bindir").arg(new.home().root().join("bin"));
    upgrade.arg("--old-datadir").arg(old.data_dir()).arg("--new-datadir").arg(new.data_dir());
    // Each server loads its own libraries.
    upgrade.env_remove("LD_LIBRARY_PATH");
    let said = upgrade.output().expect("pg_upgrade runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    new.start();
    new
}

#[test]
fn an_upgraded_cluster_is_another_one_and_the_old_one_stays_restorable() {
    let (from, to) = (16, 17);
    let site = Site::new();
    let old = site.primary(from);
    old.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    old.psql(
        "CREATE TABLE bulk WITH (autovacuum_enabled = off) AS
           SELECT i AS id, sha512(i::text::bytea) AS v FROM generate_series(1, 100000) i",
    );
    // Nobody writes a hint into its pages after that.
    old.psql("VACUUM (FREEZE) bulk");
    back_up(&site, &old);
    let bulk: u64 = old.psql("SELECT pg_relation_size('bulk')").parse().expect("a size");
    // What the backup does not have comes from the WAL.
    old.psql("INSERT INTO t VALUES (1001)");
    site.wait_archived(&old, &switch(&old));
    let before = system_id(&old);
    old.stop(Stop::Fast);
    let new = upgraded(&site, &old, to);
    assert_eq!(new.psql("SELECT count(*) FROM t"), "1001");
    let after = system_id(&new);
    assert_ne!(before, after);
    let told = back_up(&site, &new);
    assert!(told["reference"].is_null(), "it is compared with no backup of the old one: {told}");
    // Chunks that both have are stored once: new are the catalogs, which initdb has made.
    let shared = number(&told, "bytes") - number(&told, "new_bytes");
    assert!(shared > bulk / 100 * 95, "{shared} of {bulk} bytes of the table: {told}");
    new.psql("DELETE FROM t WHERE id > 500");
    back_up(&site, &new);
    // What expires of the one, and is collected, is nothing of the other.
    run(&site, &new, &["expire", "--keep-last", "1", "--system-id", &after]).expect_code(0);
    assert_eq!((backups(&site, &new, &before), backups(&site, &new, &after)), (1, 1));
    run(&site, &new, &["gc", "--rewrite-below", "100"]).expect_code(0);
    for (major, system, rows) in [(from, &before, "1001"), (to, &after, "500")] {
        let flags = ["--system-id", system, "--to-latest"];
        let copy = restored(&site, major, system, &flags);
        assert_eq!(&system_id(&copy), system);
        assert_eq!(
            copy.psql("SELECT current_setting('server_version_num')::int / 10000"),
            major.to_string()
        );
        assert_eq!(copy.psql("SELECT count(*) FROM t"), rows);
        assert_eq!(copy.psql("SELECT count(*), sum(id) FROM bulk"), "100000|5000050000");
    }
}

fn reset_wal(cluster: &Cluster, words: &[&str]) {
    let mut reset = cluster.tool("pg_resetwal");
    reset.args(words).arg(cluster.data_dir());
    assert!(reset.status().expect("pg_resetwal runs").success());
}

#[test]
fn wal_begun_anew_is_a_gap_and_the_next_backup_is_whole() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    let first = back_up(&site, &cluster);
    let system = system_id(&cluster);
    cluster.stop(Stop::Fast);
    reset_wal(&cluster, &["-l", "000000010000000000000040"]);
    cluster.start();
    assert_eq!(system_id(&cluster), system, "it is the same lineage");
    let second = back_up(&site, &cluster);
    cluster.psql("INSERT INTO t VALUES (0)");
    site.wait_archived(&cluster, &switch(&cluster));
    let listed = &json(&site, &cluster, &["list"])["clusters"][0];
    let ranges = listed["timelines"][0]["ranges"].as_array().expect("ranges");
    assert_eq!(ranges.len(), 2, "{listed:#}");
    let plan = json(&site, &cluster, &["plan"]);
    assert_eq!(plan["backup"]["id"], second["backup"], "{plan:#}");
    assert_ne!(first["backup"], second["backup"]);
    run(&site, &cluster, &["verify"]).expect_code(18);
}

#[test]
fn segments_of_another_size_begin_wal_anew_and_what_was_before_is_reached() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    let first_size = cluster
        .psql("SELECT setting::int8 / 1048576 FROM pg_settings WHERE name = 'wal_segment_size'");
    let first = back_up(&site, &cluster);
    cluster.psql("INSERT INTO t VALUES (0)");
    let before = cluster.psql("SELECT clock_timestamp()");
    cluster.psql("INSERT INTO t VALUES (0)");
    site.wait_archived(&cluster, &switch(&cluster));
    cluster.stop(Stop::Fast);
    reset_wal(&cluster, &["--wal-segsize", "4"]);
    cluster.start();
    let second = back_up(&site, &cluster);
    // The checkpoint's time is known to two seconds, and what was committed before it to nobody.
    cluster.psql("SELECT pg_sleep(2.1)");
    cluster.psql("INSERT INTO t VALUES (0)");
    let after = cluster.psql("SELECT clock_timestamp()");
    cluster.psql("INSERT INTO t VALUES (0)");
    site.wait_archived(&cluster, &switch(&cluster));
    // And back: between the two stretches of the first size lies one of the other.
    cluster.stop(Stop::Fast);
    reset_wal(&cluster, &["--wal-segsize", &first_size]);
    cluster.start();
    let third = back_up(&site, &cluster);
    site.wait_archived(&cluster, &switch(&cluster));
    let id = |backup: &serde_json::Value| backup["backup"].as_str().expect("an id").to_owned();
    let (of_first, of_second) = (id(&first), id(&second));
    let cases: [(&serde_json::Value, &str, &[&str]); 5] = [
        (&third, "1004", &["--to-latest"]),
        (&second, "1004", &["--backup", &of_second, "--to-latest"]),
        (&second, "1003", &["--to-time", &after]),
        (&first, "1001", &["--to-time", &before]),
        (&first, "1000", &["--backup", &of_first, "--to-immediate"]),
    ];
    for (number, (backup, rows, target)) in cases.into_iter().enumerate() {
        let plan = json(&site, &cluster, &[&["plan"], target].concat());
        assert_eq!(plan["backup"]["id"], backup["backup"], "{target:?}: {plan:#}");
        let words = [target, &["--action", "promote"]].concat();
        let copy = restored(&site, newest_major(), &number.to_string(), &words);
        assert_eq!(copy.psql("SELECT count(*) FROM t"), rows, "{target:?}");
    }
    let listed = &json(&site, &cluster, &["list"])["clusters"][0];
    assert_eq!(listed["backups"].as_array().expect("backups").len(), 3, "{listed:#}");
    // By hand and away from a data directory nobody knows which of two files of a name is meant.
    let fetched = site.scratch().path().join("fetched");
    let words = ["wal", "fetch", "000000010000000000000005", &fetched.to_string_lossy()];
    let refused = site.run(Path::new("/"), &words);
    assert!(refused.stderr.contains("segments of more than one size"), "{}", refused.stderr);
    // The two stretches of the first size have a gap between them, as after any pg_resetwal.
    run(&site, &cluster, &["verify"]).expect_code(18);
}
