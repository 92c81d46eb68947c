//! Opening and reading one file.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Bytes of a page of memory. Where the target of a copy begins a few bytes further into its page
/// than the source, AMD's Zen 3 and 4 take three times as long (bug 30994 of the GNU C library),
/// and large pieces of allocated memory begin 16 bytes into a page.
const PAGE: usize = 4096;

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
    let mut buffer: Vec<u8> = Vec::new();
    buffer.try_reserve_exact(len + PAGE).map_err(|_| Errno::NOMEM)?;
    // As far into a page of memory as the file's bytes are into theirs.
    let page = buffer.as_ptr().align_offset(PAGE).min(PAGE);
    let skip = (page + usize::try_from(offset).unwrap_or(0) % PAGE) % PAGE;
    buffer.resize(skip, 0);
    while buffer.len() < skip + len {
        let at = offset + (buffer.len() - skip) as u64;
        let room = rustix::buffer::spare_capacity(&mut buffer);
        match rustix::io::pread(file, room, at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // The allocator may have given more than asked, and the file may have grown.
    buffer.truncate(skip + len);
    Ok(Bytes::from(buffer).slice(skip..))
}
