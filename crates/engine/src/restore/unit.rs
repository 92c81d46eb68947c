//! A part of a restore that is fetched, opened and written in one go: some mebibytes of places that
//! are neighbours. Each chunk is opened once in a unit. Places that are small, as the pages of a
//! file are that has changed here and there, are put together in memory and written in long runs; a
//! write for each would cost more than all else.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use pgrecall_repo::chunks::{Buffers, Opener, ReadRange};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::object::Proof;
use pgrecall_repo::sealed_store::SealedStore;

use super::batch::NO_LINK;
use super::copy::Place;
use super::threads::Going;
use super::writeback::Writeback;
use crate::error::{EngineError, ErrorKind};
use crate::pieces;
use crate::progress::Progress;

/// Bytes of a unit's places.
const UNIT_BYTES: u64 = 16 << 20;

/// Places of a unit at most.
const UNIT_PLACES: usize = 8192;

/// Bytes of a unit's chunks: where a page of each is wanted, all of each is fetched.
const UNIT_CHUNK_BYTES: u64 = 24 << 20;

/// Places from this size on are written by themselves.
const DIRECT_BYTES_MIN: u32 = 64 << 10;

/// Files kept open at once.
const FILES_OPEN_MAX: usize = 64;

/// Cuts places, which are in order of files and offsets, into units.
pub(super) fn cut(places: Vec<(ChunkId, Place)>) -> Vec<Vec<(ChunkId, Place)>> {
    let mut units = Vec::new();
    let (mut unit, mut chunks) = (Vec::new(), HashSet::new());
    let (mut bytes, mut chunk_bytes) = (0, 0);
    for (chunk, place) in places {
        bytes += u64::from(place.len);
        if chunks.insert(chunk) {
            chunk_bytes += u64::from(place.chunk_len);
        }
        unit.push((chunk, place));
        let is_full = bytes >= UNIT_BYTES || unit.len() >= UNIT_PLACES;
        if is_full || chunk_bytes >= UNIT_CHUNK_BYTES {
            units.push(std::mem::take(&mut unit));
            chunks.clear();
            (bytes, chunk_bytes) = (0, 0);
        }
    }
    if !unit.is_empty() {
        units.push(unit);
    }
    units
}

/// How opening a unit's chunks ended.
pub(super) enum Opening {
    /// All is written.
    Written,
    /// Some chunks are bad: the small places so far, and those chunks.
    Lacks { small: Vec<u8>, bad: Vec<ChunkId> },
}

/// One unit.
pub(super) struct Unit {
    files: Arc<Vec<PathBuf>>,
    /// In order of files and offsets, with where each stands among the small ones.
    places: Vec<(Place, Option<usize>)>,
    /// The places of each chunk, in order of chunks.
    by_chunk: Vec<(ChunkId, usize)>,
    /// Bytes of the small places together.
    small_bytes: usize,
}

impl Unit {
    pub(super) fn new(files: Arc<Vec<PathBuf>>, places: Vec<(ChunkId, Place)>) -> Self {
        let mut by_chunk: Vec<(ChunkId, usize)> =
            places.iter().enumerate().map(|(number, (chunk, _))| (*chunk, number)).collect();
        by_chunk.sort_unstable();
        let mut small_bytes = 0;
        let places = places.into_iter().map(|(_, place)| {
            let small = (place.len < DIRECT_BYTES_MIN).then_some(small_bytes);
            if small.is_some() {
                small_bytes += usize::try_from(place.len).unwrap_or(0);
            }
            (place, small)
        });
        let places = places.collect();
        Self { files, places, by_chunk, small_bytes }
    }

    /// The chunks that it takes.
    pub(super) fn chunks(&self) -> HashSet<ChunkId> {
        self.by_chunk.iter().map(|(chunk, _)| *chunk).collect()
    }

    /// The places of a chunk.
    pub(super) fn places_of(&self, chunk: &ChunkId) -> impl Iterator<Item = &Place> {
        self.numbers_of(chunk).filter_map(|number| self.places.get(number)).map(|(place, _)| place)
    }

    fn numbers_of(&self, chunk: &ChunkId) -> impl Iterator<Item = usize> {
        let start = self.by_chunk.partition_point(|(id, _)| id < chunk);
        let rest = self.by_chunk.get(start..).unwrap_or_default();
        rest.iter().take_while(move |(id, _)| id == chunk).map(|(_, number)| *number)
    }

