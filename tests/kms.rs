//! The program on a repository that a key of AWS KMS opens, against a stand-in of KMS: no key lies
//! on the host, and whatever KMS says is told as what it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pgrecall_testkit::moto::{Moto, REGION, Stranger};
use pgrecall_testkit::scripted_s3::{Answer, Reply, ScriptedS3};

const SEGMENT: &str = "000000010000000000000008";

/// What a run gave.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    /// Panics with what was printed unless the code is this one and all of this was said.
    #[track_caller]
    fn expect(&self, code: i32, said: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        for part in said {
            let whole = format!("{}{}", self.stdout, self.stderr);
            assert!(whole.contains(part), "no {part:?} in {whole}");
        }
        self
    }

    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.expect(0, &[]).stdout).expect("JSON")
    }
}

/// A data directory without a server, and a place for a configuration and a repository.
struct Host {
    folder: tempfile::TempDir,
    endpoint: String,
    user: Stranger,
}

impl Host {
    fn new(kms: &Moto) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pg/17");
        let data = folder.path().join("data");
        for name in ["global", "pg_wal"] {
            fs::create_dir_all(data.join(name)).expect("a folder");
        }
        fs::write(data.join("PG_VERSION"), "17\n").expect("PG_VERSION");
        fs::copy(fixtures.join("pg_control"), data.join("global/pg_control")).expect("copied");
        let mut segment = fs::read(fixtures.join(format!("{SEGMENT}.head"))).expect("the head");
        segment.resize(1 << 20, 0);
        fs::write(data.join("pg_wal").join(SEGMENT), segment).expect("the segment");
        let user =
            Stranger { access_key_id: "AKIDEXAMPLE".into(), secret_access_key: "hush-hush".into() };
        Self { folder, endpoint: kms.endpoint(), user }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, line: &str) -> Run {
        self.run_with(line, &[])
    }

    /// With more variables; an empty one is as none.
    fn run_with(&self, line: &str, more: &[(&str, &str)]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_pgrecall"))
            .args(line.split_whitespace())
            .env_clear()
            .env("PGRECALL_CONFIG", self.file("pgrecall.toml"))
            .env("PGRECALL_REPOSITORY_CACHE_DIR", self.file("cache"))
            .env("PGRECALL_REPOSITORY_KMS_ENDPOINT", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", &self.user.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &self.user.secret_access_key)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(more.iter().copied())
            .current_dir(self.file("data"))
            .output()
            .expect("pgrecall runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let run = Run {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert!(!run.stderr.contains("hush-hush") && !run.stderr.contains("panic"), "{run:?}");
        run
    }

    fn init(&self, repository: &Path, more: &str) -> Run {
        self.run(&format!(
            "init --repo file://{} --cluster main --pgdata {} {more}",
            repository.display(),
            self.file("data").display()
        ))
    }

    fn config(&self) -> String {
        fs::read_to_string(self.file("pgrecall.toml")).expect("the configuration")
    }

    /// Puts a setting into force in place of the comment that names it.
    fn set(&self, key: &str, value: &str) {
        let text = self.config();
        let is_it = |line: &&str| line.trim_start_matches('#').starts_with(&format!("{key} = "));
        let line = text.lines().find(is_it).unwrap_or_else(|| panic!("no {key} in {text}"));
        let text = text.replacen(line, &format!("{key} = \"{value}\""), 1);
        fs::write(self.file("pgrecall.toml"), text).expect("written");
    }

    /// The wraps of the repository.
    fn wraps(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.file("repository/keys")).expect("keys");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.is_file()).collect()
    }
}

/// The one wrap that says this, and what it says.
fn wrap_with(host: &Host, part: &str) -> (PathBuf, String) {
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).expect("a wrap"));
    let mut found = host.wraps().into_iter().map(read).filter(|(_, text)| text.contains(part));
    found.next().expect("a wrap")
}

fn replace(path: &Path, text: &str) {
    fs::remove_file(path).expect("objects are never written over");
    fs::write(path, text).expect("written");
}

/// A repository that a key file and a KMS key open, on a host that has no key file any more.
fn host_without_key_file(kms: &Moto, key: &str) -> Host {
    let host = Host::new(kms);
    host.init(&host.file("repository"), "").expect(0, &[]);
    host.run(&format!("key add --new-kms-key {key} --label cloud")).expect(0, &["added key"]);
    host.set("kms_key", key);
    fs::rename(host.file("main.key"), host.file("away.key")).expect("the key file");
    host
}

