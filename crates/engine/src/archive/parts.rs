//! A file while it is being read, part by part, into a few buffers that are used again: memory
//! that is fresh costs a push more than reading does.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

type Buffers<'m> = Mutex<Vec<&'m mut [u8]>>;

/// The parts of a file; each is read once, and by one thread.
pub(super) struct Parts<'m> {
    file: &'m File,
    size: usize,
    part_bytes: usize,
    next: AtomicUsize,
    /// The first part's buffer, if somebody has looked at it: that is what is given.
    first: Mutex<Option<&'m mut [u8]>>,
    free: Buffers<'m>,
    failed: OnceLock<io::Error>,
}

impl<'m> Parts<'m> {
    /// The parts of a file of `size` bytes, to be read into this memory: into as little of it as
    /// are there at one time. There is enough if it is not shorter than the file, in whole parts.
    pub(super) fn new(
        file: &'m File,
        size: usize,
        part_bytes: usize,
        memory: &'m mut [u8],
    ) -> Self {
        let mut free: Vec<_> = memory.chunks_exact_mut(part_bytes).collect();
        // What was used last is used next.
        free.reverse();
        Self {
            file,
            size,
            part_bytes,
            next: AtomicUsize::new(0),
            first: Mutex::new(None),
            free: Mutex::new(free),
            failed: OnceLock::new(),
        }
    }

    /// How many there are: an empty file has one, too.
    pub(super) fn count(&self) -> usize {
        count(self.size, self.part_bytes)
    }

    /// Shows the first part. Whoever is given it gets it as it was then.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn look<T>(&self, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let buffer = self.read(0)?;
        let seen = look(buffer.get(..self.len(0)).unwrap_or_default());
        *locked(&self.first) = Some(buffer);
        Ok(seen)
    }

    /// The next part; nothing beyond the last, or once one could not be read.
    pub(super) fn next(&self) -> Option<Part<'_, 'm>> {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        if place >= self.count() || self.failed.get().is_some() {
            return None;
        }
        let looked_at = match place {
            0 => locked(&self.first).take(),
            _ => None,
        };
        let buffer = match looked_at {
            Some(buffer) => buffer,
            None => self.read(place).map_err(|error| self.failed.set(error)).ok()?,
        };
        Some(Part { place, len: self.len(place), buffer, free: &self.free })
    }

    fn read(&self, place: usize) -> io::Result<&'m mut [u8]> {
        let buffer = locked(&self.free).pop().ok_or(io::ErrorKind::OutOfMemory)?;
        let offset = place.saturating_mul(self.part_bytes);
        let part = buffer.get_mut(..self.len(place)).ok_or(io::ErrorKind::OutOfMemory)?;
        self.file.read_exact_at(part, u64::try_from(offset).unwrap_or(u64::MAX))?;
        Ok(buffer)
    }

    fn len(&self, place: usize) -> usize {
        self.size.saturating_sub(place.saturating_mul(self.part_bytes)).min(self.part_bytes)
    }

    /// What kept a part from being read.
    ///
    /// # Errors
    /// The first failure.
    pub(super) fn all_read(self) -> io::Result<()> {
        self.failed.into_inner().map_or(Ok(()), Err)
    }
}

/// How many parts a file of `size` bytes has.
pub(super) fn count(size: usize, part_bytes: usize) -> usize {
    size.div_ceil(part_bytes).max(1)
}

/// A part that was read. Its buffer serves another one when this is dropped.
pub(super) struct Part<'p, 'm> {
    /// Which one it is, from zero.
    pub(super) place: usize,
    len: usize,
    buffer: &'m mut [u8],
    free: &'p Buffers<'m>,
}

impl Deref for Part<'_, '_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Part<'_, '_> {
    fn drop(&mut self) {
        locked(self.free).push(std::mem::take(&mut self.buffer));
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_given_once_whoever_asks() {
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 249) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut memory = vec![0; count(bytes.len(), 4096) * 4096];
        let parts = Parts::new(&file, bytes.len(), 4096, &mut memory);
        assert!(parts.look(|first| first == &bytes[..4096]).unwrap());
        file.write_all_at(b"changed", 0).unwrap();
        let found = Mutex::new(vec![Vec::new(); parts.count()]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(part) = parts.next() {
                        let before =
                            std::mem::replace(&mut locked(&found)[part.place], part.to_vec());
                        assert_eq!(before, b"");
                    }
                });
            }
        });
        assert_eq!(parts.count(), 245);
        parts.all_read().unwrap();
        assert!(found.into_inner().unwrap().concat() == bytes);
        // One buffer for each thread, and the first.
        assert!(memory[5 * 4096..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_file_that_is_shorter_ends_it_for_everybody() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 5000], 0).unwrap();
        let mut memory = vec![0; 4 * 4096];
        let parts = Parts::new(&file, 4 * 4096, 4096, &mut memory);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| while parts.next().is_some_and(|part| part.place == 0) {});
            }
        });
        assert!(parts.next().is_none());
        assert_eq!(parts.all_read().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_empty_file_has_one_part() {
        let file = tempfile::tempfile().unwrap();
        let mut memory = vec![0; 4096];
        let parts = Parts::new(&file, 0, 4096, &mut memory);
        assert_eq!(parts.next().map(|part| (part.place, part.len())), Some((0, 0)));
        assert!(parts.next().is_none());
    }
}
