//! What the engine writes into a manifest about its backup, and reads out of it again.

use jiff::Timestamp;
use pgrecall_pgformat::control::DataChecksums;
use pgrecall_pgformat::{Lsn, Major, SegmentSize, TimelineId};
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::id::BackupId;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, ErrorKind};

/// A position on a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The timeline.
    pub timeline: TimelineId,
    /// The LSN.
    pub lsn: Lsn,
}

/// What a backup was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakenFrom {
    /// A primary.
    Primary,
    /// A standby.
    Standby,
}

/// How changed pages were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Everything was read and stored as far as it was new.
    Full,
    /// Everything was read and compared with the page hashes of the reference backup.
    Scan,
}

/// A tablespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its OID: the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its directory at the time of the backup.
    pub location: String,
}

/// Blocks of a file that are damaged in the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedFile {
    /// The file, below the data directory.
    pub path: String,
    /// The first blocks found damaged, by their number within the relation fork.
    pub blocks: Vec<u32>,
    /// How many there are in all.
    pub count: u64,
}

/// What a backup did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupStats {
    /// Files, of any size.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Plaintext bytes of the chunks that were new.
    pub new_bytes: u64,
    /// Bytes of the packs and index objects that were put.
    pub stored_bytes: u64,
}

/// What a manifest says of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupDetails {
    /// When it began, RFC 3339, by the host's clock.
    pub began: String,
    /// When its files were copied and `pg_backup_stop` had answered, RFC 3339.
    pub ended: Timestamp,
    /// The host.
    pub host: String,
    /// PostgreSQL's major version.
    pub major: Major,
    /// `server_version_num`.
    pub server_version: u32,
    /// `PG_CATALOG_VERSION_NO`, as in the names of tablespaces' directories.
    pub catalog_version: u32,
    /// Primary or standby.
    pub from: TakenFrom,
    /// Where WAL replay starts (`START WAL LOCATION`: the redo point).
    pub start: Position,
    /// The checkpoint record (`CHECKPOINT LOCATION`).
    pub checkpoint_lsn: Lsn,
    /// Where the backup is consistent.
    pub stop: Position,
    /// The content of `backup_label`.
    pub backup_label: String,
    /// The content of `tablespace_map`; empty when there are no tablespaces.
    pub tablespace_map: String,
    /// Tablespaces.
    pub tablespaces: Vec<Tablespace>,
    /// The target of `pg_wal`, where that is a link.
    pub pg_wal_link: Option<String>,
    /// The size of a data page.
    pub page_size_bytes: u32,
    /// The size of a WAL segment.
    pub wal_segment_size: SegmentSize,
    /// Pages of a relation's file segment.
    pub relation_segment_pages: u32,
    /// Whether pages have checksums.
    pub data_checksums: DataChecksums,
    /// Bytes of a chunk of relation files.
    pub chunk_bytes: u32,
    /// How changes were found.
    pub method: Method,
    /// The backup compared with.
    pub reference: Option<BackupId>,
    /// Damage found in the source.
    pub damage: Vec<DamagedFile>,
    /// What was done.
    pub stats: BackupStats,
    /// The cluster's backups that were there when this one began.
    pub saw_backups: Vec<BackupId>,
}

impl BackupDetails {
    /// Reads them out of a manifest.
    ///
    /// # Errors
    /// When they do not read: the manifest authenticated, so a version of this program wrote them
    /// that this one does not understand.
    pub fn of(manifest: &Manifest) -> Result<Self, EngineError> {
        serde_json::from_value(manifest.details.clone()).map_err(|error| {
            EngineError::refused(
                ErrorKind::Unsupported,
                format!("the details of backup {} do not read: {error}", manifest.backup),
            )
        })
    }

    /// For the manifest.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Details of a backup that never was.
    pub(crate) fn details() -> BackupDetails {
        let position = Position { timeline: TimelineId(1), lsn: Lsn(0x0200_0028) };
        BackupDetails {
            began: "2026-11-22T00:00:00Z".into(),
            ended: "2026-11-22T00:01:00Z".parse().unwrap(),
            host: "db1".into(),
            major: Major::V17,
            server_version: 170_011,
            catalog_version: 202_406_281,
            from: TakenFrom::Primary,
            start: position,
            checkpoint_lsn: Lsn(0x0200_0080),
            stop: Position { lsn: Lsn(0x0200_0180), ..position },
            backup_label: String::new(),
            tablespace_map: String::new(),
            tablespaces: vec![],
            pg_wal_link: None,
            page_size_bytes: 8192,
            wal_segment_size: SegmentSize::from_bytes(16 << 20).unwrap(),
            relation_segment_pages: 131_072,
            data_checksums: DataChecksums::On { version: 1 },
            chunk_bytes: 256 << 10,
            method: Method::Full,
            reference: None,
            damage: vec![],
            stats: BackupStats::default(),
            saw_backups: vec![],
        }
    }

    #[test]
    fn details_survive_the_manifest() {
        let manifest = Manifest {
            backup: BackupId::from_bytes([1; 16]),
            cluster: "main".into(),
            lineage: "7".into(),
            tables: vec![],
            entries: 0,
            bytes: 0,
            details: details().to_value(),
        };
        assert_eq!(BackupDetails::of(&manifest).unwrap(), details());
    }
}
