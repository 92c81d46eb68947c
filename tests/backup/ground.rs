//! What the tests of backups share: taking one, watching one, bringing it back.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use pgrecall_testkit::postgres::Cluster;
use rustix::process::{Pid, Signal, kill_process};

use crate::fresh::Restored;
use crate::site::{Run, Site, wait_for};

/// The words of a backup of this cluster.
fn words(cluster: &Cluster, more: &[&str]) -> Vec<String> {
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    let mut words = vec!["--pgdata".to_owned(), pgdata, "backup".to_owned()];
    words.extend(more.iter().map(|&word| word.to_owned()));
    words
}

/// Runs a backup to its end.
pub(crate) fn try_backup(site: &Site, cluster: &Cluster, more: &[&str]) -> Run {
    let words = words(cluster, more);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    site.run(Path::new("/"), &words)
}

/// Takes a backup, and gives what `--json` tells of it.
pub(crate) fn back_up(site: &Site, cluster: &Cluster) -> serde_json::Value {
    back_up_aloud(site, cluster).0
}

/// The same, with what was said beside it.
pub(crate) fn back_up_aloud(site: &Site, cluster: &Cluster) -> (serde_json::Value, String) {
    let words = words(cluster, &["--fast-checkpoint", "--json"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = site.pgrecall(Path::new("/"), &words).output().expect("pgrecall runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    (serde_json::from_slice(&output.stdout).expect("JSON"), stderr)
}

/// A table of 45 MB that do not compress, which is more than fits into one pack; its rows have the
/// numbers from 1 to 350000. Nobody touches its pages between two backups.
pub(crate) fn make_bulk(cluster: &Cluster, table: &str) {
    cluster.psql(&format!(
        "CREATE TABLE {table} WITH (autovacuum_enabled = off) AS
           SELECT i AS id, sha512(('{table}' || i)::bytea) || sha512((i || '{table}')::bytea) AS v
             FROM generate_series(1, 350000) i"
    ));
    cluster.psql("CHECKPOINT");
}

/// What a command prints when it ends well.
pub(crate) fn output(site: &Site, cluster: &Cluster, words: &[&str]) -> String {
    let data = cluster.data_dir();
    let mut all = words.to_vec();
    all.extend(["--pgdata", data.to_str().expect("UTF-8")]);
    let output = site.pgrecall(Path::new("/"), &all).output().expect("pgrecall runs");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The same of a command that prints JSON.
pub(crate) fn json(site: &Site, cluster: &Cluster, words: &[&str]) -> serde_json::Value {
    let mut all = words.to_vec();
    all.push("--json");
    serde_json::from_str(&output(site, cluster, &all)).expect("JSON")
}

/// A number of the report.
pub(crate) fn number(told: &serde_json::Value, field: &str) -> u64 {
    told[field].as_u64().unwrap_or_else(|| panic!("{field} in {told}"))
}

/// A backup under way.
pub(crate) struct Running {
    child: Child,
    /// What was read of its standard error.
    said: Vec<u8>,
}

impl Running {
    /// Begins one.
    pub(crate) fn begin(site: &Site, cluster: &Cluster, more: &[&str]) -> Self {
        let words = words(cluster, more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = site.pgrecall(Path::new("/"), &words);
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        Self { child: command.spawn().expect("pgrecall runs"), said: Vec::new() }
    }

    /// Begins one and stops its process as soon as the server has started the backup.
    pub(crate) fn held_in_the_middle(site: &Site, cluster: &Cluster) -> Self {
        let running = Self::begin(site, cluster, &["--fast-checkpoint"]);
        wait_for("the backup has started", || !starts(site).is_empty());
        running.signal(Signal::STOP);
        running
    }

    /// Begins one and stops its process when it has stored a pack, in the middle of copying.
    pub(crate) fn held_after_a_pack(site: &Site, cluster: &Cluster) -> Self {
        let before = objects(site, "packs").len();
        // One thread fills one pack after the other.
        let running = Self::begin(site, cluster, &["--fast-checkpoint", "--threads", "1"]);
        wait_for("a pack is stored", || objects(site, "packs").len() > before);
        running.signal(Signal::STOP);
        running
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it is there");
    }

    /// Waits until it has said this.
    pub(crate) fn wait_said(&mut self, part: &str) {
        let stderr = self.child.stderr.as_mut().expect("a pipe");
        while !self.said.ends_with(part.as_bytes()) {
            let mut byte = [0];
            let read = stderr.read(&mut byte).expect("standard error");
            assert_ne!(read, 0, "no {part:?} in {}", String::from_utf8_lossy(&self.said));
            self.said.extend(byte);
        }
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Run {
        let output = self.child.wait_with_output().expect("an end");
        let stderr = [self.said, output.stderr].concat();
        Run { code: output.status.code(), stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }
}

/// All files of the repository below folders of this name.
pub(crate) fn objects(site: &Site, below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![site.repository().to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.iter().any(|part| part == below) {
                found.push(path);
            }
        }
    }
    found
}

fn starts(site: &Site) -> Vec<PathBuf> {
    let mut starts = objects(site, "intents");
    starts.retain(|path| path.extension().is_some_and(|end| end == "start"));
    starts
}

/// Restores from a fresh copy, starts, and waits for the end of recovery.
pub(crate) fn restored(site: &Site, major: u32, name: &str, flags: &[&str]) -> Restored {
    let copy = Restored::started(site, major, name, flags);
    copy.wait_until_recovered();
    copy
}
