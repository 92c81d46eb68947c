//! A power cut in a restore: until every file is on the disk the directory cannot be started, and
//! once the restore has said that it is done all of it is.

use std::path::Path;
use std::process::Command;

use pgrecall_engine::restore::target_dir::{Existing, MARKER};
use pgrecall_testkit::disk_calls::{DiskCall, Unsynced, traced};
use tempfile::TempDir;

use crate::shop::{Shop, assert_restored, options, run, simple_backup};

const INNER: &str = "PGRECALL_TEST_INNER";

async fn restore_into(dir: &Path) {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let mut options = options(dir);
    if dir.exists() {
        options.existing = Existing::Delta;
    }
    run(&cluster, &manifest, &options).await.unwrap();
}

/// Runs the test below again, as the process that restores.
fn restored(dir: &Path, log: &Path) -> Vec<DiskCall> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = "synced::a_power_cut_leaves_nothing_that_starts_before_all_of_it_is_on_the_disk";
    command.args([test, "--exact", "--nocapture"]).env(INNER, dir);
    let (output, calls) = traced(&command, log);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
    assert_restored(dir);
    calls
}

/// The paths that a call changes.
fn changed(call: &DiskCall) -> Vec<&Path> {
    match call {
        DiskCall::Named(path) | DiskCall::Written(path) | DiskCall::Removed(path) => vec![path],
        DiskCall::Moved(from, to) => vec![from, to],
        DiskCall::Synced(_) | DiskCall::AllSynced => vec![],
    }
}

/// Holds the calls of a restore to their order; gives how many changed the directory, and whether
/// there was an old control file.
fn assert_ordered(dir: &Path, calls: &[DiskCall]) -> (usize, bool) {
    let (marker, control) = (dir.join(MARKER), dir.join("global/pg_control"));
    let own = [dir, &marker];
    let (mut unsynced, mut changes) = (Unsynced::default(), 0);
    let (mut taken, mut ended) = (false, false);
    for call in calls {
        let below = |path: &&&Path| path.starts_with(dir) && !own.contains(*path);
        let touched: Vec<&Path> = changed(call).iter().filter(below).copied().collect();
        let puts_control =
            matches!(call, DiskCall::Moved(_, to) | DiskCall::Named(to) if *to == control);
        if puts_control {
            let missing = unsynced.below(dir);
            assert!(missing.is_empty(), "it can be started, and a power cut takes {missing:?}");
            ended = true;
        } else if !touched.is_empty() {
            assert!(!ended, "{call:?} after the control file is in its place");
            assert!(unsynced.is_durable(&marker), "{call:?} before the marker is durable");
            let gone = !taken || unsynced.is_durable(&control);
            assert!(gone, "{call:?} while the old control file may come back");
            taken |= matches!(call, DiskCall::Moved(from, _) if *from == control);
            changes += 1;
        }
        unsynced.after(call);
    }
    assert!(ended, "no control file was put in its place");
    assert!(unsynced.is_durable(&control), "it is done, and a power cut takes the control file");
    assert!(unsynced.is_durable(&marker), "it is done, and a power cut brings the marker back");
    assert_eq!(unsynced.below(dir).len(), 0, "{:?}", unsynced.below(dir));
    (changes, taken)
}

#[tokio::test]
async fn a_power_cut_leaves_nothing_that_starts_before_all_of_it_is_on_the_disk() {
    if let Some(dir) = std::env::var_os(INNER) {
        return restore_into(Path::new(&dir)).await;
    }
    let scratch = TempDir::new().unwrap();
    let place = scratch.path().canonicalize().unwrap();
    let (dir, log) = (place.join("deep/er/data"), place.join("calls"));
    let (changes, taken) = assert_ordered(&dir, &restored(&dir, &log));
    assert!(changes > 30 && !taken, "{changes}");
    // And over what is there: the old control file must be gone for good before a file changes.
    std::fs::write(dir.join("base/1/1249"), b"other pages").unwrap();
    std::fs::write(dir.join("base/1/stale"), b"not in the backup").unwrap();
    let (changes, taken) = assert_ordered(&dir, &restored(&dir, &log));
    assert!(changes > 10 && taken, "{changes}");
}