    /// Opens what was fetched and writes it. Chunks that are bad are given back, with those of
    /// which nothing was fetched and with the small places so far: their other copies are put in
    /// by [`finish`](Self::finish).
    ///
    /// # Errors
    /// When the disk fails, a chunk is shorter than its map says, or the restore is to stop.
    pub(super) fn open(
        &self,
        sealed: &SealedStore,
        (fetched, lacking): (&[(ReadRange, Option<Bytes>)], &[ChunkId]),
        progress: &Progress,
        going: &Going,
    ) -> Result<Opening, EngineError> {
        let mut small = vec![0; self.small_bytes];
        let mut writer = Writer::new(&self.files, progress, going);
        let (mut buffers, mut bad) = (Buffers::default(), lacking.to_vec());
        for (read, bytes) in fetched {
            let Some(bytes) = bytes else {
                bad.extend(read.chunks.iter().map(|(chunk, _)| *chunk));
                continue;
            };
            let opener = Opener::new(sealed, read, bytes);
            for (chunk, location) in &read.chunks {
                going.check()?;
                match opener.open((chunk, location), Proof::Seals, &mut buffers) {
                    Ok(plain) => self.put(chunk, plain, &mut small, &mut writer)?,
                    Err(_) => bad.push(*chunk),
                }
            }
        }
        if bad.is_empty() {
            self.write_small(&small, &mut writer)?;
            return Ok(Opening::Written);
        }
        Ok(Opening::Lacks { small, bad })
    }

