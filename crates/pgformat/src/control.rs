//! `global/pg_control`: the state of a cluster (`ControlFileData` of `pg_control.h`).
//!
//! The layouts of 14 to 17 differ in one field of the checkpoint only (17 has `wal_level` where
//! there was padding); 18 has one more byte before the nonce. 19 has a longer checkpoint
//! (`logicalDecodingEnabled`, and `nextMultiOffset` of 64 bits), the size of SLRU segments, and the
//! data checksums that `initdb` chose.

use serde::{Deserialize, Serialize};

use crate::error::{FileKind, FormatError};
use crate::field::{i32_at, i64_at, to_u64, u8_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::segment::SegmentSize;
use crate::timeline::TimelineId;
use crate::version::{KNOWN, Major};

/// The length of the file, `PG_CONTROL_FILE_SIZE`; the rest after the data is zero.
pub const CONTROL_FILE_SIZE_BYTES: usize = 8192;

/// Where the copy of the last checkpoint starts.
const CHECKPOINT_OFFSET: usize = 40;

/// What a cluster was doing when its control file was written (`DBState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// Being made by `initdb`.
    Startup,
    /// Shut down cleanly.
    ShutDown,
    /// A standby shut down cleanly.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    InCrashRecovery,
    /// Recovering from a backup, or a standby.
    InArchiveRecovery,
    /// Running.
    InProduction,
}

impl ClusterState {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Startup,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }

    /// The words of `pg_controldata`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        }
    }
}

/// How much a server writes to its WAL (`WalLevel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalLevel {
    /// Enough for a crash; backups cannot be rolled forward through it.
    Minimal,
    /// Enough for archiving and standbys.
    Replica,
    /// Enough for logical decoding too.
    Logical,
}

impl WalLevel {
    /// The level with PostgreSQL's number, 0 to 2.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Minimal),
            1 => Some(Self::Replica),
            2 => Some(Self::Logical),
            _ => None,
        }
    }

    /// The setting's text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Replica => "replica",
            Self::Logical => "logical",
        }
    }
}

/// `full_page_writes` as a checkpoint saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FullPageWrites {
    /// On: torn pages heal in recovery.
    On,
    /// Off: a backup over this time may hold torn pages.
    Off,
}

/// The body of a checkpoint record, kept in the control file too (`CheckPoint`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where recovery from this checkpoint starts.
    pub redo: Lsn,
    /// The timeline.
    pub timeline: TimelineId,
    /// The timeline before, if this checkpoint starts a new one; else the same.
    pub previous_timeline: TimelineId,
    /// `full_page_writes` at this moment.
    pub full_page_writes: FullPageWrites,
    /// `wal_level` at this moment; not recorded before 17.
    pub wal_level: Option<WalLevel>,
    /// Epoch (upper half) and next transaction id (lower half).
    pub next_full_xid: u64,
    /// The next OID.
    pub next_oid: u32,
    /// The oldest transaction id still of use.
    pub oldest_xid: u32,
    /// When it was made: seconds since 1970-01-01 UTC.
    pub time_unix_secs: i64,
    /// The oldest transaction still running, for online checkpoints; else 0.
    pub oldest_active_xid: u32,
}

impl Checkpoint {
    /// Reads `sizeof(CheckPoint)` bytes, which may be followed by others; nothing if there are
    /// fewer, or if a field has a value it cannot have.
    #[must_use]
    pub fn decode(bytes: &[u8], major: Major) -> Option<Self> {
        let wal_level = if major >= Major::V17 {
            Some(WalLevel::from_number(i32_at(bytes, 20)?)?)
        } else {
            None
        };
        let [next_full_xid, next_oid, oldest_xid, time, oldest_active_xid] =
            if major >= Major::V19 { [32, 40, 56, 72, 88] } else { [24, 32, 44, 64, 80] };
        Some(Self {
            redo: Lsn(u64_at(bytes, 0)?),
            timeline: TimelineId(u32_at(bytes, 8)?),
            previous_timeline: TimelineId(u32_at(bytes, 12)?),
            full_page_writes: match u8_at(bytes, 16)? {
                0 => FullPageWrites::Off,
                1 => FullPageWrites::On,
                _ => return None,
            },
            wal_level,
            next_full_xid: u64_at(bytes, next_full_xid)?,
            next_oid: u32_at(bytes, next_oid)?,
            oldest_xid: u32_at(bytes, oldest_xid)?,
            time_unix_secs: i64_at(bytes, time)?,
            oldest_active_xid: u32_at(bytes, oldest_active_xid)?,
        })
    }
}

/// Whether data pages carry checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataChecksums {
    /// Pages carry no checksum.
    Off,
    /// Pages carry checksums of this version (1 is the only one).
    On {
        /// `data_checksum_version`.
        version: u32,
    },
}

/// Settings of a primary that a standby must match (in `pg_control` and in parameter-change
/// records).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbySettings {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

