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

/// The configuration knows a second cluster, of which a segment is stored.
fn second_cluster(site: &Site, cluster: &Cluster, file: &str) {
    let config = std::fs::read_to_string(site.config()).expect("the configuration");
    let name = "name = \"main\"\n";
    assert!(config.contains(name), "{config}");
    let main = format!("{name}pgdata = \"{}\"\n", cluster.data_dir().display());
    let both = config.replacen(name, &main, 1) + "\n[[cluster]]\nname = \"second\"\n";
    site.scratch().file("pgrecall.toml", both.as_bytes());
    let path = cluster.data_dir().join("pg_wal").join(file).display().to_string();
    run(site, cluster, &["wal", "push", &path, "--cluster", "second"]).expect_code(0);
}

#[test]
fn a_shredded_domain_is_read_by_nobody_and_nothing_else_is_touched() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    let backup = back_up(&site, &cluster);
    let file = switch(&cluster);
    site.wait_archived(&cluster, &file);
    let id = backup["backup"].as_str().expect("an id");
    run(&site, &cluster, &["key", "rotate", "--yes"]).expect_code(0);
    second_cluster(&site, &cluster, &file);

    run(&site, &cluster, &["hold", "add", id, "--reason", "the auditors"]).expect_code(0);
    let held = run(&site, &cluster, &["key", "shred", "main", "--yes"]);
    assert!(held.stderr.contains("is held: the auditors"), "{}", held.stderr);
    run(&site, &cluster, &["hold", "remove", id]).expect_code(0);
    run(&site, &cluster, &["key", "shred", "other", "--yes"]).expect_code(17);

    let before = objects(&site);
    let planned = json(&site, &cluster, &["key", "shred", "main", "--dry-run"]);
    assert_eq!((&planned["keys"], &planned["lineages"][0]["backups"]), (&2.into(), &1.into()));
    assert_eq!(planned["lineages"].as_array().map(Vec::len), Some(1), "{planned}");
    run(&site, &cluster, &["key", "shred", "main"]).expect_code(2);
    assert!(objects(&site) == before, "nobody has said yes");
    run(&site, &cluster, &["verify"]).expect_code(0);

    let said = output(&site, &cluster, &["key", "shred", "main", "--yes"]);
    assert!(said.contains("1 backup and all WAL of cluster main"), "{said}");
    let mut left = objects(&site);
    left.retain(|path| !path.ends_with("/domains/main/keys/shredded"));
    let mut expected = before;
    expected.retain(|path| !path.contains("/domains/main/keys/"));
    assert!(left == expected, "the keys alone are gone");
    nobody_reads(&site, &cluster);
    others_are_told(&site);
    let again = output(&site, &cluster, &["key", "shred", "main", "--yes"]);
    assert!(again.contains("0 epochs of its keys are left"), "{again}");
    run(&site, &cluster, &["key", "list"]).expect_code(0);
}

fn nobody_reads(site: &Site, cluster: &Cluster) {
    let dir = site.scratch().path().join("restored").display().to_string();
    let path = cluster.data_dir().join("pg_wal").join(switch(cluster)).display().to_string();
    for words in [
        &["plan"][..],
        &["restore", &dir, "--as", "copy"],
        &["verify"],
        &["list"],
        &["backup"],
        &["gc"],
        &["expire", "--keep-last", "1"],
        &["key", "rotate", "--yes"],
        &["wal", "push", &path],
    ] {
        let run = run(site, cluster, words);
        assert_ne!(run.code, Some(0), "{words:?}: {}", run.stderr);
        let why = "the keys of domain main were deleted (key shred)";
        assert!(run.stderr.contains(why), "{words:?}: {}", run.stderr);
    }
    assert!(!Path::new(&dir).exists());
}

/// What a command prints where no cluster is meant, and whether it ends well.
fn of_all(site: &Site, command: &str) -> (bool, String) {
    let output = site.pgrecall(Path::new("/"), &[command]).output().expect("pgrecall runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// All that opens is told, and of the other why it does not.
fn others_are_told(site: &Site) {
    let (good, listed) = of_all(site, "list");
    assert!(good && listed.contains("cluster second ("), "{listed}");
    assert!(listed.contains("shredded at "), "{listed}");
    let (good, verified) = of_all(site, "verify");
    assert!(good && verified.contains("shredded at "), "{verified}");
    // A loss that nobody meant is one.
    let keys = site.repository().join("domains/second/keys/0000000000000000");
    let aside = site.repository().join("second.keys");
    std::fs::rename(&keys, &aside).expect("the keys go");
    for command in ["list", "verify"] {
        let (good, said) = of_all(site, command);
        assert!(!good && said.contains("cluster second ("), "{command}: {said}");
    }
    std::fs::rename(&aside, &keys).expect("the keys come back");
}
