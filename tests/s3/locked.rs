//! A stolen key of the database host: what its owner can do to a bucket with the policy and the
//! object lock of docs/s3-policy.md, and how everything comes back after that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, as_server_user, majors};
use pgrecall_testkit::s3_user::S3User;
use pgrecall_testkit::seaweedfs::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, SeaweedFs, WRITER};
use serde_json::{Value, json};

const BUCKET: &str = "backups";

/// The bucket policy of the documentation, for a server that names users in another way than AWS
/// and has not heard of conditions on headers.
fn documented_policy() -> Value {
    let text = include_str!("../../docs/s3-policy.md");
    let (_, rest) = text.split_once("```json\n").expect("a policy");
    let (policy, _) = rest.split_once("```").expect("its end");
    let policy = policy.replace("BUCKET", BUCKET).replace("PREFIX", "pg");
    let policy =
        policy.replace("arn:aws:iam::ACCOUNT:role/pgrecall-", "arn:aws:iam::000000000000:user/");
    let mut policy: Value = serde_json::from_str(&policy).expect("JSON");
    let statements = policy["Statement"].as_array_mut().expect("statements");
    statements.retain(|statement| statement.get("Condition").is_none());
    assert!(!statements.is_empty());
    let user = "arn:aws:iam::000000000000:user/writer";
    // What the host's own policy says on AWS.
    let objects = format!("arn:aws:s3:::{BUCKET}/*");
    statements.push(json!({"Effect": "Allow", "Principal": {"AWS": user},
        "Action": ["s3:GetObject", "s3:PutObject"], "Resource": objects}));
    statements.push(json!({"Effect": "Allow", "Principal": {"AWS": user},
        "Action": "s3:ListBucket", "Resource": format!("arn:aws:s3:::{BUCKET}")}));
    policy
}

/// The program as the user of the database server runs it, with a configuration for each key.
struct Host<'a> {
    server: &'a SeaweedFs,
    program: PathBuf,
    place: PathBuf,
    cluster: &'a Cluster,
}

