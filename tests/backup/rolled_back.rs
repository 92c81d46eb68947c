//! A repository that was put back to an earlier state, and a host that has seen a later one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use pgrecall_testkit::postgres::Cluster;
use serde_json::Value;

use crate::ground::{back_up, back_up_aloud, json, objects};
use crate::site::{Run, Site, newest_major, own_all, switch};

/// What deletes, or begins keys, by what is there.
const REFUSED: [&[&str]; 4] = [
    &["expire", "--keep-last", "1"],
    &["expire", "--keep-last", "1", "--dry-run"],
    &["gc"],
    &["key", "rotate", "--yes"],
];

/// What goes on, and says so.
const WARNED: [&[&str]; 2] = [&["plan"], &["repair", "--dry-run"]];

fn run(site: &Site, cluster: &Cluster, words: &[&str]) -> Run {
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    site.run(Path::new("/"), &[words, &["--pgdata", &pgdata]].concat())
}

/// What `list` tells to be missing.
fn missing(site: &Site, cluster: &Cluster) -> Vec<String> {
    let told = &json(site, cluster, &["list"])["clusters"][0]["missing"];
    let told = told.as_array().expect("an array").iter();
    told.map(|sentence| sentence.as_str().expect("text").to_owned()).collect()
}

/// Every command says each of these.
fn assert_noticed(site: &Site, cluster: &Cluster, words: &[&str]) {
    let listed = missing(site, cluster).join("; ");
    for part in words {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let before = objects(site, "domains");
    for command in REFUSED {
        let refused = run(site, cluster, command);
        refused.expect_code(13);
        for part in
            words.iter().chain(&["has less than it had", "hint: The repository was put back"])
        {
            assert!(refused.stderr.contains(part), "{command:?}: {}", refused.stderr);
        }
    }
    for command in WARNED {
        let run = run(site, cluster, command);
        for part in words {
            assert!(run.stderr.contains(part), "{command:?}: {}", run.stderr);
        }
    }
    assert_eq!(objects(site, "domains"), before, "nothing was written or deleted");
    assert_told(site, cluster, (&["verify"], 18), words);
}

/// A command ends with that code, and prints this.
fn assert_told(site: &Site, cluster: &Cluster, (command, code): (&[&str], i32), words: &[&str]) {
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    let mut command = site.pgrecall(Path::new("/"), &[command, &["--pgdata", &pgdata]].concat());
    let output = command.output().expect("pgrecall runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{printed}");
    for part in words {
        assert!(printed.contains(part), "{printed}");
    }
}

fn assert_all_is_well(site: &Site, cluster: &Cluster) {
    assert_eq!(missing(site, cluster), Vec::<String>::new());
    run(site, cluster, &["gc"]).expect_code(0);
}

/// A copy of what is stored now.
pub(crate) fn copied(site: &Site, name: &str) -> PathBuf {
    let copy = site.scratch().path().join(name);
    let copied = Command::new("cp").arg("-a").arg(site.repository()).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    copy
}

/// Puts a copy in the repository's place.
pub(crate) fn put_back(site: &Site, copy: &Path) {
    std::fs::remove_dir_all(site.repository()).expect("it goes");
    let copied = Command::new("cp").arg("-a").arg(copy).arg(site.repository()).status();
    assert!(copied.expect("cp runs").success());
    own_all(site.repository());
}

/// What was kept on the host of segments was kept two hours ago.
fn make_old(below: &Path) {
    let then = SystemTime::now() - Duration::from_secs(7200);
    for entry in std::fs::read_dir(below).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            make_old(&path);
        } else if path.file_name().is_some_and(|name| name == "wal.json") {
            let file = std::fs::File::options().write(true).open(&path).expect("it opens");
            file.set_modified(then).expect("its time is set");
        }
    }
}

fn id(told: &Value) -> String {
    told["backup"].as_str().expect("an id").to_owned()
}

