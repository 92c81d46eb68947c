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

pub mod archive;
pub mod backup;
mod chunk_mac;
pub mod chunks;
pub mod codec;
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
