//! Directories in which something is already: interrupted restores, servers, other clusters.

use pgrecall_engine::error::ErrorKind;
use pgrecall_engine::restore::target_dir::{Existing, MARKER};
use pgrecall_pgformat::SegmentSize;
use pgrecall_testkit::stores::{Calls, FailNth, Lasting};
use tempfile::TempDir;

use crate::made_up::tli;
use crate::shop::{
    PAGE, SYSTEM, Shop, assert_restored, control, files, options, run, simple_backup,
};

#[tokio::test]
async fn an_interrupted_restore_cannot_be_started_and_goes_on() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let calls = Calls::reads;
    let counting = FailNth::over(
        shop.store.clone(),
        calls(),
        0,
        Lasting::Once,
        pgrecall_store::ErrorKind::Denied,
    );
    let scratch = TempDir::new().unwrap();
    let whole = shop.cluster(counting.clone()).await.unwrap();
    run(&whole, &manifest, &options(&scratch.path().join("whole"))).await.unwrap();
    let total = counting.hook().seen();
    assert!(total > 5, "{total}");
    let mut interrupted = 0;
    for nth in 1..=total {
        let failing = FailNth::over(
            shop.store.clone(),
            calls(),
            nth,
            Lasting::ForEver,
            pgrecall_store::ErrorKind::Denied,
        );
        let dir = scratch.path().join(format!("n{nth}"));
        let Ok(broken) = shop.cluster(failing.clone()).await else { continue };
        assert!(run(&broken, &manifest, &options(&dir)).await.is_err(), "call {nth} failed unseen");
        assert!(!dir.join("global/pg_control").exists(), "call {nth}: it could be started");
        interrupted += u64::from(dir.join(MARKER).exists());
        run(&cluster, &manifest, &options(&dir)).await.unwrap();
        assert_restored(&dir);
    }
    assert!(interrupted >= 2, "too few interruptions in mid-restore: {interrupted}");
}

#[tokio::test]
async fn another_backup_does_not_go_on_with_an_interrupted_restore() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let first = simple_backup(&cluster, vec![]).await;
    let second = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(scratch.path());
    run(&cluster, &first, &options).await.unwrap();
    std::fs::remove_file(scratch.path().join("global/pg_control")).unwrap();
    let marker = serde_json::json!({
        "system_identifier": SYSTEM, "backup": first.backup, "began": "now"
    });
    std::fs::write(scratch.path().join(MARKER), marker.to_string()).unwrap();
    let error = run(&cluster, &second, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    options.existing = Existing::Delta;
    run(&cluster, &second, &options).await.unwrap();
    assert_restored(scratch.path());
}

#[tokio::test]
async fn a_delta_writes_what_differs_and_removes_what_is_not_in_the_backup() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let mut options = options(&dir);
    run(&cluster, &manifest, &options).await.unwrap();
    // What a server would have left.
    let table = dir.join("base/1/1249");
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[3 * PAGE + 5] ^= 1;
    bytes[9 * PAGE] = 1;
    bytes.extend_from_slice(&[7; PAGE]);
    std::fs::write(&table, &bytes).unwrap();
    std::fs::write(dir.join("base/1/2700"), b"no longer empty").unwrap();
    std::fs::write(dir.join("base/1/99999"), b"made later").unwrap();
    std::fs::create_dir(dir.join("base/5")).unwrap();
    std::fs::write(dir.join("base/5/112"), b"made later").unwrap();
    std::fs::write(dir.join("pg_wal/000000010000000000000009"), b"the last commits").unwrap();
    std::fs::write(dir.join("pg_wal/archive_status/000000010000000000000009.ready"), b"").unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(dir.join("global/pg_control").exists(), "a refusal leaves all as it was");
    options.existing = Existing::Delta;
    let done = run(&cluster, &manifest, &options).await.unwrap();
    assert_restored(&dir);
    let small: usize = files()
        .iter()
        .filter(|(path, _)| matches!(*path, "global/pg_control" | "postgresql.auto.conf"))
        .map(|(_, content)| content.len())
        .sum();
    assert_eq!(done.copied.written_bytes, (PAGE + small) as u64, "one page, and what has none");
    for gone in ["base/1/99999", "base/5"] {
        assert!(!dir.join(gone).exists(), "{gone}");
    }
    let old = done.old_wal.unwrap();
    assert_eq!(old.not_archived, ["000000010000000000000009"]);
    let kept = std::fs::read(old.at.join("000000010000000000000009")).unwrap();
    assert_eq!(kept, b"the last commits");
    assert!(dir.join("pg_wal/archive_status").is_dir());
}

#[tokio::test]
async fn a_delta_leaves_the_other_name_of_a_file_alone() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let mut options = options(&dir);
    run(&cluster, &manifest, &options).await.unwrap();
    let (table, other) = (dir.join("base/1/1249"), scratch.path().join("another cluster's"));
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[3 * PAGE + 5] ^= 1;
    std::fs::write(&table, &bytes).unwrap();
    // As pg_upgrade --link does it.
    std::fs::hard_link(&table, &other).unwrap();
    options.existing = Existing::Delta;
    run(&cluster, &manifest, &options).await.unwrap();
    assert_restored(&dir);
    assert!(std::fs::read(&other).unwrap() == bytes, "the other name has what it had");
}

