//! Retention: which backups and which WAL are kept, and how the others go.

pub mod expire;
pub mod floor;
pub mod hold;
pub mod plan;
pub mod rules;
pub mod wal;
