//! A repository whose disk fills up in the middle of a backup: told as such, nothing that was there
//! is harmed, and with room the next try goes on.

use std::path::Path;

use pgrecall_testkit::postgres::{Cluster, Scratch};
use serde_json::Value;

use crate::ground::{back_up, make_bulk, number, objects, restored};
use crate::site::{Run, Site, newest_major, own_all, switch};
use crate::small_disk::{SmallDisk, fill, limited};

fn listed(site: &Site) -> Vec<String> {
    let output = site.pgrecall(Path::new("/"), &["list", "--json"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let backups = report["clusters"][0]["backups"].as_array().expect("backups").clone();
    backups.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

/// A cluster with one backup, and then with more than fits into one pack, all of its WAL archived.
fn grown(site: &Site) -> (Cluster, String) {
    let cluster = site.primary(newest_major());
    cluster.psql("CREATE TABLE old AS SELECT generate_series(1, 1000) n");
    let first = back_up(site, &cluster);
    make_bulk(&cluster, "bulk");
    site.wait_archived(&cluster, &switch(&cluster));
    (cluster, first["backup"].as_str().expect("an id").to_owned())
}

#[test]
fn a_repository_that_fills_up_ends_the_backup_and_harms_nothing() {
    let scratch = Scratch::new();
    let folder = scratch.path().join("disk");
    let disk = SmallDisk::mount(&folder, 320);
    let site = Site::around(scratch, folder.join("repository"));
    // Bound anew, to be unmounted before the folder around it is removed.
    let disk = disk;
    let (cluster, first) = grown(&site);
    let before = objects(&site, "packs").len();
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    // One thread fills one pack after the other.
    let words = ["--pgdata", &pgdata, "backup", "--fast-checkpoint", "--threads", "1"];
    let command = site.pgrecall(Path::new("/"), &words);
    let filler = folder.join("filler");
    let run = if disk.is_some() {
        fill(&filler, 40 << 20);
        Run::of(command)
    } else {
        Run::of(limited(&command, 8 << 10))
    };
    assert_eq!(run.code, Some(15), "{}", run.stderr);
    let told = run.stderr.contains("the disk is full") || run.stderr.contains("larger than");
    assert!(told, "{}", run.stderr);
    let hinted = run.stderr.contains("Make room") || run.stderr.contains("ulimit -f");
    assert!(hinted, "{}", run.stderr);
    if disk.is_some() {
        assert!(objects(&site, "packs").len() > before, "it was not in the middle");
    }
    assert_eq!(listed(&site), [first.as_str()], "{}", run.stderr);
    let flags = ["--backup", &first, "--to-immediate", "--action", "promote"];
    let copy = restored(&site, newest_major(), "old", &flags);
    assert_eq!(copy.psql("SELECT count(*) FROM old"), "1000");
    drop(copy);

    if disk.is_some() {
        std::fs::remove_file(&filler).expect("room again");
    }
    own_all(site.repository());
    let told = back_up(&site, &cluster);
    if disk.is_some() {
        let left = number(&told, "new_bytes");
        assert!(left < 40 << 20, "the pack that was stored serves: {told}");
    }
    assert_eq!(listed(&site).len(), 2);
    site.run(Path::new("/"), &["verify", "--read-data"]).expect_code(0);
    let copy = restored(&site, newest_major(), "new", &["--to-latest"]);
    assert_eq!(copy.psql("SELECT count(*), sum(id) FROM bulk"), "350000|61250175000");
}
