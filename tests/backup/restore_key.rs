//! Data sealed for a restore key: the database host writes and deduplicates what it cannot read.

use std::path::Path;

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::{Cluster, Scratch};

use crate::ground::{back_up, json, number, objects, output, try_backup};
use crate::rolled_back::{copied, put_back};
use crate::site::{Run, Site, newest_major, own_all, switch};

/// A restore key that the database host is to have no file of.
struct Elsewhere {
    scratch: Scratch,
}

impl Elsewhere {
    fn key(&self) -> String {
        self.scratch.path().join("keys/main.restore-key").display().to_string()
    }
}

fn run(site: &Site, cluster: &Cluster, words: &[&str]) -> Run {
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    site.run(Path::new("/"), &[words, &["--pgdata", &pgdata]].concat())
}

/// A cluster whose domain has a restore key from before its first backup.
fn sealed_for_another(elsewhere: &Elsewhere) -> (Site, Cluster) {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    // The cluster becomes known, by its first segment.
    site.wait_archived(&cluster, &switch(&cluster));
    elsewhere.scratch.dir("keys");
    let key = elsewhere.key();
    let words = ["key", "rotate", "--yes", "--restore-key", &key];
    let said = output(&site, &cluster, &words);
    assert!(said.contains("NOBODY RESTORES WITHOUT THAT FILE"), "{said}");
    (site, cluster)
}

/// Some eight megabytes, and the catalogs beside them.
fn make_table(cluster: &Cluster) {
    cluster.psql(
        "CREATE TABLE t WITH (autovacuum_enabled = off) AS
           SELECT i AS id, sha512(i::text::bytea) || sha512((i || 't')::bytea) AS v
             FROM generate_series(1, 60000) i",
    );
    // It sets the hint bits on all pages.
    cluster.psql("VACUUM t");
}

/// As on a host where one restores.
fn bring_key(site: &Site, elsewhere: &Elsewhere) {
    let config = std::fs::read_to_string(site.config()).expect("the configuration");
    let line = format!("restore_key_file = \"{}\"\n\n[[cluster]]", elsewhere.key());
    site.scratch().file("pgrecall.toml", config.replacen("[[cluster]]", &line, 1).as_bytes());
}

fn rows(query: impl Fn(&str) -> String) -> String {
    query(
        "SELECT count(*) || ' ' || md5(string_agg(id || encode(v, 'hex'), ',' ORDER BY id)) FROM t",
    )
}

#[test]
fn who_writes_cannot_read_and_who_has_the_restore_key_gets_all_back() {
    let elsewhere = Elsewhere { scratch: Scratch::new() };
    let (site, cluster) = sealed_for_another(&elsewhere);
    make_table(&cluster);
    let first = back_up(&site, &cluster);
    cluster.psql("UPDATE t SET v = sha512(v) WHERE id % 1000 = 0");
    let second = back_up(&site, &cluster);
    assert!(number(&second, "new_bytes") * 4 < number(&first, "new_bytes"), "{second}");
    let expected = rows(|sql| cluster.psql(sql));
    let last = switch(&cluster);
    site.wait_archived(&cluster, &last);
    // It sees what is there, and that it is sound as far as it can tell.
    let listed = &json(&site, &cluster, &["list"])["clusters"][0];
    let fingerprint = listed["restore_key"].as_str().expect("a fingerprint").to_owned();
    run(&site, &cluster, &["plan"]).expect_code(0);
    run(&site, &cluster, &["verify"]).expect_code(0);
    let verified = output(&site, &cluster, &["verify", "--read-data"]);
    assert!(verified.contains("which is not here, was not opened"), "{verified}");
    let checked = output(&site, &cluster, &["check"]);
    assert!(checked.contains(&format!("new data is sealed for {fingerprint}")), "{checked}");
    assert!(checked.contains("NOT TRIED: data is sealed for the restore key"), "{checked}");
    run(&site, &cluster, &["gc"]).expect_code(0);
    // And reads nothing.
    let dir = site.scratch().path().join("none");
    let to = dir.display().to_string();
    let refused = site.run(Path::new("/"), &["restore", &to, "--as", "copy"]);
    refused.expect_code(16);
    assert!(refused.stderr.contains(&fingerprint) && !dir.exists(), "{}", refused.stderr);
    let fetched = run(&site, &cluster, &["wal", "fetch", &last, &to]);
    fetched.expect_code(126);
    assert!(fetched.stderr.contains("restore_key_file") && !dir.exists(), "{}", fetched.stderr);
    // A file that is named and not there keeps nobody from writing.
    bring_key(&site, &elsewhere);
    std::fs::rename(elsewhere.key(), elsewhere.scratch.path().join("away")).expect("it goes");
    site.wait_archived(&cluster, &switch(&cluster));
    // Another restore key would leave backups that want both.
    let another = elsewhere.scratch.path().join("keys/another").display().to_string();
    let words = ["key", "rotate", "--yes", "--restore-key", &another];
    let refused = run(&site, &cluster, &words);
    refused.expect_code(16);
    assert!(
        refused.stderr.contains("--ids") && !Path::new(&another).exists(),
        "{}",
        refused.stderr
    );
    std::fs::rename(elsewhere.scratch.path().join("away"), elsewhere.key()).expect("it comes");
    // Elsewhere all of it comes back.
    run(&site, &cluster, &["verify", "--read-data"]).expect_code(0);
    let verified = output(&site, &cluster, &["verify", "--read-data"]);
    assert!(!verified.contains("was not opened"), "{verified}");
    let dir = site.scratch().path().join("restored");
    let to = dir.display().to_string();
    site.run(Path::new("/"), &["restore", &to, "--as", "copy", "--to-latest"]).expect_code(0);
    let copy = CheckedCluster::adopt(newest_major(), &dir);
    copy.start();
    copy.wait_until_recovered();
    assert_eq!(rows(|sql| copy.psql(sql)), expected);
}

