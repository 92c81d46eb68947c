//! File maps: which bytes of which chunks make up a file, or a piece of one, and what its pages
//! hash to.
//!
//! An incremental backup points a few extents at a fresh patch chunk and leaves the others as they
//! were; the pages' hashes come with the chunks, so a patch adds hashes for its own pages only.

use crate::error::FormatError;
use crate::format::bytes::{Reader, narrow, put_varint, wide};
use crate::id::ChunkId;

const VERSION: u64 = 1;

/// Bytes of a page hash.
pub const PAGE_HASH_BYTES: usize = 8;

/// One chunk that a map points into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Bytes of its plaintext.
    pub plain_len: u32,
    /// Where its pages' hashes are.
    pub hashes: HashSource,
}

/// Where the hashes of a chunk's pages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashSource {
    /// The file is not hashed by page.
    None,
    /// In the map itself, one a page.
    Inline(Vec<u64>),
    /// In a chunk of hashes that others share.
    Shared {
        /// Position in [`FileMap::hash_chunks`].
        chunk: u32,
        /// The first page's position in it.
        first: u32,
    },
}

/// A chunk full of page hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Bytes of its plaintext, eight a page.
    pub plain_len: u32,
}

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// How many.
    pub len: u64,
    /// Where they come from.
    pub source: Source,
}

/// Where an extent's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// They are zero.
    Zeros,
    /// Part of a chunk.
    Chunk {
        /// Position in [`FileMap::chunks`].
        chunk: u32,
        /// The first byte in it.
        offset: u32,
    },
}

/// The map of a file, or of a piece of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileMap {
    /// Bytes of a page, 0 when there are no page hashes.
    pub page_size: u32,
    /// The chunks pointed into.
    pub chunks: Vec<MapChunk>,
    /// The chunks of hashes.
    pub hash_chunks: Vec<HashChunk>,
    /// The bytes, from first to last.
    pub extents: Vec<Extent>,
}

impl FileMap {
    /// Bytes that the map describes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.extents.iter().fold(0, |sum, extent| sum.saturating_add(extent.len))
    }

    /// True when it describes none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Encodes the map.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.chunks.len() * 40 + self.extents.len() * 6);
        put_varint(&mut out, VERSION);
        put_varint(&mut out, self.page_size.into());
        put_varint(&mut out, wide(self.hash_chunks.len()));
        for chunk in &self.hash_chunks {
            out.extend_from_slice(chunk.id.as_bytes());
            put_varint(&mut out, chunk.plain_len.into());
        }
        put_varint(&mut out, wide(self.chunks.len()));
        for chunk in &self.chunks {
            encode_chunk(chunk, &mut out);
        }
        put_varint(&mut out, wide(self.extents.len()));
        for extent in &self.extents {
            put_varint(&mut out, extent.len);
            match extent.source {
                Source::Zeros => put_varint(&mut out, 0),
                Source::Chunk { chunk, offset } => {
                    put_varint(&mut out, u64::from(chunk) + 1);
                    put_varint(&mut out, offset.into());
                }
            }
        }
        out
    }

    /// Decodes a map and checks that each extent lies inside its chunk and each chunk's hashes
    /// inside theirs.
    ///
    /// # Errors
    /// When it is cut short, of a newer version, or points outside of what it names.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let version = reader.varint("map version")?;
        if version != VERSION {
            return Err(FormatError::Newer {
                what: "the file map",
                found: version,
                known: VERSION,
            });
        }
        let page_size = u32_of("page size", reader.varint("page size")?)?;
        let count = reader.count("hash chunks", 33)?;
        let mut map = Self { page_size, ..Self::default() };
        for _ in 0..count {
            map.hash_chunks.push(HashChunk {
                id: ChunkId::from_bytes(reader.array("hash chunk id")?),
                plain_len: u32_of("hash chunk length", reader.varint("hash chunk length")?)?,
            });
        }
        let count = reader.count("chunks", 34)?;
        for _ in 0..count {
            let chunk = map.decode_chunk(&mut reader)?;
            map.chunks.push(chunk);
        }
        let count = reader.count("extents", 2)?;
        map.extents.reserve(count);
        let mut total = 0_u64;
        for _ in 0..count {
            let extent = map.decode_extent(&mut reader)?;
            total = total.checked_add(extent.len).ok_or_else(|| outside("file length"))?;
            map.extents.push(extent);
        }
        reader.end("file map")?;
        Ok(map)
    }

    /// Pages of a chunk, the last one possibly short.
    #[must_use]
    pub fn pages_of(&self, plain_len: u32) -> u32 {
        if self.page_size == 0 { 0 } else { plain_len.div_ceil(self.page_size) }
    }

    fn decode_chunk(&self, reader: &mut Reader<'_>) -> Result<MapChunk, FormatError> {
        let id = ChunkId::from_bytes(reader.array("chunk id")?);
        let plain_len = u32_of("chunk length", reader.varint("chunk length")?)?;
        let pages = self.pages_of(plain_len);
        let hashes = match reader.varint("hash source")? {
            0 => HashSource::None,
            1 => {
                let mut hashes = Vec::new();
                for _ in 0..pages {
                    hashes.push(reader.u64("page hash")?);
                }
                HashSource::Inline(hashes)
            }
            number => {
                let chunk = u32_of("hash chunk", number - 2)?;
                let first = u32_of("first page", reader.varint("first page")?)?;
                let end = (u64::from(first) + u64::from(pages)) * wide(PAGE_HASH_BYTES);
                match self.hash_chunks.get(narrow(chunk)) {
                    Some(hashes) if end <= hashes.plain_len.into() => {
                        HashSource::Shared { chunk, first }
                    }
                    _ => return Err(outside("page hashes of a chunk")),
                }
            }
        };
        Ok(MapChunk { id, plain_len, hashes })
    }

    fn decode_extent(&self, reader: &mut Reader<'_>) -> Result<Extent, FormatError> {
        let len = reader.varint("extent length")?;
        let number = reader.varint("extent chunk")?;
        let Some(number) = number.checked_sub(1) else {
            return Ok(Extent { len, source: Source::Zeros });
        };
        let chunk = u32_of("extent chunk", number)?;
        let offset = u32_of("extent offset", reader.varint("extent offset")?)?;
        let fits = self.chunks.get(narrow(chunk)).is_some_and(|c| {
            u64::from(offset).checked_add(len).is_some_and(|end| end <= c.plain_len.into())
        });
        if !fits {
            return Err(outside("an extent"));
        }
        Ok(Extent { len, source: Source::Chunk { chunk, offset } })
    }
}

