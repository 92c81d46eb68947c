//! A file while it is being read: each part is there for all threads that need it, and is read by
//! the one that needs it first.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The parts of a file, in the memory that they are read into.
pub(super) struct Parts<'a> {
    file: &'a File,
    part_bytes: usize,
    unread: Vec<Mutex<Option<&'a mut [u8]>>>,
    /// Nothing where it could not be read.
    read: Vec<OnceLock<Option<&'a [u8]>>>,
    failed: Mutex<Option<io::Error>>,
}

impl<'a> Parts<'a> {
    /// The parts of a file that is as long as this memory.
    pub(super) fn new(file: &'a File, memory: &'a mut [u8], part_bytes: usize) -> Self {
        let unread: Vec<_> = memory.chunks_mut(part_bytes).map(|m| Mutex::new(Some(m))).collect();
        let read = unread.iter().map(|_| OnceLock::new()).collect();
        Self { file, part_bytes, unread, read, failed: Mutex::new(None) }
    }

    /// Says that the memory holds the first part already: it is not read again, so that what was
    /// looked at there is what everybody gets.
    pub(super) fn first_is_read(self) -> Self {
        if let (Some(unread), Some(read)) = (self.unread.first(), self.read.first()) {
            let memory = unread.lock().unwrap_or_else(PoisonError::into_inner).take();
            let _ = read.set(memory.map(|memory| &*memory));
        }
        self
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.read.len()
    }

    /// A part; nothing beyond the last, or when it cannot be read.
    pub(super) fn get(&self, place: usize) -> Option<&'a [u8]> {
        let (unread, read) = (self.unread.get(place)?, self.read.get(place)?);
        let memory = unread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(memory) = memory {
            let offset = u64::try_from(place.saturating_mul(self.part_bytes)).unwrap_or(u64::MAX);
            let part = match self.file.read_exact_at(memory, offset) {
                Ok(()) => Some(&*memory),
                Err(error) => {
                    let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.get_or_insert(error);
                    None
                }
            };
            let _ = read.set(part);
        }
        *read.wait()
    }

    /// All parts in order, up to one that cannot be read.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.count()).map_while(|place| self.get(place))
    }

    /// What kept a part from being read.
    ///
    /// # Errors
    /// The first failure.
    pub(super) fn all_read(&self) -> io::Result<()> {
        match self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_sees_every_part_and_it_is_read_once() {
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 249) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut memory = vec![0; bytes.len()];
        let parts = Parts::new(&file, &mut memory, 4096);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(parts.in_order().flatten().eq(&bytes)));
            }
        });
        assert_eq!(parts.count(), 245);
        parts.all_read().unwrap();
        assert!(memory == bytes);
    }

    #[test]
    fn a_file_that_is_shorter_fails_for_everybody() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 5000], 0).unwrap();
        let mut memory = vec![0; 3 * 4096];
        let parts = Parts::new(&file, &mut memory, 4096);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(parts.in_order().count(), 1));
            }
        });
        assert_eq!(parts.all_read().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
