//! Files outside of the data directory: tablespaces, a linked `pg_wal`, configuration.

use std::os::unix::fs::symlink;
use std::path::Path;

use pgrecall_testkit::cluster_check::assert_sound;
use pgrecall_testkit::postgres::{Cluster, ServerUser, Stop};

use crate::ground::{back_up, restored, try_backup};
use crate::site::{Site, newest_major, own_all};

#[test]
fn tablespaces_come_back_where_they_are_mapped_and_in_place() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
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
    let copy = restored(&site, newest_major(), "copy", &flags);
    assert_eq!(copy.psql("SELECT count(*) FROM a"), "20000");
    assert_eq!(copy.psql("SELECT count(*) FROM w"), "30000");
    assert_sound(&copy);
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

#[test]
fn a_linked_pg_wal_asks_where_to_go() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) n");
    cluster.stop(Stop::Fast);
    let (inside, outside) = (cluster.data_dir().join("pg_wal"), site.scratch().path().join("wal"));
    std::fs::rename(&inside, &outside).expect("moved");
    symlink(&outside, &inside).expect("linked");
    cluster.start();
    back_up(&site, &cluster);
    let target = site.scratch().path().join("refused");
    let words = ["restore", target.to_str().expect("UTF-8"), "--as", "copy"];
    let refused = site.run(Path::new("/"), &words);
    assert!(refused.stderr.contains("--waldir"), "{}", refused.stderr);
    let waldir = site.scratch().path().join("new-wal").to_string_lossy().into_owned();
    let copy = restored(&site, newest_major(), "copy", &["--to-latest", "--waldir", &waldir]);
    assert_eq!(copy.psql("SELECT count(*) FROM t"), "1000");
    let link = std::fs::read_link(copy.data_dir().join("pg_wal")).expect("a link");
    assert_eq!(link, Path::new(&waldir));
}

/// Debian's way: the configuration in a folder of its own, with `include_dir`, and a file of the
/// same name left in the data directory.
#[test]
fn configuration_outside_is_kept_with_what_it_includes() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    let etc = site.scratch().dir("etc");
    std::fs::create_dir(etc.join("conf.d")).expect("a folder");
    let inside = cluster.data_dir().join("postgresql.conf");
    let mut text = std::fs::read_to_string(&inside).expect("a configuration");
    text.push_str(&format!(
        "\ndata_directory = '{}'\nhba_file = '{}'\ninclude_dir = 'conf.d'\n",
        cluster.data_dir().display(),
        cluster.data_dir().join("pg_hba.conf").display()
    ));
    std::fs::write(etc.join("postgresql.conf"), text).expect("written");
    std::fs::write(etc.join("conf.d/10.conf"), "work_mem = '7MB'\n").expect("written");
    own_all(&etc);
    ServerUser::current().own(&etc.join("conf.d"));
    cluster.override_setting("config_file", &etc.join("postgresql.conf").to_string_lossy());
    cluster.restart();
    assert_eq!(cluster.psql("SHOW work_mem"), "7MB");
    let ended = try_backup(&site, &cluster, &["--fast-checkpoint"]);
    ended.expect_code(0);
    assert!(ended.stderr.contains("not the one in force"), "{}", ended.stderr);
    let dir = site.scratch().path().join("copy");
    let words = ["restore", dir.to_str().expect("UTF-8"), "--as", "copy"];
    site.run(Path::new("/"), &words).expect_code(0);
    let kept = std::fs::read_to_string(dir.join("conf.d/10.conf")).expect("the included file");
    assert_eq!(kept, "work_mem = '7MB'\n");
    let main = std::fs::read_to_string(dir.join("postgresql.conf")).expect("the file in force");
    assert!(main.contains("include_dir"));
    assert!(dir.join("postgresql.conf.not-in-force").exists());
    let _ = Cluster::adopt(newest_major(), &dir);
}