fn encode_chunk(chunk: &MapChunk, out: &mut Vec<u8>) {
    out.extend_from_slice(chunk.id.as_bytes());
    put_varint(out, chunk.plain_len.into());
    match &chunk.hashes {
        HashSource::None => put_varint(out, 0),
        HashSource::Inline(hashes) => {
            put_varint(out, 1);
            for hash in hashes {
                out.extend_from_slice(&hash.to_le_bytes());
            }
        }
        HashSource::Shared { chunk, first } => {
            put_varint(out, u64::from(*chunk) + 2);
            put_varint(out, (*first).into());
        }
    }
}

fn u32_of(what: &'static str, value: u64) -> Result<u32, FormatError> {
    u32::try_from(value).map_err(|_| FormatError::TooLarge {
        what,
        limit: u32::MAX.into(),
        found: value,
    })
}

fn outside(what: &'static str) -> FormatError {
    FormatError::Unexpected {
        what,
        expected: "a place inside what the map names".into(),
        found: "one outside".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> FileMap {
        FileMap {
            page_size: 8192,
            hash_chunks: vec![HashChunk { id: ChunkId::from_bytes([9; 32]), plain_len: 64 }],
            chunks: vec![
                MapChunk {
                    id: ChunkId::from_bytes([1; 32]),
                    plain_len: 16384,
                    hashes: HashSource::Shared { chunk: 0, first: 6 },
                },
                MapChunk {
                    id: ChunkId::from_bytes([2; 32]),
                    plain_len: 8192,
                    hashes: HashSource::Inline(vec![5]),
                },
            ],
            extents: vec![
                Extent { len: 8192, source: Source::Chunk { chunk: 0, offset: 0 } },
                Extent { len: 8192, source: Source::Chunk { chunk: 1, offset: 0 } },
                Extent { len: 1 << 20, source: Source::Zeros },
            ],
        }
    }

    #[test]
    fn maps_round_trip() {
        let bytes = map().encode();
        assert_eq!(FileMap::decode(&bytes).unwrap(), map());
        for at in 0..bytes.len() {
            assert!(FileMap::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn maps_that_point_outside_are_refused() {
        let mut bad = map();
        bad.extents[0].len = 16385;
        assert!(FileMap::decode(&bad.encode()).is_err());
        let mut bad = map();
        bad.extents[0].source = Source::Chunk { chunk: 2, offset: 0 };
        assert!(FileMap::decode(&bad.encode()).is_err());
        let mut bad = map();
        bad.chunks[0].hashes = HashSource::Shared { chunk: 0, first: 7 };
        assert!(FileMap::decode(&bad.encode()).is_err());
    }
}
