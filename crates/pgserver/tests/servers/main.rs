//! Everything that is asked of a server, on real servers of the majors in `PGRECALL_TEST_MAJORS`.

mod archiver;
mod backup;
mod connect;
mod files;
mod info;
mod tls;
mod wal;

use pgrecall_pgserver::{ConnectOptions, Server};
use pgrecall_testkit::postgres::Cluster;

/// How the superuser gets in, found as for a local data directory.
fn options(cluster: &Cluster) -> ConnectOptions {
    let file = std::fs::read_to_string(cluster.data_dir().join("postmaster.pid")).unwrap();
    ConnectOptions::from_postmaster_pid(&file, "postgres").unwrap()
}

async fn connect(cluster: &Cluster) -> Server {
    Server::connect(&options(cluster)).await.unwrap()
}

/// A session of a role made by `sql`.
async fn connect_as(cluster: &Cluster, role: &str, sql: &str) -> Server {
    let quoted = role.replace('"', "\"\"");
    cluster.psql(&format!("CREATE ROLE \"{quoted}\" LOGIN; {sql}"));
    let mut options = options(cluster);
    options.user = role.to_owned();
    Server::connect(&options).await.unwrap()
}

/// Runs the statements of a hint of ours, as its reader would.
fn follow_hint(cluster: &Cluster, hint: &str) {
    let sql = hint.strip_prefix("As a superuser: ").unwrap_or_else(|| panic!("{hint}"));
    cluster.psql(&sql.replace(" (outside the data directory)", ""));
}
