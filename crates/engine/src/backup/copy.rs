//! Copying files: threads that read, compare, hash, compress and seal, and tasks that put the
//! packs. Each stage is bounded, so memory does not grow with the database.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::page_check::PageChecksums;
use pgrecall_repo::backup::{BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::map::{FileMap, HashChunk};
use pgrecall_repo::format::table::{Piece, PieceMap};
use pgrecall_repo::id::{BackupId, ChunkId};
use pgrecall_repo::pack::{FinishedPack, PackBuilder};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::backup::map_builder::MapBuilder;
use crate::backup::page_scan::{PageContext, is_zero};
use crate::backup::reference::{OldPage, OldPiece, Reference, is_fragmented, read_piece};
use crate::backup::source::{Source, SourceEntry, SourceFile, SourceKind};
use crate::cancel::Cancel;
use crate::details::DamagedFile;
use crate::error::EngineError;
use crate::progress::Progress;

/// Bytes of a file that one map describes, and that one thread copies at a time.
pub const PIECE_BYTES: u64 = 64 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Damaged blocks of a file that are named one by one.
const DAMAGE_NAMED_MAX: usize = 100;

/// Maps up to this long stand in the file table.
const INLINE_MAP_BYTES_MAX: usize = 1024;

/// What copying needs to know.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Threads that read, hash, compress and seal.
    pub threads: usize,
    /// zstd's level.
    pub level: Level,
    /// Bytes of a chunk of relation files.
    pub chunk_bytes: u32,
    /// Bytes of a data page.
    pub page_size: u32,
    /// Pages of a relation's file segment.
    pub relation_segment_pages: u32,
    /// Whether pages have checksums.
    pub checksums: PageChecksums,
    /// The backup's start.
    pub start_lsn: Lsn,
}

/// What became of a file.
#[derive(Debug, Clone)]
pub struct CopiedFile {
    /// Its pieces; nothing when it was gone.
    pub pieces: Option<Vec<Piece>>,
    /// Damage found in it.
    pub damage: Option<DamagedFile>,
}

/// Counters of a copy.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes read from the source.
    pub read: AtomicU64,
    /// Plaintext bytes of new chunks.
    pub new: AtomicU64,
    /// Bytes put.
    pub stored: AtomicU64,
}

/// One thread's part: a piece of a file.
#[derive(Debug, Clone, Copy)]
struct Unit {
    file: usize,
    piece: usize,
}

/// What a unit gave.
struct PieceResult {
    map: Option<(u64, PieceMap)>,
    damage: Vec<u32>,
}

/// Shared by the threads of a copy.
pub struct Copier {
    session: Arc<BackupSession>,
    source: Arc<dyn Source>,
    reference: Option<Reference>,
    options: CopyOptions,
    meta: Mutex<Option<PackBuilder>>,
    packs: mpsc::Sender<FinishedPack>,
    handle: Handle,
    cancel: Cancel,
    progress: Progress,
    /// What was done.
    pub counters: Counters,
}

/// Packs put at the same time.
const PUTS_AT_ONCE: usize = 2;

impl Copier {
    /// A copier, and the task that puts its packs: wait for it after the copier is dropped.
    pub fn start(
        session: Arc<BackupSession>,
        source: Arc<dyn Source>,
        reference: Option<Reference>,
        options: CopyOptions,
        cancel: Cancel,
        progress: Progress,
    ) -> (Arc<Self>, tokio::task::JoinHandle<Result<u64, EngineError>>) {
        let (packs, receiver) = mpsc::channel(1);
        let putting = tokio::spawn(put_packs(session.clone(), receiver, cancel.clone()));
        let copier = Self {
            session,
            source,
            reference,
            options,
            meta: Mutex::new(None),
            packs,
            handle: Handle::current(),
            cancel,
            progress,
            counters: Counters::default(),
        };
        (Arc::new(copier), putting)
    }

    /// Bytes of a chunk of relation files.
    #[must_use]
    pub fn chunk_bytes(&self) -> u32 {
        self.options.chunk_bytes
    }

