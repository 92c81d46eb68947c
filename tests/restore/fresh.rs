//! A repository in a fresh place, with only what one plan needs and a configuration written anew,
//! and clusters restored from there: nothing on the first host helps.

use std::ops::Deref;
use std::path::Path;

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::Scratch;
use serde_json::Value;

use crate::needed::{configuration, copy_folder};
use crate::site::{Site, own_all};

/// Flags of `restore` that `plan` does not know, and how many words they are.
const NOT_PLANNED: [(&str, usize); 4] =
    [("--as", 2), ("--action", 2), ("--delta", 1), ("--files-only", 1)];

/// The site over a copy that holds what the plan for this target needs, and nothing else. The words
/// may be those of a restore.
pub(crate) fn fresh_copy(site: &Site, words: &[&str]) -> Site {
    let plan = plan(site, &planned(words));
    let scratch = Scratch::new();
    let repository = scratch.path().join("repository");
    copy_folder(site.repository(), &repository, &site.key_file(), &plan);
    own_all(&repository);
    let key_file = scratch.file("main.key", &std::fs::read(site.key_file()).expect("the key file"));
    let url = format!("file://{}", repository.display());
    let text = configuration(&site.config(), &url, &key_file, &scratch.path().join("cache"));
    scratch.file("pgrecall.toml", text.as_bytes());
    Site::at(scratch)
}

/// What `plan --json` says; it must succeed.
pub(crate) fn plan(site: &Site, target: &[&str]) -> Value {
    let mut words = vec!["plan", "--json"];
    words.extend_from_slice(target);
    let output = site.pgrecall(Path::new("/"), &words).output().expect("pgrecall runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"))
}

/// Words of a restore without those that `plan` does not know.
pub(crate) fn planned<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut planned = Vec::new();
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match NOT_PLANNED.iter().find(|(flag, _)| *flag == word) {
            Some((_, 2)) => drop(words.next()),
            Some(_) => {}
            None => planned.push(word),
        }
    }
    planned
}

/// A restored cluster, and the fresh copy that it came from and fetches WAL from: the copy is there
/// as long as the server. In the end every checker of PostgreSQL's looks at it.
pub(crate) struct Restored {
    cluster: CheckedCluster,
    site: Site,
}

impl Deref for Restored {
    type Target = CheckedCluster;

    fn deref(&self) -> &CheckedCluster {
        &self.cluster
    }
}

impl Restored {
    /// What it was restored from, and fetches from.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// Restores into a folder of the fresh copy and starts nothing. It is a copy, unless the flags
    /// say what else.
    pub(crate) fn written(site: &Site, major: u32, name: &str, flags: &[&str]) -> Self {
        let site = fresh_copy(site, flags);
        let dir = site.scratch().path().join(name);
        let cluster = Self::restore(&site, major, &dir, flags);
        Self { cluster, site }
    }

    /// Restores to where the caller says, from a fresh copy.
    pub(crate) fn written_to(site: &Site, major: u32, dir: &Path, flags: &[&str]) -> Self {
        let site = fresh_copy(site, flags);
        let cluster = Self::restore(&site, major, dir, flags);
        Self { cluster, site }
    }

    /// Restores files alone, as for another tool, and has PostgreSQL find the target itself.
    pub(crate) fn by_postgresql(site: &Site, major: u32, name: &str, settings: &str) -> Self {
        let restored = Self::written(site, major, name, &["--files-only", "--to-latest"]);
        restored.append_to("recovery.signal", "");
        let command = restored.site.restore_command();
        let fixed = format!("restore_command = '{command}'\narchive_mode = off\n{settings}");
        restored.append_to("postgresql.auto.conf", &fixed);
        restored
    }

    /// As [`written`](Self::written), and starts it.
    pub(crate) fn started(site: &Site, major: u32, name: &str, flags: &[&str]) -> Self {
        let restored = Self::written(site, major, name, flags);
        restored.start();
        restored
    }

    fn restore(site: &Site, major: u32, dir: &Path, flags: &[&str]) -> CheckedCluster {
        let text = dir.to_string_lossy().into_owned();
        let mut words = vec!["restore", &text];
        if !flags.contains(&"--as") && !flags.contains(&"--files-only") {
            words.extend(["--as", "copy"]);
        }
        words.extend_from_slice(flags);
        site.run(Path::new("/"), &words).expect_code(0);
        CheckedCluster::adopt(major, dir)
    }
}