/// Whether recovery must find an end-of-backup record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupEnd {
    /// No backup is being recovered, or it was taken from a standby.
    NotRequired,
    /// Recovery must reach the record.
    Required,
}

/// What `pg_control` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlFile {
    /// The major, from control and catalog version.
    pub major: Major,
    /// What tells one cluster from all others.
    pub system_identifier: u64,
    /// `pg_control_version`.
    pub control_version: u32,
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// What the cluster was doing.
    pub state: ClusterState,
    /// When the file was last written: seconds since 1970-01-01 UTC.
    pub time_unix_secs: i64,
    /// Where the last checkpoint's record is.
    pub checkpoint_lsn: Lsn,
    /// The last checkpoint.
    pub checkpoint: Checkpoint,
    /// Recovery must reach this before the cluster may start (`minRecoveryPoint`).
    pub min_recovery_lsn: Option<Lsn>,
    /// The timeline of that position; 0 in a running primary.
    pub min_recovery_timeline: u32,
    /// Redo position of the backup under recovery (`backupStartPoint`).
    pub backup_start_lsn: Option<Lsn>,
    /// End of the backup under recovery, if it was taken from a standby (`backupEndPoint`).
    pub backup_end_lsn: Option<Lsn>,
    /// Whether an end-of-backup record must be reached.
    pub backup_end: BackupEnd,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// Settings that a standby must match.
    pub standby_settings: StandbySettings,
    /// The size of data pages (`blcksz`).
    pub page_size_bytes: u32,
    /// Pages in a file of a large relation (`relseg_size`).
    pub relation_segment_pages: u32,
    /// The size of WAL pages (`xlog_blcksz`).
    pub wal_page_size_bytes: u32,
    /// The size of WAL segments.
    pub wal_segment_size: SegmentSize,
    /// Whether data pages carry checksums.
    pub data_checksums: DataChecksums,
}

impl ControlFile {
    /// Reads the whole file: checks its length, version and checksum before anything else is
    /// believed.
    ///
    /// # Errors
    /// A wrong length, a version that is not known here or of big-endian order, a wrong checksum
    /// (both values in the error; a torn read looks like this), or a field that cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() != CONTROL_FILE_SIZE_BYTES {
            return Err(FormatError::Length {
                file: FileKind::ControlFile,
                expected: to_u64(CONTROL_FILE_SIZE_BYTES),
                found: to_u64(bytes.len()),
            });
        }
        let control_version = u32_at(bytes, 8).ok_or_else(|| short(8))?;
        let catalog_version = u32_at(bytes, 12).ok_or_else(|| short(12))?;
        let crc_offset = crc_offset(control_version)?;
        let data = bytes.get(..crc_offset).ok_or_else(|| short(crc_offset))?;
        let found = u32_at(bytes, crc_offset).ok_or_else(|| short(crc_offset))?;
        let expected = crc32c::crc32c(data);
        if found != expected {
            return Err(FormatError::Checksum { file: FileKind::ControlFile, expected, found });
        }
        // Only now: a torn or damaged file must not pass for another version.
        let major = Major::from_control_and_catalog(control_version, catalog_version)
            .ok_or_else(|| unknown("catalog version", catalog_version))?;
        Fields { bytes: data, major }.control_file()
    }
}

/// Where the checksum is, which tells the control versions apart.
fn crc_offset(control_version: u32) -> Result<usize, FormatError> {
    match control_version {
        1300 | 1700 => Ok(288),
        1800 => Ok(292),
        1905 => Ok(308),
        other => {
            let swapped = other.swap_bytes();
            if (900..10_000).contains(&swapped) {
                return Err(FormatError::ByteOrder { file: FileKind::ControlFile });
            }
            Err(unknown("control version", other))
        }
    }
}

fn unknown(what: &'static str, found: u32) -> FormatError {
    FormatError::UnknownVersion {
        file: FileKind::ControlFile,
        what,
        found: found.to_string(),
        known: KNOWN,
    }
}

fn short(offset: usize) -> FormatError {
    FormatError::Length {
        file: FileKind::ControlFile,
        expected: to_u64(offset.saturating_add(4)),
        found: to_u64(offset),
    }
}

/// The fields before the checksum, asked for by where 14 to 18 have them.
struct Fields<'a> {
    bytes: &'a [u8],
    major: Major,
}

