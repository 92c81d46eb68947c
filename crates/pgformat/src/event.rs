//! Records that matter to backups and recovery beyond the blocks they change.
//!
//! Layouts from `pg_control.h`, `xlog_internal.h`, `dbcommands_xlog.h` and `storage_xlog.h`.

use serde::{Deserialize, Serialize};

use crate::control::{Checkpoint, FullPageWrites, WalLevel};
use crate::cursor::KIND_SWITCH;
use crate::error::FormatError;
use crate::field::{array_at, i32_at, i64_at, to_usize, u8_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::record::{Record, RecordBody};
use crate::relation::{Fork, RelationLocator};
use crate::resource_manager::ResourceManager;
use crate::timeline::TimelineId;
use crate::timestamp::Timestamp;
use crate::version::Major;
use crate::xact::TransactionEnd;

/// `MAXFNAMELEN`, the space for a restore point's name.
const NAME_BYTES: usize = 64;

/// Which kind of checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointKind {
    /// The server was shut down, or came out of recovery.
    Shutdown,
    /// The server went on.
    Online,
}

/// How a database was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseCreation {
    /// Files were copied: no block reference speaks of their content.
    FileCopy {
        /// The database copied.
        source_database: u32,
        /// Its tablespace.
        source_tablespace: u32,
    },
    /// Each block was logged after this record (from 15 on).
    WalLog,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A transaction ended.
    Transaction(TransactionEnd),
    /// A checkpoint.
    Checkpoint(CheckpointKind, Checkpoint),
    /// Where replay from the next checkpoint will start (from 17 on).
    RedoPoint,
    /// A restore point was named.
    RestorePoint {
        /// When.
        time: Timestamp,
        /// Its name.
        name: String,
    },
    /// The server came out of recovery without a checkpoint.
    EndOfRecovery {
        /// When.
        time: Timestamp,
        /// The new timeline.
        timeline: TimelineId,
        /// The timeline it left.
        previous_timeline: TimelineId,
    },
    /// `full_page_writes` changed.
    FullPageWrites(FullPageWrites),
    /// A backup ended that had started at this position.
    BackupEnd {
        /// The backup's start (redo) position.
        start_lsn: Lsn,
    },
    /// Settings changed that standbys must know.
    ParameterChange {
        /// `wal_level` from here on.
        wal_level: WalLevel,
    },
    /// Takes the place of a record whose end was lost.
    OverwriteContrecord {
        /// The lost record.
        overwritten_lsn: Lsn,
        /// When.
        time: Timestamp,
    },
    /// The rest of the segment is empty.
    Switch,
    /// A database was made.
    DatabaseCreate {
        /// The new database.
        database: u32,
        /// Its tablespace.
        tablespace: u32,
        /// How.
        creation: DatabaseCreation,
    },
    /// A database was dropped.
    DatabaseDrop {
        /// The database.
        database: u32,
        /// The tablespaces that it was dropped from.
        tablespaces: Vec<u32>,
    },
    /// A fork of a relation was made.
    StorageCreate {
        /// The relation.
        locator: RelationLocator,
        /// The fork.
        fork: Fork,
    },
    /// A relation was truncated.
    StorageTruncate {
        /// The relation.
        locator: RelationLocator,
        /// Blocks that its main fork keeps.
        blocks_kept: u32,
        /// Which forks: 1 main, 2 VM, 4 FSM.
        forks: u32,
    },
}

impl Event {
    /// Whether records of this resource manager can be events; the others need not be taken apart.
    #[must_use]
    #[inline]
    pub fn is_candidate(resource_manager: ResourceManager) -> bool {
        matches!(
            resource_manager,
            ResourceManager::XLOG
                | ResourceManager::TRANSACTION
                | ResourceManager::STORAGE
                | ResourceManager::DATABASE
        )
    }

    /// What a record says; nothing for the many records that only change blocks.
    ///
    /// # Errors
    /// A record too short for its kind, or with a value it cannot have.
    pub fn decode(record: &Record<'_>, body: &RecordBody<'_>) -> Result<Option<Self>, FormatError> {
        let data = body.main_data;
        let decoded = match record.header.resource_manager {
            ResourceManager::TRANSACTION => {
                return Ok(TransactionEnd::decode(record, data)?.map(Self::Transaction));
            }
            ResourceManager::XLOG => decode_xlog(record, data),
            ResourceManager::STORAGE => decode_storage(record.header.kind(), data),
            ResourceManager::DATABASE => decode_database(record, data),
            _ => Known::Other,
        };
        match decoded {
            Known::Event(event) => Ok(Some(event)),
            Known::Other => Ok(None),
            Known::Broken => Err(FormatError::Record {
                lsn: record.lsn,
                what: "main data",
                expected: format!(
                    "a record of kind {:#04x} of {}",
                    record.header.kind(),
                    record.header.resource_manager
                ),
                found: format!("{} bytes that cannot be one", data.len()),
            }),
        }
    }
}

