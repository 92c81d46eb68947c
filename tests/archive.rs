//! WAL into the repository and out of it, by the real program, called by real servers.

#[path = "archive/archiving.rs"]
mod archiving;
#[path = "archive/contract.rs"]
mod contract;
#[path = "archive/full_disk.rs"]
mod full_disk;
#[path = "archive/recovery.rs"]
mod recovery;
#[path = "archive/site.rs"]
mod site;
#[path = "archive/small_disk.rs"]
mod small_disk;
#[path = "archive/spellings.rs"]
mod spellings;
#[path = "archive/standby.rs"]
mod standby;
