//! A cluster that never ran, with a repository that is never reached: the server of its bucket
//! answers by a script.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const ID: &str = "ic5phnlnlpz3zkcrvhpc2v6jy4";
/// A segment in its `pg_wal`.
pub(crate) const SEGMENT: &str = "000000010000000000000008";

/// How long is waited.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// Seconds, so that tests end soon.
    Short,
    /// As without any settings.
    Default,
}

/// A data directory and a configuration for a store at this endpoint.
pub(crate) fn site(endpoint: &str, limits: Limits) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let pgdata = folder.path().join("pgdata");
    for name in ["global", "pg_wal"] {
        fs::create_dir_all(pgdata.join(name)).expect("a folder");
    }
    fs::write(pgdata.join("PG_VERSION"), "17\n").expect("PG_VERSION");
    fs::copy(fixtures.join("pg/17/pg_control"), pgdata.join("global/pg_control")).expect("copied");
    let mut segment = fs::read(fixtures.join(format!("pg/17/{SEGMENT}.head"))).expect("the head");
    segment.resize(1 << 20, 0);
    fs::write(pgdata.join("pg_wal").join(SEGMENT), segment).expect("the segment");
    let key = fixtures.join("repo/v2/encrypted/key");
    let (retries, wal) = match limits {
        Limits::Short => (
            "read_timeout = \"1s\"\nretry_budget = \"2s\"\n",
            "[wal]\npush_timeout = \"3s\"\nfetch_timeout = \"3s\"\n",
        ),
        Limits::Default => ("", ""),
    };
    let config = format!(
        "[[repository]]\nurl = \"s3://bucket/pg\"\nid = \"{ID}\"\n\
         key_fingerprint = \"0123456789abcdef\"\nkey_file = \"{}\"\ncache_dir = \"{1}/cache\"\n\
         [repository.s3]\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
         {retries}\n[[cluster]]\nname = \"main\"\npgdata = \"{1}/pgdata\"\n\n{wal}",
        key.display(),
        folder.path().display(),
    );
    fs::write(folder.path().join("pgrecall.toml"), config).expect("the configuration");
    folder
}

/// The program, in the data directory.
pub(crate) fn program(folder: &Path, words: &str) -> Command {
    // Whoever runs the tests in the background may have them ignore signals; PostgreSQL does not.
    let mut command = Command::new("/usr/bin/env");
    command
        .arg("--default-signal=TERM,INT,QUIT")
        .arg(env!("CARGO_BIN_EXE_pgrecall"))
        .args(words.split(' '))
        .env_clear()
        .env("PGRECALL_CONFIG", folder.join("pgrecall.toml"))
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "hush-hush")
        .current_dir(folder.join("pgdata"));
    command
}

/// What it ended with, and what it said.
pub(crate) fn run(folder: &Path, words: &str) -> (Option<i32>, String) {
    let start = Instant::now();
    let output = program(folder, words).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("hush-hush") && !said.contains("panicked"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(30), "{words} took {:?}", start.elapsed());
    (output.status.code(), said)
}
