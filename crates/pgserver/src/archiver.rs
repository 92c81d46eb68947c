//! What the archiver has done, from `pg_stat_archiver`.

use pgrecall_pgformat::Timestamp;
use tokio_postgres::Row;

use crate::error::ServerError;
use crate::server::{Server, column, first};

const ACT: &str = "read pg_stat_archiver";

/// A file and when `archive_command` was done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedSegment {
    /// The file's name.
    pub name: String,
    /// When.
    pub time: Timestamp,
}

/// The archiver's record since its statistics were reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiverStatus {
    /// Files archived.
    pub archived_count: u64,
    /// The last one.
    pub last_archived: Option<ArchivedSegment>,
    /// Failed attempts.
    pub failed_count: u64,
    /// The last one.
    pub last_failed: Option<ArchivedSegment>,
    /// When the counts began.
    pub stats_reset: Option<Timestamp>,
}

impl Server {
    /// Reads the archiver's record.
    pub async fn archiver_status(&self) -> Result<ArchiverStatus, ServerError> {
        let sql = "SELECT archived_count, last_archived_wal, micros(last_archived_time),
                          failed_count, last_failed_wal, micros(last_failed_time),
                          micros(stats_reset) FROM pg_stat_archiver";
        let sql = with_micros(sql);
        let rows = self.rows(ACT, &sql, &[], String::new).await?;
        let row = first(&rows, ACT)?;
        Ok(ArchiverStatus {
            archived_count: count(row, 0)?,
            last_archived: segment(row, 1)?,
            failed_count: count(row, 3)?,
            last_failed: segment(row, 4)?,
            stats_reset: column::<Option<i64>>(row, 6, ACT)?.map(Timestamp::from_unix_micros),
        })
    }
}

/// Puts the expression for microseconds since 1970 in place of `micros(time)`.
pub(crate) fn with_micros(sql: &str) -> String {
    let mut parts = sql.split("micros(");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (time, rest) = part.split_once(')').unwrap_or((part, ""));
        whole.push_str(&format!("(extract(epoch FROM {time}) * 1000000)::int8{rest}"));
    }
    whole
}

fn count(row: &Row, at: usize) -> Result<u64, ServerError> {
    let found: i64 = column(row, at, ACT)?;
    u64::try_from(found).map_err(|_| ServerError::Answer { what: ACT, found: found.to_string() })
}

fn segment(row: &Row, at: usize) -> Result<Option<ArchivedSegment>, ServerError> {
    let name: Option<String> = column(row, at, ACT)?;
    let time: Option<i64> = column(row, at + 1, ACT)?;
    let whole = name.zip(time);
    Ok(whole.map(|(name, time)| ArchivedSegment { name, time: Timestamp::from_unix_micros(time) }))
}
