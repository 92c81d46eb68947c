//! The settings that a backup depends on, and what the session's role may do.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pgrecall_pgformat::SegmentSize;
use tokio_postgres::Row;

use crate::error::ServerError;
use crate::server::column;
use crate::version::ServerVersion;

/// The rows of `pg_settings` that are read.
pub(crate) const SETTING_NAMES: [&str; 25] = [
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
    "block_size",
    "cluster_name",
    "config_file",
    "data_checksums",
    "data_directory",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
    "server_encoding",
    "summarize_wal",
    "track_commit_timestamp",
    "wal_block_size",
    "wal_keep_size",
    "wal_level",
    "wal_segment_size",
];

/// `wal_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalLevel {
    /// Not enough for a backup while the server runs.
    Minimal,
    /// Enough.
    Replica,
    /// Enough, and more.
    Logical,
}

/// `archive_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveMode {
    /// Nothing is archived.
    Off,
    /// A primary archives what it writes.
    On,
    /// A standby archives too what it receives.
    Always,
}

/// What `pg_settings` says, in base units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `data_directory`.
    pub data_directory: PathBuf,
    /// `config_file`.
    pub config_file: PathBuf,
    /// `hba_file`.
    pub hba_file: PathBuf,
    /// `ident_file`.
    pub ident_file: PathBuf,
    /// `cluster_name`, often empty.
    pub cluster_name: String,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `archive_mode`.
    pub archive_mode: ArchiveMode,
    /// `archive_command`; none when it is empty, and when `archive_mode` is off: the server
    /// tells no more than `(disabled)` then.
    pub archive_command: Option<String>,
    /// `archive_library`, from 15 on; none when it is empty.
    pub archive_library: Option<String>,
    /// `archive_timeout`; none when it is 0, so that an idle server never closes a segment.
    pub archive_timeout: Option<Duration>,
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// `hot_standby`.
    pub hot_standby: bool,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
    /// `data_checksums`.
    pub data_checksums: bool,
    /// `summarize_wal`, from 17 on.
    pub summarize_wal: Option<bool>,
    /// `wal_segment_size`.
    pub wal_segment_size: SegmentSize,
    /// `block_size` of relations.
    pub block_size_bytes: u32,
    /// `wal_block_size`.
    pub wal_block_size_bytes: u32,
    /// `wal_keep_size`, in MiB.
    pub wal_keep_size_mib: u32,
    /// `max_connections`: a standby needs at least its primary's, as with the next four.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
    /// `server_encoding` of the database connected to.
    pub server_encoding: String,
}

impl Settings {
    /// From names and values; a role without the right does not see the rows of some.
    pub(crate) fn from_rows(
        mut rows: HashMap<String, String>,
        version: ServerVersion,
        grant: impl Fn() -> String,
    ) -> Result<Self, ServerError> {
        let major = version.major().number();
        let mut take = |name: &str| {
            rows.remove(name).ok_or_else(|| ServerError::Denied {
                act: "read all settings",
                grant: grant(),
                source: None,
            })
        };
        let archive_library = if major >= 15 { Some(take("archive_library")?) } else { None };
        let summarize_wal = if major >= 17 { Some(take("summarize_wal")?) } else { None };
        let archive_command = Some(take("archive_command")?);
        let timeout_secs: u64 = number("archive_timeout", &take("archive_timeout")?)?;
        let segment_size = number("wal_segment_size", &take("wal_segment_size")?)?;
        Ok(Self {
            data_directory: take("data_directory")?.into(),
            config_file: take("config_file")?.into(),
            hba_file: take("hba_file")?.into(),
            ident_file: take("ident_file")?.into(),
            cluster_name: take("cluster_name")?,
            wal_level: wal_level(&take("wal_level")?)?,
            archive_mode: archive_mode(&take("archive_mode")?)?,
            archive_command: archive_command
                .filter(|text| !text.is_empty() && text != "(disabled)"),
            archive_library: archive_library.filter(|text| !text.is_empty()),
            archive_timeout: Some(Duration::from_secs(timeout_secs)).filter(|time| !time.is_zero()),
            full_page_writes: on(&take("full_page_writes")?)?,
            hot_standby: on(&take("hot_standby")?)?,
            track_commit_timestamp: on(&take("track_commit_timestamp")?)?,
            data_checksums: on(&take("data_checksums")?)?,
            summarize_wal: summarize_wal.as_deref().map(on).transpose()?,
            wal_segment_size: SegmentSize::from_bytes(segment_size).map_err(|error| {
                ServerError::Answer { what: "wal_segment_size", found: error.to_string() }
            })?,
            block_size_bytes: number("block_size", &take("block_size")?)?,
            wal_block_size_bytes: number("wal_block_size", &take("wal_block_size")?)?,
            wal_keep_size_mib: number("wal_keep_size", &take("wal_keep_size")?)?,
            max_connections: number("max_connections", &take("max_connections")?)?,
            max_worker_processes: number("max_worker_processes", &take("max_worker_processes")?)?,
            max_wal_senders: number("max_wal_senders", &take("max_wal_senders")?)?,
            max_prepared_transactions: number(
                "max_prepared_transactions",
                &take("max_prepared_transactions")?,
            )?,
            max_locks_per_transaction: number(
                "max_locks_per_transaction",
                &take("max_locks_per_transaction")?,
            )?,
            server_encoding: take("server_encoding")?,
        })
    }
}

