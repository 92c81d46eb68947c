//! The main job through the program alone, on every major asked for: init, archive, back up, write
//! on, lose the data directory, plan, restore to a moment, and compare every row.

#[path = "restore/needed.rs"]
mod needed;

use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::{
    Cluster, ClusterOptions, Scratch, ServerUser, Stop, as_server_user, majors,
};

/// The program with its configuration, run as the server's user.
struct Program<'a> {
    path: &'a Path,
    config: &'a Path,
    /// The server's superuser.
    user: &'a str,
}

impl Program<'_> {
    /// It must succeed; gives what it printed.
    fn run(&self, words: &[&str]) -> String {
        let mut command = Command::new(self.path);
        command.arg("--config").arg(self.config).args(words).env("PGUSER", self.user);
        let output = as_server_user(command).output().expect("running pgrecall");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }
}

const ROWS: &str = "SELECT string_agg(t::text, ',' ORDER BY id) FROM t";

#[test]
fn every_row_comes_back_as_it_was_at_the_moment() {
    for major in majors() {
        there_and_back(major);
    }
}

fn there_and_back(major: u32) {
    let cluster = Cluster::create_stopped(ClusterOptions::new(major).wal_segment_size_mib(1));
    let place = cluster.scratch().dir("place");
    let program = cluster.scratch().reachable_program(Path::new(env!("CARGO_BIN_EXE_pgrecall")));
    let config = place.join("pgrecall.toml");
    let (repository, data) = (place.join("repository"), cluster.data_dir().display().to_string());
    let url = format!("file://{}", repository.display());
    let pgrecall = Program { path: &program, config: &config, user: "" };
    let said = pgrecall.run(&["init", "--repo", &url, "--cluster", "main", "--pgdata", &data]);
    let told = said.lines().map(str::trim).filter(|line| line.starts_with("archive_"));
    let lines: Vec<&str> = told.collect();
    assert_eq!(lines.len(), 3, "{said}");
    cluster.append_to("postgresql.conf", &format!("{}\n", lines.join("\n")));
    cluster.start();
    cluster.psql(
        "CREATE TABLE t AS SELECT i AS id, md5(i::text) AS v FROM generate_series(1, 9999) i",
    );
    // The server is found by postmaster.pid, its superuser by name.
    let user = cluster.psql("SELECT current_user");
    let pgrecall = Program { user: &user, ..pgrecall };
    let taken = pgrecall.run(&["backup", "--fast-checkpoint"]);
    assert!(taken.contains("backup complete"), "{taken}");
    cluster.psql("INSERT INTO t SELECT i, 'late' FROM generate_series(10000, 12000) i; DELETE FROM t WHERE id = 7");
    let expected = cluster.psql(ROWS);
    let moment =
        cluster.psql("SELECT pg_sleep(0.2); SELECT clock_timestamp(); SELECT pg_sleep(0.2)");
    let moment = moment.trim().to_owned();
    cluster.psql("DROP TABLE t; CREATE TABLE after AS SELECT 1 AS one");
    let again = pgrecall.run(&["backup", "--fast-checkpoint"]);
    assert!(again.contains("backup complete"), "{again}");
    cluster.stop(Stop::Fast);
    std::fs::remove_dir_all(cluster.data_dir()).expect("losing the data directory");

    assert!(pgrecall.run(&["plan", "--to-time", &moment]).contains(" segments, "));
    let plan = pgrecall.run(&["plan", "--to-time", &moment, "--json"]);
    let another = Scratch::new();
    let fresh = elsewhere(&another, &place, &plan);
    let pgrecall = Program { config: &fresh, ..pgrecall };
    let target = another.path().join("restored");
    let target_text = target.display().to_string();
    let words =
        ["restore", &target_text, "--as", "copy", "--to-time", &moment, "--action", "promote"];
    pgrecall.run(&words);
    let restored = CheckedCluster::adopt(major, &target);
    restored.start();
    restored.wait_until_recovered();
    assert_eq!(restored.psql(ROWS), expected, "major {major}");
    assert_eq!(restored.psql("SELECT to_regclass('after') IS NULL"), "t");
}

/// Another host, with a copy of what the plan needs, the key, and a configuration of its own, which
/// is given.
fn elsewhere(scratch: &Scratch, place: &Path, plan: &str) -> PathBuf {
    let plan = serde_json::from_str(plan).expect("JSON");
    let repository = scratch.path().join("repository");
    let key = place.join("main.key");
    needed::copy_folder(&place.join("repository"), &repository, &key, &plan);
    own_all(&repository);
    let url = format!("file://{}", repository.display());
    let copied = scratch.file("main.key", &std::fs::read(key).expect("the key"));
    let (old, cache) = (place.join("pgrecall.toml"), scratch.path().join("cache"));
    let config = needed::configuration(&old, &url, &copied, &cache);
    scratch.file("pgrecall.toml", config.as_bytes())
}

/// Hands a folder and all in it over to PostgreSQL's user.
fn own_all(folder: &Path) {
    ServerUser::current().own(folder);
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { own_all(&path) } else { ServerUser::current().own(&path) }
    }
}
