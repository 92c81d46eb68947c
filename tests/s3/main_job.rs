//! Init, archive, check, back up, lose the data directory, plan, restore, verify: all of it through
//! the program alone, in a bucket of SeaweedFS.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_testkit::postgres::{Cluster, ClusterOptions, Stop, as_server_user, majors};
use pgrecall_testkit::seaweedfs::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, SeaweedFs};

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

const ROWS: &str = "SELECT string_agg(t::text, ',' ORDER BY id) FROM t";

#[test]
fn every_row_comes_back_from_a_bucket() {
    let server = SeaweedFs::start();
    server.create_bucket("backups");
    let major = majors().into_iter().max().expect("at least one major is installed");
    let cluster = Cluster::create_stopped(ClusterOptions::new(major).wal_segment_size_mib(1));
    let place = cluster.scratch().dir("place");
    let path = cluster.scratch().reachable_program(Path::new(env!("CARGO_BIN_EXE_pgrecall")));
    let config = place.join("pgrecall.toml");
    let mut pgrecall = Program { path, config: config.clone(), user: String::new() };
    let data = cluster.data_dir().display().to_string();
    let endpoint = server.endpoint();
    let said = pgrecall.run(&[
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
    write_credentials(&cluster, &config);
    let told = said.lines().map(str::trim).filter(|line| line.starts_with("archive_"));
    let lines: Vec<&str> = told.collect();
    cluster.append_to("postgresql.conf", &format!("{}\n", lines.join("\n")));
    cluster.start();
    cluster.psql(
        "CREATE TABLE t AS SELECT i AS id, md5(i::text) AS v FROM generate_series(1, 9999) i",
    );
    pgrecall.user = cluster.psql("SELECT current_user");
    pgrecall.run(&["check"]);
    pgrecall.run(&["backup", "--fast-checkpoint"]);
    cluster.psql("UPDATE t SET v = 'changed' WHERE id % 7 = 0");
    let expected = cluster.psql(ROWS);
    let lsn = cluster.psql("SELECT pg_current_wal_insert_lsn()");
    cluster.psql("DROP TABLE t");
    let second = pgrecall.run(&["backup", "--fast-checkpoint"]);
    assert!(second.contains("backup complete"), "{second}");
    cluster.stop(Stop::Fast);
    std::fs::remove_dir_all(cluster.data_dir()).expect("losing the data directory");

    let listed = pgrecall.run(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let backups = listed["clusters"][0]["backups"].as_array().map(Vec::len);
    assert_eq!(backups, Some(2), "{listed:#}");
    pgrecall.run(&["verify", "--read-data"]);
    assert!(pgrecall.run(&["plan", "--to-lsn", &lsn]).contains(&lsn));
    let target = place.join("restored");
    let text = target.display().to_string();
    let role = ["--as", "copy", "--action", "promote"];
    pgrecall.run(&[&["restore", text.as_str(), "--to-lsn", &lsn], role.as_slice()].concat());
    let restored = Cluster::adopt(major, &target);
    restored.start();
    restored.wait_until_recovered();
    assert_eq!(restored.psql(ROWS), expected);
    restored.stop(Stop::Fast);
}
