//! Passwords and passphrases reach the server and the repository from wherever they are kept, and
//! wrong ones are told as what they are.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_testkit::postgres::{Cluster, ServerUser};

use crate::checking::line;
use crate::site::{Run, Site, newest_major, switch};

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

    fn command(&self, words: &[&str], variables: &[(&str, &str)]) -> Command {
        let data = self.primary.data_dir();
        let words = [words, &["--pgdata", data.to_str().expect("UTF-8")]].concat();
        let mut command = self.site.pgrecall(data, &words);
        command.envs(variables.iter().copied());
        command
    }

    fn run(&self, words: &[&str], variables: &[(&str, &str)]) -> Run {
        Run::of(self.command(words, variables))
    }

    /// A file that only PostgreSQL's user may read.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.site.scratch().file(name, text.as_bytes());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        ServerUser::current().own(&path);
        path
    }

    /// What `check` says of the server: the verdict, and what it found.
    fn server_line(&self, variables: &[(&str, &str)]) -> (String, String) {
        let output = self.command(&["check", "--json"], variables).output().expect("it runs");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let passed = said["lines"]
            .as_array()
            .expect("lines")
            .iter()
            .any(|line| line["check"] == "server" && line["verdict"] == "pass");
        let verdict = if passed { "pass" } else { "fail" };
        let found = line(&said, "server", verdict)["found"].to_string();
        (verdict.to_owned(), found)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn the_servers_password_comes_from_a_file_a_command_or_the_password_file() {
    let case = Case::new();
    case.primary.psql("CREATE ROLE keeper SUPERUSER LOGIN PASSWORD 'pw of the keeper'");
    let hba = case.primary.data_dir().join("pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).expect("pg_hba.conf");
    std::fs::write(&hba, format!("local all keeper scram-sha-256\n{rules}")).expect("written");
    case.primary.reload();
    let right = case.file("password", "pw of the keeper\n");
    let wrong = case.file("wrong", "another\n");
    let passes = case.file("passes", "*:*:*:keeper:pw of the keeper\n");
    let command = format!("cat '{}'", text(&right));
    let user = ("PGUSER", "keeper");
    for way in [
        ("PGRECALL_CLUSTER_PASSWORD_FILE", text(&right)),
        ("PGRECALL_CLUSTER_PASSWORD_COMMAND", &command),
        ("PGPASSWORD", "pw of the keeper"),
        ("PGPASSFILE", text(&passes)),
    ] {
        let (verdict, found) = case.server_line(&[user, way]);
        assert_eq!(verdict, "pass", "{}: {found}", way.0);
    }
    for way in [("PGRECALL_CLUSTER_PASSWORD_FILE", text(&wrong)), ("PGPASSFILE", "/nonexistent")] {
        let run = case.run(&["backup"], &[user, way]);
        assert_eq!(run.code, Some(16), "{}", run.stderr);
        assert!(run.stderr.contains("hint: "), "{}", run.stderr);
        assert!(!run.stderr.contains("another"), "a secret is told: {}", run.stderr);
    }
}

#[test]
fn a_passphrase_opens_the_repository_and_a_wrong_one_nothing() {
    let case = Case::new();
    let name = switch(&case.primary);
    case.site.wait_archived(&case.primary, &name);
    let right = case.file("passphrase", "correct horse battery staple\n");
    let wrong = case.file("wrong", "wrong horse battery staple\n");
    case.run(&["key", "add", "--new-passphrase-file", text(&right)], &[]).expect_code(0);
    let no_key = ("PGRECALL_REPOSITORY_KEY_FILE", "/nonexistent.key");
    let no_cache = case.site.scratch().dir("no-cache");
    let no_cache = ("PGRECALL_REPOSITORY_CACHE_DIR", text(&no_cache));
    let command = format!("cat '{}'", text(&right));
    let by_file = ("PGRECALL_REPOSITORY_PASSPHRASE_FILE", text(&right));
    let by_command = ("PGRECALL_REPOSITORY_PASSPHRASE_COMMAND", command.as_str());
    case.run(&["backup", "--fast-checkpoint"], &[no_key, no_cache, by_file]).expect_code(0);
    case.run(&["verify", "--read-data"], &[no_key, no_cache, by_command]).expect_code(0);
    let target = case.site.scratch().path().join("restored");
    let restore = ["restore", text(&target), "--as", "copy", "--to-immediate"];
    let fetched = case.site.scratch().path().join("fetched");
    let path = format!("pg_wal/{name}");
    let by_wrong = ("PGRECALL_REPOSITORY_PASSPHRASE_FILE", text(&wrong));
    for (words, code) in [
        (&["backup", "--fast-checkpoint"][..], 16),
        (&["list"], 16),
        (&["verify"], 16),
        (&restore, 16),
        (&["wal", "push", &path], 16),
        (&["wal", "fetch", &name, text(&fetched)], 126),
    ] {
        let run = case.run(words, &[no_key, no_cache, by_wrong]);
        assert_eq!(run.code, Some(code), "{words:?}: {}", run.stderr);
        assert!(run.stderr.contains("does not open the repository"), "{words:?}: {}", run.stderr);
        assert!(!run.stderr.contains("horse"), "a secret is told: {}", run.stderr);
    }
    assert!(!target.exists() && !fetched.exists(), "something was written");
    case.run(&restore, &[no_key, no_cache, by_file]).expect_code(0);
}
