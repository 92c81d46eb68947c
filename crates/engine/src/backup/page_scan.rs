//! Judging the pages of a relation file as they are read: checksums, and a second read for a page
//! that looks torn.

use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::page_check::{PageChecksums, check_page};
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

    /// Checks every whole page of a buffer that starts at `offset` of the file. A page that looks
    /// bad is read once more, in place: PostgreSQL may have been writing it. What is bad then is
    /// damaged in the source.
    ///
    /// # Errors
    /// When the second read fails.
    pub fn check(
        &self,
        file: &dyn SourceFile,
        offset: u64,
        buffer: &mut [u8],
        damaged: &mut Vec<u32>,
    ) -> std::io::Result<()> {
        let first = offset / self.page_size as u64;
        for (number, page) in buffer.chunks_exact_mut(self.page_size).enumerate() {
            let in_file = u32::try_from(first + number as u64).unwrap_or(u32::MAX);
            let block = self.first_block.wrapping_add(in_file);
            if !check_page(page, block, self.start_lsn, self.checksums).is_bad() {
                continue;
            }
            let at = offset + (number * self.page_size) as u64;
            let mut again = vec![0; self.page_size];
            if file.read_at(&mut again, at)? != self.page_size {
                // The file was cut meanwhile: WAL replay will cut it too.
                continue;
            }
            page.copy_from_slice(&again);
            if check_page(page, block, self.start_lsn, self.checksums).is_bad() {
                damaged.push(block);
            }
        }
        Ok(())
    }
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| word.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}