    /// The backup compared with.
    #[must_use]
    pub fn reference(&self) -> Option<BackupId> {
        self.reference.as_ref().map(|reference| reference.id)
    }

    /// Copies the files among these entries, in parallel; the results are in their order. Blocks
    /// the thread it is called on.
    ///
    /// # Errors
    /// The first error of any thread; all others stop.
    pub fn copy(&self, entries: &[SourceEntry]) -> Result<Vec<CopiedFile>, EngineError> {
        let units = units_of(entries);
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let results: Mutex<Vec<Vec<Option<PieceResult>>>> =
            Mutex::new(entries.iter().map(|e| (0..pieces_of(e)).map(|_| None).collect()).collect());
        std::thread::scope(|scope| {
            for _ in 0..self.options.threads.max(1) {
                scope.spawn(|| {
                    if let Err(error) = self.work(entries, &units, &next, &results) {
                        // The others stop at their next unit.
                        next.store(usize::MAX / 2, Ordering::Relaxed);
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.get_or_insert(error);
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(entries.iter().zip(results).map(|(entry, pieces)| joined(entry, pieces)).collect())
    }

    fn work(
        &self,
        entries: &[SourceEntry],
        units: &[Unit],
        next: &AtomicUsize,
        results: &Mutex<Vec<Vec<Option<PieceResult>>>>,
    ) -> Result<(), EngineError> {
        let mut worker = Worker { copier: self, pack: None, buffer: Vec::new(), open: None };
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            self.cancel.check()?;
            let Some(entry) = entries.get(unit.file) else { continue };
            let result = worker.piece(unit, entry)?;
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = results.get_mut(unit.file).and_then(|pieces| pieces.get_mut(unit.piece));
            if let Some(slot) = slot {
                *slot = result;
            }
        }
        worker.flush()
    }

    /// Stores a metadata chunk (a map, hashes, a part of the file table) unless it is there.
    ///
    /// # Errors
    /// When the putting task has failed.
    pub fn store_meta(&self, plain: &[u8]) -> Result<ChunkId, EngineError> {
        let id = self.session.sealed().keys().chunk_id(plain);
        if self.session.claim(&id) == Claim::Known {
            return Ok(id);
        }
        self.counters.new.fetch_add(plain.len() as u64, Ordering::Relaxed);
        let mut slot = self.meta.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.add(&mut slot, Kind::MetaPack, id, plain)?;
        drop(slot);
        if let Some(pack) = full {
            self.send(pack)?;
        }
        Ok(id)
    }

    /// Sends the metadata that waits for its pack to fill.
    ///
    /// # Errors
    /// When the putting task has failed.
    pub fn flush_meta(&self) -> Result<(), EngineError> {
        let pack = self.meta.lock().unwrap_or_else(PoisonError::into_inner).take();
        pack.map_or(Ok(()), |pack| self.send(pack))
    }

    /// Adds a chunk to the pack in the slot; gives the pack back when it is full.
    fn add(
        &self,
        slot: &mut Option<PackBuilder>,
        kind: Kind,
        id: ChunkId,
        plain: &[u8],
    ) -> Result<Option<PackBuilder>, EngineError> {
        let builder = match slot {
            Some(builder) => builder,
            None => {
                let domain = &self.session.at().domain;
                slot.insert(PackBuilder::new(self.session.sealed(), domain, kind)?)
            }
        };
        builder.add(id, plain, self.options.level)?;
        let room = usize::try_from(self.options.chunk_bytes).unwrap_or_default();
        if builder.is_full(room) { Ok(slot.take()) } else { Ok(None) }
    }

    fn send(&self, pack: PackBuilder) -> Result<(), EngineError> {
        let pack = pack.finish()?;
        self.counters.stored.fetch_add(pack.len() as u64, Ordering::Relaxed);
        // The task has ended only if a put failed, and its own error is the one to tell.
        self.packs.blocking_send(pack).map_err(|_| EngineError::Cancelled)
    }
}

async fn put_packs(
    session: Arc<BackupSession>,
    mut receiver: mpsc::Receiver<FinishedPack>,
    cancel: Cancel,
) -> Result<u64, EngineError> {
    let mut puts = tokio::task::JoinSet::new();
    let mut stored = 0;
    let mut minute = tokio::time::interval(std::time::Duration::from_secs(60));
    minute.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            pack = receiver.recv(), if puts.len() < PUTS_AT_ONCE => {
                let Some(pack) = pack else { break };
                let session = session.clone();
                puts.spawn(async move { session.put_pack(pack).await });
            }
            Some(done) = puts.join_next() => stored += put_result(done)?,
            _ = minute.tick() => session.flush_index().await?,
            () = cancel.raised() => break,
        }
    }
    // Even when the backup was asked to stop: what is on its way serves the next try.
    while let Some(done) = puts.join_next().await {
        stored += put_result(done)?;
    }
    Ok(stored)
}

fn put_result(
    done: Result<Result<u64, pgrecall_repo::RepoError>, tokio::task::JoinError>,
) -> Result<u64, EngineError> {
    match done {
        Ok(result) => Ok(result?),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn len_of(entry: &SourceEntry) -> Option<u64> {
    match entry.kind {
        SourceKind::File { len } | SourceKind::Outside { len, .. } => Some(len),
        SourceKind::Directory | SourceKind::Link { .. } => None,
    }
}

/// Pieces of a file by its listed length: one at least, so that a file that was empty is looked at
/// again.
fn pieces_of(entry: &SourceEntry) -> usize {
    len_of(entry)
        .map_or(0, |len| usize::try_from(len.div_ceil(PIECE_BYTES)).unwrap_or(usize::MAX).max(1))
}

fn units_of(entries: &[SourceEntry]) -> Vec<Unit> {
    let all = entries.iter().enumerate();
    all.flat_map(|(file, entry)| (0..pieces_of(entry)).map(move |piece| Unit { file, piece }))
        .collect()
}

/// A file from its pieces. A piece that came out short though others follow was cut and extended
/// again while it was read: the gap is zeros, and WAL replay fills it.
fn joined(entry: &SourceEntry, results: Vec<Option<PieceResult>>) -> CopiedFile {
    let mut pieces = Vec::with_capacity(results.len());
    let mut damage = Vec::new();
    let mut gap = 0;
    let mut gone = false;
    for (number, result) in results.into_iter().enumerate() {
        let Some(result) = result else {
            gone |= number == 0;
            break;
        };
        damage.extend(result.damage);
        let Some((len, map)) = result.map else {
            gap += PIECE_BYTES;
            continue;
        };
        if gap > 0 {
            pieces.push(Piece { len: gap, map: PieceMap::Zeros });
        }
        gap = PIECE_BYTES - len.min(PIECE_BYTES);
        pieces.push(Piece { len, map });
    }
    if gone {
        return CopiedFile { pieces: None, damage: None };
    }
    let damage = (!damage.is_empty()).then(|| DamagedFile {
        path: String::from_utf8_lossy(&entry.path).into_owned(),
        count: damage.len() as u64,
        blocks: damage.into_iter().take(DAMAGE_NAMED_MAX).collect(),
    });
    CopiedFile { pieces: Some(pieces), damage }
}

/// One thread of a copy.
struct Worker<'a> {
    copier: &'a Copier,
    pack: Option<PackBuilder>,
    buffer: Vec<u8>,
    /// The file last read: its pieces often come one after another.
    open: Option<(usize, Box<dyn SourceFile>)>,
}

impl Worker<'_> {
    fn piece(
        &mut self,
        unit: &Unit,
        entry: &SourceEntry,
    ) -> Result<Option<PieceResult>, EngineError> {
        let file = match self.open.take() {
            Some((number, file)) if number == unit.file => file,
            _ => match self.copier.source.open(entry)? {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        let result = self.copy_piece(unit, entry, &*file)?;
        self.open = Some((unit.file, file));
        Ok(Some(result))
    }

    fn copy_piece(
        &mut self,
        unit: &Unit,
        entry: &SourceEntry,
        file: &dyn SourceFile,
    ) -> Result<PieceResult, EngineError> {
        let copier = self.copier;
        let options = &copier.options;
        let path = String::from_utf8_lossy(&entry.path);
        let context = PageContext::of(
            &path,
            options.page_size,
            options.relation_segment_pages,
            options.start_lsn,
            options.checksums,
        );
        let page_size = if context.is_some() { options.page_size } else { 0 };
        let old = self.old_piece(unit, entry, page_size)?;
        let mut piece = PieceCopy {
            map: MapBuilder::new(page_size),
            page_size: usize::try_from(page_size).unwrap_or_default(),
            old,
            damage: Vec::new(),
        };
        let start = unit.piece as u64 * PIECE_BYTES;
        let mut done = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        while done < PIECE_BYTES {
            let wanted = READ_BYTES.min(usize::try_from(PIECE_BYTES - done).unwrap_or(READ_BYTES));
            buffer.resize(wanted, 0);
            let fail = |source| EngineError::file("read", PathBuf::from(&*path), source);
            let read = file.read_at(&mut buffer, start + done).map_err(fail)?;
            let part = buffer.get_mut(..read).unwrap_or_default();
            if let Some(context) = &context {
                context.check(file, start + done, part, &mut piece.damage).map_err(fail)?;
            }
            self.store_part(&mut piece, done, part)?;
            done += read as u64;
            copier.counters.read.fetch_add(read as u64, Ordering::Relaxed);
            copier.progress.advance(read as u64);
            if read < wanted {
                break;
            }
        }
        self.buffer = buffer;
        let map = (done > 0).then(|| self.finish_map(piece.map, done)).transpose()?;
        Ok(PieceResult { map, damage: piece.damage })
    }

    /// The same piece of the reference, when it is worth comparing with.
    fn old_piece(
        &self,
        unit: &Unit,
        entry: &SourceEntry,
        page_size: u32,
    ) -> Result<Option<OldPiece>, EngineError> {
        let copier = self.copier;
        let found = copier.reference.as_ref().and_then(|r| r.piece(&entry.path, unit.piece));
        let Some(piece) = found.filter(|_| page_size > 0) else { return Ok(None) };
        let read = read_piece(&copier.session, piece, page_size);
        let old = copier.handle.block_on(read)?;
        Ok(old.filter(|old| !is_fragmented(&old.map, copier.options.chunk_bytes)))
    }

    /// Stores a read's worth of bytes, chunk by chunk.
    fn store_part(
        &mut self,
        piece: &mut PieceCopy,
        offset: u64,
        part: &[u8],
    ) -> Result<(), EngineError> {
        let chunk_bytes = usize::try_from(self.copier.options.chunk_bytes).unwrap_or(1 << 18);
        let mut at = offset;
        for region in part.chunks(chunk_bytes) {
            self.store_region(piece, at, region)?;
            at += region.len() as u64;
        }
        Ok(())
    }

    /// Stores one region: carried over, patched or whole.
    fn store_region(
        &mut self,
        piece: &mut PieceCopy,
        offset: u64,
        region: &[u8],
    ) -> Result<(), EngineError> {
        if piece.page_size == 0 {
            return self.store_whole(piece, region, Vec::new());
        }
        let keys = self.copier.session.sealed().keys();
        let hashes: Vec<u64> =
            region.chunks(piece.page_size).map(|page| keys.page_hash(page)).collect();
        let changed = piece.changed(offset, region, &hashes);
        let count = changed.iter().filter(|old| old.is_none()).count();
        if piece.old.is_none() || count * 2 > changed.len() {
            return self.store_whole(piece, region, hashes);
        }
        self.patch(piece, region, &hashes, &changed)
    }

    fn store_whole(
        &mut self,
        piece: &mut PieceCopy,
        region: &[u8],
        hashes: Vec<u64>,
    ) -> Result<(), EngineError> {
        if is_zero(region) {
            piece.map.zeros(region.len() as u64);
            return Ok(());
        }
        let id = self.store_chunk(region)?;
        let len = u32::try_from(region.len()).unwrap_or(u32::MAX);
        let number = piece.map.fresh_chunk(id, len, hashes);
        piece.map.part(number, 0, len.into());
        Ok(())
    }

    /// Points the unchanged pages where they were, and gathers the changed ones into a chunk.
    fn patch(
        &mut self,
        piece: &mut PieceCopy,
        region: &[u8],
        hashes: &[u64],
        changed: &[Option<OldPage>],
    ) -> Result<(), EngineError> {
        let Some(old) = piece.old.as_ref().map(|old| old.map.clone()) else { return Ok(()) };
        let pages = || region.chunks(piece.page_size).zip(changed);
        let fresh: Vec<u8> = pages()
            .filter(|(_, old)| old.is_none())
            .flat_map(|(page, _)| page.iter().copied())
            .collect();
        let fresh_hashes: Vec<u64> = hashes
            .iter()
            .zip(changed)
            .filter(|(_, old)| old.is_none())
            .map(|(hash, _)| *hash)
            .collect();
        let patch = if fresh.is_empty() {
            0
        } else {
            let id = self.store_chunk(&fresh)?;
            let len = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
            piece.map.fresh_chunk(id, len, fresh_hashes)
        };
        let mut at = 0;
        for (page, old_page) in region.chunks(piece.page_size).zip(changed) {
            let len = page.len() as u64;
            match old_page {
                Some(OldPage::At { chunk, offset, .. }) => {
                    piece.map.carry(&old, *chunk, *offset, len);
                }
                Some(_) => piece.map.zeros(len),
                None => {
                    piece.map.part(patch, at, len);
                    at += u32::try_from(len).unwrap_or(u32::MAX);
                }
            }
        }
        Ok(())
    }

    fn store_chunk(&mut self, plain: &[u8]) -> Result<ChunkId, EngineError> {
        let copier = self.copier;
        let id = copier.session.sealed().keys().chunk_id(plain);
        if copier.session.claim(&id) == Claim::Known {
            return Ok(id);
        }
        copier.counters.new.fetch_add(plain.len() as u64, Ordering::Relaxed);
        if let Some(full) = copier.add(&mut self.pack, Kind::DataPack, id, plain)? {
            copier.send(full)?;
        }
        Ok(id)
    }

    fn finish_map(&self, map: MapBuilder, len: u64) -> Result<(u64, PieceMap), EngineError> {
        let shared = match map.shared_hashes() {
            None => None,
            Some(bytes) => {
                let id = self.copier.store_meta(&bytes)?;
                Some(HashChunk { id, plain_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX) })
            }
        };
        let map: FileMap = map.finish(shared);
        if map.chunks.is_empty() {
            return Ok((len, PieceMap::Zeros));
        }
        let plain = map.encode();
        if plain.len() <= INLINE_MAP_BYTES_MAX {
            return Ok((len, PieceMap::Inline(plain)));
        }
        let id = self.copier.store_meta(&plain)?;
        let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        Ok((len, PieceMap::Chunk { id, plain_len }))
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        self.pack.take().map_or(Ok(()), |pack| self.copier.send(pack))
    }
}

/// A piece being copied.
struct PieceCopy {
    map: MapBuilder,
    /// 0 for files that are not relations.
    page_size: usize,
    old: Option<OldPiece>,
    damage: Vec<u32>,
}

impl PieceCopy {
    /// For each page of a region: the old page that it equals, if there is one.
    fn changed(&self, offset: u64, region: &[u8], hashes: &[u64]) -> Vec<Option<OldPage>> {
        let Some(old) = &self.old else { return vec![None; hashes.len()] };
        let first = usize::try_from(offset / self.page_size as u64).unwrap_or(usize::MAX);
        region
            .chunks(self.page_size)
            .zip(hashes)
            .enumerate()
            .map(|(number, (page, hash))| match old.pages.get(first.saturating_add(number)) {
                Some(at @ OldPage::At { hash: was, .. }) if was == hash => Some(*at),
                Some(OldPage::Zero) if is_zero(page) && page.len() == self.page_size => {
                    Some(OldPage::Zero)
                }
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
