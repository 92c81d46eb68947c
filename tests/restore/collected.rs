//! After a collection: what stays is restored row by row, and nothing is stored that no backup
//! refers to. Backups and other collections run beside it.

use std::path::Path;
use std::process::{Child, Stdio};

use pgrecall_testkit::postgres::Cluster;
use serde_json::Value;

use crate::fresh::Restored;
use crate::ground::objects;
use crate::site::{Site, newest_major, switch, wait_for};

fn on(site: &Site, pgdata: &Path, words: &[&str]) -> (Option<i32>, Value) {
    let text = pgdata.to_string_lossy().into_owned();
    let all = [&["--pgdata", &text], words, &["--json"]].concat();
    let output = site.pgrecall(pgdata, &all).output().expect("pgrecall runs");
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), value)
}

#[track_caller]
fn run(site: &Site, cluster: &Cluster, words: &[&str]) -> Value {
    let (code, value) = on(site, cluster.data_dir(), words);
    assert_eq!(code, Some(0), "{words:?}: {value}");
    value
}

/// A backup after everything in the table has changed.
fn back_up_after_change(site: &Site, cluster: &Cluster, step: u32) {
    cluster
        .psql(&format!("UPDATE rows SET step = {step}, fill = repeat(md5(n::text), 3 + {step})"));
    cluster.psql("VACUUM rows");
    run(site, cluster, &["backup", "--fast-checkpoint"]);
}

fn with_backups(site: &Site) -> Cluster {
    let cluster = site.primary(newest_major());
    cluster.psql(
        "CREATE TABLE rows AS SELECT n, 0 AS step, repeat(md5(n::text), 3) AS fill \
         FROM generate_series(1, 20000) n",
    );
    for step in 1..=3 {
        back_up_after_change(site, &cluster, step);
    }
    cluster
}

/// Bytes of all packs.
fn stored(site: &Site) -> u64 {
    let mut folders = vec![site.repository().join("domains/main/packs")];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of packs") {
            let entry = entry.expect("an entry");
            let found = entry.metadata().expect("its size");
            match found.is_dir() {
                true => folders.push(entry.path()),
                false => bytes += found.len(),
            }
        }
    }
    bytes
}

/// Everything reads, and the newest backup comes back as it was.
#[track_caller]
fn sound_and_restored(site: &Site, cluster: &Cluster, step: u32) {
    let verified = run(site, cluster, &["verify", "--read-data"]);
    assert_eq!(verified["sound"].as_bool(), Some(true), "{verified}");
    let flags = ["--to-immediate", "--action", "promote"];
    let copy = Restored::started(site, newest_major(), "copy", &flags);
    copy.wait_until_recovered();
    let rows = "SELECT count(*), min(step), max(step), \
                count(*) FILTER (WHERE fill = repeat(md5(n::text), 3 + step)) FROM rows";
    assert_eq!(copy.psql(rows), format!("20000|{step}|{step}|20000"));
}

#[test]
fn what_only_expired_backups_had_is_freed_and_the_rest_comes_back() {
    let site = Site::new();
    let cluster = with_backups(&site);
    run(&site, &cluster, &["expire", "--keep-last", "1"]);
    let before = stored(&site);
    let dry = run(&site, &cluster, &["gc", "--dry-run"]);
    assert_eq!((dry["dry_run"].as_bool(), stored(&site)), (Some(true), before));
    let planned = dry["freed_bytes"].as_u64().expect("a number");
    assert!(planned > before / 5, "{planned} of {before}");
    let done = run(&site, &cluster, &["gc", "--rewrite-below", "100"]);
    assert_eq!(done["done"]["spared_packs"].as_u64(), Some(0), "{done}");
    assert!(stored(&site) < before - before / 5);
    run(&site, &cluster, &["gc", "--rewrite-below", "100"]);
    let last = run(&site, &cluster, &["gc", "--rewrite-below", "100", "--dry-run"]);
    for kind in ["unused", "rewritten", "left", "unindexed"] {
        assert_eq!(last[kind]["packs"].as_u64(), Some(0), "{kind}: {last}");
    }
    sound_and_restored(&site, &cluster, 3);
    // The next one shares what is left, also what was copied.
    let next = run(&site, &cluster, &["backup", "--fast-checkpoint"]);
    assert!(next["stored_bytes"].as_u64().expect("a number") < before / 10, "{next}");
    sound_and_restored(&site, &cluster, 3);
}

/// A backup that has copied everything and waits for its WAL.
fn waiting_backup(site: &Site, cluster: &Cluster) -> Child {
    cluster.psql("ALTER SYSTEM SET archive_command = 'false'");
    cluster.reload();
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    let words = ["--pgdata", &pgdata, "backup", "--fast-checkpoint"];
    let mut backup = site.pgrecall(cluster.data_dir(), &words);
    let backup = backup.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let backup = backup.expect("pgrecall runs");
    wait_for("the backup is stopped on the server", || {
        let state = cluster
            .psql("SELECT count(*) FROM pg_stat_activity WHERE query ~ 'backup_stop|stop_backup'");
        !objects(site, "intents").is_empty() && state.parse::<u32>().is_ok_and(|count| count > 1)
    });
    backup
}

#[test]
fn packs_wait_for_a_backup_that_may_refer_to_them() {
    let site = Site::new();
    let cluster = with_backups(&site);
    let mut backup = waiting_backup(&site, &cluster);
    run(&site, &cluster, &["expire", "--keep-last", "1"]);
    let before = stored(&site);
    for _ in 0..2 {
        let done = run(&site, &cluster, &["gc"])["done"].clone();
        assert_eq!(done["removed_packs"].as_u64(), Some(0), "{done}");
        assert!(done["waiting_packs"].as_u64() > Some(0), "{done}");
        assert_eq!(done["waits_for"].as_array().map(Vec::len), Some(1), "{done}");
    }
    assert!(stored(&site) >= before);
    let archive = site.archive_command().replace('\'', "''");
    cluster.psql(&format!("ALTER SYSTEM SET archive_command = '{archive}'"));
    cluster.reload();
    assert!(backup.wait().expect("it has ended").success(), "the backup is none the worse");
    let done = run(&site, &cluster, &["gc"])["done"].clone();
    assert!(done["removed_packs"].as_u64() > Some(0), "{done}");
    sound_and_restored(&site, &cluster, 3);
}

#[test]
fn two_collections_and_a_backup_at_once_harm_nothing() {
    let site = Site::new();
    let cluster = with_backups(&site);
    run(&site, &cluster, &["expire", "--keep-last", "1"]);
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    let spawn = |words: &[&str]| {
        let words = [&["--pgdata", pgdata.as_str()], words].concat();
        let mut command = site.pgrecall(cluster.data_dir(), &words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgrecall runs")
    };
    let gc: &[&str] = &["gc", "--rewrite-below", "100"];
    let mut all = [spawn(gc), spawn(&["backup", "--fast-checkpoint"]), spawn(gc)];
    for child in &mut all {
        assert!(child.wait().expect("it has ended").success());
    }
    switch(&cluster);
    sound_and_restored(&site, &cluster, 3);
    run(&site, &cluster, &["expire", "--keep-last", "1"]);
    run(&site, &cluster, gc);
    run(&site, &cluster, gc);
    let last = run(&site, &cluster, &["gc", "--dry-run"]);
    assert_eq!(last["unused"]["packs"].as_u64(), Some(0), "{last}");
    assert_eq!(last["rounds"].as_array().map(Vec::len), Some(0), "{last}");
    sound_and_restored(&site, &cluster, 3);
}
