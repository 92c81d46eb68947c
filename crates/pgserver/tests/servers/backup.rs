//! The bracket around a backup, and all that voids it.

use std::time::Duration;

use pgrecall_pgformat::TimelineId;
use pgrecall_pgserver::{
    Checkpoint, ErrorKind, RecoveryState, RunningBackup, ServerError, StoppedBackup,
};
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, Stop, majors};

use crate::{connect, connect_as, follow_hint};

async fn start(cluster: &Cluster, label: &str) -> RunningBackup {
    connect(cluster).await.start_backup(label, Checkpoint::Fast).await.unwrap()
}

fn label_line<'a>(stopped: &'a StoppedBackup, name: &str) -> &'a str {
    let found = stopped.label_file.lines().find_map(|line| line.strip_prefix(name));
    found.unwrap_or_else(|| panic!("{name}: {}", stopped.label_file))
}

#[tokio::test]
async fn a_backup_of_a_primary_starts_and_stops() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let running = start(&cluster, "nightly é").await;
        assert_eq!(running.state(), RecoveryState::Primary);
        assert_eq!(running.start_timeline(), TimelineId(1));
        let start_lsn = running.start_lsn();
        running.ping().await.unwrap();
        running.server().read_file("PG_VERSION", 0, 10).await.unwrap();
        cluster.psql("CREATE TABLE t (i int)");
        let (stopped, server) = running.stop().await.unwrap();
        assert!(stopped.stop_lsn > start_lsn);
        let first = label_line(&stopped, "START WAL LOCATION: ");
        let (lsn, file) = first.split_once(" (file ").unwrap();
        assert_eq!(lsn.parse(), Ok(start_lsn));
        assert!(file.starts_with("00000001"), "{first}");
        assert_eq!(label_line(&stopped, "LABEL: "), "nightly é");
        assert_eq!(label_line(&stopped, "START TIMELINE: "), "1");
        assert_eq!(label_line(&stopped, "BACKUP FROM: "), "primary");
        assert_eq!(stopped.tablespace_map, None);
        // The session is free again, for the segment that must be closed.
        assert!(server.switch_wal().await.unwrap().lsn >= stopped.stop_lsn);
        assert!(!cluster.data_dir().join("backup_label").exists());
    }
}

#[tokio::test]
async fn tablespaces_are_in_the_map() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let place = cluster.scratch().dir("space");
        cluster.psql(&format!("CREATE TABLESPACE space LOCATION '{}'", place.display()));
        let oid = cluster.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'");
        let (stopped, _) = start(&cluster, "x").await.stop().await.unwrap();
        let map = stopped.tablespace_map.unwrap();
        assert_eq!(map.trim_end(), format!("{oid} {}", place.display()));
    }
}

#[tokio::test]
async fn two_backups_run_side_by_side() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let (one, two) = (start(&cluster, "one").await, start(&cluster, "two").await);
        let (first, _) = one.stop().await.unwrap();
        let (second, _) = two.stop().await.unwrap();
        assert_eq!(label_line(&first, "LABEL: "), "one");
        assert_eq!(label_line(&second, "LABEL: "), "two");
    }
}

#[tokio::test]
async fn a_lost_session_is_noticed_and_voids_the_backup() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let end = |sql: &'static str| {
            move |cluster: &Cluster| {
                cluster.psql(sql);
            }
        };
        let terminate = end("SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE application_name = 'pgrecall'");
        let crash = |cluster: &Cluster| cluster.stop(Stop::Kill);
        let ways: [&dyn Fn(&Cluster); 2] = [&terminate, &crash];
        for way in ways {
            let running = start(&cluster, "x").await;
            let lost = running.lost();
            way(&cluster);
            let error = tokio::time::timeout(Duration::from_secs(10), lost).await.unwrap();
            assert!(matches!(error, ServerError::ConnectionLost { .. }), "{error:?}");
            assert!(running.ping().await.is_err());
            let error = running.stop().await.unwrap_err();
            assert!(matches!(error, ServerError::ConnectionLost { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
        }
    }
}

#[tokio::test]
async fn a_backup_that_is_dropped_or_aborted_ends_on_the_server() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgrecall'";
        let running = start(&cluster, "dropped").await;
        let lost = running.lost();
        assert_eq!(cluster.psql(count), "1");
        drop(running);
        lost.await;
        cluster.wait_until("the session has ended", || cluster.psql(count) == "0");
        start(&cluster, "aborted").await.abort().await;
        cluster.wait_until("the session has ended", || cluster.psql(count) == "0");
        let warnings = cluster.log().matches("aborting backup due to backend exiting").count();
        assert_eq!(warnings, 2, "{}", cluster.log());
    }
}

#[tokio::test]
async fn the_hint_gives_the_right_to_back_up() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let server = connect_as(&cluster, "backup", "").await;
        let error = server.start_backup("x", Checkpoint::Fast).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        follow_hint(&cluster, &error.hint().unwrap());
        let other = connect_as(&cluster, "backup2", "GRANT backup TO backup2").await;
        let running = other.start_backup("x", Checkpoint::Fast).await.unwrap();
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn what_the_server_refuses_is_passed_on_with_its_hint() {
    for major in majors() {
        let options = ClusterOptions::new(major).setting("wal_level", "minimal");
        let cluster = Cluster::create(options.setting("max_wal_senders", "0"));
        let server = connect(&cluster).await;
        let error = server.start_backup("x", Checkpoint::Fast).await.unwrap_err();
        assert!(matches!(error, ServerError::Refused { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("wal_level"), "{error:?}");
        let server = connect(&cluster).await;
        let error = server.start_backup("two\nlines", Checkpoint::Fast).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_backup_of_a_standby_starts_and_stops() {
    for major in majors() {
        let primary = Cluster::create(ClusterOptions::new(major));
        let standby = Cluster::standby_of(&primary);
        let running = start(&standby, "from the standby").await;
        assert_eq!(running.state(), RecoveryState::Standby);
        assert_eq!(running.start_timeline(), TimelineId(1));
        let start_lsn = running.start_lsn();
        primary.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
        standby.wait_caught_up(&primary);
        let (stopped, server) = running.stop().await.unwrap();
        assert!(stopped.stop_lsn >= start_lsn);
        assert_eq!(label_line(&stopped, "BACKUP FROM: "), "standby");
        assert!(server.switch_wal().await.is_err());
    }
}

#[tokio::test]
async fn a_promotion_voids_the_backup() {
    for major in majors() {
        let primary = Cluster::create(ClusterOptions::new(major));
        let standby = Cluster::standby_of(&primary);
        let running = start(&standby, "x").await;
        standby.promote();
        running.ping().await.unwrap();
        let error = running.stop().await.unwrap_err();
        assert!(matches!(error, ServerError::PromotedDuringBackup { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        start(&standby, "again").await.stop().await.unwrap();
    }
}

#[tokio::test]
async fn full_page_writes_off_voids_a_backup_of_a_standby() {
    for major in majors() {
        let primary = Cluster::create(ClusterOptions::new(major));
        let standby = Cluster::standby_of(&primary);
        let running = start(&standby, "x").await;
        primary.psql("ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf()");
        let off = || primary.psql("SHOW full_page_writes") == "off";
        primary.wait_until("full page writes are off", off);
        primary.psql("CHECKPOINT; CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
        standby.wait_caught_up(&primary);
        let error = running.stop().await.unwrap_err();
        assert!(matches!(error, ServerError::Refused { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
}
