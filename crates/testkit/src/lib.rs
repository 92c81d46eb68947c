//! What tests stand on: real servers, a workload that remembers what was acknowledged, checks of
//! a whole cluster, repositories in memory, stores that misbehave on purpose, and what a program
//! asks of the disk. Never published, never in the binary.

pub mod chunked_backups;
pub mod cluster_check;
pub mod collections;
pub mod commit_log;
pub mod conformance;
pub mod disk_calls;
pub mod moto;
pub mod postgres;
pub mod repositories;
pub mod s3_user;
pub mod scripted_s3;
pub mod seaweedfs;
pub mod stores;
pub mod terminal;
pub mod workload;
