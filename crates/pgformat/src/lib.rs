//! PostgreSQL's bytes, majors 14 to 19, read and written without I/O, without a clock and without
//! panics.
//!
//! Every decoder takes a slice and gives a value, "need more", or a located [`FormatError`];
//! nothing here opens a file. All integers are little-endian: a cluster of a big-endian machine is
//! refused by [`control::ControlFile`].
//!
//! | what PostgreSQL writes | module |
//! |---|---|
//! | `X/Y` positions, timeline ids | [`lsn`], [`timeline`] |
//! | which numbers belong to which major | [`version`] |
//! | names that `archive_command` and `restore_command` are given | [`segment`] |
//! | `global/pg_control` | [`control`] |
//! | names of relation files | [`relation`] |
//! | what stays out of a base backup | [`data_directory`] |
//! | data pages and their checksums | [`page_check`] |
//! | `backup_label`, `tablespace_map`, backup history files | [`label`], [`tablespace_map`] |
//! | `backup_manifest` | [`backup_manifest`] |
//! | `<timeline>.history` | [`timeline`] |
//! | WAL pages | [`page`] |
//! | WAL records | [`record`], [`resource_manager`] |
//! | commits, checkpoints and other records that recovery targets need | [`xact`], [`event`] |
//! | a stream of WAL, resumable | [`stream`], [`end_of_wal`], [`unfinished`] |
//! | one WAL segment in one pass | [`segment_digest`], [`segment_summary`] |
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::as_conversions,
        clippy::panic,
        clippy::unreachable,
        clippy::string_slice,
        clippy::unchecked_time_subtraction
    )
)]

pub mod backup_manifest;
pub mod control;
pub mod data_directory;
pub mod end_of_wal;
pub mod error;
pub mod event;
pub mod label;
pub mod lsn;
pub mod page;
pub mod page_check;
pub mod record;
pub mod relation;
pub mod resource_manager;
pub mod segment;
pub mod segment_chain;
pub mod segment_digest;
pub mod segment_summary;
pub mod stream;
pub mod tablespace_map;
pub mod timeline;
pub mod timestamp;
pub mod unfinished;
pub mod version;
pub mod xact;

mod cursor;
mod field;

pub use error::{ErrorKind, FormatError};
pub use lsn::Lsn;
pub use segment::{ArchiveName, SegmentName, SegmentNumber, SegmentSize};
pub use timeline::TimelineId;
pub use timestamp::Timestamp;
pub use version::Major;
