//! Writing long runs in pieces.
//!
//! Linux gives as much of one write as it can to one folio of its page cache. Folios of up to 32
//! KiB (order 3) are made of memory that was used shortly before and is kept at hand for each
//! processor; longer ones are cut from large free blocks, and those a virtual machine may have
//! given back to its host (free page reporting), which then gives them page by page. On Linux 6.18
//! and ext4, 1.5 GB took the kernel 0.4 s in pieces of 32 KiB, and between 0.9 and 2.1 s in pieces
//! of 64 to 256 KiB.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

const PIECE_BYTES: usize = 32 << 10;

/// As [`std::io::Write::write_all`].
pub(crate) fn write_all(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    bytes.chunks(PIECE_BYTES).try_for_each(|piece| file.write_all(piece))
}

/// As [`std::os::unix::fs::FileExt::write_all_at`].
pub(crate) fn write_all_at(file: &File, bytes: &[u8], mut offset: u64) -> io::Result<()> {
    for piece in bytes.chunks(PIECE_BYTES) {
        file.write_all_at(piece, offset)?;
        offset += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn pieces_make_the_whole() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 17).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        write_all(&file, &bytes).unwrap();
        write_all_at(&file, &bytes, bytes.len() as u64 + 5).unwrap();
        file.rewind().unwrap();
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        assert!(found == [&bytes[..], &[0; 5], &bytes].concat());
    }
}
