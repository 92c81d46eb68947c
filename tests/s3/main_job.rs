//! Init, archive, check, back up, lose the data directory, plan, restore, verify: all of it through
//! the program alone, in a bucket of SeaweedFS, with clients at work.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::commit_log::{Inclusion, Target, sql_timestamp};
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, Scratch, Stop, as_server_user, majors};
use pgrecall_testkit::seaweedfs::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, SeaweedFs};
use pgrecall_testkit::workload::{Workload, WorkloadOptions};

use crate::needed::{configuration, copy_needed};

/// The program with its configuration, run as the server's user.
struct Program {
    path: PathBuf,
    config: PathBuf,
    /// The server's superuser.
    user: String,
}

impl Program {
    /// It must succeed; gives what it printed.
    fn run(&self, words: &[&str]) -> String {
        let mut command = Command::new(&self.path);
        command.arg("--config").arg(&self.config).args(words).env("PGUSER", &self.user);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID);
        command.env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
        let output = as_server_user(command).output().expect("running pgrecall");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }
}

/// Neither PostgreSQL nor its commands have AWS variables: from now on the configuration says where
/// the secret is.
fn write_credentials(cluster: &Cluster, config: &Path) {
    let secret = cluster.scratch().file("s3.secret", SECRET_ACCESS_KEY.as_bytes());
    let text = std::fs::read_to_string(config).expect("the configuration");
    let lines = format!(
        "[repository.s3]\naccess_key_id = \"{ACCESS_KEY_ID}\"\nsecret_access_key_file = \"{}\"\n",
        secret.display()
    );
    assert_eq!(text.matches("\n[repository.s3]\n").count(), 1, "{text}");
    std::fs::write(config, text.replacen("[repository.s3]\n", &lines, 1)).expect("written");
}

impl Program {
    /// Makes the repository in the bucket and gives PostgreSQL the lines that archive there.
    fn init(&self, server: &SeaweedFs, cluster: &Cluster) {
        let (data, endpoint) = (cluster.data_dir().display().to_string(), server.endpoint());
        let said = self.run(&[
            "init",
            "--repo",
            "s3://backups/pg",
            "--s3-endpoint",
            &endpoint,
            "--s3-region",
            "us-east-1",
            "--cluster",
            "main",
            "--pgdata",
            &data,
        ]);
        write_credentials(cluster, &self.config);
        let told = said.lines().map(str::trim).filter(|line| line.starts_with("archive_"));
        let lines: Vec<&str> = told.collect();
        cluster.append_to("postgresql.conf", &format!("{}\n", lines.join("\n")));
    }

    /// Another host with a bucket of its own, which holds what the plan for this target needs: its
    /// folder has the configuration, the key and the secret, and no cache.
    fn elsewhere(&self, server: &SeaweedFs, bucket: &str, target: &[&str]) -> (Scratch, Self) {
        let plan = self.run(&[&["plan", "--json"], target].concat());
        let plan = serde_json::from_str(&plan).expect("JSON");
        server.create_bucket(bucket);
        let old = self.config.parent().expect("a folder").join("main.key");
        let url = format!("s3://{bucket}/pg");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let from = server.open("s3://backups/pg").await;
            let to = server.open(&url).await;
            copy_needed(from, to.as_ref(), &old, &plan).await;
        });
        let scratch = Scratch::new();
        let key = scratch.file("main.key", &std::fs::read(old).expect("the key"));
        let secret = scratch.file("s3.secret", SECRET_ACCESS_KEY.as_bytes());
        let text = configuration(&self.config, &url, &key, &scratch.path().join("cache"));
        let mut text: toml::Table = text.parse().expect("TOML");
        text["repository"][0]["s3"]["secret_access_key_file"] = secret.display().to_string().into();
        let config = scratch.file("pgrecall.toml", text.to_string().as_bytes());
        let there = Self { path: self.path.clone(), config, user: self.user.clone() };
        (scratch, there)
    }
}

#[test]
fn every_row_comes_back_from_a_bucket() {
    let server = SeaweedFs::start();
    server.create_bucket("backups");
    let major = majors().into_iter().max().expect("at least one major is installed");
    let cluster = Cluster::create_stopped(ClusterOptions::new(major).wal_segment_size_mib(1));
    let place = cluster.scratch().dir("place");
    let path = cluster.scratch().reachable_program(Path::new(env!("CARGO_BIN_EXE_pgrecall")));
    let config = place.join("pgrecall.toml");
    let mut pgrecall = Program { path, config, user: String::new() };
    pgrecall.init(&server, &cluster);
    cluster.start();
    pgrecall.user = cluster.psql("SELECT current_user");
    let workload = Workload::start(&cluster, &WorkloadOptions::new(3));
    pgrecall.run(&["check"]);
    workload.wait_commits(50);
    pgrecall.run(&["backup", "--fast-checkpoint"]);
    workload.wait_commits(100);
    let middle = workload.mark(&cluster);
    workload.wait_commits(100);
    let second = pgrecall.run(&["backup", "--fast-checkpoint"]);
    assert!(second.contains("backup complete"), "{second}");
    workload.wait_commits(50);
    let log = workload.finish(&cluster);
    let last = cluster.psql("SELECT pg_walfile_name(pg_switch_wal())");
    let archived = format!("SELECT last_archived_wal >= '{last}' FROM pg_stat_archiver");
    cluster.wait_until("the last segment is archived", || cluster.psql(&archived) == "t");
    cluster.stop(Stop::Fast);
    std::fs::remove_dir_all(cluster.data_dir()).expect("losing the data directory");

    let listed = pgrecall.run(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let backups = listed["clusters"][0]["backups"].as_array().map(Vec::len);
    assert_eq!(backups, Some(2), "{listed:#}");
    pgrecall.run(&["verify", "--read-data"]);
    let (time, lsn) = (sql_timestamp(middle.time), middle.lsn.to_string());
    assert!(pgrecall.run(&["plan", "--to-lsn", &lsn]).contains(&lsn));
    for (bucket, flags, target) in [
        ("to-time", vec!["--to-time", &time], Target::Time(middle.time, Inclusion::Inclusive)),
        ("to-lsn", vec!["--to-lsn", &lsn], Target::Lsn(middle.lsn, Inclusion::Inclusive)),
        ("to-latest", vec!["--to-latest"], Target::Latest),
    ] {
        let (scratch, there) = pgrecall.elsewhere(&server, bucket, &flags);
        let target_dir = scratch.path().join("restored");
        let text = target_dir.display().to_string();
        let role = ["restore", &text, "--as", "copy", "--action", "promote"];
        there.run(&[role.as_slice(), &flags].concat());
        let restored = CheckedCluster::adopt(major, &target_dir);
        restored.start();
        restored.wait_until_recovered();
        log.assert_equals(&restored, &target);
    }
}
