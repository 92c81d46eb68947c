//! Files outside of the data directory: tablespaces, a linked `pg_wal`, configuration.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pgrecall_testkit::postgres::{Cluster, ServerUser, Stop, majors};

use crate::fresh::Restored;
use crate::ground::{back_up, restored, try_backup};
use crate::site::{Site, newest_major, own_all, switch};

#[test]
fn tablespaces_come_back_where_they_are_mapped_and_in_place() {
    for major in majors() {
        let site = Site::new();
        let cluster = site.primary(major);
        let place = site.scratch().dir("place");
        cluster.psql(&format!("CREATE TABLESPACE apart LOCATION '{}'", place.display()));
        cluster.psql("CREATE TABLE a TABLESPACE apart AS SELECT generate_series(1, 20000) n");
        // PostgreSQL wants it on in recovery too.
        cluster.psql("ALTER SYSTEM SET allow_in_place_tablespaces = on");
        cluster.reload();
        cluster.wait_until("the setting is on", || {
            cluster.psql("SHOW allow_in_place_tablespaces") == "on"
        });
        cluster.psql("CREATE TABLESPACE within LOCATION ''");
        cluster.psql("CREATE TABLE w TABLESPACE within AS SELECT generate_series(1, 30000) n");
        back_up(&site, &cluster);
        let map = format!("{}={}", place.display(), site.scratch().path().join("moved").display());
        let flags = ["--to-latest", "--tablespace-map", &map];
        let copy = restored(&site, major, "copy", &flags);
        assert_eq!(copy.psql("SELECT count(*) FROM a"), "20000");
        assert_eq!(copy.psql("SELECT count(*) FROM w"), "30000");
    }
}

#[test]
fn a_tablespace_that_is_not_to_be_seen_here_is_not_left_out() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    let place = site.scratch().dir("place");
    cluster.psql(&format!("CREATE TABLESPACE apart LOCATION '{}'", place.display()));
    cluster.psql("CREATE TABLE a TABLESPACE apart AS SELECT generate_series(1, 2000) n");
    cluster.psql("CHECKPOINT");
    let away = site.scratch().path().join("away");
    std::fs::rename(&place, &away).expect("moved");
    let ended = try_backup(&site, &cluster, &["--fast-checkpoint"]);
    std::fs::rename(&away, &place).expect("moved back");
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("tablespace apart is not to be seen"), "{}", ended.stderr);
}

/// Moves `pg_wal` there, with a link in its place.
fn link_wal(cluster: &Cluster, outside: &Path) {
    cluster.stop(Stop::Fast);
    let inside = cluster.data_dir().join("pg_wal");
    std::fs::rename(&inside, outside).expect("moved");
    symlink(outside, &inside).expect("linked");
    cluster.start();
}

#[test]
fn a_linked_pg_wal_asks_where_to_go() {
    for major in majors() {
        let site = Site::new();
        let cluster = site.primary(major);
        cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) n");
        link_wal(&cluster, &site.scratch().path().join("wal"));
        back_up(&site, &cluster);
        let target = site.scratch().path().join("refused");
        let words = ["restore", target.to_str().expect("UTF-8"), "--as", "copy"];
        let refused = site.run(Path::new("/"), &words);
        refused.expect_code(17);
        assert!(refused.stderr.contains("--waldir"), "{}", refused.stderr);
        assert!(!target.exists());
        let waldir = site.scratch().path().join("new-wal").to_string_lossy().into_owned();
        let copy = restored(&site, major, "copy", &["--to-latest", "--waldir", &waldir]);
        assert_eq!(copy.psql("SELECT count(*) FROM t"), "1000");
        let link = std::fs::read_link(copy.data_dir().join("pg_wal")).expect("a link");
        assert_eq!(link, Path::new(&waldir));
        // What it writes now goes there.
        let current = copy.psql("SELECT pg_walfile_name(pg_current_wal_lsn())");
        assert!(Path::new(&waldir).join(current).is_file());
    }
}

/// Debian's way: the configuration in a folder of its own, with `include_dir`, and files of the same
/// names left in the data directory.
struct Outside {
    site: Site,
    cluster: Cluster,
    etc: PathBuf,
}

/// A line of `pg_hba.conf` that matches nobody, to know the file by.
const HBA_LINE: &str = "local nowhere nobody reject\n";
const HBA_LINES: &str = "SELECT count(*) FROM pg_hba_file_rules WHERE database = '{nowhere}'";

