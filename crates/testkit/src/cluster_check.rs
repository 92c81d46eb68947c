//! PostgreSQL's own checkers over a whole cluster.
//!
//! Each gives `Err` with a text that names database, object and finding. A checker that cannot run
//! (the server is down, an extension is missing on a read-only standby) is an error as well: it is
//! never taken for a pass.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use crate::postgres::{Checksums, Cluster, PostgresHome, Stop};

/// What a checker said against a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFailure {
    /// Which checker.
    pub checker: &'static str,
    /// Its findings, or why it could not run.
    pub findings: String,
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.findings)
    }
}

/// Runs [`amcheck`] and [`visibility`] on a running cluster and panics with all they find.
pub fn assert_sound(cluster: &Cluster) {
    assert_passed(cluster, vec![amcheck(cluster), visibility(cluster)]);
}

fn assert_passed(cluster: &Cluster, checks: Vec<Result<(), CheckFailure>>) {
    let failures: Vec<String> =
        checks.into_iter().filter_map(Result::err).map(|failure| failure.to_string()).collect();
    assert!(failures.is_empty(), "{}:\n{}", cluster.data_dir().display(), failures.join("\n"));
}

/// `pg_amcheck` over all databases: every heap, and every B-tree with its heap against it. The
/// extension is made where it is missing; a cluster in recovery must have it already.
pub fn amcheck(cluster: &Cluster) -> Result<(), CheckFailure> {
    for database in databases(cluster) {
        install(cluster, &database, "amcheck")?;
    }
    let mut command = cluster.client_tool("pg_amcheck");
    command.args(["--all", "--heapallindexed", "--no-strict-names"]);
    if !in_recovery(cluster) {
        command.arg("--parent-check");
    }
    judge("pg_amcheck", command)
}

/// `pg_checksums --check` on a data directory whose server is down.
pub fn checksums(home: &PostgresHome, data_dir: &Path) -> Result<(), CheckFailure> {
    let mut command = home.tool("pg_checksums");
    command.arg("--check").arg("-D").arg(data_dir);
    judge("pg_checksums", command)
}

/// `pg_verifybackup` on a directory with a `backup_manifest`; `more_args` such as
/// `--no-parse-wal`.
pub fn verify_backup(
    home: &PostgresHome,
    data_dir: &Path,
    more_args: &[&str],
) -> Result<(), CheckFailure> {
    let mut command = home.tool("pg_verifybackup");
    command.args(more_args).arg(data_dir);
    judge("pg_verifybackup", command)
}

/// `pg_check_visible` and `pg_check_frozen` over all tables of all databases: bits in visibility
/// maps that the heap belies. Nothing else may run meanwhile, or it raises false alarms.
pub fn visibility(cluster: &Cluster) -> Result<(), CheckFailure> {
    let mut findings = Vec::new();
    for database in databases(cluster) {
        install(cluster, &database, "pg_visibility")?;
        let sql = "SELECT c.oid::regclass, 'all-visible', t.tid
              FROM pg_class c, pg_check_visible(c.oid) AS t(tid)
             WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
            UNION ALL
            SELECT c.oid::regclass, 'all-frozen', t.tid
              FROM pg_class c, pg_check_frozen(c.oid) AS t(tid)
             WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'";
        let told = cluster.try_psql_in(&database, sql);
        let text = told.map_err(|findings| failure("pg_visibility", &findings))?;
        findings.extend(text.lines().map(|line| format!("{database}: {line}")));
    }
    if findings.is_empty() {
        return Ok(());
    }
    Err(failure("pg_visibility", &findings.join("\n")))
}

/// A restored cluster, which every checker here looks at in the end, so that no test can forget to:
/// when it is dropped, its server is started if it is down and promoted if it is in recovery, for
/// [`amcheck`] and [`visibility`]; then it is stopped, for [`checksums`]. What any of them finds
/// fails the test.
#[derive(Debug)]
pub struct CheckedCluster {
    cluster: Cluster,
    checksums: Cell<Checksums>,
}

impl CheckedCluster {
    /// Takes a directory that exists, as [`Cluster::adopt`] does.
    pub fn adopt(major: u32, data_dir: &Path) -> Self {
        Self::from(Cluster::adopt(major, data_dir))
    }

    /// It was made without data checksums, and must not have any.
    pub fn expect_no_checksums(&self) {
        self.checksums.set(Checksums::Off);
    }
}

impl Deref for CheckedCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl From<Cluster> for CheckedCluster {
    fn from(cluster: Cluster) -> Self {
        Self { cluster, checksums: Cell::new(Checksums::On) }
    }
}

impl Drop for CheckedCluster {
    fn drop(&mut self) {
        // The test has failed already, and may have left anything.
        if std::thread::panicking() {
            return;
        }
        let cluster = &self.cluster;
        if !cluster.is_running() {
            cluster.start();
        }
        if in_recovery(cluster) {
            cluster.promote();
        }
        let mut checks = vec![amcheck(cluster), visibility(cluster)];
        let have_checksums = cluster.psql("SHOW data_checksums");
        cluster.stop(Stop::Fast);
        match self.checksums.get() {
            Checksums::On => checks.push(checksums(cluster.home(), cluster.data_dir())),
            Checksums::Off => assert_eq!(have_checksums, "off"),
        }
        assert_passed(cluster, checks);
    }
}

fn judge(checker: &'static str, mut command: Command) -> Result<(), CheckFailure> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = format!("{}\n{}", output.status, String::from_utf8_lossy(&said));
    Err(failure(checker, &said))
}

fn failure(checker: &'static str, findings: &str) -> CheckFailure {
    CheckFailure { checker, findings: findings.trim_end().to_owned() }
}

fn install(cluster: &Cluster, database: &str, extension: &str) -> Result<(), CheckFailure> {
    let known = format!("SELECT count(*) FROM pg_extension WHERE extname = '{extension}'");
    if cluster.psql_in(database, &known) == "1" {
        return Ok(());
    }
    let made = cluster.try_psql_in(database, &format!("CREATE EXTENSION {extension}"));
    made.map(|_| ()).map_err(|error| CheckFailure {
        checker: "create extension",
        findings: format!("{extension} in {database}: {error}"),
    })
}

fn in_recovery(cluster: &Cluster) -> bool {
    cluster.psql("SELECT pg_is_in_recovery()") == "t"
}

fn databases(cluster: &Cluster) -> Vec<String> {
    let sql = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY oid";
    cluster.psql(sql).lines().map(str::to_owned).collect()
}
