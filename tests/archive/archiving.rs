//! Archiving: under load, at a promotion, twice, twice at once, and with other content.

use std::path::Path;
use std::time::Duration;

use pgrecall_testkit::postgres::{Cluster, Stop, majors};
use pgrecall_testkit::workload::{Workload, WorkloadOptions};

use crate::site::{Run, Site, newest_major, switch, wait_for};

/// Every whole segment in `pg_wal` up to this one comes back as it is there.
fn compare_with_server(site: &Site, cluster: &Cluster, upto: &str) -> usize {
    let mut compared = 0;
    for entry in std::fs::read_dir(cluster.data_dir().join("pg_wal")).expect("pg_wal") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.len() == 24 && name.as_str() <= upto {
            expect_same(site, cluster, &name, &path);
            compared += 1;
        }
    }
    compared
}

fn expect_same(site: &Site, cluster: &Cluster, name: &str, path: &Path) {
    let folder = site.scratch().path().join("fetched");
    if !folder.exists() {
        site.scratch().dir("fetched");
    }
    let destination = folder.join(name);
    let words = ["wal", "fetch", name, destination.to_str().expect("UTF-8")];
    site.run(cluster.data_dir(), &words).expect_code(0);
    let (stored, there) = (std::fs::read(&destination), std::fs::read(path));
    assert!(stored.expect("fetched") == there.expect("in pg_wal"), "{name} differs");
    std::fs::remove_file(&destination).expect("fetched");
    let left: Vec<_> = std::fs::read_dir(&folder).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn every_segment_written_under_load_comes_back_as_it_was() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        let workload = Workload::start(&primary, &WorkloadOptions::new(3));
        for _ in 0..4 {
            workload.wait_commits(150);
            switch(&primary);
        }
        workload.finish(&primary);
        let last = switch(&primary);
        site.wait_archived(&primary, &last);
        let failed = primary.psql("SELECT failed_count FROM pg_stat_archiver");
        assert_eq!(failed, "0", "{}", primary.log());
        assert!(compare_with_server(&site, &primary, &last) >= 5);
    }
}

#[test]
fn a_promotion_archives_the_partial_segment_and_the_history() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        let standby = Cluster::standby_of(&primary);
        switch(&primary);
        primary.psql("CREATE TABLE half (n int); INSERT INTO half VALUES (1)");
        standby.wait_caught_up(&primary);
        let left = primary.psql("SELECT pg_walfile_name(pg_current_wal_lsn())");
        primary.stop(Stop::Immediate);
        standby.promote();
        let first = switch(&standby);
        for file in ["00000002.history".to_owned(), format!("{left}.partial"), first.clone()] {
            site.wait_archived(&standby, &file);
            let in_pg_wal = standby.data_dir().join("pg_wal").join(&file);
            if in_pg_wal.exists() {
                expect_same(&site, &standby, &file, &in_pg_wal);
            }
        }
        // The partial segment is never served in place of the whole one.
        let run = site.run(standby.data_dir(), &["wal", "fetch", &left, "pg_wal/RECOVERYXLOG"]);
        run.expect_code(1);
        assert!(!standby.data_dir().join("pg_wal/RECOVERYXLOG").exists());
        assert_eq!(standby.psql("SELECT failed_count FROM pg_stat_archiver"), "0");
    }
}

#[test]
fn a_segment_pushed_again_or_twice_at_once_is_fine() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    let name = switch(&primary);
    site.wait_archived(&primary, &name);
    let path = format!("pg_wal/{name}");
    let run = site.run(primary.data_dir(), &["wal", "push", &path]);
    assert!(run.expect_code(0).stderr.contains("archived before"), "{}", run.stderr);
    for _ in 0..3 {
        std::fs::remove_file(site.object(&name).expect("stored")).expect("removed");
        let start = || {
            let mut command = site.pgrecall(primary.data_dir(), &["wal", "push", &path]);
            command.spawn().expect("the program starts")
        };
        let mut racing = [start(), start(), start()];
        for child in &mut racing {
            assert!(child.wait().expect("it ends").success());
        }
        expect_same(&site, &primary, &name, &primary.data_dir().join(&path));
    }
}

