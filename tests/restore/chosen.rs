//! `--backup ID`: the older of two backups, by the beginning of its id.

use std::path::Path;

use pgrecall_testkit::postgres::Cluster;
use serde_json::Value;

use crate::fresh::{Restored, plan};
use crate::ground::back_up;
use crate::site::{Site, newest_major, switch};

/// Two backups, a row after each; their ids, the older one first.
fn two(site: &Site) -> (Cluster, [String; 2]) {
    let primary = site.primary(newest_major());
    primary.psql("CREATE TABLE kept (n int)");
    let ids = [1, 2].map(|row| {
        let told = back_up(site, &primary);
        primary.psql(&format!("INSERT INTO kept VALUES ({row})"));
        told["backup"].as_str().expect("an id").to_owned()
    });
    site.wait_archived(&primary, &switch(&primary));
    (primary, ids)
}

/// As much of the first id as the second one does not begin with.
fn prefix_of<'a>(id: &'a str, other: &str) -> &'a str {
    let same = id.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    &id[..=same]
}

/// What a command that prints JSON says; it must succeed.
fn json(site: &Site, words: &[&str]) -> Value {
    let output = site.pgrecall(Path::new("/"), words).output().expect("pgrecall runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_older_backup_is_planned_restored_and_verified_by_the_beginning_of_its_id() {
    let site = Site::new();
    let (_primary, [older, newer]) = two(&site);
    let prefix = prefix_of(&older, &newer);
    assert_eq!(plan(&site, &[])["backup"]["id"], newer.as_str());
    let planned = plan(&site, &["--backup", prefix]);
    assert_eq!(planned["backup"]["id"], older.as_str());
    let first_segment = &planned["segments"][0]["first"];
    assert_ne!(*first_segment, plan(&site, &[])["segments"][0]["first"]);

    let verified = json(&site, &["verify", "--backup", prefix, "--read-data", "--json"]);
    assert_eq!(verified["sound"], true, "{verified:#}");
    let rows = verified["clusters"][0]["backups"].as_array().expect("backups");
    let ids: Vec<&Value> = rows.iter().map(|row| &row["backup"]).collect();
    assert_eq!(ids, [older.as_str()]);

    // From where both are, it is the older one that is written.
    let dir = site.scratch().path().join("files");
    let text = dir.to_string_lossy().into_owned();
    let words = ["restore", &text, "--files-only", "--backup", prefix, "--json"];
    assert_eq!(json(&site, &words)["plan"]["backup"]["id"], older.as_str());
    let label = std::fs::read_to_string(dir.join("backup_label")).expect("a label");
    assert!(label.contains(first_segment.as_str().expect("a segment")), "{label}");

    // And from where only that one is, it goes as far as the WAL does.
    let copy = Restored::started(&site, newest_major(), "copy", &["--backup", prefix]);
    copy.wait_until_recovered();
    assert_eq!(copy.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM kept"), "1,2");
}

#[test]
fn an_id_that_fits_none_or_both_is_refused() {
    let site = Site::new();
    let (_primary, [older, newer]) = two(&site);
    let dir = site.scratch().path().join("refused");
    let text = dir.to_string_lossy().into_owned();
    let commands = [vec!["plan"], vec!["restore", &text, "--as", "copy"], vec!["verify"]];
    for command in commands {
        // No id has a 1: they are in base 32.
        let words = [command.as_slice(), &["--backup", "11"]].concat();
        let refused = site.run(Path::new("/"), &words);
        refused.expect_code(10);
        assert!(refused.stderr.contains("11"), "{}", refused.stderr);
        assert!(refused.stderr.contains("pgrecall list"), "{}", refused.stderr);
        let words = [command.as_slice(), &["--backup", ""]].concat();
        let refused = site.run(Path::new("/"), &words);
        assert_eq!(refused.code, Some(17), "{words:?}: {}", refused.stderr);
        for id in [&older, &newer] {
            assert!(refused.stderr.contains(id.as_str()), "{words:?}: {}", refused.stderr);
        }
    }
    assert!(!dir.exists());
}
