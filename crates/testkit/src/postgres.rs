//! Real PostgreSQL servers for tests: finds the installed programs of a major, makes clusters in
//! directories of their own, starts and stops them by process id, and cleans up.
//!
//! PostgreSQL refuses to run as root, so under root everything it owns runs as an ordinary user
//! ([`ServerUser`]). Clusters share nothing: any number may run at once, in any number of tests.
//! Anything that goes wrong panics with the server's log, since every caller is a test.
//!
//! `PGRECALL_TEST_SERVERS` names the folder of servers, `PGRECALL_TEST_MAJORS` the majors that a
//! test should run on, and `PGRECALL_KEEP=1` leaves the directories behind.

mod cluster;
pub(crate) mod home;
mod options;
mod process;
mod scratch;
mod standby;
mod user;

pub use cluster::{Cluster, StartFailure, Stop};
pub use home::{PostgresHome, majors};
pub use options::{Checksums, ClusterOptions, Durability, Listen};
pub use scratch::Scratch;
pub use user::{ServerUser, as_server_user};
