//! The launcher itself: clusters of every major start, stop, crash, stream and clean up.

use std::time::{Duration, Instant};

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::{
    Checksums, Cluster, ClusterOptions, Durability, Listen, Scratch, Stop, majors,
};

#[test]
fn a_cluster_starts_crashes_and_stops() {
    for major in majors() {
        let options = ClusterOptions::new(major)
            .wal_segment_size_mib(1)
            .checksums(Checksums::Off)
            .setting("cluster_name", "it's a test");
        let cluster = Cluster::create(options);
        assert!(cluster.psql("SHOW server_version").starts_with(&major.to_string()));
        assert_eq!(cluster.psql("SHOW cluster_name"), "it's a test");
        assert_eq!(cluster.psql("SHOW data_checksums; SHOW wal_segment_size"), "off\n1MB");
        cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
        for how in [Stop::Kill, Stop::Immediate, Stop::Fast] {
            cluster.stop(how);
            assert!(!cluster.is_running());
            cluster.start();
            assert_eq!(cluster.psql("SELECT count(*) FROM t"), "1000", "{how:?}");
        }
        let error = cluster.try_psql("SELECT 1; SELECT * FROM missing").unwrap_err();
        assert!(error.contains("missing"), "{error}");
    }
}

#[test]
fn a_dropped_cluster_leaves_nothing_behind() {
    let cluster = Cluster::create(ClusterOptions::new(majors()[0]));
    let (pid, dir) = (cluster.postmaster_pid(), cluster.scratch().path().to_owned());
    drop(cluster);
    assert!(!dir.exists());
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    assert_ne!(name.trim(), "postgres");
}

#[test]
fn a_server_that_does_not_start_shows_its_log() {
    let cluster = Cluster::create_stopped(ClusterOptions::new(majors()[0]));
    cluster.append_to("postgresql.conf", "no_such_setting = 1\n");
    let failure = cluster.try_start().unwrap_err();
    assert!(failure.status.is_some_and(|status| !status.success()));
    assert!(failure.log.contains("no_such_setting"), "{}", failure.log);
}

#[test]
fn wal_is_archived_by_the_servers_user() {
    for major in majors() {
        let archive = Scratch::new();
        let command = format!("cp %p {}/%f", archive.path().display());
        let cluster = Cluster::create(ClusterOptions::new(major).archive_command(&command));
        let closed = cluster.psql("SELECT pg_walfile_name(pg_switch_wal())");
        cluster.wait_until("the segment is archived", || archive.path().join(&closed).exists());
    }
}

#[test]
fn a_standby_streams_and_can_be_promoted() {
    for major in majors() {
        let primary = Cluster::create(ClusterOptions::new(major).durability(Durability::On));
        primary.psql("CREATE TABLE t (i int)");
        let standby = Cluster::standby_of(&primary);
        primary.psql("INSERT INTO t VALUES (42)");
        standby.wait_caught_up(&primary);
        assert_eq!(standby.psql("SELECT i FROM t"), "42");
        standby.promote();
        standby.psql("INSERT INTO t VALUES (43)");
        standby.wait_until_recovered();
    }
}

#[test]
fn an_adopted_directory_keeps_its_files_and_takes_overrides() {
    let first = Cluster::create(ClusterOptions::new(majors()[0]).listen(Listen::Loopback));
    first.stop(Stop::Fast);
    let copy = first.copy_stopped("copy");
    let second = Cluster::adopt(first.major(), &copy);
    second.override_setting("cluster_name", "adopted");
    second.start();
    first.start();
    assert_eq!(second.psql("SHOW cluster_name"), "adopted");
    assert_eq!(first.psql("SHOW cluster_name"), "");
    drop(second);
    assert!(copy.join("PG_VERSION").exists());
}

#[test]
fn recovery_that_fails_is_seen_at_once() {
    let cluster = Cluster::create(ClusterOptions::new(majors()[0]));
    cluster.stop(Stop::Fast);
    cluster.append_to("recovery.signal", "");
    cluster.append_to("postgresql.auto.conf", "restore_command = 'exit 200'\n");
    let began = Instant::now();
    cluster.spawn();
    assert!(!cluster.wait_exit().success());
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(cluster.log().contains("could not restore file"), "{}", cluster.log());
}

#[test]
#[should_panic(expected = "pg_checksums")]
fn a_page_that_is_damaged_in_the_end_is_found() {
    use std::os::unix::fs::FileExt;
    let cluster = CheckedCluster::from(Cluster::create(ClusterOptions::new(majors()[0])));
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) n; CHECKPOINT");
    let path = cluster.data_dir().join(cluster.psql("SELECT pg_relation_filepath('t')"));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"damage", 4000).unwrap();
}

/// Its server is down, as after a restore that nobody has started.
#[test]
#[should_panic(expected = "pg_amcheck")]
fn an_index_that_is_stale_in_the_end_is_found() {
    let cluster = CheckedCluster::from(Cluster::create(ClusterOptions::new(majors()[0])));
    cluster.psql(
        "CREATE TABLE t AS SELECT generate_series(1, 1000) n;
         CREATE INDEX t_n ON t (n); CHECKPOINT",
    );
    let path = cluster.data_dir().join(cluster.psql("SELECT pg_relation_filepath('t_n')"));
    let old = std::fs::read(&path).unwrap();
    cluster.psql("INSERT INTO t SELECT generate_series(1001, 2000)");
    cluster.stop(Stop::Fast);
    std::fs::write(&path, old).unwrap();
}