#[test]
fn rot_is_seen_and_healed_by_who_cannot_read() {
    let elsewhere = Elsewhere { scratch: Scratch::new() };
    let (site, cluster) = sealed_for_another(&elsewhere);
    make_table(&cluster);
    back_up(&site, &cluster);
    // What changes all the time, such as pg_control, comes last in it.
    let packs = objects(&site, "data").into_iter();
    let path = packs.max_by_key(|path| path.metadata().map(|meta| meta.len()).unwrap_or(0));
    let path = path.expect("a pack");
    let mut bytes = std::fs::read(&path).expect("the pack");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::remove_file(&path).expect("it goes");
    std::fs::write(&path, bytes).expect("it comes back");
    own_all(site.repository());
    run(&site, &cluster, &["verify", "--read-data"]).expect_code(13);
    try_backup(&site, &cluster, &["--fast-checkpoint"]).expect_code(0);
    run(&site, &cluster, &["verify", "--read-data"]).expect_code(0);
    bring_key(&site, &elsewhere);
    run(&site, &cluster, &["verify", "--read-data"]).expect_code(0);
}

#[test]
fn keys_of_before_are_not_gone_back_to() {
    let elsewhere = Elsewhere { scratch: Scratch::new() };
    let (site, cluster) = sealed_for_another(&elsewhere);
    back_up(&site, &cluster);
    let keys = site.repository().join("domains/main/keys");
    let newest = std::fs::read_dir(&keys).expect("keys").map(|entry| entry.expect("one").path());
    std::fs::remove_file(newest.max().expect("the newest")).expect("it goes");
    let refused = try_backup(&site, &cluster, &["--fast-checkpoint"]);
    refused.expect_code(16);
    assert!(refused.stderr.contains("key rotate --restore-key"), "{}", refused.stderr);
    site.wait_archived(&cluster, &switch(&cluster));
    let told = "the repository had other keys for the domain main";
    cluster.wait_until("it is told", || cluster.log().contains(told));
}

#[test]
fn a_repository_from_before_the_restore_key_has_a_way_on() {
    let elsewhere = Elsewhere { scratch: Scratch::new() };
    let site = Site::new();
    let cluster = site.primary(newest_major());
    site.wait_archived(&cluster, &switch(&cluster));
    let older = copied(&site, "older");
    elsewhere.scratch.dir("keys");
    let key = elsewhere.key();
    let rotate = ["key", "rotate", "--yes", "--restore-key", &key];
    run(&site, &cluster, &rotate).expect_code(0);
    back_up(&site, &cluster);
    put_back(&site, &older);
    try_backup(&site, &cluster, &["--fast-checkpoint"]).expect_code(16);
    run(&site, &cluster, &["key", "rotate", "--yes"]).expect_code(13);
    run(&site, &cluster, &rotate).expect_code(0);
    try_backup(&site, &cluster, &["--fast-checkpoint"]).expect_code(0);
}