#[test]
fn other_content_under_the_same_name_is_refused_and_can_be_settled() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    let name = switch(&primary);
    site.wait_archived(&primary, &name);
    // A segment that differs in its last record: the tail after the switch is not looked at.
    let mut other = std::fs::read(primary.data_dir().join("pg_wal").join(&name)).expect("read");
    let at = other.len() - 100;
    other[at] ^= 1;
    site.scratch().dir("other");
    let other_path = site.scratch().file(&format!("other/{name}"), &other);
    let other_text = other_path.to_str().expect("UTF-8");
    let push = |path: &str| site.run(primary.data_dir(), &["wal", "push", path]);
    let refused = push(other_text);
    assert_eq!(refused.expect_code(12).stderr.matches("timeline 1").count(), 2, "{refused:?}");
    assert!(refused.stderr.contains("OTHER CONTENT"), "{}", refused.stderr);
    assert!(refused.stderr.contains("wal resolve"), "{}", refused.stderr);
    // Who has pushed which.
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert!(refused.stderr.matches(&host).count() >= 1, "{}", refused.stderr);
    let digests: Vec<&str> = refused
        .stderr
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .collect();
    let [stored, ours] = digests.as_slice() else { panic!("{}", refused.stderr) };
    let resolve = |more: &[&str]| {
        let words: Vec<&str> =
            ["wal", "resolve", &name].into_iter().chain(more.iter().copied()).collect();
        site.run(primary.data_dir(), &words)
    };
    resolve(&["--file", other_text]).expect_code(0);
    resolve(&["--keep", "zz", "--reason", "x", "--yes", "--file", other_text]).expect_code(17);
    let keep = ["--keep", *ours, "--reason", "db2 was fenced", "--yes", "--file", other_text];
    resolve(&keep).expect_code(0);
    let destination = site.scratch().path().join("settled");
    let fetch = || {
        let target = destination.to_str().expect("UTF-8");
        site.run(primary.data_dir(), &["wal", "fetch", &name, target]).expect_code(0);
        std::fs::read(&destination).expect("fetched")
    };
    assert!(fetch() == other, "the chosen content is served");
    // Both servers may go on now, and what is served does not change.
    push(other_text).expect_code(0);
    push(&format!("pg_wal/{name}")).expect_code(0);
    assert!(fetch() == other);
    std::fs::remove_file(site.object(&name).expect("stored")).expect("removed");
    assert!(fetch() == other, "the settlement leads to it as well");
    let run = resolve(&["--keep", *stored, "--reason", "no, the other", "--yes"]);
    assert!(run.expect_code(12).stderr.contains("db2 was fenced"), "{}", run.stderr);
}

#[test]
fn a_cluster_made_anew_under_the_same_name_gets_a_lineage_of_its_own() {
    let site = Site::new();
    let (old, new) = (site.primary(newest_major()), site.primary(newest_major()));
    let (first, second) = (switch(&old), switch(&new));
    site.wait_archived(&old, &first);
    for cluster in [&old, &new] {
        cluster.wait_until("the archiver is done", || {
            cluster.psql("SELECT archived_count > 0 FROM pg_stat_archiver") == "t"
        });
        assert_eq!(cluster.psql("SELECT failed_count FROM pg_stat_archiver"), "0");
    }
    for (cluster, name) in [(&old, &first), (&new, &second)] {
        expect_same(&site, cluster, name, &cluster.data_dir().join("pg_wal").join(name));
    }
    // A segment of the one, pushed on behalf of the other, is refused.
    let path = old.data_dir().join("pg_wal").join(&first);
    let run =
        Run::of(site.pgrecall(new.data_dir(), &["wal", "push", path.to_str().expect("UTF-8")]));
    assert!(run.expect_code(17).stderr.contains("system identifier"), "{}", run.stderr);
}

#[test]
fn archiving_goes_on_when_the_repository_comes_back() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    let before = switch(&primary);
    site.wait_archived(&primary, &before);
    site.unmount();
    let meanwhile = switch(&primary);
    primary.wait_until("a failure is counted", || {
        primary.psql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t"
    });
    assert!(primary.log().contains("no repository at"), "{}", primary.log());
    let empty = std::fs::read_dir(site.repository()).expect("the mount point").count();
    assert_eq!(empty, 0, "nothing is written into an empty mount point");
    site.bring_back();
    wait_for("the segment is archived", || site.object(&meanwhile).is_some());
    std::thread::sleep(Duration::from_millis(10));
    expect_same(&site, &primary, &before, &primary.data_dir().join("pg_wal").join(&before));
}
