//! Judging the pages of a relation file as they are read: checksums, and a second read for a page
//! that looks torn.

use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::page_check::{PageChecksums, Soundness, Verdict, check_page};
use pgrecall_pgformat::relation::RelationFile;

use crate::backup::source::SourceFile;

/// What is known of a relation file before it is read.
#[derive(Debug, Clone, Copy)]
pub struct PageContext {
    /// Bytes of a page.
    pub page_size: usize,
    /// The number of the file's first block within its fork.
    pub first_block: u32,
    /// The backup's start: newer pages are mended by WAL.
    pub start_lsn: Lsn,
    /// Whether pages have checksums.
    pub checksums: PageChecksums,
}

impl PageContext {
    /// The context of a relation file; nothing for other files.
    #[must_use]
    pub fn of(
        path: &str,
        page_size_bytes: u32,
        relation_segment_pages: u32,
        start_lsn: Lsn,
        checksums: PageChecksums,
    ) -> Option<Self> {
        let file = RelationFile::parse(path)?;
        Some(Self {
            page_size: usize::try_from(page_size_bytes).ok()?,
            first_block: file.segment.checked_mul(relation_segment_pages)?,
            start_lsn,
            checksums,
        })
    }

    /// Checks a page that was read at `offset` of the file. One that looks bad is read once more,
    /// in place: PostgreSQL may have been writing it.
    ///
    /// # Errors
    /// When the second read fails.
    pub fn check(
        &self,
        file: &dyn SourceFile,
        offset: u64,
        page: &mut [u8],
    ) -> std::io::Result<CheckedPage> {
        let in_file = offset / self.page_size as u64;
        let block = self.first_block.wrapping_add(u32::try_from(in_file).unwrap_or(u32::MAX));
        // The end of a file that is being extended: WAL replay writes the whole page.
        if page.len() < self.page_size || self.judge(page, block).is_none() {
            return Ok(CheckedPage::default());
        }
        let mut again = vec![0; self.page_size];
        if file.read_at(&mut again, offset)? != self.page_size {
            // The file was cut meanwhile: WAL replay will cut it too.
            return Ok(CheckedPage::default());
        }
        page.copy_from_slice(&again);
        Ok(CheckedPage { read_again: true, bad: self.judge(page, block) })
    }

    fn judge(&self, page: &[u8], block: u32) -> Option<BadPage> {
        match check_page(page, block, self.start_lsn, self.checksums) {
            Verdict::NewerThanBackup { sound: Soundness::Bad, page_lsn } => {
                Some(BadPage { block, newer: Some(page_lsn) })
            }
            verdict => verdict.is_bad().then_some(BadPage { block, newer: None }),
        }
    }
}

/// What came of checking a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckedPage {
    /// It was read again, and may have other bytes now.
    pub read_again: bool,
    /// It looked bad twice.
    pub bad: Option<BadPage>,
}

/// A page that looked bad twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPage {
    /// Its number within the relation's fork.
    pub block: u32,
    /// Its LSN, when that says that it changed after the backup's start: WAL replay mends it, but
    /// only if the LSN is true.
    pub newer: Option<Lsn>,
}

impl BadPage {
    /// Whether it is damaged in the source, in the light of where the backup ended: no page that
    /// was read before can have been changed after that, so an LSN beyond it is rubbish too.
    #[must_use]
    pub fn is_damage(&self, stop: Lsn) -> bool {
        self.newer.is_none_or(|lsn| lsn > stop)
    }
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| word.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}