#[test]
fn who_has_seen_more_does_not_go_on_silently() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    let first = id(&back_up(&site, &cluster));
    let older = copied(&site, "older");
    run(&site, &cluster, &["key", "rotate", "--yes"]).expect_code(0);
    let rotated = copied(&site, "rotated");
    let newest = id(&back_up(&site, &cluster));
    let now = copied(&site, "now");
    assert_all_is_well(&site, &cluster);
    let backup = format!("backup {newest}, which this host has taken");
    // The backup is gone, then the keys that it was sealed by, too.
    put_back(&site, &rotated);
    assert_noticed(&site, &cluster, &[&backup]);
    put_back(&site, &older);
    let keys = "are of epoch 0, and this host has seen those of epoch 1";
    assert_noticed(&site, &cluster, &[keys, &backup]);
    // All is as it was.
    put_back(&site, &now);
    assert_all_is_well(&site, &cluster);
    run(&site, &cluster, &["verify", "--expect-at-least", &newest]).expect_code(0);
    // A backup makes what is there the new state, and says what was missing.
    put_back(&site, &older);
    assert_told(&site, &cluster, (&["check"], 13), &[&backup]);
    let (told, said) = back_up_aloud(&site, &cluster);
    assert!(said.contains(&backup), "{said}");
    let told_missing = told["missing"].as_array().expect("an array");
    assert!(told_missing.iter().any(|one| one.as_str().is_some_and(|s| s.contains(&backup))));
    assert_all_is_well(&site, &cluster);
    let expecting = &["verify", "--expect-at-least", &newest];
    assert_told(&site, &cluster, (expecting, 18), &[&newest]);
    // What has expired is not missed, whoever has expired it.
    let elsewhere = site.scratch().path().join("elsewhere");
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    for words in [&["backup", "--fast-checkpoint"][..], &["expire", "--keep-last", "1"]] {
        let mut command = site.pgrecall(Path::new("/"), &[words, &["--pgdata", &pgdata]].concat());
        command.env("PGRECALL_REPOSITORY_CACHE_DIR", &elsewhere);
        Run::of(command).expect_code(0);
    }
    assert_all_is_well(&site, &cluster);
    run(&site, &cluster, &["verify", "--expect-at-least", &first]).expect_code(0);
}

#[test]
fn archived_wal_that_is_gone_is_missed() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    back_up(&site, &cluster);
    cluster.psql("CREATE TABLE s AS SELECT 1 AS n");
    site.wait_archived(&cluster, &switch(&cluster));
    assert_all_is_well(&site, &cluster);
    let older = copied(&site, "older");
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) n");
    make_old(&site.scratch().path().join("cache"));
    let segment = switch(&cluster);
    site.wait_archived(&cluster, &segment);
    cluster.psql("CHECKPOINT");
    put_back(&site, &older);
    let missed = missing(&site, &cluster);
    let sentence = format!("WAL segment {segment}, which this host has archived, is not there");
    assert_eq!(missed, std::slice::from_ref(&sentence));
    // Another segment does not take its place, even when it is time.
    make_old(&site.scratch().path().join("cache"));
    site.wait_archived(&cluster, &switch(&cluster));
    site.wait_archived(&cluster, &switch(&cluster));
    assert_eq!(missing(&site, &cluster), [sentence]);
    let told = "which this host has archived, is not there any more";
    cluster.wait_until("it is told", || cluster.log().contains(told));
    run(&site, &cluster, &["gc"]).expect_code(13);
}

/// What is held stands in the log alone: its newest entry may go by itself.
#[test]
fn a_hold_that_is_gone_is_missed() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    let held = id(&back_up(&site, &cluster));
    run(&site, &cluster, &["hold", "add", &held, "--reason", "a test"]).expect_code(0);
    assert_all_is_well(&site, &cluster);
    let entries = objects(&site, "expired");
    std::fs::remove_file(entries.iter().max().expect("an entry")).expect("it goes");
    let told = "the log of expired backups and of holds had an entry 0";
    assert_noticed(&site, &cluster, &[told]);
    let listed = run(&site, &cluster, &["hold", "list"]);
    listed.expect_code(0);
    assert!(listed.stderr.contains(told), "{}", listed.stderr);
    run(&site, &cluster, &["hold", "remove", &held]).expect_code(13);
}
