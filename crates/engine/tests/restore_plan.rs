//! The planner stops where PostgreSQL would, from the backup that gets there, and refuses what
//! cannot work: each case over WAL that was made up for it.

mod made_up;

#[path = "restore_plan/ground.rs"]
mod ground;
#[path = "restore_plan/history.rs"]
mod history;
#[path = "restore_plan/property.rs"]
mod property;
#[path = "restore_plan/targets.rs"]
mod targets;
#[path = "restore_plan/times.rs"]
mod times;
