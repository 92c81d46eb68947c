//! Taking a backup.
//!
//! `pg_backup_start`, then files in parallel, `pg_control` last, then `pg_backup_stop`, then the
//! wait until every WAL segment from start to stop is in the repository, and proof that this WAL
//! makes the backup consistent: only then the manifest is put. What was stored before a failure
//! serves the next try.

mod assemble;
mod copy;
mod histories;
pub(crate) mod incarnation;
mod listing;
mod map_builder;
mod neighbours;
mod page_scan;
mod piece;
mod proof;
mod reference;
mod reference_ahead;
mod run;
pub mod source;
mod table_writer;
mod wal_proof;
mod wal_wait;
mod worker;

pub use neighbours::{DeadEnd, Host, end_dead};
pub use run::{BackupReport, BackupRequest, run};
