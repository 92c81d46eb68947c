//! From settings to what a command works with: the store, the repository, the cluster, a runtime.
//!
//! A command that reads what is stored starts with [`repository::open`] and
//! [`cluster::stored`]; one that works on a data directory with [`cluster::registered`]. Long
//! ones run under [`runtime::run_long`], which turns SIGINT and SIGTERM into a wish to stop.

pub(crate) mod cluster;
pub(crate) mod host;
pub(crate) mod kms;
pub(crate) mod lineages;
pub(crate) mod repository;
pub(crate) mod runtime;
pub(crate) mod seen;
pub(crate) mod server;
pub(crate) mod store;
pub(crate) mod telling;
