//! The operations: archive WAL, back up, plan, restore, verify, expire, collect. They print
//! nothing, read no configuration and ask no clock but the one handed in.

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
pub mod cancel;
pub mod catalog;
pub mod clock;
pub mod cluster;
pub mod collection;
pub mod details;
pub mod error;
pub mod giving_up;
mod host_file;
pub mod meanwhile;
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
