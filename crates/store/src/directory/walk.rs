//! Listing: a depth-first walk in byte order of the keys, one folder's names in memory at a time
//! (and its ancestors').

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;

use crate::error::{Act, ErrorKind, StoreError, object_name};
use crate::key::{Key, Prefix};
use crate::store::Listed;

use super::{FOLDER, Root, fault};

pub(super) struct Walk<'a> {
    root: &'a Root,
    levels: Vec<Level>,
}

struct Level {
    folder: OwnedFd,
    /// The folder's key with its closing slash; empty for the root.
    path: String,
    /// What is left of it, last first. A folder carries its slash, since that is how keys below it
    /// sort.
    names: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn start(root: &'a Root, prefix: &Prefix) -> Result<Self, StoreError> {
        let mut walk = Self { root, levels: Vec::new() };
        let fail = |errno| walk.fail(prefix.as_str(), "open", errno);
        let mut folder = rustix::io::fcntl_dupfd_cloexec(&root.folder, 0).map_err(fail)?;
        for component in prefix.as_str().split_terminator('/') {
            folder = match rustix::fs::openat(&folder, component, FOLDER, Mode::empty()) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => {
                    walk.check_root()?;
                    return Ok(walk);
                }
                // An object of that name has nothing below it.
                Err(Errno::NOTDIR) if is_file(&folder, component) => return Ok(walk),
                Err(errno) => return Err(walk.fail(prefix.as_str(), "open", errno)),
            };
        }
        walk.enter(folder, prefix.as_str().to_owned())?;
        walk.check_root()?;
        Ok(walk)
    }

    /// The next object, or nothing at the end.
    pub(super) fn step(&mut self) -> Result<Option<Listed>, StoreError> {
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            let path = format!("{}{name}", level.path);
            if let Some(folder_name) = name.strip_suffix('/') {
                match rustix::fs::openat(&level.folder, folder_name, FOLDER, Mode::empty()) {
                    Ok(folder) => self.enter(folder, path)?,
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(self.fail(&path, "open", errno)),
                }
                continue;
            }
            let stat = match rustix::fs::statat(&level.folder, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.fail(&path, "look at", errno)),
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(self.not_plain(&path));
            }
            // A name below too long a path cannot have been put here.
            let Ok(key) = Key::parse(&path) else { continue };
            return Ok(Some(Listed { key, size: u64::try_from(stat.st_size).unwrap_or(0) }));
        }
        Ok(None)
    }

    /// The folders directly in the one that the walk was started at.
    pub(super) fn folders(mut self) -> Vec<Prefix> {
        let Some(level) = self.levels.pop() else { return Vec::new() };
        let paths = level.names.iter().rev().filter(|name| name.ends_with('/'));
        paths.filter_map(|name| Prefix::parse(&format!("{}{name}", level.path)).ok()).collect()
    }

    fn enter(&mut self, folder: OwnedFd, path: String) -> Result<(), StoreError> {
        let fail = |errno| self.fail(&path, "read the folder", errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder).map_err(fail)? {
            let entry = match entry {
                Ok(entry) => entry,
                // The folder was removed meanwhile.
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(fail(errno)),
            };
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            // `.tmp`, `lost+found` and the like: no put can have made them.
            if Key::parse(name).is_err() {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(Errno::NOENT) => continue,
                        Err(errno) => return Err(fail(errno)),
                    }
                }
                kind => kind,
            };
            match kind {
                FileType::Directory => names.push(format!("{name}/")),
                _ => names.push(name.to_owned()),
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.levels.push(Level { folder, path, names });
        Ok(())
    }

    fn check_root(&self) -> Result<(), StoreError> {
        match rustix::fs::fstat(&self.root.folder) {
            Ok(stat) if stat.st_nlink > 0 => Ok(()),
            _ => Err(fault::root_removed(Act::List, &self.root.url)),
        }
    }

    fn fail(&self, path: &str, doing: &str, errno: Errno) -> StoreError {
        fault::from_errno(Act::List, object_name(&self.root.url, path), doing, errno)
    }

    /// An object that hides behind a link or a fifo must not look absent: what it refers to would
    /// look dead.
    fn not_plain(&self, path: &str) -> StoreError {
        let what = "neither a regular file nor a folder";
        let object = object_name(&self.root.url, path);
        StoreError::new(ErrorKind::Corrupt, Act::List, object, what)
    }
}

fn is_file(folder: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}
