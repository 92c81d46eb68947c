//! The configuration: a TOML file, environment variables and flags, all described by one table.

pub(crate) mod document;
pub(crate) mod file;
pub(crate) mod resolve;
pub(crate) mod secret;
pub(crate) mod settings;
pub(crate) mod table;
pub(crate) mod value;
