//! Every command, killed at random moments beside a server under load: what was acknowledged is
//! there, what is damaged is nothing, and what the dead have left goes away.
//!
//! `PGRECALL_TEST_KILLS` says how many kills (20), `PGRECALL_TEST_KILL_SEED` which moments (1).

#[path = "restore/fresh.rs"]
#[allow(dead_code, reason = "what the tests of restoring use and these do not")]
mod fresh;
#[path = "backup/ground.rs"]
#[allow(dead_code, reason = "what the tests of backups use and these do not")]
mod ground;
#[path = "crash/killing.rs"]
mod killing;
#[path = "restore/needed.rs"]
mod needed;
#[path = "archive/site.rs"]
#[allow(dead_code, reason = "what the tests of the archive use and these do not")]
mod site;
#[path = "crash/staged.rs"]
mod staged;
#[path = "crash/victim.rs"]
mod victim;
