//! Files come back byte for byte and nowhere else: hand-made backups in a store in memory, written
//! out, interrupted, gone on with, and aimed at places they must not reach.

#[allow(dead_code, reason = "each test file uses its part of it")]
mod made_up;

#[path = "restore_files/clusters.rs"]
mod clusters;
#[path = "restore_files/directories.rs"]
mod directories;
#[path = "restore_files/fetched.rs"]
mod fetched;
#[path = "restore_files/lost.rs"]
mod lost;
#[path = "restore_files/meanwhile.rs"]
mod meanwhile;
#[path = "restore_files/places.rs"]
mod places;
#[path = "restore_files/shop.rs"]
mod shop;
#[path = "restore_files/synced.rs"]
mod synced;
#[path = "restore_files/written.rs"]
mod written;
