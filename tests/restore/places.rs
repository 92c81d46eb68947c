//! Tablespaces, `pg_wal` elsewhere, and files for another tool.

use std::path::Path;

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::{Cluster, Stop, majors};

use crate::fresh::fresh_copy;
use crate::site::{Site, own_all, switch};

/// A primary with a table in a tablespace and one in the default place, backed up.
fn with_tablespace(site: &Site, major: u32) -> Cluster {
    let primary = site.primary(major);
    let space = site.scratch().dir("space");
    own_all(&space);
    primary.psql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display()));
    primary.psql("CREATE TABLE there TABLESPACE fast AS SELECT generate_series(1, 5000) n");
    primary.psql("CREATE TABLE here AS SELECT generate_series(1, 100) n");
    let pgdata = primary.data_dir().to_string_lossy().into_owned();
    site.run(primary.data_dir(), &["--pgdata", &pgdata, "backup", "--fast-checkpoint"])
        .expect_code(0);
    primary.psql("INSERT INTO there VALUES (0)");
    site.wait_archived(&primary, &switch(&primary));
    primary
}

fn assert_rows(cluster: &Cluster) {
    assert_eq!(cluster.psql("SELECT count(*), min(n) FROM there"), "5001|0");
    assert_eq!(cluster.psql("SELECT count(*) FROM here"), "100");
}

#[test]
fn tablespaces_and_wal_go_where_they_are_told() {
    for major in majors() {
        let site = Site::new();
        let primary = with_tablespace(&site, major);
        let old = site.scratch().path().join("space");
        let planned = format!("{}={}", old.display(), site.scratch().path().join("new").display());
        let fresh = fresh_copy(&site, &["--tablespace-map", &planned]);
        let at = |name: &str| fresh.scratch().path().join(name);
        let (dir, space, wal) = (at("copy"), at("new-space"), at("new-wal"));
        let text = dir.to_string_lossy().into_owned();
        let refused = fresh.run(Path::new("/"), &["restore", &text, "--as", "copy"]);
        refused.expect_code(17);
        assert!(refused.stderr.contains("--tablespace-map"), "{}", refused.stderr);
        assert!(!dir.exists());
        let map = format!("{}={}", old.display(), space.display());
        let waldir = wal.to_string_lossy().into_owned();
        let flags =
            ["restore", &text, "--as", "copy", "--tablespace-map", &map, "--waldir", &waldir];
        fresh.run(Path::new("/"), &flags).expect_code(0);
        let copy = CheckedCluster::adopt(major, &dir);
        copy.start();
        copy.wait_until_recovered();
        assert_rows(&copy);
        assert_eq!(std::fs::read_link(dir.join("pg_wal")).expect("a link"), wal);
        let location = copy
            .psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'");
        assert_eq!(location, space.display().to_string());
        // And over it, where that is asked for, with its own WAL moved aside.
        copy.stop(Stop::Immediate);
        let refused = fresh.run(Path::new("/"), &flags);
        refused.expect_code(11);
        for part in ["is not empty", "hint: --delta uses a data directory of the same cluster"] {
            assert!(refused.stderr.contains(part), "no {part:?} in {}", refused.stderr);
        }
        assert!(dir.join("global/pg_control").exists(), "a refusal leaves all as it was");
        let mut delta = flags.to_vec();
        delta.push("--delta");
        fresh.run(Path::new("/"), &delta).expect_code(0);
        copy.start();
        copy.wait_until_recovered();
        assert_rows(&copy);
        drop(primary);
    }
}

#[test]
fn everything_goes_back_to_where_it_was() {
    for major in majors() {
        let site = Site::new();
        let primary = with_tablespace(&site, major);
        primary.stop(Stop::Fast);
        let space = site.scratch().path().join("space");
        std::fs::remove_dir_all(&space).expect("the old tablespace is gone");
        let fresh = fresh_copy(&site, &["--locations", "original"]);
        let dir = fresh.scratch().path().join("copy");
        let text = dir.to_string_lossy().into_owned();
        let flags = ["restore", &text, "--as", "copy", "--locations", "original"];
        fresh.run(Path::new("/"), &flags).expect_code(0);
        let copy = CheckedCluster::adopt(major, &dir);
        copy.start();
        copy.wait_until_recovered();
        assert_rows(&copy);
        assert!(space.is_dir());
        drop(copy);
    }
}

#[test]
fn files_alone_serve_a_tool_with_its_own_recovery() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        primary.psql("CREATE TABLE here AS SELECT generate_series(1, 100) n");
        let pgdata = primary.data_dir().to_string_lossy().into_owned();
        site.run(primary.data_dir(), &["--pgdata", &pgdata, "backup", "--fast-checkpoint"])
            .expect_code(0);
        let fresh = fresh_copy(&site, &["--to-immediate"]);
        let dir = fresh.scratch().path().join("copy");
        let text = dir.to_string_lossy().into_owned();
        fresh.run(Path::new("/"), &["restore", &text, "--files-only"]).expect_code(0);
        for name in ["recovery.signal", "standby.signal"] {
            assert!(!dir.join(name).exists(), "{name}");
        }
        let copy = CheckedCluster::adopt(major, &dir);
        copy.append_to("recovery.signal", "");
        let command = fresh.restore_command();
        copy.append_to(
            "postgresql.auto.conf",
            &format!("restore_command = '{command}'\narchive_mode = off\n"),
        );
        copy.start();
        copy.wait_until_recovered();
        assert_eq!(copy.psql("SELECT count(*) FROM here"), "100");
    }
}