#[test]
fn a_host_without_a_key_file_archives_and_reads_by_kms() {
    let kms = Moto::start();
    let key = kms.create_key();
    kms.alias("alias/backup", &key);
    let host = host_without_key_file(&kms, "alias/backup");
    // An alias says no region, and nothing else does here: with an endpoint there is a default.
    let listed = host.run("key list --json").json();
    let keys = listed["keys"].as_array().expect("keys");
    let told = |row: &serde_json::Value| {
        (row["method"].as_str().map(str::to_owned), row["in_use"].as_bool(), row["kms_key"].clone())
    };
    assert_eq!(
        keys.iter().map(told).collect::<Vec<_>>(),
        [
            (Some("key file".to_owned()), Some(false), serde_json::Value::Null),
            (Some("kms".to_owned()), Some(true), key.clone().into()),
        ]
    );
    host.run("key list").expect(0, &[&format!("kms {key}"), "cloud", "used now"]);
    host.run("list").expect(0, &[]);
    // The second of each goes by copies on the host.
    for _ in 0..2 {
        host.run(&format!("wal push pg_wal/{SEGMENT}")).expect(0, &[]);
        host.run(&format!("wal fetch {SEGMENT} pg_wal/RECOVERYXLOG")).expect(0, &[]);
        let read = |name: &str| fs::read(host.file("data/pg_wal").join(name)).expect("a segment");
        assert!(read(SEGMENT) == read("RECOVERYXLOG"), "what was fetched differs");
        fs::remove_file(host.file("data/pg_wal/RECOVERYXLOG")).expect("removed");
    }
    host.run(&format!("wal fetch {} pg_wal/RECOVERYXLOG", SEGMENT.replace('8', "9")))
        .expect(1, &[]);
    // Its own key is not removed by itself, the other one's is.
    let id = |at: usize| keys[at]["id"].as_str().expect("an id").to_owned();
    host.run(&format!("key remove {} --yes", id(1))).expect(17, &["use another one"]);
    host.run(&format!("key remove {} --yes", id(0))).expect(0, &[]);
    host.run(&format!("key list --unlock {}", host.file("away.key").display()))
        .expect(16, &["does not know this key"]);
    host.run("key list").expect(0, &["This is the only key"]);
    // The client would show whole requests, with the secret that is to be encrypted.
    let added = host.run(&format!("key add --new-kms-key {key} --log-level trace"));
    added.expect(0, &["added key"]);
    assert!(added.stderr.len() > 1000, "the log speaks: {}", added.stderr);
    assert!(!added.stderr.contains("Plaintext"), "{}", added.stderr);
    assert!(!host.file("main.key").exists());
}

