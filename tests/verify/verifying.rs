//! `list` and `verify` on backups of real servers, sound and damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgrecall_testkit::postgres::{Cluster, majors};
use serde_json::Value;

use crate::fresh::Restored;
use crate::site::{Site, newest_major, switch};

/// Runs a command that prints JSON.
fn run(site: &Site, cluster: &Cluster, words: &[&str]) -> (Option<i32>, Value) {
    let data = cluster.data_dir();
    let mut all = words.to_vec();
    all.extend(["--json", "--pgdata", data.to_str().expect("UTF-8")]);
    let output = site.pgrecall(data, &all).output().expect("pgrecall runs");
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{words:?}: {error}: {}", String::from_utf8_lossy(&output.stderr))
    });
    (output.status.code(), said)
}

pub(crate) fn expect(site: &Site, cluster: &Cluster, words: &[&str], code: i32) -> Value {
    let (found, said) = run(site, cluster, words);
    assert_eq!(found, Some(code), "{words:?}: {said:#}");
    said
}

pub(crate) fn backup(site: &Site, cluster: &Cluster) {
    expect(site, cluster, &["backup", "--fast-checkpoint"], 0);
}

fn filled(site: &Site, major: u32) -> Cluster {
    let primary = site.primary(major);
    primary.psql(
        "CREATE TABLE filled AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) AS n",
    );
    primary
}

/// The largest object below a folder of the repository.
pub(crate) fn largest(site: &Site, below: &str) -> PathBuf {
    let mut folders = vec![site.repository().join(below)];
    let mut found: Option<(u64, PathBuf)> = None;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let size = path.metadata().expect("metadata").len();
            if found.as_ref().is_none_or(|(largest, _)| size > *largest) {
                found = Some((size, path));
            }
        }
    }
    found.expect("an object").1
}

pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("an object");
    bytes[at] ^= 1;
    // Objects are read-only: a new file takes the name.
    std::fs::remove_file(path).expect("removing");
    std::fs::write(path, bytes).expect("writing");
}

#[test]
fn backups_are_listed_with_their_reach_and_verify_as_sound() {
    for major in majors() {
        let site = Site::new();
        let primary = filled(&site, major);
        backup(&site, &primary);
        primary.psql("UPDATE filled SET text = 'changed' WHERE n % 100 = 0");
        backup(&site, &primary);
        let last = switch(&primary);
        site.wait_archived(&primary, &last);

        let listed = expect(&site, &primary, &["list"], 0);
        let cluster = &listed["clusters"][0];
        let backups = cluster["backups"].as_array().expect("backups");
        assert_eq!(backups.len(), 2, "{listed:#}");
        assert_eq!(cluster["major"], major);
        for row in backups {
            assert_eq!(row["wal_complete"], true, "{row:#}");
            assert!(row["reach"][0]["until_time"].is_string(), "{row:#}");
        }
        let ranges = cluster["timelines"][0]["ranges"].as_array().expect("ranges");
        assert_eq!(ranges.len(), 1, "no gap: {cluster:#}");
        assert_eq!(ranges[0]["last"], last);

        for words in [&["verify"][..], &["verify", "--read-data"]] {
            let report = expect(&site, &primary, words, 0);
            assert_eq!(report["sound"], true);
            let cluster = &report["clusters"][0];
            assert_eq!(cluster["findings"].as_array().map(Vec::len), Some(0), "{report:#}");
            assert_eq!(cluster["backups"].as_array().map(Vec::len), Some(2));
            assert!(cluster["checked"]["wal_segments"].as_u64() > Some(1));
        }
    }
}

/// Every file is named with bytes that it has, and every relation by a number that the server knows.
fn assert_touched_is_there(primary: &Cluster, verdict: &Value) {
    let touched = verdict["touched"].as_array().expect("files");
    assert_eq!(Some(touched.len() as u64), verdict["bad_files"].as_u64());
    let own = primary.psql("SELECT oid FROM pg_database WHERE datname = current_database()");
    let own: u64 = own.parse().expect("an OID");
    for file in touched {
        let path = primary.data_dir().join(file["path"].as_str().expect("a path"));
        let len = path.metadata().expect("the file").len();
        let range = &file["ranges"][0];
        assert!(range["start"].as_u64() < range["end"].as_u64(), "{file:#}");
        assert!(range["end"].as_u64() <= Some(len) && file["lost_bytes"].as_u64() > Some(0));
        let relation = &file["relation"];
        if relation["database"].as_u64() != Some(own) {
            continue;
        }
        assert!(relation["blocks"][0]["last"].as_u64() < Some(len / 8192), "{file:#}");
        let filenode = &relation["filenode"];
        let found = primary.psql(&format!("SELECT pg_filenode_relation(0, {filenode})"));
        assert!(!found.is_empty(), "{file:#}");
    }
}

