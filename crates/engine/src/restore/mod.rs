//! Planning a recovery and carrying the plan out.
//!
//! [`plan`] says where recovery would go, from manifests and WAL trailers alone, or why it cannot
//! ([`refusal`]); [`scan`] is the simulation of PostgreSQL beneath it.

pub mod heads;
pub mod plan;
pub mod refusal;
pub mod route;
pub mod scan;
pub mod target;
pub mod wal_view;