impl Fields<'_> {
    /// Where this major has a field.
    const fn place(&self, offset: usize) -> usize {
        let later = match (self.major, offset) {
            (Major::V14 | Major::V15 | Major::V16 | Major::V17 | Major::V18, _)
            | (Major::V19, ..128) => 0,
            // Behind the checkpoint.
            (Major::V19, 128..224) => 8,
            // Behind `slru_pages_per_segment`.
            (Major::V19, 224..252) => 12,
            // Behind `data_checksum_version_init`.
            (Major::V19, 252..) => 16,
        };
        offset.saturating_add(later)
    }

    fn control_file(&self) -> Result<ControlFile, FormatError> {
        let major = self.major;
        let checkpoint = self
            .bytes
            .get(CHECKPOINT_OFFSET..)
            .and_then(|bytes| Checkpoint::decode(bytes, major))
            .ok_or_else(|| {
                wrong(CHECKPOINT_OFFSET, "checkPointCopy", "a checkpoint", "none".to_owned())
            })?;
        let segment_size = self.u32(228)?;
        Ok(ControlFile {
            major,
            system_identifier: self.u64(0)?,
            control_version: self.u32(8)?,
            catalog_version: self.u32(12)?,
            state: self.checked(16, "state", "0 to 6", ClusterState::from_number)?,
            time_unix_secs: i64_at(self.bytes, 24).ok_or_else(|| short(24))?,
            checkpoint_lsn: Lsn(self.u64(32)?),
            checkpoint,
            min_recovery_lsn: Lsn(self.u64(136)?).valid(),
            min_recovery_timeline: self.u32(144)?,
            backup_start_lsn: Lsn(self.u64(152)?).valid(),
            backup_end_lsn: Lsn(self.u64(160)?).valid(),
            backup_end: self.backup_end()?,
            wal_level: self.checked(172, "wal_level", "0 to 2", |number| {
                WalLevel::from_number(i32::try_from(number).ok()?)
            })?,
            standby_settings: StandbySettings {
                max_connections: self.u32(180)?,
                max_worker_processes: self.u32(184)?,
                max_wal_senders: self.u32(188)?,
                max_prepared_transactions: self.u32(192)?,
                max_locks_per_transaction: self.u32(196)?,
            },
            page_size_bytes: self.size(216, "blcksz", 32 * 1024)?,
            relation_segment_pages: self
                .checked(220, "relseg_size", "not 0", |n| (n != 0).then_some(n))?,
            wal_page_size_bytes: self.size(224, "xlog_blcksz", 64 * 1024)?,
            wal_segment_size: SegmentSize::try_from(segment_size)?,
            data_checksums: match self.u32(252)? {
                0 => DataChecksums::Off,
                version => DataChecksums::On { version },
            },
        })
    }

    fn backup_end(&self) -> Result<BackupEnd, FormatError> {
        let offset = self.place(168);
        match u8_at(self.bytes, offset).ok_or_else(|| short(offset))? {
            0 => Ok(BackupEnd::NotRequired),
            1 => Ok(BackupEnd::Required),
            other => Err(wrong(offset, "backupEndRequired", "0 or 1", other.to_string())),
        }
    }

    fn u32(&self, offset: usize) -> Result<u32, FormatError> {
        let offset = self.place(offset);
        u32_at(self.bytes, offset).ok_or_else(|| short(offset))
    }

    fn u64(&self, offset: usize) -> Result<u64, FormatError> {
        let offset = self.place(offset);
        u64_at(self.bytes, offset).ok_or_else(|| short(offset))
    }

    fn checked<T>(
        &self,
        offset: usize,
        field: &'static str,
        expected: &'static str,
        read: impl FnOnce(u32) -> Option<T>,
    ) -> Result<T, FormatError> {
        let number = self.u32(offset)?;
        read(number).ok_or_else(|| wrong(self.place(offset), field, expected, number.to_string()))
    }

    /// A page size: a power of two from 1 KiB up.
    fn size(&self, offset: usize, field: &'static str, max: u32) -> Result<u32, FormatError> {
        self.checked(offset, field, "a power of two from 1 KiB to 32 (WAL: 64) KiB", |size| {
            (size.is_power_of_two() && (1024..=max).contains(&size)).then_some(size)
        })
    }
}

fn wrong(offset: usize, field: &'static str, expected: &str, found: String) -> FormatError {
    FormatError::Field {
        file: FileKind::ControlFile,
        offset_bytes: to_u64(offset),
        field,
        expected: expected.to_owned(),
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::{CONTROL_FILE_SIZE_BYTES, ControlFile};
    use crate::error::{ErrorKind, FormatError};

    #[test]
    fn refuses_lengths_versions_and_byte_orders() {
        let short = ControlFile::decode(&[0; 100]).unwrap_err();
        assert_eq!(short.kind(), ErrorKind::Incomplete);
        let mut bytes = vec![0; CONTROL_FILE_SIZE_BYTES];
        assert_eq!(ControlFile::decode(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
        bytes[8..12].copy_from_slice(&1300_u32.to_be_bytes());
        assert!(matches!(ControlFile::decode(&bytes), Err(FormatError::ByteOrder { .. })));
        bytes[8..12].copy_from_slice(&1700_u32.to_le_bytes());
        let Err(FormatError::Checksum { expected, found, .. }) = ControlFile::decode(&bytes) else {
            panic!("a wrong checksum passed");
        };
        assert_eq!((expected, found), (crc32c::crc32c(&bytes[..288]), 0));
    }
}
