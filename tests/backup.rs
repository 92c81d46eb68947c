//! Backups of real servers by the real program: from a standby, with files in many places, with
//! every kind of interruption; what comes back is compared with what was there.

#[path = "backup/changes.rs"]
mod changes;
#[path = "restore/fresh.rs"]
#[allow(dead_code, reason = "what the tests of restoring use and these do not")]
mod fresh;
#[path = "backup/full_disk.rs"]
mod full_disk;
#[path = "backup/ground.rs"]
mod ground;
#[path = "backup/identity.rs"]
mod identity;
#[path = "backup/interrupted.rs"]
mod interrupted;
#[path = "restore/needed.rs"]
mod needed;
#[path = "backup/places.rs"]
mod places;
#[path = "backup/restore_key.rs"]
mod restore_key;
#[path = "backup/rolled_back.rs"]
mod rolled_back;
#[path = "backup/room.rs"]
mod room;
#[path = "backup/shredded.rs"]
mod shredded;
#[path = "archive/site.rs"]
#[allow(dead_code, reason = "what the tests of the archive use and these do not")]
mod site;
#[path = "archive/small_disk.rs"]
mod small_disk;
#[path = "backup/standby.rs"]
mod standby;
#[path = "backup/terminal.rs"]
mod terminal;
#[path = "backup/timelines.rs"]
mod timelines;
#[path = "backup/unlogged.rs"]
mod unlogged;
#[path = "backup/wal_wait.rs"]
mod wal_wait;