/// What the session's role may do; a superuser may do all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// It is a superuser.
    pub superuser: bool,
    /// It sees all settings.
    pub read_all_settings: bool,
    /// It may start and stop a backup.
    pub backup: bool,
    /// It may switch WAL segments.
    pub switch_wal: bool,
    /// It may make restore points.
    pub create_restore_point: bool,
    /// It may ask for a checkpoint.
    pub checkpoint: bool,
    /// It may list and read the data directory's files.
    pub read_files: bool,
}

impl Rights {
    /// Columns in the order of the fields.
    pub(crate) fn sql(version: ServerVersion) -> String {
        let may = |function: &str| format!("has_function_privilege('{function}', 'EXECUTE')");
        let (start, stop) = if version.is_14() {
            ("pg_start_backup(text,boolean,boolean)", "pg_stop_backup(boolean,boolean)")
        } else {
            ("pg_backup_start(text,boolean)", "pg_backup_stop(boolean)")
        };
        let superuser = "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)";
        // pg_checkpoint came with 15.
        let checkpoint =
            if version.is_14() { superuser } else { "pg_has_role('pg_checkpoint', 'USAGE')" };
        [
            superuser.to_owned(),
            "pg_has_role('pg_read_all_settings', 'USAGE')".to_owned(),
            format!("{} AND {}", may(start), may(stop)),
            may("pg_switch_wal()"),
            may("pg_create_restore_point(text)"),
            checkpoint.to_owned(),
            format!(
                "{} AND {} AND {}",
                may("pg_ls_dir(text,boolean,boolean)"),
                may("pg_stat_file(text,boolean)"),
                may("pg_read_binary_file(text,bigint,bigint,boolean)")
            ),
        ]
        .join(", ")
    }

    pub(crate) fn from_row(row: &Row, at: usize, act: &'static str) -> Result<Self, ServerError> {
        Ok(Self {
            superuser: column(row, at, act)?,
            read_all_settings: column(row, at + 1, act)?,
            backup: column(row, at + 2, act)?,
            switch_wal: column(row, at + 3, act)?,
            create_restore_point: column(row, at + 4, act)?,
            checkpoint: column(row, at + 5, act)?,
            read_files: column(row, at + 6, act)?,
        })
    }
}

fn number<N: FromStr>(what: &'static str, text: &str) -> Result<N, ServerError> {
    text.parse().map_err(|_| ServerError::Answer { what, found: text.to_owned() })
}

fn on(text: &str) -> Result<bool, ServerError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(ServerError::Answer { what: "a setting of on or off", found: text.to_owned() }),
    }
}

fn wal_level(text: &str) -> Result<WalLevel, ServerError> {
    match text {
        "minimal" => Ok(WalLevel::Minimal),
        "replica" => Ok(WalLevel::Replica),
        "logical" => Ok(WalLevel::Logical),
        _ => Err(ServerError::Answer { what: "wal_level", found: text.to_owned() }),
    }
}

fn archive_mode(text: &str) -> Result<ArchiveMode, ServerError> {
    match text {
        "off" => Ok(ArchiveMode::Off),
        "on" => Ok(ArchiveMode::On),
        "always" => Ok(ArchiveMode::Always),
        _ => Err(ServerError::Answer { what: "archive_mode", found: text.to_owned() }),
    }
}
