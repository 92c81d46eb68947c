//! The program on S3: the main job against a real server with a real PostgreSQL, and what PostgreSQL
//! is told when the store misbehaves.

#[path = "s3/faults.rs"]
mod faults;
#[path = "s3/main_job.rs"]
mod main_job;
