//! What a restore wants and the repository has lost: it ends there, or, where somebody has asked
//! for what is left, zeros stand in its place, and every byte of them is told.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use pgrecall_repo::RepoError;

use super::copy::CONTROL;
use crate::details::BackupDetails;
use crate::error::{EngineError, ErrorKind};
use crate::verify::touched::{Lost, TouchedFile};

/// What becomes of bytes that the repository has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// The restore ends.
    Refuse,
    /// They are zeros. To PostgreSQL a page of zeros is a new one: it has no rows
    /// (`PageIsVerified`, bufpage.c), and WAL brings it back whole where it was written since the
    /// backup began.
    Zeros,
}

/// The file in the data directory that tells what was lost.
pub const LIST: &str = "pgrecall-lost.txt";

/// Objects that a disk may not be able to read before all of it is taken for gone: a device or a
/// mount that goes away answers every read so, and has lost nothing.
const BAD_OBJECTS_MAX: usize = 8;

/// Lost bytes, by file.
#[derive(Debug, Default)]
pub(super) struct Losses {
    files: Mutex<BTreeMap<Vec<u8>, LostBytes>>,
    /// Objects that a disk cannot read.
    bad_objects: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
struct LostBytes {
    ranges: Vec<Range<u64>>,
    reason: String,
}

impl Losses {
    /// True when nothing is lost.
    pub(super) fn is_empty(&self) -> bool {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Refuses to take for lost what is on a disk that reads nothing any more.
    ///
    /// # Errors
    /// When too many objects were met that a disk cannot read.
    pub(super) fn require_disk(&self, error: &RepoError) -> Result<(), EngineError> {
        let RepoError::Store(error) = error else { return Ok(()) };
        if !error.is_media_error() {
            return Ok(());
        }
        let mut bad = self.bad_objects.lock().unwrap_or_else(PoisonError::into_inner);
        bad.insert(error.object().to_owned());
        if bad.len() <= BAD_OBJECTS_MAX {
            return Ok(());
        }
        let message = format!(
            "the disk could not read {} objects, {} among them: it may have gone as a whole",
            bad.len(),
            error.object()
        );
        Err(EngineError::refused(ErrorKind::Unavailable, message)
            .hint("What it can still read, copy to another disk first (ddrescue), and restore from there."))
    }

    /// Notes bytes of a file, which is named as in the backup.
    ///
    /// # Errors
    /// When it is the file without which no server starts.
    pub(super) fn add(
        &self,
        path: &[u8],
        range: Range<u64>,
        reason: &str,
    ) -> Result<(), EngineError> {
        if path == CONTROL {
            let path = String::from_utf8_lossy(path);
            let message =
                format!("{path} itself is lost, and no server starts without it: {reason}");
            return Err(EngineError::refused(ErrorKind::Incomplete, message)
                .hint("Another backup has one: `pgrecall list`, and restore --backup ID."));
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || LostBytes { ranges: Vec::new(), reason: reason.to_owned() };
        let ranges = &mut files.entry(path.to_vec()).or_insert_with(first).ranges;
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
        Ok(())
    }

    /// The files, with what cannot be had of each.
    pub(super) fn told(self, details: &BackupDetails) -> Vec<TouchedFile> {
        let files = self.files.into_inner().unwrap_or_else(PoisonError::into_inner);
        let told = files.into_iter().map(|(path, LostBytes { mut ranges, reason })| {
            ranges.sort_unstable_by_key(|range| range.start);
            let mut lost = Lost::default();
            for range in ranges {
                lost.add_uncut(range);
            }
            TouchedFile::new(String::from_utf8_lossy(&path).into_owned(), &lost, reason, details)
        });
        told.collect()
    }
}

/// The text of [`LIST`].
pub(super) fn list(details: &BackupDetails, backup: &str, lost: &[TouchedFile]) -> String {
    let mut text = format!(
        "pgrecall restored backup {backup} (begun {}), some of which the repository has lost. In the\n\
         place of what is listed here stand zeros. Pages that were written after the backup began come\n\
         back from WAL.\n\n",
        details.began
    );
    for file in lost {
        text.push_str(&format!("{}\n", file.text()));
        for range in &file.ranges {
            text.push_str(&format!("    bytes {} to {}\n", range.start, range.end - 1));
        }
        text.push_str(&format!("    {}\n", file.reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use pgrecall_store::{Act, ErrorKind as StoreKind, StoreError};

    use super::*;

    #[test]
    fn neighbours_are_told_as_one_and_no_control_file_is_made_of_zeros() {
        let losses = Losses::default();
        for range in [8192..16384, 40960..49152, 0..8192] {
            losses.add(b"base/5/16384.1", range, "gone").unwrap();
        }
        let error = losses.add(CONTROL, 0..8192, "gone").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incomplete);
        assert_eq!(losses.files.lock().unwrap().len(), 1);
        let details = crate::details::tests::details();
        let told = losses.told(&details);
        assert_eq!(told[0].text(), "base/5/16384.1: blocks 131072 to 131073, 131077");
        assert_eq!(told[0].lost_bytes, 24576);
        let text = list(&details, "b1", &told);
        assert!(text.contains("bytes 0 to 16383\n") && text.contains("gone"), "{text}");
    }

    #[test]
    fn each_of_many_ranges_is_told() {
        let losses = Losses::default();
        for at in (0..3000).rev() {
            losses.add(b"base/5/16384", at * 16384..at * 16384 + 8192, "gone").unwrap();
        }
        let told = losses.told(&crate::details::tests::details());
        assert_eq!((told[0].ranges.len(), told[0].lost_bytes), (3000, 3000 * 8192));
        assert_eq!(told[0].relation.as_ref().unwrap().blocks.len(), 3000);
    }

    #[test]
    fn a_disk_that_reads_nothing_has_lost_nothing() {
        let losses = Losses::default();
        let unread = |object: &str| {
            let error = StoreError::new(StoreKind::Unavailable, Act::Get, object, "EIO");
            let errno = rustix::io::Errno::IO.raw_os_error();
            RepoError::Store(error.caused_by(std::io::Error::from_raw_os_error(errno)))
        };
        for number in 0..BAD_OBJECTS_MAX {
            losses.require_disk(&unread(&number.to_string())).unwrap();
            losses.require_disk(&unread("0")).unwrap();
        }
        let error = losses.require_disk(&unread("one more")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
