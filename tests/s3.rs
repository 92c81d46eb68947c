//! The program on S3: the main job against a real server with a real PostgreSQL, and what comes of it
//! when the store misbehaves.

#[path = "s3/elsewhere.rs"]
mod elsewhere;
#[path = "s3/faults.rs"]
mod faults;
#[path = "s3/ground.rs"]
mod ground;
#[path = "s3/keeping.rs"]
mod keeping;
#[path = "s3/locked.rs"]
mod locked;
#[path = "s3/main_job.rs"]
mod main_job;
#[path = "s3/midway.rs"]
mod midway;
#[path = "s3/midway_wal.rs"]
mod midway_wal;
#[path = "restore/needed.rs"]
mod needed;
#[path = "s3/silence.rs"]
mod silence;
#[path = "s3/unreached.rs"]
mod unreached;
