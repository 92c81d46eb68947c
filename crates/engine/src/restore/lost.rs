//! What a restore wants and the repository has lost: it ends there, or, where somebody has asked
//! for what is left, zeros stand in its place, and every byte of them is told.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

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

/// Lost bytes, by file.
#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<BTreeMap<String, LostBytes>>);

#[derive(Debug)]
struct LostBytes {
    ranges: Vec<Range<u64>>,
    reason: String,
}

impl Losses {
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
        let path = String::from_utf8_lossy(path).into_owned();
        if path.as_bytes() == CONTROL {
            let message =
                format!("{path} itself is lost, and no server starts without it: {reason}");
            return Err(EngineError::refused(ErrorKind::Incomplete, message)
                .hint("Another backup has one: `pgrecall list`, and restore --backup ID."));
        }
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || LostBytes { ranges: Vec::new(), reason: reason.to_owned() };
        files.entry(path).or_insert_with(first).ranges.push(range);
        Ok(())
    }

    /// The files, with what cannot be had of each.
    pub(super) fn told(self, details: &BackupDetails) -> Vec<TouchedFile> {
        let files = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let told = files.into_iter().map(|(path, LostBytes { mut ranges, reason })| {
            ranges.sort_unstable_by_key(|range| range.start);
            let mut lost = Lost::default();
            for range in ranges {
                lost.add(range);
            }
            TouchedFile::new(path, &lost, reason, details)
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
    use super::*;

    #[test]
    fn neighbours_are_told_as_one_and_no_control_file_is_made_of_zeros() {
        let losses = Losses::default();
        for range in [8192..16384, 40960..49152, 0..8192] {
            losses.add(b"base/5/16384.1", range, "gone").unwrap();
        }
        let error = losses.add(CONTROL, 0..8192, "gone").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incomplete);
        let files = losses.0.into_inner().unwrap();
        assert_eq!(files.len(), 1);
        let losses = Losses(Mutex::new(files));
        let details = crate::details::tests::details();
        let told = losses.told(&details);
        assert_eq!(told[0].text(), "base/5/16384.1: blocks 131072 to 131073, 131077");
        assert_eq!(told[0].lost_bytes, 24576);
        let text = list(&details, "b1", &told);
        assert!(text.contains("bytes 0 to 16383\n") && text.contains("gone"), "{text}");
    }
}
