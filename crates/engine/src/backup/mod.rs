//! Taking a backup.
//!
//! `pg_backup_start`, then files in parallel, `pg_control` last, then `pg_backup_stop`, then the
//! wait until every WAL segment from start to stop is in the repository: only then the manifest is
//! put. What was stored before a failure serves the next try.

mod copy;
mod map_builder;
mod neighbours;
mod page_scan;
mod reference;
mod run;
pub mod source;
mod table_writer;
mod wal_wait;

pub use run::{BackupReport, BackupRequest, run};