    /// Puts other copies of chunks that were bad in, and writes what is left.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn finish(
        &self,
        mut small: Vec<u8>,
        others: &HashMap<ChunkId, Vec<u8>>,
        progress: &Progress,
        going: &Going,
    ) -> Result<(), EngineError> {
        let mut writer = Writer::new(&self.files, progress, going);
        for (chunk, plain) in others {
            going.check()?;
            self.put(chunk, plain, &mut small, &mut writer)?;
        }
        self.write_small(&small, &mut writer)
    }

    /// Puts a chunk's bytes to all of its places: those that are small into memory.
    fn put(
        &self,
        chunk: &ChunkId,
        plain: &[u8],
        small: &mut [u8],
        writer: &mut Writer<'_>,
    ) -> Result<(), EngineError> {
        for number in self.numbers_of(chunk) {
            let Some((place, at)) = self.places.get(number) else { continue };
            let from = usize::try_from(place.chunk_offset).unwrap_or(usize::MAX);
            let len = usize::try_from(place.len).unwrap_or(usize::MAX);
            let bytes = plain.get(from..).and_then(|rest| rest.get(..len));
            let bytes = bytes.ok_or_else(|| writer.too_short(place.file))?;
            match at {
                None => writer.write(place.file, bytes, place.offset)?,
                Some(at) => {
                    if let Some(to) = small.get_mut(*at..at + len) {
                        to.copy_from_slice(bytes);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes the small places, neighbours together.
    fn write_small(&self, small: &[u8], writer: &mut Writer<'_>) -> Result<(), EngineError> {
        let mut run: Option<(u32, u64, std::ops::Range<usize>)> = None;
        for (place, at) in &self.places {
            let Some(at) = *at else { continue };
            let len = usize::try_from(place.len).unwrap_or(usize::MAX);
            match &mut run {
                Some((file, offset, range))
                    if *file == place.file && *offset + range.len() as u64 == place.offset =>
                {
                    range.end += len;
                }
                _ => {
                    writer
                        .write_run(small, run.replace((place.file, place.offset, at..at + len)))?;
                }
            }
        }
        writer.write_run(small, run)
    }
}

/// A file, and what of it was written.
struct Opened {
    file: File,
    from: u64,
    to: u64,
}

/// Writes to files, some of which it keeps open.
struct Writer<'a> {
    files: &'a [PathBuf],
    open: HashMap<u32, Opened>,
    progress: &'a Progress,
    writeback: &'a Writeback,
}

impl<'a> Writer<'a> {
    fn new(files: &'a [PathBuf], progress: &'a Progress, going: &'a Going) -> Self {
        Self { files, open: HashMap::new(), progress, writeback: going.writeback() }
    }

    fn close(&mut self) {
        for (_, Opened { file, from, to }) in self.open.drain() {
            self.writeback.begin(file, from..to);
        }
    }

    fn path(&self, file: u32) -> Option<&PathBuf> {
        self.files.get(usize::try_from(file).ok()?)
    }

    fn too_short(&self, file: u32) -> EngineError {
        let path = self.path(file).map(|path| path.display().to_string()).unwrap_or_default();
        let message = format!("a chunk of {path} is shorter than its map says");
        EngineError::refused(ErrorKind::Corrupt, message)
    }

    fn write_run(
        &mut self,
        small: &[u8],
        run: Option<(u32, u64, std::ops::Range<usize>)>,
    ) -> Result<(), EngineError> {
        let Some((file, offset, range)) = run else { return Ok(()) };
        self.write(file, small.get(range).unwrap_or_default(), offset)
    }

    fn write(&mut self, file: u32, bytes: &[u8], offset: u64) -> Result<(), EngineError> {
        let Some(path) = self.path(file).cloned() else { return Ok(()) };
        let fail = |error| EngineError::file("write", &path, error);
        if !self.open.contains_key(&file) {
            if self.open.len() >= FILES_OPEN_MAX {
                self.close();
            }
            let opened =
                OpenOptions::new().write(true).custom_flags(NO_LINK).open(&path).map_err(fail)?;
            self.open.insert(file, Opened { file: opened, from: offset, to: offset });
        }
        if let Some(open) = self.open.get_mut(&file) {
            pieces::write_all_at(&open.file, bytes, offset).map_err(fail)?;
            open.from = open.from.min(offset);
            open.to = open.to.max(offset + bytes.len() as u64);
        }
        self.progress.advance(bytes.len() as u64);
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;

    fn place(file: u32, offset: u64, chunk_offset: u32, len: u32) -> Place {
        Place { file, offset, chunk_offset, len, chunk_len: 256 << 10 }
    }

    fn going() -> Going {
        let folder = tempfile::tempdir().unwrap();
        Going::marking(folder.path(), Cancel::new())
    }

    fn chunk(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; 32])
    }

    #[test]
    fn units_have_an_end() {
        let many = |len: u32, count: u64| -> Vec<(ChunkId, Place)> {
            (0..count).map(|n| (chunk(1), place(0, n * u64::from(len), 0, len))).collect()
        };
        assert_eq!(cut(many(1 << 20, 40)).iter().map(Vec::len).collect::<Vec<_>>(), [16, 16, 8]);
        assert_eq!(cut(many(8, 10_000)).iter().map(Vec::len).collect::<Vec<_>>(), [8192, 1808]);
        let scattered: Vec<_> = (0..200).map(|n| (chunk(n), place(0, 0, 0, 8192))).collect();
        assert_eq!(cut(scattered).iter().map(Vec::len).collect::<Vec<_>>(), [96, 96, 8]);
        let large = |n| Place { chunk_len: 1 << 20, ..place(0, n, 0, 8192) };
        let patches: Vec<_> = (0..50).map(|n| (chunk(n), large(n.into()))).collect();
        assert_eq!(cut(patches).iter().map(Vec::len).collect::<Vec<_>>(), [24, 24, 2]);
        assert!(cut(Vec::new()).is_empty());
    }

    #[test]
    fn small_places_are_written_in_runs_and_large_ones_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a", "b"].map(|name| folder.path().join(name)).to_vec();
        for path in &paths {
            std::fs::write(path, vec![0xEE; 300_000]).unwrap();
        }
        let large = DIRECT_BYTES_MIN;
        let places = vec![
            (chunk(1), place(0, 0, 0, 8192)),
            (chunk(2), place(0, 8192, 100, 8192)),
            (chunk(1), place(0, 16384, 8192, 8192)),
            (chunk(3), place(0, 24576, 0, large)),
            (chunk(2), place(0, 200_000, 0, 50)),
            (chunk(1), place(1, 250_000, 0, 50_000)),
        ];
        let unit = Unit::new(Arc::new(paths.clone()), places.clone());
        assert_eq!(unit.chunks().len(), 3);
        let plain = |number: u8| -> Vec<u8> {
            (0..70_000_u32).map(|at| (at % 251) as u8 ^ number).collect()
        };
        let others = HashMap::from([1, 2, 3].map(|number| (chunk(number), plain(number))));
        let small = vec![0; unit.small_bytes];
        unit.finish(small, &others, &Progress::silent(), &going()).unwrap();
        let mut expected = vec![vec![0xEE; 300_000]; 2];
        for (id, place) in places {
            let plain = &others[&id];
            let (from, len) = (place.chunk_offset as usize, place.len as usize);
            let at = place.offset as usize;
            expected[place.file as usize][at..at + len].copy_from_slice(&plain[from..from + len]);
        }
        for (path, expected) in paths.iter().zip(expected) {
            assert!(std::fs::read(path).unwrap() == expected, "{}", path.display());
        }
    }

    #[test]
    fn a_unit_of_a_restore_that_is_to_stop_writes_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"").unwrap();
        let len = DIRECT_BYTES_MIN;
        let unit = Unit::new(Arc::new(vec![path.clone()]), vec![(chunk(1), place(0, 0, 0, len))]);
        let others = HashMap::from([(chunk(1), vec![1; len as usize])]);
        let cancel = Cancel::new();
        let going = Going::marking(folder.path(), cancel.clone());
        cancel.raise();
        let error = unit.finish(Vec::new(), &others, &Progress::silent(), &going).unwrap_err();
        assert!(matches!(error, EngineError::Cancelled));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_chunk_shorter_than_its_map_says_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"").unwrap();
        let unit = Unit::new(Arc::new(vec![path]), vec![(chunk(1), place(0, 0, 0, 8192))]);
        let others = HashMap::from([(chunk(1), vec![0; 8191])]);
        let error = unit.finish(vec![0; 8192], &others, &Progress::silent(), &going()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
