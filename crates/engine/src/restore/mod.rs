//! Planning a recovery and carrying the plan out.
//!
//! [`plan`] says where recovery would go, from manifests and WAL trailers alone, or why it cannot
//! ([`refusal`]); [`scan`] is the simulation of PostgreSQL beneath it. [`execute`] writes the
//! files and the settings with which PostgreSQL follows the plan.

mod batch;
pub mod chosen;
pub mod copy;
mod delta;
pub mod execute;
pub mod heads;
pub mod layout;
pub mod lost;
pub mod old_wal;
pub mod plan;
pub mod recovery_settings;
pub mod refusal;
pub mod repo_wal;
pub mod route;
pub mod scan;
mod space;
pub mod target;
pub mod target_dir;
pub mod threads;
mod unit;
pub mod wal_view;
mod writeback;
