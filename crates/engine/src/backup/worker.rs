//! One thread of a copy: takes pieces of files one by one, reads them, and stores what is new.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use pgrecall_repo::format::map::{FileMap, HashChunk};
use pgrecall_repo::format::table::PieceMap;
use pgrecall_repo::pack::PackBuilder;

use crate::backup::copy::{Copier, PIECE_BYTES, PieceResult, Unit};
use crate::backup::map_builder::MapBuilder;
use crate::backup::page_scan::PageContext;
use crate::backup::piece::{CopiedMap, PieceCopy, PieceOptions};
use crate::backup::reference::is_fragmented;
use crate::backup::reference_ahead::ReferenceAhead;
use crate::backup::source::{SourceEntry, SourceFile};
use crate::error::EngineError;
use crate::page_buffer::PageBuffer;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Maps up to this long stand in the file table.
const INLINE_MAP_BYTES_MAX: usize = 1024;

/// One thread of a copy.
pub struct Worker<'a> {
    copier: &'a Copier,
    ahead: Option<&'a ReferenceAhead<'a>>,
    pack: Option<PackBuilder>,
    buffer: PageBuffer,
    /// The file last read: its pieces often come one after another.
    open: Option<(usize, Box<dyn SourceFile>)>,
}

impl<'a> Worker<'a> {
    /// A thread of this copy.
    pub fn new(copier: &'a Copier, ahead: Option<&'a ReferenceAhead<'a>>) -> Self {
        Self { copier, ahead, pack: None, buffer: PageBuffer::default(), open: None }
    }

    /// The copy.
    pub fn copier(&self) -> &'a Copier {
        self.copier
    }

    /// Copies a piece, the unit of this number; nothing when its file is gone.
    ///
    /// # Errors
    /// When it cannot be read or stored.
    pub fn piece(
        &mut self,
        number: usize,
        unit: &Unit,
        entry: &SourceEntry,
    ) -> Result<Option<PieceResult>, EngineError> {
        let file = match self.open.take() {
            Some((open, file)) if open == unit.file => file,
            _ => match self.copier.source.open(entry)? {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        let result = self.copy_piece(number, unit, entry, &*file)?;
        self.open = Some((unit.file, file));
        Ok(Some(result))
    }

    /// Hands over the pack that is not full yet.
    ///
    /// # Errors
    /// When the putting task has failed.
    pub fn flush(&mut self) -> Result<(), EngineError> {
        self.pack.take().map_or(Ok(()), |pack| self.copier.send(pack))
    }

    fn copy_piece(
        &mut self,
        number: usize,
        unit: &Unit,
        entry: &SourceEntry,
        file: &dyn SourceFile,
    ) -> Result<PieceResult, EngineError> {
        let copier = self.copier;
        let path = PathBuf::from(String::from_utf8_lossy(&entry.path).into_owned());
        let mut piece = self.begin(number, entry, &path)?;
        let start = unit.piece as u64 * PIECE_BYTES;
        let mut done = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        let pack = &mut self.pack;
        let mut store = |content, chunk: (_, &[u8])| copier.store_data(pack, content, chunk);
        while done < PIECE_BYTES {
            let wanted = READ_BYTES.min(usize::try_from(PIECE_BYTES - done).unwrap_or(READ_BYTES));
            let room = buffer.bytes(wanted);
            let read = file
                .read_at(room, start + done)
                .map_err(|source| EngineError::file("read", &path, source))?;
            // The system reads on while this part is being worked on.
            file.will_read(start + done + read as u64, READ_BYTES);
            let part = room.get_mut(..read).unwrap_or_default();
            piece.add(file, start, done, part, &mut store)?;
            done += read as u64;
            copier.counters.read.fetch_add(read as u64, Ordering::Relaxed);
            copier.progress.advance(read as u64);
            if read < wanted {
                break;
            }
        }
        let (map, bad) = piece.finish(done, &mut store)?;
        self.buffer = buffer;
        let map = match map {
            CopiedMap::Same(map) if done > 0 => Some((done, map)),
            CopiedMap::New(map) if done > 0 => Some((done, self.store_map(map)?)),
            _ => None,
        };
        Ok(PieceResult { map, bad })
    }

    fn begin<'p>(
        &self,
        number: usize,
        entry: &SourceEntry,
        path: &'p Path,
    ) -> Result<PieceCopy<'p>, EngineError>
    where
        'a: 'p,
    {
        let options = &self.copier.options;
        let context = PageContext::of(
            &path.to_string_lossy(),
            options.page_size,
            options.relation_segment_pages,
            options.start_lsn,
            options.checksums,
        );
        let (old, sound_before) = match self.ahead.filter(|_| context.is_some()) {
            None => (None, None),
            Some(ahead) => (
                ahead.take(number, options.page_size)?,
                ahead.reference().sound_before(&entry.path, options.checksums),
            ),
        };
        let old = old.filter(|old| !is_fragmented(&old.map, options.chunk_bytes));
        let options = PieceOptions {
            path,
            keys: self.copier.session.sealed().keys(),
            chunk_bytes: usize::try_from(options.chunk_bytes).unwrap_or(1 << 18),
            context,
            sound_before,
            recheck: self.copier.recheck(&entry.path),
        };
        Ok(PieceCopy::new(options, old))
    }

    fn store_map(&self, map: MapBuilder) -> Result<PieceMap, EngineError> {
        let shared = match map.shared_hashes() {
            None => None,
            Some(bytes) => {
                let id = self.copier.store_meta(&bytes)?;
                Some(HashChunk { id, plain_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX) })
            }
        };
        let map: FileMap = map.finish(shared);
        if map.chunks.is_empty() {
            return Ok(PieceMap::Zeros);
        }
        let plain = map.encode();
        if plain.len() <= INLINE_MAP_BYTES_MAX {
            return Ok(PieceMap::Inline(plain));
        }
        let id = self.copier.store_meta(&plain)?;
        let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        Ok(PieceMap::Chunk { id, plain_len })
    }
}
