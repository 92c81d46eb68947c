//! Whose files the cluster's are. Root sets things up, the owner of the data directory uses them:
//! PostgreSQL itself runs the archive command.

use std::ffi::{CStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};

use super::account::Account;
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

    /// Gives him what root has made of a repository in this folder. Nothing but a repository's own
    /// names is touched, however much else lies there, and no link is followed or even given: who
    /// may write in the folder must not be able to have another file given to him.
    pub(crate) fn give_repository(self, folder: &Path) -> Outcome<()> {
        let fail = |errno: rustix::io::Errno| {
            Failure::from_error(Kind::Denied, &std::io::Error::from(errno)).during(format!(
                "giving the repository in {} to user {} of the data directory",
                folder.display(),
                self.uid
            ))
        };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty()).map_err(fail)?;
        for name in REPOSITORY_NAMES {
            match self.give_in(&folder, name) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(())
    }

    fn give_in(self, folder: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        // A file with two names may be somebody else's under the other one.
        let plain = kind == FileType::Directory || (kind.is_file() && found.st_nlink == 1);
        if found.st_uid == 0 && plain {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if kind != FileType::Directory {
            return Ok(());
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = rustix::fs::openat(folder, name, flags, Mode::empty())?;
        for entry in rustix::fs::Dir::read_from(&below)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.give_in(&below, name)?;
            }
        }
        Ok(())
    }
}

/// What a directory store with a repository has at its top.
const REPOSITORY_NAMES: [&CStr; 7] =
    [c"pgrecall.json", c"keys", c"store", c"domains", c"clusters", c"leases", c".tmp"];

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
    let account = Account::of(owner.uid);
    become_user(owner, account.as_ref()).map_err(|errno| {
        Failure::from_error(Kind::Denied, &std::io::Error::from(errno))
            .during(format!("becoming user {}, who owns the data directory", owner.uid))
    })?;
    let mut command = Command::new(&program);
    command.args(arguments);
    if let Some(account) = &account {
        // Root's home is nothing to him: keys, caches and .pgpass are in his own.
        command.envs(account.variables());
        for root_s in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(root_s);
        }
    }
    let error = command.exec();
    Err(Failure::from_error(Kind::Denied, &error)
        .during(format!("going on as user {}, who owns the data directory", owner.uid))
        .hint(format!("Can that user run {}?", program.display())))
}

/// Takes on a user with all his groups. It holds for this thread, and for the program that it is
/// replaced by in a moment.
fn become_user(owner: Owner, account: Option<&Account>) -> rustix::io::Result<()> {
    let mut groups = vec![Gid::from_raw(owner.gid)];
    if let Some(account) = account {
        groups.push(Gid::from_raw(account.gid));
        groups.extend(account.groups.iter().map(|gid| Gid::from_raw(*gid)));
    }
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_gid(Gid::from_raw(owner.gid))?;
    rustix::thread::set_thread_uid(Uid::from_raw(owner.uid))
}
