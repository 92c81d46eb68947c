//! `backup` and `check` with a key that opens nothing, a repository of a newer version, and a
//! server that is another cluster's: refused in words, and nothing is written.

use std::process::Command;

use pgrecall_repo::keys::KeyFile;
use pgrecall_repo::random::SharedRandom;
use pgrecall_testkit::postgres::{Cluster, ClusterOptions};
use serde_json::Value;

use crate::site::{Run, Site, newest_major};

struct Case {
    site: Site,
    primary: Cluster,
}

impl Case {
    fn new() -> Self {
        let site = Site::new();
        let primary = site.primary(newest_major());
        Self { site, primary }
    }

    fn command(&self, words: &[&str]) -> Command {
        let data = self.primary.data_dir();
        let words = [words, &["--pgdata", data.to_str().expect("UTF-8")]].concat();
        self.site.pgrecall(data, &words)
    }

    /// Both commands, with the variables that `set` gives them.
    #[track_caller]
    fn expect(&self, (code, check_code): (i32, i32), said: &[&str], set: impl Fn(&mut Command)) {
        let mut backup = self.command(&["backup", "--fast-checkpoint"]);
        set(&mut backup);
        let run = Run::of(backup);
        run.expect_code(code);
        for part in said {
            assert!(run.stderr.contains(part), "no {part:?} in {}", run.stderr);
        }
        let mut check = self.command(&["check", "--json"]);
        set(&mut check);
        let output = check.output().expect("pgrecall runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(output.status.code(), Some(check_code), "{report:#}");
        assert_eq!(report["passed"], false);
        let lines = report["lines"].as_array().expect("lines");
        let failed: Vec<String> =
            lines.iter().filter(|line| line["verdict"] == "fail").map(Value::to_string).collect();
        let first = failed.first().expect("a line that failed").replace("\\\"", "\"");
        assert!(first.contains(said[0]), "no {:?} in {report:#}", said[0]);
    }

    fn backups(&self) -> usize {
        let output = self.command(&["list", "--json"]).output().expect("pgrecall runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let clusters = report["clusters"].as_array().expect("clusters");
        let backups = clusters.iter().filter_map(|cluster| cluster["backups"].as_array());
        backups.map(Vec::len).sum()
    }

    /// With all as it should be, a backup works.
    fn finish(&self) {
        self.command(&["check"]).status().expect("pgrecall runs");
        Run::of(self.command(&["backup", "--fast-checkpoint"])).expect_code(0);
        assert_eq!(self.backups(), 1);
    }
}

#[test]
fn a_key_that_opens_nothing_is_denied() {
    let case = Case::new();
    let key = KeyFile::random(&SharedRandom::system());
    let foreign = case.site.scratch().file("foreign.key", key.to_text().as_bytes());
    let none = case.site.scratch().path().join("none.key");
    let wrong = ["does not open the repository", "hint: "];
    case.expect((16, 16), &wrong, |command| {
        command.env("PGRECALL_REPOSITORY_KEY_FILE", &foreign);
    });
    let missing = ["nothing opens the repository", "none.key does not exist", "hint: Copy a key"];
    case.expect((16, 16), &missing, |command| {
        command.env("PGRECALL_REPOSITORY_KEY_FILE", &none);
    });
    case.finish();
}

#[test]
fn a_repository_of_another_version_is_unsupported() {
    let case = Case::new();
    let root = case.site.root();
    let newer = ["pgrecall.json cannot be read by this version", "Use the version"];
    let older = ["pgrecall.json is of an older, unreleased format", "make another repository"];
    let others = [
        (r#""version": 2"#, r#""version": 3"#, "has version 3", newer),
        (r#""features": []"#, r#""features": ["tape"]"#, "needs the feature \"tape\"", newer),
        (r#""version": 2"#, r#""version": 1"#, "has version 1", older),
    ];
    for (is, other, what, [said, hint]) in others {
        assert!(root.contains(is), "{root}");
        case.site.set_root(&root.replacen(is, other, 1));
        case.expect((14, 14), &[what, said, hint], |_| {});
    }
    case.site.set_root(&root);
    case.finish();
}

#[test]
fn a_server_that_is_another_clusters_is_refused() {
    let case = Case::new();
    let other = Cluster::create(ClusterOptions::new(newest_major()));
    let id = other.psql("SELECT system_identifier FROM pg_control_system()");
    let said = [id.as_str(), "has system identifier", "another cluster answers there"];
    case.expect((17, 17), &said, |command| {
        command.env("PGHOST", other.socket_dir()).env("PGPORT", other.port().to_string());
    });
    assert_eq!(case.backups(), 0);
    case.finish();
}
