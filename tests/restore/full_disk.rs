//! A restore onto a disk that fills up meanwhile: told as such, nothing that could be started is
//! left, and with room the same command goes on.

use std::path::{Path, PathBuf};

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::Cluster;
use rustix::process::{Pid, Signal, kill_process};

use crate::fresh::fresh_copy;
use crate::interrupted::{MARKER, caught};
use crate::site::{Run, Site, newest_major, switch};
use crate::small_disk::{SmallDisk, fill, limited};

fn backed_up(site: &Site) -> Cluster {
    let primary = site.primary(newest_major());
    primary.psql(
        "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) t FROM generate_series(1, 100000) n",
    );
    let pgdata = primary.data_dir().to_string_lossy().into_owned();
    let words = ["--pgdata", &pgdata, "backup", "--fast-checkpoint"];
    site.run(primary.data_dir(), &words).expect_code(0);
    primary.psql("DELETE FROM big WHERE n > 1000");
    site.wait_archived(&primary, &switch(&primary));
    primary
}

/// There is room when the restore looks, and none when it writes.
fn while_it_fills_up(site: &Site, dir: &Path, words: &[&str], filler: &Path) -> Run {
    let child = caught(site, dir, words);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).expect("it is stopped");
    fill(filler, 0);
    kill_process(pid, Signal::CONT).expect("it goes on");
    let output = child.wait_with_output().expect("an end");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Run { code: output.status.code(), stderr }
}

#[test]
fn a_disk_that_fills_up_ends_the_restore_and_with_room_it_goes_on() {
    let first = Site::new();
    let primary = backed_up(&first);
    let site = fresh_copy(&first, &[]);
    let folder = site.scratch().path().join("small");
    let disk = SmallDisk::mount(&folder, 420);
    if disk.is_none() {
        site.scratch().dir("small");
    }
    let (dir, filler): (PathBuf, PathBuf) = (folder.join("copy"), folder.join("filler"));
    let text = dir.to_string_lossy().into_owned();
    let words = ["restore", &text, "--as", "copy"];
    if disk.is_some() {
        fill(&filler, 16 << 20);
        let refused = site.run(Path::new("/"), &words);
        let said = "bytes free, and the backup needs";
        assert!(refused.expect_code(15).stderr.contains(said), "{}", refused.stderr);
        assert!(!dir.exists(), "a refusal writes nothing");
        std::fs::remove_file(&filler).expect("room again");
    }
    let run = match disk {
        Some(_) => while_it_fills_up(&site, &dir, &words, &filler),
        None => Run::of(limited(&site.pgrecall(Path::new("/"), &words), 8 << 10)),
    };
    assert_eq!(run.code, Some(15), "{}", run.stderr);
    assert!(run.stderr.contains("error: cannot "), "{}", run.stderr);
    let full = run.stderr.contains("No space left") && run.stderr.contains("Free space there");
    assert!(full || run.stderr.contains("File too large"), "{}", run.stderr);
    assert!(!dir.join("global/pg_control").exists(), "it could be started");
    assert!(dir.join(MARKER).exists());

    if disk.is_some() {
        // Still too little ends in the same way: one that goes on does not count what is missing. One
        // that was caught before its marker was written begins anew, and counts.
        std::fs::remove_file(&filler).expect("room again");
        fill(&filler, 1 << 20);
        let again = site.run(Path::new("/"), &words);
        let told = ["No space left", "bytes free, and the backup needs"];
        let said = &again.expect_code(15).stderr;
        assert!(told.iter().any(|told| said.contains(told)), "{said}");
        assert!(!dir.join("global/pg_control").exists(), "it could be started");
        std::fs::remove_file(&filler).expect("room again");
    }
    site.run(Path::new("/"), &words).expect_code(0);
    let copy = CheckedCluster::adopt(newest_major(), &dir);
    copy.start();
    copy.wait_until_recovered();
    assert_eq!(copy.psql("SELECT count(*) FROM big"), "1000");
    drop(copy);
    drop(primary);
}
