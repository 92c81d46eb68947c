//! A repository that was put back to an earlier state, and a host that has seen a later one.

use std::path::Path;
use std::process::Command;

use pgrecall_testkit::postgres::Cluster;

use crate::ground::{back_up, json, number, objects};
use crate::site::{Run, Site, newest_major};

/// What must not go on silently.
const CHANGING: [&[&str]; 4] =
    [&["backup", "--fast-checkpoint"], &["expire", "--keep-last", "1"], &["gc"], &["repair"]];

fn run(site: &Site, cluster: &Cluster, words: &[&str]) -> Run {
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    site.run(Path::new("/"), &[words, &["--pgdata", &pgdata]].concat())
}

fn assert_refused(site: &Site, cluster: &Cluster, words: &str) {
    let before = objects(site, "domains");
    for command in CHANGING {
        let refused = run(site, cluster, command);
        refused.expect_code(13);
        for part in ["has less than it had", words, "hint: It was put back", ".json, and take"] {
            assert!(refused.stderr.contains(part), "{command:?}: {}", refused.stderr);
        }
    }
    assert_eq!(objects(site, "domains"), before, "nothing was written or deleted");
    assert!(json(site, cluster, &["list"])["clusters"].is_array(), "looking is free");
}

/// A copy of what is stored now.
fn copied(site: &Site, name: &str) -> std::path::PathBuf {
    let copy = site.scratch().path().join(name);
    let copied = Command::new("cp").arg("-a").arg(site.repository()).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    copy
}

/// Puts a copy in the repository's place.
fn put_back(site: &Site, copy: &Path) {
    std::fs::remove_dir_all(site.repository()).expect("it goes");
    std::fs::rename(copy, site.repository()).expect("it comes");
}

#[test]
fn who_has_seen_more_does_not_go_on_silently() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    back_up(&site, &cluster);
    let older = copied(&site, "older");
    run(&site, &cluster, &["key", "rotate", "--yes"]).expect_code(0);
    let rotated = copied(&site, "rotated");
    let newest = back_up(&site, &cluster);
    let id = newest["backup"].as_str().expect("an id");
    let now = copied(&site, "now");
    // The backup is gone, then the keys that it was sealed by, too.
    put_back(&site, &rotated);
    assert_refused(&site, &cluster, "it is neither there nor expired");
    put_back(&site, &older);
    assert_refused(&site, &cluster, "keys were of epoch 1 then, and of epoch 0 now");
    // All is as it was.
    put_back(&site, &now);
    let newest = back_up(&site, &cluster);
    assert_ne!(newest["backup"].as_str(), Some(id));
    assert!(number(&newest, "bytes") > 0);
    // WAL alone is gone.
    let needed = objects(&site, "wal");
    let last = needed.iter().filter(|path| path.file_name().is_some_and(|name| name.len() == 24));
    let last = last.max().expect("a segment").clone();
    let bytes = std::fs::read(&last).expect("the segment");
    std::fs::remove_file(&last).expect("it goes");
    assert_refused(&site, &cluster, "in which it ended, is not there");
    std::fs::write(&last, bytes).expect("it comes back");
    crate::site::own_all(site.repository());
    // What another host has expired is not missed.
    let elsewhere = site.scratch().path().join("elsewhere");
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    for words in [&["backup", "--fast-checkpoint"][..], &["expire", "--keep-last", "1"]] {
        let mut command = site.pgrecall(Path::new("/"), &[words, &["--pgdata", &pgdata]].concat());
        command.env("PGRECALL_REPOSITORY_CACHE_DIR", &elsewhere);
        Run::of(command).expect_code(0);
    }
    for command in CHANGING {
        run(&site, &cluster, command).expect_code(0);
    }
}
