//! What is asked of a running PostgreSQL server, majors 14 to 19, and the rights that this needs.
//!
//! Nothing here knows of repositories or backups as we store them: the crate speaks SQL and gives
//! back typed answers.
//!
//! | act | right, besides `LOGIN` |
//! |---|---|
//! | [`Server::info`] | `pg_read_all_settings` (file paths, `archive_library`) |
//! | [`Server::start_backup`], [`RunningBackup::stop`] | `EXECUTE` on `pg_backup_start`, `pg_backup_stop` (14: `pg_start_backup`, `pg_stop_backup`) |
//! | [`Server::switch_wal`] | `EXECUTE` on `pg_switch_wal()` |
//! | [`Server::create_restore_point`] | `EXECUTE` on `pg_create_restore_point(text)` |
//! | [`Server::checkpoint`] | `pg_checkpoint`, a superuser on 14 |
//! | [`Server::list_dir`], [`Server::read_file`] | `EXECUTE` on `pg_ls_dir`, `pg_stat_file`, `pg_read_binary_file`; `pg_read_server_files` outside the data directory |
//!
//! A missing right is [`ServerError::Denied`], whose hint is the `GRANT` that helps.
#![forbid(unsafe_code)]
// Whatever comes from outside, this crate gives an error and does not panic.
#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::string_slice,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::unchecked_time_subtraction
    )
)]

mod archiver;
mod backup;
mod connect;
mod environment;
mod error;
mod pass_file;
mod postmaster_file;
mod read_file;
mod server;
mod settings;
mod tls;
mod version;
mod wal;

pub use archiver::{ArchivedSegment, ArchiverStatus};
pub use backup::{Checkpoint, RunningBackup, StoppedBackup};
pub use connect::{
    ChannelBinding, ConnectOptions, Host, Keepalives, Password, RootCertificates, TlsMode,
};
pub use error::{ErrorKind, ServerError, ServerMessage};
pub use pass_file::{PassFile, pass_file_path};
pub use postmaster_file::PostmasterFile;
pub use read_file::{FileType, ListedFile, READ_LEN_MAX_BYTES};
pub use server::{Server, ServerInfo, ServerInstance, Tablespace};
pub use settings::{ArchiveMode, Rights, Settings, WalLevel};
pub use version::ServerVersion;
pub use wal::{RecoveryState, WalSwitch};
