//! A domain whose keys are deleted: what it held is there and opens for nobody.

use std::path::Path;

use pgrecall_testkit::postgres::Cluster;

use crate::ground::{back_up, json, output};
use crate::site::{Run, Site, newest_major, switch};

fn run(site: &Site, cluster: &Cluster, words: &[&str]) -> Run {
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    site.run(Path::new("/"), &[words, &["--pgdata", &pgdata]].concat())
}

/// Every object that lies in the repository.
fn objects(site: &Site) -> Vec<String> {
    let below = |folder: &str| crate::ground::objects(site, folder);
    let mut found: Vec<String> = ["domains", "clusters"]
        .iter()
        .flat_map(|folder| below(folder))
        .map(|path| path.display().to_string())
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn a_shredded_domain_is_read_by_nobody_and_nothing_else_is_touched() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    let backup = back_up(&site, &cluster);
    site.wait_archived(&cluster, &switch(&cluster));
    let id = backup["backup"].as_str().expect("an id");
    run(&site, &cluster, &["key", "rotate", "--yes"]).expect_code(0);

    run(&site, &cluster, &["hold", "add", id, "--reason", "the auditors"]).expect_code(0);
    let held = run(&site, &cluster, &["key", "shred", "main", "--yes"]);
    assert!(held.stderr.contains("is held: the auditors"), "{}", held.stderr);
    run(&site, &cluster, &["hold", "remove", id]).expect_code(0);
    run(&site, &cluster, &["key", "shred", "other", "--yes"]).expect_code(17);

    let before = objects(&site);
    let planned = json(&site, &cluster, &["key", "shred", "main", "--dry-run"]);
    assert_eq!((&planned["keys"], &planned["lineages"][0]["backups"]), (&2.into(), &1.into()));
    run(&site, &cluster, &["key", "shred", "main"]).expect_code(2);
    assert!(objects(&site) == before, "nobody has said yes");
    run(&site, &cluster, &["verify"]).expect_code(0);

    let said = output(&site, &cluster, &["key", "shred", "main", "--yes"]);
    assert!(said.contains("1 backups and all WAL of cluster main"), "{said}");
    let mut left = before;
    left.retain(|path| !path.contains("/domains/main/keys/"));
    assert!(objects(&site) == left, "the keys alone are gone");
    let dir = site.scratch().path().join("restored").display().to_string();
    for words in [&["plan"][..], &["restore", &dir, "--as", "copy"], &["verify"], &["backup"]] {
        let run = run(&site, &cluster, words);
        assert_ne!(run.code, Some(0), "{words:?}: {}", run.stderr);
    }
    assert!(!Path::new(&dir).exists());
    run(&site, &cluster, &["key", "list"]).expect_code(0);
}
