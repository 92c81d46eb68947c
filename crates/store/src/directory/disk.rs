//! The calls that change what is on the disk, each told to a witness once it has worked: so a test
//! can cut the power between any two of them.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o750);

/// Bytes of one write at most. Linux gives as much of one as it can to one folio of its page cache,
/// and above 32 KiB they cost a multiple where memory comes from the host of a virtual machine.
const PIECE_BYTES: usize = 32 << 10;

/// A change that has been made, or made durable.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests look at it"))]
pub(super) enum Change<'a> {
    /// A folder, empty.
    Folder { parent: &'a OwnedFd, name: &'a OsStr },
    /// A file, empty.
    File { folder: &'a OwnedFd, name: &'a str, file: &'a OwnedFd },
    /// Bytes at the end of a file.
    Bytes { file: &'a OwnedFd, bytes: &'a [u8] },
    /// What is in a file is durable.
    FileSynced { file: &'a OwnedFd },
    /// The names in a folder are durable.
    FolderSynced { folder: &'a OwnedFd },
    /// One more name of a file.
    Name { file: &'a OwnedFd, folder: &'a OwnedFd, name: &'a str },
    /// A name less.
    NameGone { folder: &'a OwnedFd, name: &'a str },
}

/// Is told of every change, in the order in which they are made.
pub(super) trait Witness: fmt::Debug + Send + Sync {
    fn saw(&self, change: Change<'_>);
}

/// Nobody looks.
#[derive(Debug)]
pub(super) struct Unwitnessed;

impl Witness for Unwitnessed {
    fn saw(&self, _: Change<'_>) {}
}

/// The disk, and who watches it.
#[derive(Debug)]
pub(super) struct Disk(pub(super) Box<dyn Witness>);

impl Disk {
    pub(super) fn make_folder(
        &self,
        parent: &OwnedFd,
        name: impl AsRef<OsStr>,
    ) -> Result<(), Errno> {
        let name = name.as_ref();
        rustix::fs::mkdirat(parent, name, FOLDER_MODE)?;
        self.0.saw(Change::Folder { parent, name });
        Ok(())
    }

    pub(super) fn create(&self, folder: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, FILE_MODE)?;
        self.0.saw(Change::File { folder, name, file: &file });
        Ok(file)
    }

    /// Writes all of `bytes`.
    pub(super) fn write(&self, file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            match rustix::io::write(file, bytes.get(..PIECE_BYTES).unwrap_or(bytes)) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    let (done, rest) = bytes.split_at_checked(written).ok_or(Errno::IO)?;
                    self.0.saw(Change::Bytes { file, bytes: done });
                    bytes = rest;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Makes what this process has written into a file durable, and its size.
    pub(super) fn sync_written(&self, file: &OwnedFd) -> Result<(), Errno> {
        rustix::fs::fdatasync(file)?;
        self.0.saw(Change::FileSynced { file });
        Ok(())
    }

    /// Makes a file durable that somebody else has written.
    pub(super) fn sync_file(&self, file: &OwnedFd) -> Result<(), Errno> {
        rustix::fs::fsync(file)?;
        self.0.saw(Change::FileSynced { file });
        Ok(())
    }

    /// Makes the names in a folder durable. File systems that cannot sync a folder say EINVAL or
    /// EBADF; PostgreSQL passes over these too (`fsync_fname_ext` in
    /// src/backend/storage/file/fd.c).
    pub(super) fn sync_folder(&self, folder: &OwnedFd) -> Result<(), Errno> {
        match rustix::fs::fsync(folder) {
            Ok(()) => self.0.saw(Change::FolderSynced { folder }),
            Err(Errno::INVAL | Errno::BADF) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Gives a file of one folder a name in another, unless it is taken (EEXIST); it keeps the old
    /// one where there are hard links.
    pub(super) fn name(
        &self,
        file: &OwnedFd,
        (from, old): (&OwnedFd, &str),
        (folder, name): (&OwnedFd, &str),
    ) -> Result<(), Errno> {
        match rustix::fs::linkat(from, old, folder, name, AtFlags::empty()) {
            Ok(()) => {}
            // Over NFS a link that worked may be answered EEXIST, when the first answer was lost;
            // the file's number of names tells.
            Err(Errno::EXIST) if rustix::fs::fstat(file)?.st_nlink >= 2 => {}
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                let flags = RenameFlags::NOREPLACE;
                rustix::fs::renameat_with(from, old, folder, name, flags)?;
                self.0.saw(Change::NameGone { folder: from, name: old });
            }
            Err(errno) => return Err(errno),
        }
        self.0.saw(Change::Name { file, folder, name });
        Ok(())
    }

    pub(super) fn remove(&self, folder: &OwnedFd, name: &str) -> Result<(), Errno> {
        rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        self.0.saw(Change::NameGone { folder, name });
        Ok(())
    }
}