#[tokio::test]
async fn directories_in_use_or_of_others_are_refused() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(scratch.path());
    options.existing = Existing::Delta;
    std::fs::write(scratch.path().join("notes.txt"), b"mine").unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    std::fs::write(scratch.path().join("PG_VERSION"), b"17\n").unwrap();
    std::fs::create_dir(scratch.path().join("global")).unwrap();
    let path = scratch.path().join("global/pg_control");
    std::fs::write(&path, control(42)).unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    // Its own, with a server at work: this very process stands for it.
    std::fs::write(&path, control(SYSTEM)).unwrap();
    let mut child =
        std::process::Command::new("sleep").arg("60").current_dir(scratch.path()).spawn().unwrap();
    std::fs::write(scratch.path().join("postmaster.pid"), format!("{}\n", child.id())).unwrap();
    let refused = run(&cluster, &manifest, &options).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("running server"), "{error}");
    // One that names nobody here may be a server's in a container, or on another host.
    for text in ["1\n/data\n", "999999999\n", "", "no number"] {
        std::fs::write(scratch.path().join("postmaster.pid"), text).unwrap();
        let error = run(&cluster, &manifest, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{text:?}: {error}");
        assert!(error.hints().join(" ").contains("postmaster.pid"), "{error}");
    }
    assert!(path.exists(), "its control file is where it was");
    assert_eq!(std::fs::read(scratch.path().join("notes.txt")).unwrap(), b"mine");
}

/// A server that starts while the restore begins has its lock file there before it reads the
/// control file.
#[test]
fn a_server_that_starts_in_the_last_moment_keeps_its_control_file() {
    use pgrecall_engine::restore::target_dir::take_control;
    let scratch = TempDir::new().unwrap();
    std::fs::create_dir(scratch.path().join("global")).unwrap();
    let path = scratch.path().join("global/pg_control");
    std::fs::write(&path, control(SYSTEM)).unwrap();
    std::fs::write(scratch.path().join("postmaster.pid"), b"1\n").unwrap();
    assert_eq!(take_control(scratch.path()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(std::fs::read(&path).unwrap(), control(SYSTEM));
    std::fs::remove_file(scratch.path().join("postmaster.pid")).unwrap();
    take_control(scratch.path()).unwrap();
    assert_eq!(std::fs::read_dir(scratch.path().join("global")).unwrap().count(), 0);
}

#[test]
fn a_restore_that_ended_within_its_marker_can_be_run_again() {
    use pgrecall_engine::restore::target_dir::{Found, MARKER, inspect};
    let scratch = TempDir::new().unwrap();
    let backup = pgrecall_repo::id::BackupId::from_bytes([1; 16]);
    let look = || inspect(scratch.path(), SYSTEM, backup, Existing::Refuse);
    std::fs::write(scratch.path().join(MARKER), "").unwrap();
    assert_eq!(look().unwrap(), Found::Empty);
    // What stands beside it is not of that restore.
    std::fs::write(scratch.path().join("notes.txt"), "mine").unwrap();
    assert_eq!(look().unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn two_restores_of_one_directory_do_not_mix() {
    let scratch = TempDir::new().unwrap();
    use pgrecall_engine::restore::target_dir::{Marked, Marker};
    let marker = Marker {
        system_identifier: SYSTEM,
        backup: pgrecall_repo::id::BackupId::from_bytes([1; 16]),
        began: "now".into(),
        over_files: false,
    };
    let _first = Marked::put(scratch.path(), &marker).unwrap();
    let error = Marked::put(scratch.path(), &marker).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

/// The segment that was being written has no `.ready` file.
#[test]
fn the_last_segment_counts_as_not_archived_and_recycled_ones_do_not() {
    use pgrecall_engine::restore::old_wal::not_archived;
    use pgrecall_engine::restore::wal_view::StoredWal;
    use pgrecall_pgformat::SegmentNumber;
    let scratch = TempDir::new().unwrap();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/pg/17/");
    let segment = std::fs::read(format!("{fixture}000000010000000000000008.head")).unwrap();
    let mut stored = StoredWal::empty(SegmentSize::from_bytes(1 << 20).unwrap());
    for (name, content) in [
        ("000000010000000000000008", segment.as_slice()),
        ("000000010000000000000009", segment.as_slice()),
        ("00000001000000000000000A", b"".as_slice()),
    ] {
        std::fs::write(scratch.path().join(name), content).unwrap();
    }
    assert_eq!(not_archived(scratch.path(), &stored), ["000000010000000000000008"]);
    stored.segments.entry(tli(1)).or_default().insert(SegmentNumber(8));
    assert!(not_archived(scratch.path(), &stored).is_empty());
    std::fs::create_dir(scratch.path().join("archive_status")).unwrap();
    std::fs::write(scratch.path().join("archive_status/00000002.history.ready"), b"").unwrap();
    assert_eq!(not_archived(scratch.path(), &stored), ["00000002.history"]);
}
