//! Opening and reading one file.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Opens a regular file and tells its size. A symbolic link is not followed (ELOOP), a fifo does
/// not block, and what is no regular file is refused with ELOOP as well.
pub(super) fn open(folder: &OwnedFd, name: &str) -> Result<(OwnedFd, u64), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        // A socket.
        Err(Errno::NXIO) => return Err(Errno::LOOP),
        opened => opened?,
    };
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::LOOP);
    }
    Ok((file, u64::try_from(stat.st_size).map_err(|_| Errno::IO)?))
}

/// `len` bytes from `offset`, fewer when the file ends earlier. The caller has bounded `len` by the
/// file's size.
pub(super) fn read(file: &OwnedFd, offset: u64, len: u64) -> Result<Bytes, Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len).map_err(|_| Errno::NOMEM)?;
    while buffer.len() < len {
        let at = offset + buffer.len() as u64;
        let room = rustix::buffer::spare_capacity(&mut buffer);
        match rustix::io::pread(file, room, at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // The allocator may have given more than asked, and the file may have grown.
    buffer.truncate(len);
    Ok(buffer.into())
}