#[test]
fn what_kms_answers_is_told_as_what_it_is() {
    let kms = Moto::start();
    let key = kms.create_key();
    let mut host = host_without_key_file(&kms, &key);
    let by = |key: &str| host.run_with("list", &[("PGRECALL_REPOSITORY_KMS_KEY", key)]);
    by("alias/none").expect(17, &["decrypt by the KMS key alias/none", "knows no such key"]);
    by(&key.replace("us-east-1", "eu-west-1")).expect(17, &["knows no such key"]);
    let other = kms.create_key();
    by(&other).expect(16, &["no key of the repository is wrapped by it"]);
    host.run(&format!(
        "key add --new-kms-key alias/none --unlock {}",
        host.file("away.key").display()
    ))
    .expect(17, &["encrypt by the KMS key alias/none", "knows no such key"]);
    assert_eq!(host.wraps().len(), 2, "a key that KMS does not know left something behind");
    host.run_with("list", &[("PGRECALL_REPOSITORY_KMS_ENDPOINT", "http://kms.example")])
        .expect(17, &["in the clear"]);
    host.run_with("list", &[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")])
        .expect(16, &["no credentials could be had"]);
    host.run("list").expect(0, &[]);

    // Who writes to the store changes a digit, or comes with a method that is not known yet.
    let (path, text) = wrap_with(&host, "\"kms\"");
    let (_, blob) = text.split_once("\"blob\": \"").expect("a blob");
    let (blob, _) = blob.split_once('"').expect("its end");
    let digit = if blob.ends_with('0') { "1" } else { "0" };
    let changed = format!("{}{digit}", &blob[..blob.len() - 1]);
    replace(&path, &text.replacen(blob, &changed, 1));
    host.run("list").expect(16, &["it opens none of them"]);
    replace(&path, &text.replacen("cloud", "clout", 1));
    host.run("list").expect(16, &["it opens none of them"]);
    replace(&path, &text.replacen("\"kms\"", "\"hsm\"", 1));
    host.run("list").expect(14, &["the method hsm"]);
    replace(&path, &text);
    host.run("list").expect(0, &[]);

    let stranger = kms.ask_for_rights();
    host.user.access_key_id = "AKIDUNKNOWN".into();
    host.run("list").expect(16, &["decrypt by the KMS key"]);
    host.user = stranger;
    host.run("list").expect(16, &["access is denied", "kms:Decrypt"]);
    host.run(&format!("wal push pg_wal/{SEGMENT}")).expect(16, &["access is denied"]);
    host.run(&format!("wal fetch {SEGMENT} pg_wal/RECOVERYXLOG"))
        .expect(126, &["access is denied"]);
    assert!(!host.file("data/pg_wal/RECOVERYXLOG").exists());
}

fn refusal(code: &str) -> Reply {
    let body = format!("{{\"__type\":\"{code}\",\"message\":\"told by the script\"}}");
    Reply::Answer(Answer::new(400, body).with("Content-Type", "application/x-amz-json-1.1"))
}

/// What the stand-in does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_key_and_a_kms_that_is_not_there_are_told_in_time() {
    let kms = Moto::start();
    let key = kms.create_key();
    let mut host = host_without_key_file(&kms, &key);
    drop(kms);
    let push = format!("wal push pg_wal/{SEGMENT}");
    let fetch = format!("wal fetch {SEGMENT} pg_wal/RECOVERYXLOG");
    let quick = |host: &Host, line: &str, more: &[(&str, &str)], time: Duration| {
        let began = Instant::now();
        let run = tokio::task::block_in_place(|| host.run_with(line, more));
        assert!(began.elapsed() < time, "{line} took {:?}", began.elapsed());
        run
    };
    let long = Duration::from_secs(20);
    for (code, words) in [
        ("DisabledException", "the key is disabled"),
        ("KMSInvalidStateException", "the key's state does not allow it"),
    ] {
        let server = ScriptedS3::start(vec![refusal(code); 4]).await;
        host.endpoint = server.endpoint();
        quick(&host, "list", &[], long).expect(16, &[words]);
        quick(&host, &push, &[], long).expect(16, &[words]);
        quick(&host, &fetch, &[], long).expect(126, &[words]);
    }
    // Nobody listens any more, then somebody who says nothing.
    let short = [
        ("PGRECALL_REPOSITORY_KMS_TIMEOUT", "2s"),
        ("PGRECALL_WAL_STANDBY_PROGRESS_TIMEOUT", "1s"),
    ];
    let words = ["by the KMS key"];
    for silent in [false, true] {
        let server = ScriptedS3::start(vec![Reply::Silence; 100]).await;
        host.endpoint = server.endpoint();
        let server = Some(server).filter(|_| silent);
        quick(&host, "list", &short, Duration::from_secs(8)).expect(15, &words);
        quick(&host, &push, &short, Duration::from_secs(8)).expect(15, &words);
        quick(&host, &fetch, &short, Duration::from_secs(8)).expect(126, &words);
        fs::write(host.file("data/standby.signal"), "").expect("standby.signal");
        quick(&host, &fetch, &short, Duration::from_secs(4)).expect(1, &words);
        fs::remove_file(host.file("data/standby.signal")).expect("removed");
        drop(server);
    }
}

#[test]
fn init_makes_a_repository_by_kms_and_joins_one() {
    let kms = Moto::start();
    let (key, other) = (kms.create_key(), kms.create_key());
    let host = Host::new(&kms);
    let repository = host.file("repository");
    let made = host.init(&repository, &format!("--kms-key {key} --json")).json();
    assert_eq!(made["how"], "made");
    assert_eq!(made["kms_key"].as_str(), Some(key.as_str()));
    assert!(made["key_file"].is_null() && !host.file("main.key").exists());
    assert_eq!(made["warnings"][0], "only_key");
    assert!(host.config().contains(&format!("\nkms_key = \"{key}\"\n")), "{}", host.config());
    host.run("key list").expect(0, &["used now", "This is the only key"]);
    host.init(&repository, "").expect(0, &["THE KEY", &key]);
    assert_eq!(host.wraps().len(), 1, "init did something when it was run again");
    // A file for the safe, by which a host with another KMS key joins.
    let safe = host.file("safe.key");
    host.run(&format!("key add --new-key-file {}", safe.display())).expect(0, &[]);
    let second = Host::new(&kms);
    let alone = second.init(&repository, &format!("--kms-key {other}"));
    alone.expect(16, &["a repository stands at"]);
    assert!(!second.file("pgrecall.toml").exists());
    let words = format!("--kms-key {other} --unlock {}", safe.display());
    second.init(&repository, &words).expect(0, &["joined", &format!("the KMS key {other}")]);
    second.run("key list").expect(0, &["used now"]);
    second.init(&repository, &words).expect(0, &["known to this host already"]);
    assert_eq!(host.wraps().len(), 3);
    // One with the first's key has nothing to add.
    let third = Host::new(&kms);
    let known = third.init(&repository, &format!("--kms-key {key} --kms-region {REGION}"));
    known.expect(0, &["known to this host already"]);
    assert_eq!(host.wraps().len(), 3);
}