impl Outside {
    fn new(major: u32) -> Self {
        let site = Site::new();
        let cluster = site.primary(major);
        let etc = site.scratch().dir("etc");
        std::fs::create_dir(etc.join("conf.d")).expect("a folder");
        let read = |name| std::fs::read_to_string(cluster.data_dir().join(name)).expect("a file");
        let mut text = read("postgresql.conf");
        let at = |name| etc.join(name).display().to_string();
        text.push_str(&format!(
            "\ndata_directory = '{}'\nhba_file = '{}'\nident_file = '{}'\ninclude_dir = 'conf.d'\n",
            cluster.data_dir().display(),
            at("pg_hba.conf"),
            at("pg_ident.conf"),
        ));
        let hba = format!("{}{HBA_LINE}", read("pg_hba.conf"));
        for (name, content) in [
            ("postgresql.conf", text.as_str()),
            ("conf.d/10.conf", "work_mem = '7MB'\n"),
            ("pg_hba.conf", &hba),
            ("pg_ident.conf", &read("pg_ident.conf")),
        ] {
            std::fs::write(etc.join(name), content).expect("written");
        }
        own_all(&etc);
        ServerUser::current().own(&etc.join("conf.d"));
        cluster.override_setting("config_file", &at("postgresql.conf"));
        cluster.restart();
        cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) n");
        let outside = Self { site, cluster, etc };
        outside.assert_served(&outside.cluster, &outside.etc);
        outside
    }

    /// The server has its rows, and its configuration from there.
    fn assert_served(&self, cluster: &Cluster, folder: &Path) {
        assert_eq!(cluster.psql("SHOW work_mem"), "7MB");
        assert_eq!(cluster.psql(HBA_LINES), "1");
        for (setting, name) in [
            ("hba_file", "pg_hba.conf"),
            ("ident_file", "pg_ident.conf"),
            ("config_file", "postgresql.conf"),
        ] {
            let path = cluster.psql(&format!("SHOW {setting}"));
            assert_eq!(Path::new(&path), folder.join(name), "{setting}");
        }
        let data_dir = cluster.psql("SHOW data_directory");
        assert_eq!(Path::new(&data_dir), cluster.data_dir());
        assert_eq!(cluster.psql("SELECT count(*) FROM t"), "1000");
    }
}

#[test]
fn configuration_outside_is_kept_with_what_it_includes() {
    for major in majors() {
        let outside = Outside::new(major);
        let (site, cluster) = (&outside.site, &outside.cluster);
        let ended = try_backup(site, cluster, &["--fast-checkpoint"]);
        ended.expect_code(0);
        assert!(ended.stderr.contains("not the one in force"), "{}", ended.stderr);
        let copy = restored(site, major, "copy", &["--to-latest"]);
        let dir = copy.data_dir();
        outside.assert_served(&copy, dir);
        let kept = std::fs::read_to_string(dir.join("conf.d/10.conf")).expect("the included file");
        assert_eq!(kept, "work_mem = '7MB'\n");
        let main = std::fs::read_to_string(dir.join("postgresql.conf")).expect("the file in force");
        assert!(main.contains("include_dir"));
        assert!(dir.join("postgresql.conf.not-in-force").exists());
    }
}

#[test]
fn everything_outside_goes_back_to_where_it_was() {
    for major in majors() {
        let outside = Outside::new(major);
        let (site, cluster) = (&outside.site, &outside.cluster);
        let wal = site.scratch().path().join("wal");
        link_wal(cluster, &wal);
        back_up(site, cluster);
        cluster.psql("DELETE FROM t WHERE n > 900; INSERT INTO t SELECT generate_series(1, 100)");
        site.wait_archived(cluster, &switch(cluster));
        cluster.stop(Stop::Fast);
        for lost in [cluster.data_dir(), &wal, &outside.etc] {
            std::fs::remove_dir_all(lost).expect("lost");
        }
        let flags = ["--to-latest", "--locations", "original"];
        let copy = Restored::written_to(site, major, cluster.data_dir(), &flags);
        copy.override_setting(
            "config_file",
            &outside.etc.join("postgresql.conf").to_string_lossy(),
        );
        copy.start();
        copy.wait_until_recovered();
        outside.assert_served(&copy, &outside.etc);
        assert_eq!(copy.psql("SELECT max(n), sum(n) FROM t"), "900|410500");
        assert_eq!(std::fs::read_link(copy.data_dir().join("pg_wal")).expect("a link"), wal);
        assert!(!copy.data_dir().join("conf.d").exists());
    }
}
