//! Packs: objects full of chunks. One body frame a chunk, then a sealed directory in the trailer,
//! so that the index can be rebuilt from packs alone.

use crate::error::FormatError;
use crate::format::bytes::{Reader, narrow};
use crate::format::layout;
use crate::id::ChunkId;

/// No pack has more chunks than this.
pub const CHUNKS_MAX: u32 = 1 << 20;

/// A chunk's place in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The chunk.
    pub chunk: ChunkId,
    /// Where its frame starts in the object, at the length prefix.
    pub offset: u32,
    /// Bytes of its sealed frame, the prefix not counted.
    pub sealed_len: u32,
    /// Bytes of its plaintext.
    pub plain_len: u32,
    /// Keyed hash of the sealed frame: whoever may not read the data can still check it.
    pub check: u64,
}

/// Encodes a directory: a count, then the entries in the order of their frames.
#[must_use]
pub fn encode_directory(entries: &[DirectoryEntry]) -> Vec<u8> {
    let size = usize::try_from(layout::DIRECTORY_ENTRY.size()).unwrap_or_default();
    let mut out = Vec::with_capacity(4 + entries.len() * size);
    out.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    for entry in entries {
        out.extend_from_slice(entry.chunk.as_bytes());
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.sealed_len.to_le_bytes());
        out.extend_from_slice(&entry.plain_len.to_le_bytes());
        out.extend_from_slice(&entry.check.to_le_bytes());
    }
    out
}

/// Decodes a directory.
///
/// # Errors
/// When it is cut short, too long or followed by anything.
pub fn decode_directory(bytes: &[u8]) -> Result<Vec<DirectoryEntry>, FormatError> {
    let mut reader = Reader::new(bytes);
    let count = reader.u32("directory count")?;
    if count > CHUNKS_MAX {
        return Err(FormatError::TooLarge {
            what: "directory count",
            limit: CHUNKS_MAX.into(),
            found: count.into(),
        });
    }
    let needed = layout::DIRECTORY_ENTRY.size() * u64::from(count);
    if crate::format::bytes::wide(reader.rest().len()) != needed {
        return Err(FormatError::Unexpected {
            what: "directory length",
            expected: needed.to_string(),
            found: reader.rest().len().to_string(),
        });
    }
    let mut entries = Vec::with_capacity(narrow(count));
    for _ in 0..count {
        entries.push(DirectoryEntry {
            chunk: ChunkId::from_bytes(reader.array("chunk id")?),
            offset: reader.u32("frame offset")?,
            sealed_len: reader.u32("sealed length")?,
            plain_len: reader.u32("plain length")?,
            check: reader.u64("frame check")?,
        });
    }
    reader.end("directory")?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_round_trip_and_lies_are_refused() {
        let entry = DirectoryEntry {
            chunk: ChunkId::from_bytes([1; 32]),
            offset: 96,
            sealed_len: 40,
            plain_len: 30,
            check: 9,
        };
        let bytes = encode_directory(&[entry, entry]);
        assert_eq!(decode_directory(&bytes).unwrap(), vec![entry, entry]);
        assert!(decode_directory(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode_directory(&[0xff; 4]).is_err());
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decode_directory(&longer).is_err());
    }
}
