//! The server's WAL: positions, timeline, closing a segment, restore points, checkpoints.

use pgrecall_pgformat::{Lsn, TimelineId};
use tokio_postgres::types::Type;

use crate::error::ServerError;
use crate::server::{Server, column, first, only};

/// Longest name of a restore point, in bytes (`MAXFNAMELEN` less its end).
const RESTORE_POINT_NAME_LEN_MAX: usize = 63;

/// The timeline a primary writes, or the newest that a standby has replayed, as a `bigint`.
///
/// A standby knows the timeline of its last restartpoint, and that of its minimum recovery point,
/// which moves with replay; the latter is 0 when recovery has not begun to write.
pub(crate) const TIMELINE_SQL: &str = "CASE WHEN pg_is_in_recovery() THEN
        greatest((SELECT timeline_id::int8 FROM pg_control_checkpoint()),
                 (SELECT min_recovery_end_timeline::int8 FROM pg_control_recovery()))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int8 END";

/// Whether a server writes WAL or replays it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryState {
    /// It writes.
    Primary,
    /// It is in recovery.
    Standby,
}

impl RecoveryState {
    pub(crate) fn of(in_recovery: bool) -> Self {
        if in_recovery { Self::Standby } else { Self::Primary }
    }
}

/// What a WAL switch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalSwitch {
    /// The end of the switch record; the start of the open segment if nothing had been written
    /// since the last switch.
    pub lsn: Lsn,
    /// The file name of the last closed segment: the archive must get that one.
    pub closed_segment: String,
}

impl Server {
    /// Closes the segment being written, unless nothing is in it. Primary only.
    pub async fn switch_wal(&self) -> Result<WalSwitch, ServerError> {
        const ACT: &str = "switch WAL segments";
        // At a boundary pg_walfile_name names the segment before it up to 16, the one after it from
        // 17 on; a byte earlier they agree.
        let sql = "SELECT lsn::text, pg_walfile_name(lsn - 1) FROM pg_switch_wal() AS lsn";
        let grant = || self.grant_function("pg_switch_wal()");
        let rows = self.rows(ACT, sql, &[], grant).await?;
        let row = first(&rows, ACT)?;
        Ok(WalSwitch {
            lsn: parse_lsn(column(row, 0, ACT)?, ACT)?,
            closed_segment: column(row, 1, ACT)?,
        })
    }

    /// Writes a named record that recovery can stop at, and returns its end. Primary only.
    ///
    /// The server does not flush it by itself: a crash right after may lose it.
    pub async fn create_restore_point(&self, name: &str) -> Result<Lsn, ServerError> {
        const ACT: &str = "create restore points";
        if name.is_empty() || name.len() > RESTORE_POINT_NAME_LEN_MAX {
            return Err(ServerError::Argument {
                what: "name of a restore point",
                problem: format!("1 to {RESTORE_POINT_NAME_LEN_MAX} bytes, not {}", name.len()),
            });
        }
        let sql = "SELECT pg_create_restore_point($1)::text";
        let grant = || self.grant_function("pg_create_restore_point(text)");
        let rows = self.rows(ACT, sql, &[(&name, Type::TEXT)], grant).await?;
        parse_lsn(only(&rows, ACT)?, ACT)
    }

    /// The end of the WAL that has been written out to files. Primary only.
    pub async fn current_wal_lsn(&self) -> Result<Lsn, ServerError> {
        self.lsn("ask for the WAL position", "SELECT pg_current_wal_lsn()::text").await
    }

    /// The end of the WAL that is known to be on disk. Primary only.
    pub async fn flush_lsn(&self) -> Result<Lsn, ServerError> {
        self.lsn("ask for the WAL position", "SELECT pg_current_wal_flush_lsn()::text").await
    }

    /// The end of the last record replayed; none if this server never was in recovery.
    pub async fn last_replay_lsn(&self) -> Result<Option<Lsn>, ServerError> {
        const ACT: &str = "ask for the replay position";
        let sql = "SELECT pg_last_wal_replay_lsn()::text";
        let rows = self.rows(ACT, sql, &[], String::new).await?;
        let text: Option<&str> = only(&rows, ACT)?;
        text.map(|text| parse_lsn(text, ACT)).transpose()
    }

    /// Whether it is in recovery now.
    pub async fn recovery_state(&self) -> Result<RecoveryState, ServerError> {
        const ACT: &str = "ask for the recovery state";
        let rows = self.rows(ACT, "SELECT pg_is_in_recovery()", &[], String::new).await?;
        Ok(RecoveryState::of(only(&rows, ACT)?))
    }

    /// The timeline it writes, or has replayed.
    pub async fn timeline(&self) -> Result<TimelineId, ServerError> {
        const ACT: &str = "ask for the timeline";
        let rows = self.rows(ACT, &format!("SELECT {TIMELINE_SQL}"), &[], String::new).await?;
        parse_timeline(only(&rows, ACT)?)
    }

    /// Runs a checkpoint at full speed (a restartpoint on a standby), and waits for it.
    pub async fn checkpoint(&self) -> Result<(), ServerError> {
        let grant = || {
            if self.version().is_14() {
                return "ALTER ROLE … SUPERUSER; (or upgrade: 15 has pg_checkpoint)".to_owned();
            }
            self.grant("pg_checkpoint")
        };
        self.rows("run a checkpoint", "CHECKPOINT", &[], grant).await?;
        Ok(())
    }

    pub(crate) fn grant_function(&self, function: &str) -> String {
        self.grant(&format!("EXECUTE ON FUNCTION pg_catalog.{function}"))
    }

    async fn lsn(&self, act: &'static str, sql: &str) -> Result<Lsn, ServerError> {
        let rows = self.rows(act, sql, &[], String::new).await?;
        parse_lsn(only(&rows, act)?, act)
    }
}

pub(crate) fn parse_lsn(text: &str, what: &'static str) -> Result<Lsn, ServerError> {
    text.parse().map_err(|_| ServerError::Answer { what, found: text.to_owned() })
}

pub(crate) fn parse_timeline(number: i64) -> Result<TimelineId, ServerError> {
    match u32::try_from(number) {
        Ok(number) if number > 0 => Ok(TimelineId(number)),
        _ => Err(ServerError::Answer { what: "timeline", found: number.to_string() }),
    }
}
