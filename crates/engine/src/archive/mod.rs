//! WAL into the repository and out of it: what `archive_command` and `restore_command` call.
//!
//! [`push`] stores a file, [`fetch`] brings one back or proves that it is not there, [`resolve`]
//! settles which of two contents of one name holds, and [`holder`] tells readers where that one is.
//! [`trailer`] is what each object says about its file without being read whole. [`data_directory`]
//! finds out on whose behalf all this happens, [`cache`] keeps on this host what never changes, so
//! that a push costs three requests and a fetch two, and [`patience`] ends what makes no progress.

pub mod access;
pub mod cache;
mod check;
pub mod data_directory;
pub mod fetch;
mod heal;
pub mod holder;
pub mod pack;
mod parts;
pub mod patience;
pub mod push;
pub mod resolve;
pub mod trailer;
