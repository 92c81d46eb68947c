//! What people and programs read on standard output: tables, sizes, ages, JSON, progress.

pub(crate) mod human;
pub(crate) mod progress;
pub(crate) mod prompt;
pub(crate) mod stdout;
pub(crate) mod table;
