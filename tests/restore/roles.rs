//! What the restored server does: follows a primary, stops at once, shuts down; and prepared
//! transactions on both sides of the target.

use std::path::Path;

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, majors};

use crate::fresh::fresh_copy;
use crate::site::{Site, switch};

fn backup(site: &Site, primary: &Cluster) {
    let pgdata = primary.data_dir().to_string_lossy().into_owned();
    site.run(primary.data_dir(), &["--pgdata", &pgdata, "backup", "--fast-checkpoint"])
        .expect_code(0);
}

fn restored(fresh: &Site, major: u32, flags: &[&str]) -> CheckedCluster {
    let dir = fresh.scratch().path().join("copy");
    let text = dir.to_string_lossy().into_owned();
    let mut words = vec!["restore", &text];
    words.extend_from_slice(flags);
    fresh.run(Path::new("/"), &words).expect_code(0);
    CheckedCluster::adopt(major, &dir)
}

#[test]
fn a_standby_streams_from_its_primary() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        primary.psql("CREATE TABLE followed (n int)");
        primary.psql("INSERT INTO followed VALUES (1)");
        backup(&site, &primary);
        let fresh = fresh_copy(&site, &["--to-immediate"]);
        let standby = restored(&fresh, major, &["--as", "standby"]);
        let conninfo = primary.conninfo();
        let line = format!("primary_conninfo = '{}'\n", conninfo.replace('\'', "''"));
        standby.append_to("postgresql.auto.conf", &line);
        standby.start();
        primary.psql("INSERT INTO followed VALUES (2)");
        standby.wait_until("the row is streamed", || {
            standby.try_psql("SELECT count(*) FROM followed").is_ok_and(|count| count == "2")
        });
        assert_eq!(standby.psql("SELECT status FROM pg_stat_wal_receiver"), "streaming");
        assert_eq!(standby.psql("SELECT pg_is_in_recovery()"), "t");
    }
}

#[test]
fn a_server_shuts_down_at_its_target() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        primary.psql("CREATE TABLE here (n int)");
        backup(&site, &primary);
        primary.psql("INSERT INTO here VALUES (1)");
        let lsn = primary.psql("SELECT pg_current_wal_lsn()");
        primary.psql("INSERT INTO here VALUES (2)");
        site.wait_archived(&primary, &switch(&primary));
        let target = ["--to-lsn", &lsn, "--exclusive"];
        let fresh = fresh_copy(&site, &target);
        let flags = ["--as", "copy", "--to-lsn", &lsn, "--exclusive", "--action", "shutdown"];
        let copy = restored(&fresh, major, &flags);
        copy.spawn();
        copy.wait_exit();
        assert!(copy.log().contains("recovery stopping before"), "{}", copy.log());
        assert!(copy.log().contains("shutdown at recovery target"), "{}", copy.log());
        assert!(copy.data_dir().join("recovery.signal").exists(), "the target still holds");
        copy.override_setting("recovery_target_action", "promote");
        copy.start();
        copy.wait_until_recovered();
        assert_eq!(copy.psql("SELECT count(*) FROM here"), "1");
    }
}

#[test]
fn recovery_ends_where_the_backup_is_consistent_whatever_the_configuration_says() {
    for major in majors() {
        let site = Site::new();
        let options = ClusterOptions::new(major)
            .archive_command(&site.archive_command())
            .setting("recovery_target_time", "'2020-01-01 00:00:00+00'");
        let primary = Cluster::create(options);
        primary.psql("CREATE TABLE here (n int)");
        backup(&site, &primary);
        primary.psql("INSERT INTO here VALUES (1)");
        site.wait_archived(&primary, &switch(&primary));
        let fresh = fresh_copy(&site, &["--to-immediate"]);
        let copy =
            restored(&fresh, major, &["--as", "copy", "--to-immediate", "--action", "promote"]);
        copy.start();
        copy.wait_until_recovered();
        assert_eq!(copy.psql("SELECT count(*) FROM here"), "0");
        assert_eq!(copy.psql("SHOW archive_mode"), "off");
    }
}

#[test]
fn prepared_transactions_are_as_they_were_at_the_target() {
    for major in majors() {
        let site = Site::new();
        let options = ClusterOptions::new(major)
            .archive_command(&site.archive_command())
            .setting("max_prepared_transactions", "5");
        let primary = Cluster::create(options);
        primary.psql("CREATE TABLE here (n int)");
        primary.psql("BEGIN; INSERT INTO here VALUES (1); PREPARE TRANSACTION 'before the backup'");
        backup(&site, &primary);
        primary.psql("BEGIN; INSERT INTO here VALUES (2); PREPARE TRANSACTION 'before the target'");
        primary.psql("COMMIT PREPARED 'before the backup'");
        let lsn = primary.psql("SELECT pg_current_wal_lsn()");
        primary.psql("COMMIT PREPARED 'before the target'");
        site.wait_archived(&primary, &switch(&primary));
        let target = ["--to-lsn", &lsn, "--exclusive"];
        let fresh = fresh_copy(&site, &target);
        let flags = ["--as", "copy", "--to-lsn", &lsn, "--exclusive", "--action", "promote"];
        let copy = restored(&fresh, major, &flags);
        copy.start();
        copy.wait_until_recovered();
        assert_eq!(copy.psql("SELECT string_agg(n::text, ',') FROM here"), "1");
        assert_eq!(copy.psql("SELECT gid FROM pg_prepared_xacts"), "before the target");
        copy.psql("COMMIT PREPARED 'before the target'");
        assert_eq!(copy.psql("SELECT count(*) FROM here"), "2");
    }
}
