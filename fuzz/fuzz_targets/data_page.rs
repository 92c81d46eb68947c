//! A page of a relation. The first byte says whether pages have checksums, and as what block.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::page_check::{PageChecksums, check_page, page_checksum, page_lsn};

fuzz_target!(|bytes: &[u8]| {
    let Some((&block, page)) = bytes.split_first() else { return };
    let checksums = if block & 1 == 0 { PageChecksums::On } else { PageChecksums::Off };
    let block = u32::from(block) << 24;
    let start = page_lsn(page).unwrap_or(Lsn::MAX);
    let _ = check_page(page, block, start, checksums);
    let Some(sum) = page_checksum(page, block) else { return };
    let mut right = page.to_vec();
    right[8..10].copy_from_slice(&sum.to_le_bytes());
    let _ = check_page(&right, block, start, checksums);
});
