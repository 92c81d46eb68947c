//! A restore that is killed or told to stop: nothing that could be started is left, and the same
//! command goes on.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pgrecall_testkit::cluster_check::CheckedCluster;
use rustix::process::{Pid, Signal, kill_process};

use crate::fresh::fresh_copy;
use crate::site::{Site, newest_major, switch};

pub(crate) const MARKER: &str = ".pgrecall-restore";

/// Starts a restore and gives it back in the middle of its work.
pub(crate) fn caught(fresh: &Site, dir: &Path, words: &[&str]) -> Child {
    for _ in 0..20 {
        let mut command = fresh.pgrecall(Path::new("/"), words);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("pgrecall runs");
        let end = Instant::now() + Duration::from_secs(60);
        while !dir.join(MARKER).exists() && Instant::now() < end {
            if child.try_wait().expect("a status").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if child.try_wait().expect("a status").is_none() {
            return child;
        }
        assert!(dir.join("global/pg_control").exists(), "it ended, and well");
        std::fs::remove_dir_all(dir).expect("another try");
    }
    panic!("the restore was always faster than the look at it");
}

#[test]
fn a_killed_restore_cannot_be_started_and_goes_on() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    primary.psql(
        "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) t FROM generate_series(1, 200000) n",
    );
    let pgdata = primary.data_dir().to_string_lossy().into_owned();
    let words = ["--pgdata", &pgdata, "backup", "--fast-checkpoint"];
    site.run(primary.data_dir(), &words).expect_code(0);
    primary.psql("DELETE FROM big WHERE n > 1000");
    site.wait_archived(&primary, &switch(&primary));
    let fresh = fresh_copy(&site, &[]);
    for (name, signal, code) in [
        ("killed", Signal::KILL, None),
        ("told", Signal::TERM, Some(143)),
        ("int", Signal::INT, Some(130)),
    ] {
        let dir: PathBuf = fresh.scratch().path().join(name);
        let text = dir.to_string_lossy().into_owned();
        let words = ["restore", &text, "--as", "copy"];
        let mut child = caught(&fresh, &dir, &words);
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).expect("a signal");
        let status = child.wait().expect("a status");
        assert_eq!(status.code(), code, "{name}");
        assert!(!dir.join("global/pg_control").exists(), "{name}: it could be started");
        assert!(dir.join(MARKER).exists(), "{name}");
        fresh.run(Path::new("/"), &words).expect_code(0);
        let copy = CheckedCluster::adopt(newest_major(), &dir);
        copy.start();
        copy.wait_until_recovered();
        assert_eq!(copy.psql("SELECT count(*) FROM big"), "1000");
    }
}
