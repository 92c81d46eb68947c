//! Real servers brought back by the real program: to a time, an LSN, a transaction and a name, and
//! compared, row by row, with what their clients were told.

#[path = "restore/chosen.rs"]
mod chosen;
#[path = "restore/collected.rs"]
mod collected;
#[path = "restore/expired.rs"]
mod expired;
#[path = "restore/fresh.rs"]
mod fresh;
#[path = "restore/full_disk.rs"]
mod full_disk;
#[path = "backup/ground.rs"]
#[allow(dead_code, reason = "what the tests of backups use and these do not")]
mod ground;
#[path = "restore/interrupted.rs"]
mod interrupted;
#[path = "restore/lineages.rs"]
mod lineages;
#[path = "restore/midway.rs"]
mod midway;
#[path = "restore/needed.rs"]
mod needed;
#[path = "restore/ownership.rs"]
mod ownership;
#[path = "restore/partial.rs"]
mod partial;
#[path = "restore/places.rs"]
mod places;
#[path = "restore/roles.rs"]
mod roles;
#[path = "archive/site.rs"]
#[allow(dead_code, reason = "what the tests of the archive use and these do not")]
mod site;
#[path = "archive/small_disk.rs"]
mod small_disk;
#[path = "restore/targets.rs"]
mod targets;
#[path = "restore/timelines.rs"]
mod timelines;
#[path = "restore/times.rs"]
mod times;
