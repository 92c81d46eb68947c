//! The bracket around a base backup: `pg_backup_start` and `pg_backup_stop` on one session.
//!
//! From 15 on these functions know only the non-exclusive way; on 14 they are `pg_start_backup`
//! and `pg_stop_backup` with `exclusive => false`. Either way the session *is* the backup: when it
//! ends, the server forgets the backup, and its files are worth nothing.

use pgrecall_pgformat::{Lsn, TimelineId};
use tokio_postgres::types::Type;

use crate::error::ServerError;
use crate::server::{Server, column, first};
use crate::wal::{RecoveryState, TIMELINE_SQL, parse_lsn, parse_timeline};

/// Longest label, in bytes (`MAXPGPATH`).
const LABEL_LEN_MAX: usize = 1024;
/// `ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE`.
const NOT_IN_PREREQUISITE_STATE: &str = "55000";
const STOP: &str = "stop the backup";

/// How the checkpoint at the start of a backup is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// At full speed.
    Fast,
    /// Spread out, as `checkpoint_completion_target` says: gentle, and up to minutes.
    Spread,
}

/// A backup under way. Dropping it ends the session, upon which the server aborts the backup.
#[derive(Debug)]
pub struct RunningBackup {
    server: Server,
    start_lsn: Lsn,
    start_timeline: TimelineId,
    state: RecoveryState,
}

/// What the server gives at the end of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedBackup {
    /// WAL is needed up to here.
    pub stop_lsn: Lsn,
    /// The timeline that the server wrote, or had replayed, by then.
    pub stop_timeline: TimelineId,
    /// The content of `backup_label`.
    pub label_file: String,
    /// The content of `tablespace_map`; none without tablespaces.
    pub tablespace_map: Option<String>,
}

impl Server {
    /// Starts a backup, waiting for its checkpoint. The session belongs to the backup from here on.
    ///
    /// On a standby the checkpoint is a restartpoint, which the WAL may have to bring first.
    pub async fn start_backup(
        self,
        label: &str,
        checkpoint: Checkpoint,
    ) -> Result<RunningBackup, ServerError> {
        const ACT: &str = "start a backup";
        check_label(label)?;
        let call = if self.version().is_14() {
            "pg_start_backup($1, $2, false)"
        } else {
            "pg_backup_start($1, $2)"
        };
        // The state is read first: if a promotion comes between, the server itself refuses to
        // stop the backup.
        let sql = format!(
            "WITH state AS MATERIALIZED (SELECT pg_is_in_recovery() AS in_recovery),
                  backup AS MATERIALIZED (SELECT in_recovery, {call} AS lsn FROM state)
             SELECT in_recovery, lsn::text, {TIMELINE_SQL} FROM backup"
        );
        let fast = checkpoint == Checkpoint::Fast;
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&label, Type::TEXT), (&fast, Type::BOOL)];
        let rows = self.rows(ACT, &sql, &params, || self.backup_grant()).await?;
        let row = first(&rows, ACT)?;
        let state = RecoveryState::of(column(row, 0, ACT)?);
        let start_lsn = parse_lsn(column(row, 1, ACT)?, ACT)?;
        let start_timeline = parse_timeline(column(row, 2, ACT)?)?;
        Ok(RunningBackup { server: self, start_lsn, start_timeline, state })
    }

    fn backup_grant(&self) -> String {
        let functions = if self.version().is_14() {
            ["pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"]
        } else {
            ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"]
        };
        functions.map(|function| self.grant_function(function)).join(" ")
    }
}

impl RunningBackup {
    /// The redo point of the backup's checkpoint: WAL is needed from here.
    #[must_use]
    pub fn start_lsn(&self) -> Lsn {
        self.start_lsn
    }

    /// The timeline the server wrote or replayed when the backup started. What counts in the end
    /// is `START TIMELINE` in the label.
    #[must_use]
    pub fn start_timeline(&self) -> TimelineId {
        self.start_timeline
    }

    /// Whether the backup is taken from a primary or a standby.
    #[must_use]
    pub fn state(&self) -> RecoveryState {
        self.state
    }

    /// The session. Nothing may be run on it that ends it; reading files is fine.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Resolves once the session is gone, and the backup with it. Run it beside the copying.
    pub fn lost(&self) -> impl Future<Output = ServerError> + Send + 'static {
        self.server.lost()
    }

    /// Asks for a sign of life: finds a dead peer sooner than TCP does.
    pub async fn ping(&self) -> Result<(), ServerError> {
        self.server.ping().await
    }

    /// Ends the backup without waiting for the archive: that is the caller's, who knows better
    /// when a segment is safe. The session comes back for other uses.
    pub async fn stop(self) -> Result<(StoppedBackup, Server), ServerError> {
        let call = if self.server.version().is_14() {
            "pg_stop_backup(false, false)"
        } else {
            "pg_backup_stop(false)"
        };
        // One statement: what comes after it belongs to no backup.
        let sql = format!("SELECT lsn::text, labelfile, spcmapfile, {TIMELINE_SQL} FROM {call}");
        let grant = || self.server.backup_grant();
        let rows = match self.server.rows(STOP, &sql, &[], grant).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.why_not_stopped(error).await),
        };
        let row = first(&rows, STOP)?;
        let map: Option<String> = column(row, 2, STOP)?;
        let stopped = StoppedBackup {
            stop_lsn: parse_lsn(column(row, 0, STOP)?, STOP)?,
            stop_timeline: parse_timeline(column(row, 3, STOP)?)?,
            label_file: column(row, 1, STOP)?,
            tablespace_map: map.filter(|text| !text.is_empty()),
        };
        Ok((stopped, self.server))
    }

    /// Gives the backup up and waits until the session has ended.
    pub async fn abort(self) {
        self.server.close().await;
    }

    /// A promotion and `full_page_writes=off` share a code, and the text may be in any language:
    /// what the server is now tells them apart.
    async fn why_not_stopped(&self, error: ServerError) -> ServerError {
        let ServerError::Refused { act, source } = error else { return error };
        let suspect =
            &*source.code == NOT_IN_PREREQUISITE_STATE && self.state == RecoveryState::Standby;
        if suspect && self.server.recovery_state().await.ok() == Some(RecoveryState::Primary) {
            return ServerError::PromotedDuringBackup { source };
        }
        ServerError::Refused { act, source }
    }
}

/// A line break would make lines of its own in `backup_label`.
fn check_label(label: &str) -> Result<(), ServerError> {
    let problem = if label.len() > LABEL_LEN_MAX {
        format!("at most {LABEL_LEN_MAX} bytes, not {}", label.len())
    } else if label.chars().any(char::is_control) {
        "no control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(ServerError::Argument { what: "label of a backup", problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_one_short_line() {
        assert!(check_label("pgrecall 2026-11-22 nightly é").is_ok());
        assert!(check_label("a\nSTART TIMELINE: 7").is_err());
        assert!(check_label(&"x".repeat(1024)).is_ok());
        assert!(check_label(&"x".repeat(1025)).is_err());
    }
}
