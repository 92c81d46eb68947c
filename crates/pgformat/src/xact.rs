//! Ends of transactions: what recovery targets by time and xid stop at.
//!
//! Layouts from `xact.h`; which xid counts, as in `recoveryStopsBefore` and `recoveryStopsAfter`.

use serde::{Deserialize, Serialize};

use crate::error::FormatError;
use crate::field::{i32_at, i64_at, u32_at};
use crate::lsn::Lsn;
use crate::record::Record;
use crate::resource_manager::ResourceManager;
use crate::timestamp::Timestamp;
use crate::version::Major;

/// `XLOG_XACT_OPMASK`.
const OPERATION_MASK: u8 = 0x70;
/// `XLOG_XACT_HAS_INFO`.
const HAS_INFO: u8 = 0x80;
const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWO_PHASE: u32 = 1 << 4;
const HAS_DROPPED_STATISTICS: u32 = 1 << 8;
/// `sizeof(RelFileLocator)`.
const RELATION_BYTES: usize = 12;
/// `sizeof(SharedInvalidationMessage)`.
const INVALIDATION_BYTES: usize = 16;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionOutcome {
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`, or an error.
    Abort,
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `ROLLBACK PREPARED`.
    AbortPrepared,
}

impl TransactionOutcome {
    /// Whether its changes stay.
    #[must_use]
    pub const fn is_commit(self) -> bool {
        matches!(self, Self::Commit | Self::CommitPrepared)
    }
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionEnd {
    /// Where the record starts: a target there, exclusive, leaves the transaction out.
    pub lsn: Lsn,
    /// The position after the record.
    pub end_lsn: Lsn,
    /// The transaction; of a prepared one, that of the transaction that was prepared. May be 0: a
    /// commit without an xid can carry invalidations.
    pub xid: u32,
    /// When, by the server's clock.
    pub time: Timestamp,
    /// How.
    pub outcome: TransactionOutcome,
}

impl TransactionEnd {
    /// What a transaction record says; `main_data` is the record's. Nothing for records that end no
    /// transaction.
    ///
    /// # Errors
    /// A record too short for what it claims to hold.
    pub fn decode(record: &Record<'_>, main_data: &[u8]) -> Result<Option<Self>, FormatError> {
        if record.header.resource_manager != ResourceManager::TRANSACTION {
            return Ok(None);
        }
        let outcome = match record.header.info & OPERATION_MASK {
            0x00 => TransactionOutcome::Commit,
            0x20 => TransactionOutcome::Abort,
            0x30 => TransactionOutcome::CommitPrepared,
            0x40 => TransactionOutcome::AbortPrepared,
            _ => return Ok(None),
        };
        let short = || FormatError::Record {
            lsn: record.lsn,
            what: "main data of a transaction's end",
            expected: "more bytes".to_owned(),
            found: main_data.len().to_string(),
        };
        let time = Timestamp(i64_at(main_data, 0).ok_or_else(short)?);
        let prepared = match outcome {
            TransactionOutcome::Commit | TransactionOutcome::Abort => None,
            TransactionOutcome::CommitPrepared | TransactionOutcome::AbortPrepared => {
                Some(prepared_xid(record, main_data, outcome).ok_or_else(short)?)
            }
        };
        let xid = prepared.flatten().unwrap_or(record.header.xid);
        Ok(Some(Self { lsn: record.lsn, end_lsn: record.end_lsn, xid, time, outcome }))
    }
}

/// The transaction that had been prepared: past all that may come before it. Outer `None`: too
/// short.
#[allow(clippy::option_option)]
fn prepared_xid(
    record: &Record<'_>,
    data: &[u8],
    outcome: TransactionOutcome,
) -> Option<Option<u32>> {
    if record.header.info & HAS_INFO == 0 {
        return Some(None);
    }
    let info = u32_at(data, 8)?;
    let mut at = 12;
    if info & HAS_DATABASE != 0 {
        at = 20;
    }
    if info & HAS_SUBTRANSACTIONS != 0 {
        at = past_array(data, at, 4)?;
    }
    if info & HAS_RELATIONS != 0 {
        at = past_array(data, at, RELATION_BYTES)?;
    }
    if record.major >= Major::V15 && info & HAS_DROPPED_STATISTICS != 0 {
        // 18 made the object id of statistics 64 bits wide, in two words.
        let item_bytes = if record.major >= Major::V18 { 16 } else { 12 };
        at = past_array(data, at, item_bytes)?;
    }
    if outcome.is_commit() && info & HAS_INVALIDATIONS != 0 {
        at = past_array(data, at, INVALIDATION_BYTES)?;
    }
    if info & HAS_TWO_PHASE == 0 {
        return Some(None);
    }
    Some(Some(u32_at(data, at)?))
}

/// Past a count and that many items.
fn past_array(data: &[u8], at: usize, item_bytes: usize) -> Option<usize> {
    let count = usize::try_from(i32_at(data, at)?).ok()?;
    at.checked_add(4)?.checked_add(count.checked_mul(item_bytes)?)
}
