//! What `--json` prints is what `docs/json.md` says: every member, and its kind, in what real
//! commands print on a cluster with a life behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgrecall_testkit::moto::Moto;
use pgrecall_testkit::postgres::{Cluster, Stop};
use pgrecall_testkit::s3_user::S3User;
use pgrecall_testkit::seaweedfs::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, SeaweedFs};
use serde_json::Value;

use crate::golden::Golden;
use crate::shape::Shape;
use crate::site::{Site, newest_major, switch};
use crate::verifying::{flip, largest};

/// All that was printed, by command.
#[derive(Default)]
struct Printed(BTreeMap<&'static str, Shape>);

impl Printed {
    /// Runs a command, and keeps what it prints under its heading.
    fn run(&mut self, heading: &'static str, mut command: Command, codes: &[i32]) -> Value {
        let output = command.arg("--json").output().expect("pgrecall runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().expect("an exit code");
        assert!(codes.contains(&code), "{heading}: {code}: {said}");
        let value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{heading}: {error}: {said}"));
        self.add(heading, &value);
        value
    }

    fn add(&mut self, heading: &'static str, value: &Value) {
        self.0.entry(heading).or_default().add(value);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// A command on the cluster.
fn on(site: &Site, cluster: &Cluster, words: &[&str]) -> Command {
    let data = cluster.data_dir();
    let mut all = vec!["--pgdata", data.to_str().expect("UTF-8")];
    all.extend(words);
    site.pgrecall(data, &all)
}

/// Two backups, the second with a damaged page.
fn backups(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    use std::os::unix::fs::FileExt as _;
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 50000) n");
    cluster.psql("CHECKPOINT");
    let backup = || on(site, cluster, &["backup", "--fast-checkpoint"]);
    printed.run("pgrecall backup", backup(), &[0]);
    let path = cluster.data_dir().join(cluster.psql("SELECT pg_relation_filepath('t')"));
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("the table");
    file.write_all_at(&[0x55; 100], 5 * 8192 + 4000).expect("a damaged page");
    printed.run("pgrecall backup", backup(), &[0]);
}

/// One segment with two contents, of which one is settled on.
fn settle(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    let name = switch(cluster);
    site.wait_archived(cluster, &name);
    let mut other = std::fs::read(cluster.data_dir().join("pg_wal").join(&name)).expect("read");
    let at = other.len() - 100;
    other[at] ^= 1;
    site.scratch().dir("other");
    let other = site.scratch().file(&format!("other/{name}"), &other);
    let shown = ["wal", "resolve", &name, "--file", other.to_str().expect("UTF-8")];
    let heading = "pgrecall wal resolve";
    let both = printed.run(heading, on(site, cluster, &shown), &[0]);
    let all = both["contents"].as_array().expect("contents");
    let served = all.iter().find(|content| content["served"] == true).expect("one is served");
    let mut keep = shown.to_vec();
    keep.extend(["--keep", text(&served["digest"]), "--reason", "it is the first", "--yes"]);
    printed.run(heading, on(site, cluster, &keep), &[0]);
    // The one under the plain name is served no more, and rots.
    let of_the_name = |path: &&PathBuf| path.file_name().is_some_and(|file| *file == *name);
    let stored = files(site.repository());
    let plain = stored.iter().find(of_the_name).expect("the first content");
    std::fs::remove_file(plain).and_then(|()| std::fs::write(plain, b"")).expect("it rots");
    printed.run(heading, on(site, cluster, &["wal", "resolve", &name]), &[0]);
}

/// The primary is lost, and its standby takes over, in the middle of a segment.
fn promote(site: &Site, primary: &Cluster, standby: &Cluster) {
    primary.psql("CREATE TABLE half AS SELECT 1 AS n");
    standby.wait_caught_up(primary);
    primary.stop(Stop::Immediate);
    standby.promote();
    standby.psql("CREATE TABLE whole AS SELECT 2 AS n");
    site.wait_archived(standby, &switch(standby));
}

fn plan_and_restore(printed: &mut Printed, site: &Site, cluster: &Cluster, xid: &str) {
    for words in [
        &["plan"][..],
        &["plan", "--to-immediate"],
        &["plan", "--to-xid", xid, "--exclusive", "--timeline", "1"],
    ] {
        printed.run("pgrecall plan", on(site, cluster, words), &[0]);
    }
    let fresh = site.scratch().path().join("fresh");
    let old = cluster.data_dir().to_str().expect("UTF-8");
    for words in [
        &["restore", fresh.to_str().expect("UTF-8"), "--files-only"][..],
        &["restore", old, "--as", "primary", "--delta"],
    ] {
        let output = on(site, cluster, words).arg("--json").output().expect("pgrecall runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let mut value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        printed.add("pgrecall plan", &value["plan"]);
        // It is the same, and is told there.
        value["plan"] = serde_json::json!({});
        printed.add("pgrecall restore", &value);
    }
}

/// A restore of which a part is lost for the moment.
fn salvage(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    let pack = largest(site, "domains/main/packs/data");
    let middle = usize::try_from(pack.metadata().expect("metadata").len() / 2).expect("a size");
    flip(&pack, middle);
    let dir = site.scratch().path().join("salvaged");
    let words = ["restore", dir.to_str().expect("UTF-8"), "--files-only", "--salvage"];
    let output = on(site, cluster, &words).arg("--json").output().expect("pgrecall runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(18), "{said}");
    let mut value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    value["plan"] = serde_json::json!({});
    printed.add("pgrecall restore", &value);
    flip(&pack, middle);
}

/// The manifest of a backup is not there for the moment, and a later one has seen it.
fn missing_backup(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    let listed = printed.run("pgrecall list", on(site, cluster, &["list"]), &[0]);
    let id = text(&listed["clusters"][0]["backups"][0]["id"]);
    let of_it = |path: &&PathBuf| path.file_name().is_some_and(|name| *name == *id);
    let stored = files(&site.repository().join("domains/main/backups"));
    let manifest = stored.iter().find(of_it).expect("its manifest");
    let away = site.scratch().path().join("manifest");
    std::fs::rename(manifest, &away).expect("it goes");
    let told = printed.run("pgrecall list", on(site, cluster, &["list"]), &[0]);
    assert_eq!(told["clusters"][0]["missing_backups"][0]["id"], *id, "{told:#}");
    printed.run("pgrecall verify", on(site, cluster, &["verify"]), &[18]);
    let give_up = ["repair", "--give-up", id, "--dry-run"];
    printed.run("pgrecall repair", on(site, cluster, &give_up), &[0]);
    for refused in [&["gc", "--dry-run"][..], &["expire", "--keep-last", "1", "--dry-run"]] {
        let output = on(site, cluster, refused).output().expect("pgrecall runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(18) && said.contains(id), "{refused:?}: {said}");
    }
    std::fs::rename(&away, manifest).expect("it comes back");
    printed.run("pgrecall gc", on(site, cluster, &["gc", "--dry-run"]), &[0]);
}

fn keys(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    let new = site.scratch().path().join("new.key");
    let add = ["key", "add", "--new-key-file", new.to_str().expect("UTF-8")];
    let added = printed.run("pgrecall key add", on(site, cluster, &add), &[0]);
    printed.run("pgrecall key list", on(site, cluster, &["key", "list"]), &[0]);
    let remove = ["key", "remove", text(&added["id"]), "--yes"];
    printed.run("pgrecall key remove", on(site, cluster, &remove), &[0]);
    printed.run("pgrecall key rotate", on(site, cluster, &["key", "rotate", "--yes"]), &[0]);
    let restore_key = site.scratch().dir("elsewhere").join("restore.key").display().to_string();
    let words = ["key", "rotate", "--yes", "--restore-key", &restore_key];
    printed.run("pgrecall key rotate", on(site, cluster, &words), &[0]);
    let words = ["key", "shred", "main", "--dry-run"];
    printed.run("pgrecall key shred", on(site, cluster, &words), &[0]);
    printed.run("pgrecall list", on(site, cluster, &["list"]), &[0]);
}

/// Where no cluster is meant, and the keys of one are lost.
fn closed(printed: &mut Printed, site: &Site) {
    let config = std::fs::read_to_string(site.config()).expect("the configuration");
    let both = format!("{config}\n[[cluster]]\nname = \"second\"\n");
    site.scratch().file("pgrecall.toml", both.as_bytes());
    std::fs::remove_dir_all(site.repository().join("domains/main/keys")).expect("they go");
    for (heading, command) in [("pgrecall list", "list"), ("pgrecall verify", "verify")] {
        let told = printed.run(heading, site.pgrecall(Path::new("/"), &[command]), &[17]);
        assert_eq!(told["closed"].as_array().map(Vec::len), Some(1), "{told:#}");
    }
}

fn holds(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    let (reason, until) = (["--reason", "audit"], ["--until", "2126-01-01 00:00:00+00"]);
    let add = |more: &[&str]| {
        on(site, cluster, &[&["hold", "add", "latest"], &reason[..], more].concat())
    };
    printed.run("pgrecall hold add", add(&until), &[0]);
    printed.run("pgrecall hold list", on(site, cluster, &["hold", "list"]), &[0]);
    let held = printed.run("pgrecall hold add", add(&[]), &[0]);
    printed.run("pgrecall hold list", on(site, cluster, &["hold", "list"]), &[0]);
    let remove = ["hold", "remove", text(&held["backup"])];
    printed.run("pgrecall hold remove", on(site, cluster, &remove), &[0]);
}

/// Collections while a backup is under way, which waits for its WAL, and once it has died.
fn collections(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    cluster.psql("ALTER SYSTEM SET archive_command = 'false'");
    cluster.reload();
    let mut backup = on(site, cluster, &["backup", "--fast-checkpoint"]);
    let mut backup = backup.stderr(Stdio::null()).spawn().expect("pgrecall runs");
    let intents = site.repository().join("domains/main/intents");
    let is_there = || {
        let found = Command::new("find").arg(&intents).args(["-name", "*.start"]).output();
        !found.expect("find runs").stdout.is_empty()
    };
    cluster.wait_until("the backup has said where it starts", is_there);
    let gc = |words: &[&str]| on(site, cluster, &[&["gc"], words].concat());
    let done = printed.run("pgrecall gc", gc(&[]), &[0]);
    assert!(done["done"]["waiting_packs"].as_u64() > Some(0), "{done}");
    printed.run("pgrecall gc", gc(&["--dry-run"]), &[0]);
    backup.kill().expect("it was running");
    backup.wait().expect("it has ended");
    let planned = printed.run("pgrecall gc", gc(&["--dry-run"]), &[0]);
    assert!(planned["under_way"][0]["dead"].is_string(), "{planned}");
    let done = printed.run("pgrecall gc", gc(&[]), &[0]);
    assert!(done["done"]["removed_packs"].as_u64() > Some(0), "{done}");
}

/// A repository with backups that do not read and one under way on another host: the golden one.
fn golden(printed: &mut Printed) {
    let golden = Golden::clear();
    let run = |words: &[&str]| golden.pgrecall(words);
    let listed = printed.run("pgrecall list", run(&["list"]), &[0]);
    printed.run("pgrecall verify", run(&["verify"]), &[14]);
    repairs(printed, &golden);
    let dead = text(&listed["clusters"][0]["under_way"][0]["id"]);
    let end = ["backup", "--end-dead", dead, "--yes"];
    printed.run("pgrecall backup --end-dead", run(&end), &[0]);
}

/// Repairs of an index object, of a manifest, and of what cannot be mended.
fn repairs(printed: &mut Printed, golden: &Golden) {
    let cut = |folder: &str, nth: usize| golden.cut(&golden.objects(folder)[nth]);
    let run = |words: &[&str]| golden.pgrecall(words);
    // Another index object proves the keys that these were sealed by.
    cut("domains/main/index", 1);
    cut("domains/main/backups", 1);
    printed.run("pgrecall repair", run(&["repair", "--dry-run"]), &[0]);
    let done = printed.run("pgrecall repair", run(&["repair", "--yes"]), &[0]);
    assert_eq!(done["done"]["quarantined_objects"], 2, "{done}");
    golden.cut(golden.objects("domains/main/expired").last().expect("an entry"));
    let left = printed.run("pgrecall repair", run(&["repair"]), &[13]);
    assert!(!left["left"].as_array().expect("an array").is_empty(), "{left}");
}

/// A repository is made, with and without encryption, and then known, by a file that lacks something.
fn init(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    for encryption in ["aes-256-gcm", "none"] {
        let folder = site.scratch().dir(encryption);
        let (repository, config) = (folder.join("repository"), folder.join("pgrecall.toml"));
        let init = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgrecall"));
            command.env_clear().env("PGRECALL_CONFIG", &config);
            command.args(["init", "--cluster", "main", "--encryption", encryption]);
            command.arg("--repo").arg(format!("file://{}", repository.display()));
            command.arg("--pgdata").arg(cluster.data_dir());
            command
        };
        let made = printed.run("pgrecall init", init(), &[0]);
        assert_eq!((&made["how"], &made["config"]), (&"made".into(), &"written".into()));
        let said = std::fs::read_to_string(&config).expect("the configuration");
        let id = said.lines().find(|line| line.starts_with("id = ")).expect("it is pinned");
        std::fs::write(&config, said.replacen(id, "", 1)).expect("it is written");
        let known = printed.run("pgrecall init", init(), &[0]);
        assert_eq!(known["config"], "lacking", "{known:#}");
        assert!(text(&known["config_to_add"]).contains(id), "{known:#}");
    }
}

/// With keys of a KMS.
fn kms(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    let kms = Moto::start();
    let key = kms.create_key();
    let with_kms = |mut command: Command| {
        command.env("PGRECALL_REPOSITORY_KMS_ENDPOINT", kms.endpoint());
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "hush-hush");
        command
    };
    let add = on(site, cluster, &["key", "add", "--new-kms-key", &key]);
    printed.run("pgrecall key add", with_kms(add), &[0]);
    for (heading, words) in
        [("pgrecall key list", &["key", "list"][..]), ("pgrecall list", &["list"])]
    {
        printed.run(heading, on(site, cluster, words), &[0]);
    }
    let folder = site.scratch().dir("kms");
    let mut init = Command::new(env!("CARGO_BIN_EXE_pgrecall"));
    init.env_clear().env("PGRECALL_CONFIG", folder.join("pgrecall.toml"));
    init.args(["init", "--cluster", "main", "--kms-key", &key, "--pgdata"]).arg(cluster.data_dir());
    init.arg("--repo").arg(format!("file://{}", folder.join("repository").display()));
    let made = printed.run("pgrecall init", with_kms(init), &[0]);
    assert_eq!(made["kms_key"], key.as_str(), "{made:#}");
}

/// In a bucket with object lock.
fn locks(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    let server = SeaweedFs::start();
    let key = (ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    let owner = S3User::new(&server.endpoint(), key, "locked");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(owner.create_locked_bucket()).expect("a locked bucket");
    let config = site.scratch().dir("locked").join("pgrecall.toml");
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrecall"));
        command.env_clear().env("PGRECALL_CONFIG", &config).args(words);
        command.env("AWS_ACCESS_KEY_ID", key.0).env("AWS_SECRET_ACCESS_KEY", key.1);
        command.args(["--cluster", "main", "--pgdata"]).arg(cluster.data_dir());
        command
    };
    let init = ["init", "--repo", "s3://locked/pg", "--s3-region", "us-east-1", "--s3-endpoint"];
    printed.run("pgrecall init", run(&[&init[..], &[&server.endpoint()]].concat()), &[0]);
    let history = site.scratch().file("00000009.history", b"8\t0/3000000\tno reason\n");
    let history = history.to_str().expect("UTF-8");
    let pushed = run(&["wal", "push", history]).output().expect("pgrecall runs");
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    for more in [&[][..], &["--dry-run"]] {
        let told =
            printed.run("pgrecall gc", run(&[&["gc", "--extend-locks"], more].concat()), &[0]);
        assert!(told["locks"]["objects"].as_u64() > Some(3), "{told:#}");
    }
}

/// A segment between two backups is lost, and then all data.
fn broken(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    cluster.psql("ALTER SYSTEM RESET archive_command");
    cluster.reload();
    let words = ["backup", "--fast-checkpoint", "--wal-timeout", "1min"];
    let backup = || on(site, cluster, &words);
    printed.run("pgrecall backup", backup(), &[0]);
    cluster.psql("CREATE TABLE between AS SELECT 1 AS n");
    let start = cluster.psql(
        "SELECT '0/0'::pg_lsn + (at - mod(at, 16777216))
           FROM (SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS at) AS now",
    );
    let hole = switch(cluster);
    cluster.psql("CREATE TABLE after AS SELECT 1 AS n");
    site.wait_archived(cluster, &switch(cluster));
    let next = printed.run("pgrecall backup", backup(), &[0]);
    let of_the_hole = |path: &&PathBuf| path.file_name().is_some_and(|name| *name == *hole);
    let stored = files(site.repository());
    std::fs::remove_file(stored.iter().find(of_the_hole).expect("the segment")).expect("it goes");
    let found = printed.run("pgrecall verify", on(site, cluster, &["verify"]), &[18]);
    let lost = found["clusters"][0]["lost_moments"].as_array().expect("an array");
    let [lost] = lost.as_slice() else { panic!("{found:#}") };
    assert_eq!((&lost["after_lsn"], &lost["until"]), (&start.into(), &next["ended"]), "{lost:#}");
    let dry = ["repair", "--dry-run"];
    printed.run("pgrecall repair", on(site, cluster, &dry), &[0]);
    let packs = site.repository().join("domains/main/packs/data");
    for pack in files(&packs) {
        let mut bytes = std::fs::read(&pack).expect("a pack");
        let at = bytes.len() / 3;
        bytes[at] ^= 1;
        std::fs::remove_file(&pack).and_then(|()| std::fs::write(&pack, bytes)).expect("it rots");
    }
    printed.run("pgrecall verify", on(site, cluster, &["verify", "--read-data"]), &[13]);
    printed.run("pgrecall list", on(site, cluster, &["list"]), &[0]);
    std::fs::remove_dir_all(packs).expect("they go");
    printed.run("pgrecall verify", on(site, cluster, &["verify"]), &[13]);
    let mended = printed.run("pgrecall repair", on(site, cluster, &["repair"]), &[0]);
    let files = &mended["touched"][0]["backups"][0]["files"];
    assert!(!files.as_array().expect("an array").is_empty(), "{mended:#}");
}

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.append(&mut files(&path)) } else { found.push(path) }
    }
    found
}

fn settings(printed: &mut Printed, site: &Site, cluster: &Cluster) {
    let mut command = on(site, cluster, &["config", "--log-level", "debug"]);
    command.env("PGRECALL_WAL_FETCH_TIMEOUT", "1min");
    printed.run("pgrecall config", command, &[0]);
}

#[test]
fn every_member_of_every_json_is_documented_and_the_other_way_round() {
    let mut printed = Printed::default();
    let site = Site::new();
    let primary = site.primary(newest_major());
    // Before a page is damaged: pg_basebackup refuses then.
    let standby = Cluster::standby_of(&primary);
    backups(&mut printed, &site, &primary);
    printed.run("pgrecall check", on(&site, &primary, &["check"]), &[0]);
    settle(&mut printed, &site, &primary);
    settings(&mut printed, &site, &primary);
    let xid = primary.psql("CREATE TABLE later AS SELECT pg_current_xact_id() AS xid; TABLE later");
    let xid = xid.lines().last().expect("a transaction").to_owned();
    promote(&site, &primary, &standby);
    plan_and_restore(&mut printed, &site, &primary, &xid);
    printed.run("pgrecall list", on(&site, &standby, &["list"]), &[0]);
    printed.run("pgrecall verify", on(&site, &standby, &["verify"]), &[0]);
    // Of the promoted one: without damage, so that no older one is the last without.
    let backup = on(&site, &standby, &["backup", "--fast-checkpoint"]);
    printed.run("pgrecall backup", backup, &[0]);
    let heading = "pgrecall expire";
    let dry = ["expire", "--keep-last", "1", "--dry-run"];
    printed.run(heading, on(&site, &standby, &dry), &[0]);
    printed.run(heading, on(&site, &standby, &["expire", "--keep-last", "2"]), &[0]);
    holds(&mut printed, &site, &standby);
    collections(&mut printed, &site, &standby);
    salvage(&mut printed, &site, &standby);
    missing_backup(&mut printed, &site, &standby);
    broken(&mut printed, &site, &standby);
    keys(&mut printed, &site, &standby);
    golden(&mut printed);
    init(&mut printed, &site, &standby);
    locks(&mut printed, &site, &standby);
    kms(&mut printed, &site, &standby);
    closed(&mut printed, &site);
    let wrong: Vec<String> = printed
        .0
        .iter()
        .filter_map(|(heading, shape)| {
            let told = std::panic::catch_unwind(|| shape.expect_documented(heading));
            let told = told.err()?.downcast::<String>().map(|text| *text);
            Some(told.unwrap_or_else(|_| (*heading).to_owned()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The examples of help and documentation with `jq`, run by `jq` on what is printed.
#[test]
fn the_examples_with_jq_find_what_they_look_for() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    let backup = on(&site, &primary, &["backup", "--fast-checkpoint", "--json"]).output();
    let backup: Value = serde_json::from_slice(&backup.expect("it runs").stdout).expect("JSON");
    let mut found = Vec::new();
    for example in examples(&site) {
        let (command, filter) = example.split_once(" | jq ").expect("a pipe");
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        let printed = on(&site, &primary, &words).output().expect("pgrecall runs");
        assert!(printed.status.success(), "{example}");
        let file = site.scratch().file("printed.json", &printed.stdout);
        let line = format!("jq --exit-status {filter} '{}'", file.display());
        let jq = Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output();
        let jq = jq.expect("sh runs");
        let said = String::from_utf8_lossy(&jq.stderr);
        // --exit-status: neither null nor false. Without jq (apt-get install jq) it is 127.
        assert!(jq.status.success(), "{example}: {said}");
        found.push((words[0].to_owned(), String::from_utf8(jq.stdout).expect("UTF-8")));
    }
    let of = |command: &str| {
        let all = found.iter().filter(|(name, _)| name == command);
        all.map(|(_, text)| text.as_str()).collect::<Vec<_>>()
    };
    let [listed] = of("list")[..] else { panic!("{found:?}") };
    let listed: Value = serde_json::from_str(listed).expect("JSON");
    assert_eq!(listed["id"], backup["backup"], "the newest backup");
    let [settings] = of("config")[..] else { panic!("{found:?}") };
    assert!(settings.lines().any(|line| line == "repository.url"), "{settings}");
    assert!(!settings.contains("backup.checkpoint"), "a default: {settings}");
}

/// Every line with `jq` of every help and every page.
fn examples(site: &Site) -> Vec<String> {
    let mut texts = Vec::new();
    for command in [
        "",
        "init",
        "check",
        "backup",
        "list",
        "plan",
        "restore",
        "verify",
        "config",
        "wal push",
        "wal fetch",
        "wal resolve",
        "key add",
        "key list",
        "key remove",
        "key rotate",
        "key shred",
    ] {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        words.push("--help");
        let output = site.pgrecall(Path::new("/"), &words).output().expect("pgrecall runs");
        texts.push(String::from_utf8(output.stdout).expect("UTF-8"));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("docs")).expect("the pages") {
        pages.push(entry.expect("an entry").path());
    }
    for page in pages.iter().filter(|page| page.extension().is_some_and(|end| end == "md")) {
        texts.push(std::fs::read_to_string(page).expect("a page"));
    }
    let lines = texts.iter().flat_map(|text| text.lines()).map(str::trim);
    let mut examples: Vec<String> =
        lines.filter(|line| line.contains(" | jq ")).map(str::to_owned).collect();
    assert!(examples.len() >= 2, "{examples:?}");
    examples.sort();
    examples.dedup();
    examples
}