/// What became of a record's data.
enum Known {
    Event(Event),
    Other,
    Broken,
}

impl From<Option<Event>> for Known {
    fn from(event: Option<Event>) -> Self {
        event.map_or(Self::Broken, Self::Event)
    }
}

fn decode_xlog(record: &Record<'_>, data: &[u8]) -> Known {
    let major = record.major;
    let checkpoint =
        |kind| Checkpoint::decode(data, major).map(|found| Event::Checkpoint(kind, found));
    match record.header.kind() {
        0x00 => checkpoint(CheckpointKind::Shutdown).into(),
        0x10 => checkpoint(CheckpointKind::Online).into(),
        KIND_SWITCH => Known::Event(Event::Switch),
        0x50 => u64_at(data, 0).map(|start| Event::BackupEnd { start_lsn: Lsn(start) }).into(),
        0x60 => decode_parameter_change(data).into(),
        0x70 => decode_restore_point(data).into(),
        0x80 => decode_full_page_writes(data).into(),
        0x90 => decode_end_of_recovery(data).into(),
        0xD0 => decode_overwrite(data).into(),
        0xE0 if major >= Major::V17 => Known::Event(Event::RedoPoint),
        _ => Known::Other,
    }
}

fn decode_parameter_change(data: &[u8]) -> Option<Event> {
    Some(Event::ParameterChange { wal_level: WalLevel::from_number(i32_at(data, 20)?)? })
}

fn decode_restore_point(data: &[u8]) -> Option<Event> {
    let name = array_at::<NAME_BYTES>(data, 8)?;
    let name = name.split(|byte| *byte == 0).next()?;
    Some(Event::RestorePoint {
        time: Timestamp(i64_at(data, 0)?),
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

fn decode_full_page_writes(data: &[u8]) -> Option<Event> {
    match u8_at(data, 0)? {
        0 => Some(Event::FullPageWrites(FullPageWrites::Off)),
        1 => Some(Event::FullPageWrites(FullPageWrites::On)),
        _ => None,
    }
}

fn decode_end_of_recovery(data: &[u8]) -> Option<Event> {
    Some(Event::EndOfRecovery {
        time: Timestamp(i64_at(data, 0)?),
        timeline: TimelineId(u32_at(data, 8)?),
        previous_timeline: TimelineId(u32_at(data, 12)?),
    })
}

fn decode_overwrite(data: &[u8]) -> Option<Event> {
    Some(Event::OverwriteContrecord {
        overwritten_lsn: Lsn(u64_at(data, 0)?),
        time: Timestamp(i64_at(data, 8)?),
    })
}

fn locator_at(data: &[u8], at: usize) -> Option<RelationLocator> {
    let [tablespace, database, relation] =
        [u32_at(data, at)?, u32_at(data, at.checked_add(4)?)?, u32_at(data, at.checked_add(8)?)?];
    Some(RelationLocator { tablespace, database, relation })
}

fn decode_storage(kind: u8, data: &[u8]) -> Known {
    let create = || {
        let fork = u8::try_from(u32_at(data, 12)?).ok()?;
        let fork = Fork::from_number(fork)?;
        Some(Event::StorageCreate { locator: locator_at(data, 0)?, fork })
    };
    let truncate = || {
        Some(Event::StorageTruncate {
            locator: locator_at(data, 4)?,
            blocks_kept: u32_at(data, 0)?,
            forks: u32_at(data, 16)?,
        })
    };
    match kind {
        0x10 => create().into(),
        0x20 => truncate().into(),
        _ => Known::Other,
    }
}

/// The kinds before 15 are create 0x00 and drop 0x10; 15 put creation by WAL between them.
fn decode_database(record: &Record<'_>, data: &[u8]) -> Known {
    let logs_creation = record.major >= Major::V15;
    let create = |creation| {
        let (database, tablespace) = (u32_at(data, 0)?, u32_at(data, 4)?);
        Some(Event::DatabaseCreate { database, tablespace, creation })
    };
    let copied = || {
        create(DatabaseCreation::FileCopy {
            source_database: u32_at(data, 8)?,
            source_tablespace: u32_at(data, 12)?,
        })
    };
    let dropped = || {
        let count = to_usize(u32_at(data, 4)?);
        let (words, _) = data.get(8..)?.as_chunks::<4>();
        let tablespaces = words.get(..count)?.iter().map(|word| u32::from_le_bytes(*word));
        Some(Event::DatabaseDrop { database: u32_at(data, 0)?, tablespaces: tablespaces.collect() })
    };
    match (record.header.kind(), logs_creation) {
        (0x00, _) => copied().into(),
        (0x10, true) => create(DatabaseCreation::WalLog).into(),
        (0x10, false) | (0x20, true) => dropped().into(),
        _ => Known::Other,
    }
}
