//! `pgrecall config` shows what is in force and whence; secrets never appear anywhere.

use crate::program::Place;

const FILE: &str = "\
[[repository]]
url = \"s3://bucket/pg\"
[repository.s3]
secret_access_key = \"hush-hush\"

[[cluster]]
name = \"main\"
port = 5433

[backup]
threads = 2
";

/// The row of a setting: its columns.
fn row<'a>(stdout: &'a str, setting: &str) -> Vec<&'a str> {
    let line = stdout.lines().find(|line| line.split_whitespace().next() == Some(setting));
    let line = line.unwrap_or_else(|| panic!("{setting} is not shown in:\n{stdout}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn every_source_is_named() {
    let place = Place::new(FILE);
    let variables = [("PGRECALL_BACKUP_THREADS", "3"), ("PGUSER", "backup")];
    let run = place.run_with("config --cluster main --log-level debug", &variables);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let file = |line| format!("{}:{line}", place.config().display());
    let cases: [(&str, &str, String); 6] = [
        ("repository.url", "s3://bucket/pg", file(2)),
        ("cluster.port", "5433", file(8)),
        ("backup.threads", "3", "environment PGRECALL_BACKUP_THREADS".to_owned()),
        ("cluster.user", "backup", "environment PGUSER".to_owned()),
        ("log.level", "debug", "flag --log-level".to_owned()),
        ("restore.memory_budget", "192MiB", "default".to_owned()),
    ];
    for (setting, value, from) in cases {
        assert_eq!(row(&run.stdout, setting), [setting, value, &from]);
    }
}

#[test]
fn secrets_are_masked_in_every_form() {
    let place = Place::new(FILE);
    let variables = [("PGPASSWORD", "pw-hush"), ("PGRECALL_PASSPHRASE", "pp-hush")];
    for line in ["config", "config --json", "config --log-level trace"] {
        let run = place.run_with(line, &variables);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(!run.stdout.contains("hush") && !run.stderr.contains("hush"), "{line}");
        assert!(run.stdout.contains("********"), "{line}");
    }
    // Standing in a file that everybody can read, the secret is worth a warning.
    let run = place.run("config");
    assert!(run.stderr.contains("can be read by everybody"), "{}", run.stderr);
}

#[test]
fn commands_that_print_secrets_are_masked_too() {
    let file = "[[repository]]\nurl = \"file:///b\"\npassphrase_command = \"vault --pin hush\"\n\
                [[cluster]]\nname = \"main\"\npassword_command = \"echo hush\"\n";
    let place = Place::new(file);
    for line in ["config", "config --json"] {
        let run = place.run(line);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(!run.stdout.contains("hush") && !run.stderr.contains("hush"), "{}", run.stdout);
        assert_eq!(run.stdout.matches("********").count(), 2, "{}", run.stdout);
    }
}

#[test]
fn json_has_a_stable_shape() {
    let run = Place::new(FILE).run("config --json --repo s3://bucket/pg");
    assert_eq!(run.code, 0, "{}", run.stderr);
    for part in [
        "\"file_exists\": true",
        "\"setting\": \"repository.url\"",
        "\"kind\": \"flag\"",
        "\"flag\": \"--repo\"",
        "\"line\": 11",
        "\"kind\": \"default\"",
    ] {
        assert!(run.stdout.contains(part), "{part} is missing in {}", run.stdout);
    }
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest() {
    let place = Place::new("[wal]\npush_timout = \"1min\"\n");
    let run = place.run("config");
    assert_eq!(run.code, 3);
    let expected = format!(
        "error: {}:2: unknown key \"wal.push_timout\"; did you mean \"push_timeout\"?\n",
        place.config().display()
    );
    assert!(run.stderr.starts_with(&expected), "{}", run.stderr);
}

#[test]
fn the_working_directory_tells_the_cluster() {
    let place = Place::new("");
    let config = format!(
        "[[cluster]]\nname = 'other'\npgdata = '/srv/other'\n[[cluster]]\nname = 'here'\npgdata = '{}'\n",
        place.data().display()
    );
    std::fs::write(place.config(), config).expect("writing pgrecall.toml");
    let run = place.run("config");
    assert_eq!(row(&run.stdout, "cluster.name")[1], "here", "{}", run.stderr);
    let run = place.run_with("config", &[("PGRECALL_CLUSTER", "other")]);
    assert_eq!(row(&run.stdout, "cluster.pgdata")[1], "/srv/other", "{}", run.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::io::Read as _;
    use std::process::{Command, Stdio};
    let place = Place::new(FILE);
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgrecall"))
        .args(["config", "--json"])
        .env_clear()
        .env("PGRECALL_CONFIG", place.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("running pgrecall");
    drop(child.stdout.take());
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("a pipe");
    pipe.read_to_string(&mut stderr).expect("reading standard error");
    let status = child.wait().expect("waiting for pgrecall");
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("error") && !stderr.contains("panic"), "{stderr}");
}