impl Host<'_> {
    fn config(&self, (id, _): (&str, &str)) -> PathBuf {
        self.place.join(format!("{id}.toml"))
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(config).env("PGUSER", "postgres");
        command
    }

    fn run(&self, key: (&str, &str), words: &[&str]) -> (Option<i32>, String) {
        let mut command = self.command(&self.config(key));
        command.args(words);
        let output = as_server_user(command).output().expect("pgrecall runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    #[track_caller]
    fn expect(&self, key: (&str, &str), code: i32, words: &[&str]) -> String {
        let (found, said) = self.run(key, words);
        assert_eq!(found, Some(code), "{words:?}: {said}");
        said
    }

    /// Makes the repository by the owner's key, and has the server archive by the writer's.
    fn init(&self) {
        let first = self.place.join("pgrecall.toml");
        let data = self.cluster.data_dir().display().to_string();
        let (endpoint, url) = (self.server.endpoint(), format!("s3://{BUCKET}/pg"));
        let mut init = self.command(&first);
        init.args(["init", "--repo", &url, "--s3-endpoint", &endpoint, "--s3-region", "us-east-1"]);
        init.args(["--cluster", "main", "--pgdata", &data]);
        init.env("AWS_ACCESS_KEY_ID", OWNER.0).env("AWS_SECRET_ACCESS_KEY", OWNER.1);
        let output = as_server_user(init).output().expect("pgrecall runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let text = std::fs::read_to_string(&first).expect("the configuration");
        for (id, secret) in [OWNER, WRITER] {
            let file = self.cluster.scratch().file(&format!("{id}.secret"), secret.as_bytes());
            let lines = format!(
                "[repository.s3]\naccess_key_id = \"{id}\"\nsecret_access_key_file = \"{}\"\n",
                file.display()
            );
            let text = text.replacen("[repository.s3]\n", &lines, 1);
            let config = self.cluster.scratch().file(&format!("place/{id}.toml"), text.as_bytes());
            assert_eq!(config, self.config((id, secret)));
        }
        let config = self.config(WRITER).display().to_string();
        let said = said.replace(&first.display().to_string(), &config);
        let told = said.lines().map(str::trim).filter(|line| line.starts_with("archive_"));
        let lines: Vec<&str> = told.collect();
        self.cluster.append_to("postgresql.conf", &format!("{}\n", lines.join("\n")));
    }
}

/// Who owns the bucket.
const OWNER: (&str, &str) = (ACCESS_KEY_ID, SECRET_ACCESS_KEY);

fn now_secs() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("a time")
}

/// What a thief of the writer's key does: everything he may.
async fn attack(writer: &S3User, owner: &S3User) {
    let denied = Err("AccessDenied".to_owned());
    assert_eq!(writer.suspend_versioning().await, denied);
    let versions = owner.versions().await;
    assert!(versions.len() > 20, "{versions:?}");
    for version in &versions {
        assert_eq!(writer.delete(&version.key, None).await, denied, "{version:?}");
        assert_eq!(writer.delete(&version.key, Some(&version.id)).await, denied, "{version:?}");
        // Where the policy cannot ask for if-none-match, he puts over what is there.
        let his = ["/packs/", "/index/", "/backups/", "/intents/", "pg/clusters/", "pg/store/"];
        let is_written_by_him = his.iter().any(|part| version.key.contains(part));
        let put = writer.put_over(&version.key, b"all your backups are belong to us").await;
        assert_eq!(put.is_ok(), is_written_by_him, "{version:?}: {put:?}");
    }
    // Whoever has even the owner's key gets rid of no version, and can but hide them.
    for version in &versions {
        assert!(owner.delete(&version.key, Some(&version.id)).await.is_err(), "{version:?}");
        assert_eq!(owner.delete(&version.key, None).await, Ok(()));
    }
}

/// What is needed stays locked, and what is about to go does not.
async fn longer_locks(host: &Host<'_>, owner: &S3User) {
    let day = 86_400;
    let words = ["gc", "--extend-locks", "--json"];
    let run = |words: &[&str]| -> Value {
        let told = host.expect(OWNER, 0, words);
        let json = told.find('{').map_or("", |at| &told[at..]);
        let mut values = serde_json::Deserializer::from_str(json).into_iter();
        values.next().and_then(Result::ok).unwrap_or_else(|| panic!("no JSON: {told}"))
    };
    assert_eq!(run(&words)["locks"]["extended"], 0, "a day is left of a day");
    owner.lock_what_is_put(30).await.expect("a longer retention");
    let dry = run(&["gc", "--extend-locks", "--json", "--dry-run"]);
    assert_eq!(dry["locks"]["extended"], Value::Null);
    // The collector has hidden what is left of backups that have ended.
    let there = async || -> Vec<String> {
        let all = owner.versions().await.into_iter();
        all.filter(|version| version.is_latest).map(|version| version.key).collect()
    };
    for name in &there().await {
        let until = owner.locked_until(name).await.expect("a lock");
        assert!(until < now_secs() + 2 * day, "{name}: it was a dry run");
    }
    let told = run(&words);
    assert_eq!(told["locks"]["extended"], told["locks"]["objects"], "{told}");
    assert!(told["locks"]["extended"].as_u64() > Some(10), "{told}");
    for name in &there().await {
        let until = owner.locked_until(name).await.expect("a lock");
        let passing = name.contains("/intents/") || name.contains("/store/probe");
        assert_eq!(until > now_secs() + 29 * day, !passing, "{name}");
    }
    assert_eq!(run(&words)["locks"]["extended"], 0, "nothing is left to do");
    let denied = host.expect(WRITER, 16, &words);
    assert!(denied.contains("GetBucketObjectLockConfiguration"), "{denied}");
}

#[test]
fn a_stolen_key_takes_nothing_from_a_locked_bucket() {
    let server = SeaweedFs::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let owner = S3User::new(&server.endpoint(), OWNER, BUCKET);
    let writer = S3User::new(&server.endpoint(), WRITER, BUCKET);
    runtime.block_on(async {
        owner.create_locked_bucket().await.expect("a locked bucket");
        let policy = documented_policy().to_string();
        owner.put_policy(&policy).await.expect("the policy");
    });
    let major = majors().into_iter().max().expect("at least one major is installed");
    let cluster = Cluster::create_stopped(ClusterOptions::new(major).wal_segment_size_mib(1));
    let program = cluster.scratch().reachable_program(Path::new(env!("CARGO_BIN_EXE_pgrecall")));
    let place = cluster.scratch().dir("place");
    let host = Host { server: &server, program, place, cluster: &cluster };
    host.init();
    cluster.start();
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    host.expect(WRITER, 0, &["backup", "--fast-checkpoint"]);
    cluster.psql("INSERT INTO t VALUES (0)");
    let last = cluster.psql("SELECT pg_walfile_name(pg_switch_wal())");
    let archived = format!("SELECT last_archived_wal >= '{last}' FROM pg_stat_archiver");
    cluster.wait_until("the last segment is archived", || cluster.psql(&archived) == "t");
    let listed = host.expect(WRITER, 0, &["list"]);
    assert!(!listed.contains("under way"), "its intent stays, and it has ended: {listed}");
    host.expect(WRITER, 0, &["backup", "--fast-checkpoint"]);
    let denied = host.expect(WRITER, 16, &["expire", "--keep-last", "1"]);
    assert!(denied.contains("need PutObject"), "{denied}");
    let told = host.expect(WRITER, 0, &["check"]);
    assert!(told.contains("may not delete"), "{told}");
    assert!(told.contains("may not be asked"), "{told}");
    let told = host.expect(OWNER, 0, &["check"]);
    assert!(told.contains("locked for 1 days (COMPLIANCE)"), "{told}");
    runtime.block_on(longer_locks(&host, &owner));
    let before = jiff::Timestamp::from_second(now_secs()).expect("a time").to_string();
    // Versions have times of whole seconds.
    std::thread::sleep(Duration::from_millis(1500));
    runtime.block_on(attack(&writer, &owner));
    let (code, said) = host.run(OWNER, &["list"]);
    assert_ne!(code, Some(0), "nothing is left to be seen: {said}");

    let past = ["--s3-as-of", &before];
    host.expect(OWNER, 0, &[["verify", "--read-data"], past].concat());
    let refused = host.run(OWNER, &[["backup", "--fast-checkpoint"], past].concat());
    assert_ne!(refused.0, Some(0));
    assert!(refused.1.contains("as it was in the past, and nothing is written"), "{}", refused.1);
    let primary = ["restore", "/nowhere", "--as", "primary"];
    let refused = host.run(OWNER, &[primary.as_slice(), &past].concat());
    assert!(refused.1.contains("cannot go on in that bucket"), "{}", refused.1);
    let ahead = host.run(OWNER, &["list", "--s3-as-of", "2926-11-22 00:00:00+00"]);
    assert!(ahead.1.contains("no time of the past"), "{}", ahead.1);
    cluster.stop(pgrecall_testkit::postgres::Stop::Immediate);
    let dir = cluster.scratch().path().join("restored");
    let words = ["restore", &dir.to_string_lossy(), "--as", "copy", "--to-latest"];
    host.expect(OWNER, 0, &[words.as_slice(), &past].concat());
    let restored = CheckedCluster::adopt(major, &dir);
    restored.start();
    restored.wait_until_recovered();
    assert_eq!(restored.psql("SELECT count(*) FROM t"), "1001");
}
