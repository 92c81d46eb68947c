//! Copies of a cluster: a streaming standby, a plain base backup, a copy of a stopped directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::{Cluster, run};
use super::options::Listen;
use super::user::as_server_user;

impl Cluster {
    /// Makes a hot standby with `pg_basebackup`, starts it and lets it stream from `primary`.
    pub fn standby_of(primary: &Cluster) -> Self {
        let standby = Self::standby_of_stopped(primary);
        standby.start();
        standby
    }

    /// As [`Cluster::standby_of`] without the start.
    pub fn standby_of_stopped(primary: &Cluster) -> Self {
        let standby = Self::around(primary.home.clone(), None, Listen::SocketOnly);
        primary.base_backup(standby.data_dir(), &["--write-recovery-conf"]);
        standby
    }

    /// Runs `pg_basebackup` into `target`, which must not exist, with WAL streamed alongside.
    pub fn base_backup(&self, target: &Path, more_args: &[&str]) {
        let mut command = self.client_tool("pg_basebackup");
        command.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync", "-D"]).arg(target);
        command.args(more_args);
        run(command);
    }

    /// Copies the data directory of a stopped cluster to a folder of its scratch directory.
    pub fn copy_stopped(&self, name: &str) -> PathBuf {
        assert!(!self.is_running(), "a running server's directory cannot be copied");
        let copy = self.scratch.path().join(name);
        let mut command = as_server_user(Command::new("cp"));
        command.arg("-a").arg(&self.data_dir).arg(&copy);
        run(command);
        copy
    }

    /// Waits until this standby has replayed all that `primary` has flushed by now.
    pub fn wait_caught_up(&self, primary: &Cluster) {
        let flushed = primary.psql("SELECT pg_current_wal_flush_lsn()");
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{flushed}'");
        self.wait_until(&format!("replay reaches {flushed}"), || {
            self.try_psql(&sql).as_deref() == Ok("t")
        });
    }
}
