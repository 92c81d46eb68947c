//! How a file gets its final name: whole, durable, and only if the name is free.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Act, ErrorKind, StoreError, object_name};
use crate::key::Key;
use crate::store::Put;

use super::disk::Disk;
use super::{FOLDER, Root, fault, file};

const TEMP_FOLDER: &str = ".tmp";

/// Tries before it gives up on a name that comes and goes under its hands.
const TRIES: usize = 5;

/// One put.
///
/// # Errors
/// Every error leaves the put unknown: the name may have been given before the last sync failed.
pub(super) fn put(root: &Root, key: &Key, body: &[u8]) -> Result<Put, StoreError> {
    let fail = |doing: &str, errno| root.fault(Act::Put, key, doing, errno);
    let folder = make_parent_of(root, key)?;
    for _ in 0..TRIES {
        if exists_durably(root, key, &folder)? {
            return Ok(Put::Exists);
        }
        let Some(temp) = Temp::create(root, key)? else { continue };
        root.disk.write(&temp.file, body).map_err(|errno| fail("write", errno))?;
        root.disk.sync_written(&temp.file).map_err(|errno| fail("sync", errno))?;
        match temp.give_name(&folder, key.file_name()) {
            Ok(()) => {
                drop(temp);
                root.disk.sync_folder(&folder).map_err(|errno| fail("sync the folder", errno))?;
                return Ok(Put::Created);
            }
            // Somebody was faster; look at what he put. Or somebody cleaned up too eagerly: write
            // it again.
            Err(Errno::EXIST | Errno::NOENT) => {}
            Err(Errno::XDEV) => {
                let what = "the folder lies on another file system than the root's .tmp";
                let object = object_name(&root.url, key);
                return Err(StoreError::new(ErrorKind::Unsupported, Act::Put, object, what));
            }
            Err(errno @ (Errno::INVAL | Errno::NOSYS)) => {
                let what = "the file system has neither hard links nor renameat2";
                let object = object_name(&root.url, key);
                return Err(StoreError::new(ErrorKind::Unsupported, Act::Put, object, what)
                    .caused_by(std::io::Error::from(errno)));
            }
            Err(errno) => return Err(fail("link", errno)),
        }
    }
    let what = "others create and delete this name again and again";
    Err(StoreError::new(ErrorKind::Conflict, Act::Put, object_name(&root.url, key), what))
}

/// Makes an object that is there durable, and its name.
///
/// # Errors
/// `NotFound` when it is not there; when a sync fails.
pub(super) fn make_durable(root: &Root, key: &Key) -> Result<(), StoreError> {
    let folder = make_parent_of(root, key)?;
    match exists_durably(root, key, &folder)? {
        true => Ok(()),
        false => Err(StoreError::not_found(Act::Put, &root.url, key)),
    }
}

/// Whether the object is there; if so, it and its name are durable afterwards: whoever put it may
/// not have come so far.
fn exists_durably(root: &Root, key: &Key, folder: &OwnedFd) -> Result<bool, StoreError> {
    let fail = |doing: &str, errno| root.fault(Act::Put, key, doing, errno);
    match file::open(folder, key.file_name()) {
        Ok((object, _)) => {
            root.disk.sync_file(&object).map_err(|errno| fail("sync", errno))?;
            root.disk.sync_folder(folder).map_err(|errno| fail("sync the folder", errno))?;
            Ok(true)
        }
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(fail("open what is there", errno)),
    }
}

/// The folder of a key, made where it is missing; each folder made is durable in its parent.
///
/// A folder that somebody else has just made is durable once it is synced itself, as every put
/// does: the file systems with a journal commit a new folder together with its name.
fn make_parent_of(root: &Root, key: &Key) -> Result<OwnedFd, StoreError> {
    let fail = |doing: &str, errno| root.fault(Act::Put, key, doing, errno);
    let mut folder = rustix::io::fcntl_dupfd_cloexec(&root.folder, 0)
        .map_err(|errno| fail("open the root", errno))?;
    for component in key.parent().as_str().split_terminator('/') {
        folder = make_folder(root, key, &folder, component)?;
    }
    Ok(folder)
}

fn make_folder(
    root: &Root,
    key: &Key,
    parent: &OwnedFd,
    name: &str,
) -> Result<OwnedFd, StoreError> {
    let fail = |doing: &str, errno| root.fault(Act::Put, key, doing, errno);
    match rustix::fs::openat(parent, name, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => {}
        opened => return opened.map_err(|errno| fail("open the folder", errno)),
    }
    match root.disk.make_folder(parent, name) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(Errno::NOENT) => return Err(fault::root_removed(Act::Put, &root.url)),
        Err(errno) => return Err(fail("make the folder", errno)),
    }
    root.disk.sync_folder(parent).map_err(|errno| fail("sync the folder", errno))?;
    rustix::fs::openat(parent, name, FOLDER, Mode::empty())
        .map_err(|errno| fail("open the folder", errno))
}

/// A file in `.tmp/`, removed when dropped. Its writer holds a lock on it, so that what a dead
/// writer has left behind can be told apart.
struct Temp<'a> {
    disk: &'a Disk,
    folder: OwnedFd,
    name: String,
    file: OwnedFd,
}

impl<'a> Temp<'a> {
    /// A fresh one; nothing when somebody who cleans up was faster than our lock.
    fn create(root: &'a Root, key: &Key) -> Result<Option<Self>, StoreError> {
        let fail = |errno| root.fault(Act::Put, key, "make a temporary file", errno);
        let folder = make_folder(root, key, &root.folder, TEMP_FOLDER)?;
        if !root.cleaned.swap(true, Ordering::Relaxed) {
            remove_left_behind(&root.disk, &folder);
        }
        let name = random_name().map_err(|error| {
            let what = "no random bytes";
            StoreError::new(ErrorKind::Internal, Act::Put, &root.url, what).caused_by(error)
        })?;
        let file = root.disk.create(&folder, &name).map_err(fail)?;
        match try_lock(&file) {
            Ok(Lock::Theirs) => Ok(None),
            _ => Ok(Some(Self { disk: &root.disk, folder, name, file })),
        }
    }

    /// Gives the file its final name unless it is taken (EEXIST).
    fn give_name(&self, folder: &OwnedFd, name: &str) -> Result<(), Errno> {
        self.disk.name(&self.file, (&self.folder, &self.name), (folder, name))
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        // After a rename it is not there any more. What stays behind otherwise costs room, nothing
        // else.
        let _ = self.disk.remove(&self.folder, &self.name);
    }
}

fn random_name() -> Result<String, getrandom::Error> {
    Ok(format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?))
}

#[derive(Debug, PartialEq, Eq)]
enum Lock {
    Ours,
    Theirs,
}

/// Locks a file until it is closed.
fn try_lock(file: &OwnedFd) -> Result<Lock, Errno> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock::Ours),
        Err(Errno::WOULDBLOCK) => Ok(Lock::Theirs),
        Err(errno) => Err(errno),
    }
}

/// Removes the temporary files of writers that have died: nobody locks them. Only room is at stake,
/// so what goes wrong is passed over, and a file system without locks is left alone. A live writer
/// that has not come to its lock yet makes a new file.
fn remove_left_behind(disk: &Disk, folder: &OwnedFd) {
    let Ok(entries) = Dir::read_from(folder) else { return };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.len() != 32 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        if let Ok(file) = rustix::fs::openat(folder, name, flags, Mode::empty())
            && try_lock(&file) == Ok(Lock::Ours)
        {
            let _ = disk.remove(folder, name);
        }
    }
}
