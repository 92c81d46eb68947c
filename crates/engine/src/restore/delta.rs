//! What of a file that is there already is right: its pages are compared with the backup's page
//! hashes, and only the others are written.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use pgrecall_repo::format::map::{Extent, FileMap, HashSource, MapChunk, PAGE_HASH_BYTES, Source};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::keys::Keys;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::copy::{Job, Place};
use super::threads::Going;
use crate::error::EngineError;
use crate::page_buffer::PageBuffer;

/// Bytes read at once.
const READ_BYTES: u64 = 1 << 20;

/// A stretch of a file with the map that describes it.
struct Stretch<'a> {
    map: &'a FileMap,
    extent: Extent,
    offset: u64,
}

/// What it takes to compare a file that is there.
pub(super) struct Compare<'a> {
    pub(super) number: u32,
    pub(super) file: &'a File,
    /// Page hashes, by the chunks that hold them.
    pub(super) hashes: &'a HashMap<ChunkId, Vec<u8>>,
    pub(super) keys: &'a Keys,
    pub(super) going: &'a Going,
}

impl Compare<'_> {
    /// The places of the file that have to be written. Stretches that must be zero and are not are
    /// zeroed here.
    ///
    /// # Errors
    /// When the file cannot be read or written, or the restore is to stop.
    pub(super) fn places(
        &self,
        job: &Job,
        maps: &[FileMap],
    ) -> Result<Vec<(ChunkId, Place)>, EngineError> {
        let mut stretches = Vec::new();
        let mut offset = 0;
        for map in maps {
            for extent in &map.extents {
                stretches.push(Stretch { map, extent: *extent, offset });
                offset += extent.len;
            }
        }
        let compare = |buffer: &mut PageBuffer, stretch| {
            self.going.check()?;
            let found = self.stretch(stretch, buffer);
            found.map_err(|error| EngineError::file("compare", &job.place, error))
        };
        let found: Result<Vec<Vec<(ChunkId, Place)>>, EngineError> =
            stretches.par_iter().map_init(PageBuffer::default, compare).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    fn stretch(
        &self,
        stretch: &Stretch<'_>,
        buffer: &mut PageBuffer,
    ) -> Result<Vec<(ChunkId, Place)>, std::io::Error> {
        let (chunk, chunk_offset) = match stretch.extent.source {
            Source::Zeros => {
                self.zeros(stretch.offset, stretch.extent.len)?;
                return Ok(Vec::new());
            }
            Source::Chunk { chunk, offset } => (chunk, offset),
        };
        let at = usize::try_from(chunk).unwrap_or(usize::MAX);
        let Some(chunk) = stretch.map.chunks.get(at) else { return Ok(Vec::new()) };
        let Ok(len) = u32::try_from(stretch.extent.len) else { return Ok(Vec::new()) };
        let (file, offset, chunk_len) = (self.number, stretch.offset, chunk.plain_len);
        let all = Place { file, offset, chunk_offset, len, chunk_len };
        let bytes = buffer.bytes(usize::try_from(len).unwrap_or(usize::MAX));
        self.file.read_exact_at(bytes, stretch.offset)?;
        let page = stretch.map.page_size;
        let known = self.known(stretch.map, chunk);
        if page == 0 || known.is_empty() || chunk_offset % page != 0 {
            // Without page hashes only a whole chunk can be known again.
            let whole = chunk_offset == 0 && len == chunk.plain_len;
            let same = whole && self.keys.all_ids().any(|ids| ids.chunk_id(bytes) == chunk.id);
            return Ok(if same { Vec::new() } else { vec![(chunk.id, all)] });
        }
        let mut places: Vec<(ChunkId, Place)> = Vec::new();
        let step = usize::try_from(page).unwrap_or(usize::MAX);
        let first = usize::try_from(chunk_offset / page).unwrap_or(usize::MAX);
        for (index, bytes) in bytes.chunks(step).enumerate() {
            // Which generation of the id key made the hash, the map does not say.
            let known = known.get(first + index);
            if self.keys.all_ids().any(|ids| known == Some(&ids.page_hash(bytes))) {
                continue;
            }
            let begin = u32::try_from(index * step).unwrap_or(u32::MAX);
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            match places.last_mut() {
                Some((_, last)) if last.chunk_offset + last.len == chunk_offset + begin => {
                    last.len += len;
                }
                _ => places.push((
                    chunk.id,
                    Place {
                        file,
                        offset: offset + u64::from(begin),
                        chunk_offset: chunk_offset + begin,
                        len,
                        chunk_len,
                    },
                )),
            }
        }
        Ok(places)
    }

    /// The hashes of a chunk's pages.
    fn known(&self, map: &FileMap, chunk: &MapChunk) -> Vec<u64> {
        match &chunk.hashes {
            HashSource::None => Vec::new(),
            HashSource::Inline(hashes) => hashes.clone(),
            HashSource::Shared { chunk: number, first } => {
                let at = usize::try_from(*number).unwrap_or(usize::MAX);
                let shared = map.hash_chunks.get(at).and_then(|shared| self.hashes.get(&shared.id));
                let Some(shared) = shared else { return Vec::new() };
                let first = usize::try_from(*first).unwrap_or(usize::MAX);
                let pages = usize::try_from(map.pages_of(chunk.plain_len)).unwrap_or(0);
                shared
                    .chunks_exact(PAGE_HASH_BYTES)
                    .skip(first)
                    .take(pages)
                    .filter_map(|hash| hash.try_into().ok().map(u64::from_le_bytes))
                    .collect()
            }
        }
    }

    fn zeros(&self, offset: u64, len: u64) -> Result<(), std::io::Error> {
        let mut buffer = vec![0; usize::try_from(len.min(READ_BYTES)).unwrap_or(0)];
        let mut done = 0;
        while done < len {
            let part = usize::try_from((len - done).min(READ_BYTES)).unwrap_or(0);
            let Some(part) = buffer.get_mut(..part) else { break };
            self.file.read_exact_at(part, offset + done)?;
            if part.iter().any(|byte| *byte != 0) {
                part.fill(0);
                self.file.write_all_at(part, offset + done)?;
            }
            done += u64::try_from(part.len()).unwrap_or(0);
        }
        Ok(())
    }
}
