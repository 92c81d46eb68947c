//! One file per command: settings and arguments in, engine calls, output.

pub(crate) mod backup;
mod backup_end;
pub(crate) mod check;
mod check_report;
mod check_repository;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod expire;
pub(crate) mod gc;
mod gc_locks;
pub(crate) mod hold;
pub(crate) mod init;
pub(crate) mod key;
mod key_shred;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod plan;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod verify;
mod wal_access;
pub(crate) mod wal_fetch;
pub(crate) mod wal_push;
pub(crate) mod wal_resolve;
