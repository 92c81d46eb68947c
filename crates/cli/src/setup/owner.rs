//! Whose files the cluster's are. Root sets things up, the owner of the data directory uses them:
//! PostgreSQL itself runs the archive command.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Gid, Uid};

use crate::failure::{Failure, Kind, Outcome};

/// A user and his group, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// The owner of a file or folder.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self { uid: found.uid(), gid: found.gid() })
    }

    /// The owner of the data directory, when this is root and he is not: then files that he is to
    /// use must be made his.
    pub(crate) fn other_than_root(pgdata: &Path) -> Option<Self> {
        rustix::process::geteuid()
            .is_root()
            .then(|| Self::of(pgdata))
            .flatten()
            .filter(|owner| owner.uid != 0)
    }

    /// Gives a file or folder to him, or, with `user` left out, to his group only. Links are not
    /// followed.
    pub(crate) fn give(self, path: &Path, user: User) -> Outcome<()> {
        let uid = match user {
            User::Too => Some(Uid::from_raw(self.uid)),
            User::Not => None,
        };
        let gid = Some(Gid::from_raw(self.gid));
        rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| {
            let error = std::io::Error::from(errno);
            Failure::from_error(Kind::Denied, &error).during(format!(
                "giving {} to user {} of the data directory",
                path.display(),
                self.uid
            ))
        })
    }

    /// Gives him every file and folder below `folder`, itself included, that root has made.
    pub(crate) fn give_all_of_root(self, folder: &Path) -> Outcome<()> {
        let mut left = vec![folder.to_owned()];
        while let Some(path) = left.pop() {
            let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
            if found.uid() == 0 {
                self.give(&path, User::Too)?;
            }
            if found.is_dir() {
                let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
                left.extend(entries.map(|entry| entry.path()));
            }
        }
        Ok(())
    }
}

/// Whether the user or only the group changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Too,
    Not,
}

/// Called by root, goes on as the owner of the data directory: what root would write into a
/// directory store the server could not use afterwards, and the server lets its own user in
/// without a password. Returns when there is nothing to change.
///
/// # Errors
/// When the program cannot be started anew.
pub(crate) fn go_on_as_owner(pgdata: Option<&Path>) -> Outcome<()> {
    let Some(owner) = pgdata.and_then(Owner::other_than_root) else { return Ok(()) };
    let program = std::env::current_exe().map_err(|error| {
        Failure::from_error(Kind::Internal, &error).during("looking for this very program")
    })?;
    tracing::debug!("going on as user {}, who owns the data directory", owner.uid);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Sets the group and drops root's other groups, then the user.
    let error = Command::new(&program).args(arguments).uid(owner.uid).gid(owner.gid).exec();
    Err(Failure::from_error(Kind::Denied, &error)
        .during(format!("going on as user {}, who owns the data directory", owner.uid))
        .hint(format!("Can that user run {}?", program.display())))
}