#[test]
fn a_rotten_pack_is_found_and_the_next_backup_heals_it() {
    let site = Site::new();
    let primary = filled(&site, newest_major());
    backup(&site, &primary);
    let pack = largest(&site, "domains/main/packs/data");
    let middle = usize::try_from(pack.metadata().expect("metadata").len() / 2).expect("a size");
    flip(&pack, middle);
    expect(&site, &primary, &["verify"], 0);
    let report = expect(&site, &primary, &["verify", "--read-data"], 13);
    let verdict = &report["clusters"][0]["backups"][0];
    assert_eq!(verdict["restorable"], false, "{report:#}");
    assert!(verdict["bad_files"].as_u64() > Some(0));
    assert_touched_is_there(&primary, verdict);
    // Nothing of the cluster has changed: what rotted is read from it again.
    backup(&site, &primary);
    expect(&site, &primary, &["verify", "--read-data"], 0);
}

#[test]
fn after_new_keys_for_names_old_backups_are_whole_and_the_next_stores_everything() {
    let site = Site::new();
    let primary = filled(&site, newest_major());
    let fast = ["backup", "--fast-checkpoint"];
    let first = expect(&site, &primary, &fast, 0);
    let second = expect(&site, &primary, &fast, 0);
    let new = |told: &Value| told["new_bytes"].as_u64().expect("a number");
    assert!(new(&second) * 5 < new(&first), "{second:#}");
    let rotated = expect(&site, &primary, &["key", "rotate", "--ids", "--yes"], 0);
    assert_eq!(rotated["epoch"], 1, "{rotated:#}");
    assert_eq!(rotated["domain"], "main");
    let sound = |backups: usize| {
        let listed = expect(&site, &primary, &["list"], 0);
        let cluster = &listed["clusters"][0];
        assert_eq!(cluster["backups"].as_array().map(Vec::len), Some(backups), "{listed:#}");
        assert_eq!(cluster["unreadable"], serde_json::json!([]), "{listed:#}");
        let report = expect(&site, &primary, &["verify", "--read-data"], 0);
        assert_eq!(report["sound"], true, "{report:#}");
    };
    sound(2);
    // The price that its help names.
    let third = expect(&site, &primary, &fast, 0);
    assert!(new(&third) * 10 > new(&first) * 9, "{third:#}");
    let fourth = expect(&site, &primary, &fast, 0);
    assert!(new(&fourth) * 5 < new(&first), "{fourth:#}");
    sound(4);
    let id = first["backup"].as_str().expect("an id");
    assert_comes_back(&site, &primary, id);
}

#[test]
fn a_new_epoch_rewrites_nothing_and_both_sides_of_it_restore() {
    let site = Site::new();
    let primary = filled(&site, newest_major());
    let fast = ["backup", "--fast-checkpoint"];
    let first = expect(&site, &primary, &fast, 0);
    let before = stored(site.repository());
    let rotated = expect(&site, &primary, &["key", "rotate", "--yes"], 0);
    assert_eq!(rotated["epoch"], 1, "{rotated:#}");
    let second = expect(&site, &primary, &fast, 0);
    let new = |told: &Value| told["new_bytes"].as_u64().expect("a number");
    assert!(new(&second) * 5 < new(&first), "ids stay: {second:#}");
    let after = stored(site.repository());
    for (object, bytes) in &before {
        assert_eq!(after.get(object), Some(bytes), "{} is not what it was", object.display());
    }
    expect(&site, &primary, &["verify", "--read-data"], 0);
    for told in [&first, &second] {
        let id = told["backup"].as_str().expect("an id");
        assert_comes_back(&site, &primary, id);
    }
}

/// Every object, but for intents: those of backups that have ended go.
fn stored(repository: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![repository.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("an object");
                found.insert(path, bytes);
            }
        }
    }
    found
}

/// From a fresh place, where nothing but this backup is.
#[track_caller]
fn assert_comes_back(site: &Site, primary: &Cluster, backup: &str) {
    let flags = ["--backup", backup, "--to-immediate", "--action", "promote"];
    let copy = Restored::started(site, primary.major(), "copy", &flags);
    copy.wait_until_recovered();
    let rows = "SELECT count(*), md5(string_agg(text, ',' ORDER BY n)) FROM filled";
    assert_eq!(copy.psql(rows), primary.psql(rows));
}

#[test]
fn a_missing_segment_is_found_with_what_it_costs() {
    let site = Site::new();
    let primary = filled(&site, newest_major());
    backup(&site, &primary);
    let segments: Vec<String> = (0..3).map(|_| switch(&primary)).collect();
    site.wait_archived(&primary, &segments[2]);
    std::fs::remove_file(site.object(&segments[1]).expect("an object")).expect("removing");
    let report = expect(&site, &primary, &["verify"], 18);
    assert_eq!(report["sound"], false);
    let cluster = &report["clusters"][0];
    let said = cluster["findings"].to_string();
    assert!(said.contains("the segment is missing") && said.contains(&segments[1]), "{report:#}");
    let reach = &cluster["backups"][0]["reach"][0];
    assert_eq!(reach["next_segment"], segments[1], "{report:#}");
    let listed = expect(&site, &primary, &["list"], 0);
    let timeline = &listed["clusters"][0]["timelines"][0];
    assert_eq!(timeline["ranges"].as_array().map(Vec::len), Some(2), "{listed:#}");
}
