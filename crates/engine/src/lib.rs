//! The operations: archive WAL, back up, plan, restore, verify, expire, collect. They print
//! nothing, read no configuration and ask no clock but the one handed in.

#![deny(missing_docs)]

pub mod archive;
pub mod backup;
pub mod cancel;
pub mod catalog;
pub mod clock;
pub mod cluster;
pub mod collection;
pub mod details;
pub mod error;
mod host_file;
mod page_buffer;
mod pieces;
pub mod progress;
pub mod restore;
pub mod retention;
pub mod seen;
pub mod shred;
pub mod unreadable;
pub mod verify;
pub mod wal_place;

pub use error::{EngineError, ErrorKind};
