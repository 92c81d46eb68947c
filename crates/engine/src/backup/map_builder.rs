//! Putting a piece's map together from what is carried over and what is new.

use std::collections::HashMap;

use pgrecall_repo::format::map::{Extent, FileMap, HashChunk, HashSource, MapChunk, Source};
use pgrecall_repo::id::ChunkId;

/// Pages of a piece up to which their hashes stand in the map itself.
pub const INLINE_HASHES_MAX: usize = 64;

/// A map being built.
#[derive(Debug, Clone, Default)]
pub struct MapBuilder {
    map: FileMap,
    chunks: HashMap<ChunkId, u32>,
    hash_chunks: HashMap<ChunkId, u32>,
    /// The hashes of fresh chunks: where they go is known at the end.
    fresh: Vec<(u32, Vec<u64>)>,
}

impl MapBuilder {
    /// A map of a file with pages of this size; 0 for none.
    #[must_use]
    pub fn new(page_size: u32) -> Self {
        Self { map: FileMap { page_size, ..FileMap::default() }, ..Self::default() }
    }

    /// Appends zeros.
    pub fn zeros(&mut self, len: u64) {
        self.extend(Extent { len, source: Source::Zeros });
    }

    /// Names a chunk that this backup stores (or that was there already), with its pages' hashes.
    pub fn fresh_chunk(&mut self, id: ChunkId, plain_len: u32, hashes: Vec<u64>) -> u32 {
        if let Some(number) = self.chunks.get(&id) {
            return *number;
        }
        let number = u32::try_from(self.map.chunks.len()).unwrap_or(u32::MAX);
        let chunk = MapChunk { id, plain_len, hashes: HashSource::None };
        self.map.chunks.push(chunk);
        self.chunks.insert(id, number);
        if !hashes.is_empty() {
            self.fresh.push((number, hashes));
        }
        number
    }

    /// A number for a chunk whose bytes are still being gathered: [`settle`](Self::settle) it.
    pub fn reserve(&mut self) -> u32 {
        let number = u32::try_from(self.map.chunks.len()).unwrap_or(u32::MAX);
        let id = ChunkId::from_bytes([0; 32]);
        self.map.chunks.push(MapChunk { id, plain_len: 0, hashes: HashSource::None });
        number
    }

    /// Says which chunk a reserved number stands for, with its pages' hashes.
    pub fn settle(&mut self, number: u32, id: ChunkId, plain_len: u32, hashes: Vec<u64>) {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(chunk) = self.map.chunks.get_mut(at) {
            *chunk = MapChunk { id, plain_len, hashes: HashSource::None };
        }
        self.chunks.entry(id).or_insert(number);
        self.fresh.push((number, hashes));
    }

    /// Appends part of a chunk.
    pub fn part(&mut self, chunk: u32, offset: u32, len: u64) {
        self.extend(Extent { len, source: Source::Chunk { chunk, offset } });
    }

    /// Appends a run as it was in an earlier map.
    pub fn carry(&mut self, old: &FileMap, chunk: u32, offset: u32, len: u64) {
        let Some(was) = usize::try_from(chunk).ok().and_then(|at| old.chunks.get(at)) else {
            return;
        };
        let number = match self.chunks.get(&was.id) {
            Some(number) => *number,
            None => self.carry_chunk(old, was),
        };
        self.part(number, offset, len);
    }

    fn carry_chunk(&mut self, old: &FileMap, was: &MapChunk) -> u32 {
        let hashes = match &was.hashes {
            HashSource::Shared { chunk, first } => {
                let at = usize::try_from(*chunk).unwrap_or(usize::MAX);
                match old.hash_chunks.get(at) {
                    Some(shared) => {
                        HashSource::Shared { chunk: self.hash_chunk(*shared), first: *first }
                    }
                    None => HashSource::None,
                }
            }
            other => other.clone(),
        };
        let number = u32::try_from(self.map.chunks.len()).unwrap_or(u32::MAX);
        self.map.chunks.push(MapChunk { id: was.id, plain_len: was.plain_len, hashes });
        self.chunks.insert(was.id, number);
        number
    }

    fn hash_chunk(&mut self, chunk: HashChunk) -> u32 {
        let next = u32::try_from(self.map.hash_chunks.len()).unwrap_or(u32::MAX);
        let number = *self.hash_chunks.entry(chunk.id).or_insert(next);
        if number == next {
            self.map.hash_chunks.push(chunk);
        }
        number
    }

    fn extend(&mut self, extent: Extent) {
        if extent.len == 0 {
            return;
        }
        let Some(last) = self.map.extents.last_mut() else {
            self.map.extents.push(extent);
            return;
        };
        let joins = match (last.source, extent.source) {
            (Source::Zeros, Source::Zeros) => true,
            (Source::Chunk { chunk: a, offset: at }, Source::Chunk { chunk: b, offset: next }) => {
                a == b && u64::from(at) + last.len == u64::from(next)
            }
            _ => false,
        };
        if joins {
            last.len += extent.len;
        } else {
            self.map.extents.push(extent);
        }
    }

    /// The hashes of all fresh chunks, one chunk's worth of bytes, when they are too many to stand
    /// in the map itself.
    #[must_use]
    pub fn shared_hashes(&self) -> Option<Vec<u8>> {
        let pages: usize = self.fresh.iter().map(|(_, hashes)| hashes.len()).sum();
        (pages > INLINE_HASHES_MAX).then(|| {
            self.fresh.iter().flat_map(|(_, hashes)| hashes).flat_map(|h| h.to_le_bytes()).collect()
        })
    }

    /// The map; `shared` is the chunk that holds [`shared_hashes`](Self::shared_hashes).
    #[must_use]
    pub fn finish(mut self, shared: Option<HashChunk>) -> FileMap {
        let fresh = std::mem::take(&mut self.fresh);
        let shared = shared.map(|chunk| self.hash_chunk(chunk));
        let mut first = 0;
        for (number, hashes) in fresh {
            let pages = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            if let Some(chunk) = self.map.chunks.get_mut(at) {
                chunk.hashes = match shared {
                    Some(chunk) => HashSource::Shared { chunk, first },
                    None => HashSource::Inline(hashes),
                };
            }
            first += pages;
        }
        self.map
    }
}
