//! A repository: one place in a store that holds the backups and the WAL of many clusters, sealed,
//! deduplicated, and written once.
//!
//! [`repository::Repository`] opens it and gives a [`sealed_store::SealedStore`] for each domain
//! (what shares keys and chunks). A [`backup::BackupSession`] writes a backup; [`manifests`],
//! [`index`] and [`chunks`] read one; [`archive`] keeps WAL. [`mod@format`] is the bytes,
//! [`keys`] who can read them, [`names`] where they live.
//!
//! This crate knows nothing of PostgreSQL: LSNs, timelines and WAL summaries pass through it as
//! the engine's own words.

#![deny(missing_docs)]
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

pub mod archive;
pub mod backup;
mod chunk_mac;
pub mod chunks;
pub mod codec;
pub mod damaged_chunks;
pub mod damaged_wal;
pub mod error;
pub mod expired;
pub mod format;
pub mod gc;
pub mod id;
pub mod index;
pub mod keys;
pub mod manifests;
pub mod names;
pub mod object;
pub mod pack;
pub mod random;
pub mod repair;
pub mod repository;
pub mod sealed_store;
mod sha256_lanes;

pub use error::{ErrorKind, FormatError, RepoError};
