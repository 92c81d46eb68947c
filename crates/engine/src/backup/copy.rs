//! Copying files: threads that read, compare, hash, compress and seal, and tasks that put the
//! packs. Each stage is bounded, so memory does not grow with the database.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::page_check::PageChecksums;
use pgrecall_repo::backup::{BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::table::{Piece, PieceMap};
use pgrecall_repo::id::{BackupId, ChunkId};
use pgrecall_repo::pack::{FinishedPack, PackBuilder};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::backup::page_scan::BadPage;
use crate::backup::piece::{Content, PATCH_BYTES, Recheck};
use crate::backup::reference::Reference;
use crate::backup::reference_ahead::ReferenceAhead;
use crate::backup::source::{Source, SourceEntry, SourceKind};
use crate::backup::worker::Worker;
use crate::cancel::Cancel;
use crate::error::EngineError;
use crate::progress::Progress;

/// Bytes of a file that one map describes, and that one thread copies at a time.
pub const PIECE_BYTES: u64 = 64 << 20;

/// One unchanged region in so many is compared by its chunk's id.
const RECHECK_ONE_IN: u64 = 64;

/// Scattered pages are compressed at this level at least. After 1,000 transactions of pgbench at
/// scale 100 it stores 17 % less than level 1 in the same time.
const PATCH_LEVEL_MIN: Level = Level(2);

/// The first of a backup's are compressed at this level (some 100 MB/s on a core): it stores 19 %
/// less than level 2, where level 6 stores 18 % less, and only levels that take a hundred times as
/// long store 5 % less again.
const FIRST_PATCHES_LEVEL_MIN: Level = Level(9);

/// How many bytes of scattered pages that is: all of a backup after few changes. After many, time
/// counts for more.
const FIRST_PATCHES_BYTES: u64 = 32 << 20;

/// Metadata is little, and half of it is paths and positions.
const META_LEVEL_MIN: Level = Level(9);

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
    /// Pages that looked bad twice.
    pub bad: Vec<BadPage>,
}

/// Counters of a copy.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes read from the source.
    pub read: AtomicU64,
    /// Plaintext bytes of new chunks.
    pub new: AtomicU64,
    /// Those of them that are scattered pages.
    pub patches: AtomicU64,
    /// Bytes put.
    pub stored: AtomicU64,
}

/// One thread's part: a piece of a file.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// The entry's position in the listing.
    pub file: usize,
    /// The piece's number in the file.
    pub piece: usize,
}

/// What a unit gave.
pub struct PieceResult {
    /// Its length and its map; nothing when the file is shorter now.
    pub map: Option<(u64, PieceMap)>,
    /// Pages that looked bad twice.
    pub bad: Vec<BadPage>,
}

/// Shared by the threads of a copy.
pub struct Copier {
    pub(super) session: Arc<BackupSession>,
    /// Where files are read.
    pub(super) source: Arc<dyn Source>,
    reference: Option<Arc<Reference>>,
    pub(super) options: CopyOptions,
    meta: Mutex<Option<PackBuilder>>,
    packs: mpsc::Sender<FinishedPack>,
    handle: Handle,
    cancel: Cancel,
    pub(super) progress: Progress,
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
            reference: reference.map(Arc::new),
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

    /// Which unchanged regions of a file are compared more closely: others in each backup.
    pub fn recheck(&self, path: &[u8]) -> Recheck {
        let keys = self.session.sealed().keys();
        let backup = keys.page_hash(self.session.id().as_bytes());
        Recheck::one_in(RECHECK_ONE_IN, backup.wrapping_add(keys.page_hash(path)))
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
        let ahead = self.reference.clone().map(|reference| {
            let (session, handle) = (self.session.clone(), self.handle.clone());
            ReferenceAhead::new(session, reference, handle, entries, &units)
        });
        let copy_some = || {
            let worker = Worker::new(self, ahead.as_ref());
            if let Err(error) = work(worker, entries, &units, &next, &results) {
                // The others stop at their next unit.
                next.store(usize::MAX / 2, Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
            }
        };
        std::thread::scope(|scope| {
            // This thread is one of them, and does it all where the system gives no more.
            for _ in 1..self.options.threads {
                if std::thread::Builder::new().spawn_scoped(scope, copy_some).is_err() {
                    break;
                }
            }
            copy_some();
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(results.into_iter().map(joined).collect())
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
        let level = self.options.level.max(META_LEVEL_MIN);
        let full = self.add(&mut slot, Kind::MetaPack, level, (id, plain))?;
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

    /// Stores a chunk of data unless it is there, in the pack of the caller's slot.
    ///
    /// # Errors
    /// When the putting task has failed.
    pub fn store_data(
        &self,
        slot: &mut Option<PackBuilder>,
        content: Content,
        (id, plain): (ChunkId, &[u8]),
    ) -> Result<(), EngineError> {
        if self.session.claim(&id) == Claim::Known {
            return Ok(());
        }
        self.counters.new.fetch_add(plain.len() as u64, Ordering::Relaxed);
        let level = match content {
            Content::Region => self.options.level,
            Content::Patch => self.options.level.max(self.patch_level(plain.len() as u64)),
        };
        if let Some(full) = self.add(slot, Kind::DataPack, level, (id, plain))? {
            self.send(full)?;
        }
        Ok(())
    }

    fn patch_level(&self, len: u64) -> Level {
        match self.counters.patches.fetch_add(len, Ordering::Relaxed) < FIRST_PATCHES_BYTES {
            true => FIRST_PATCHES_LEVEL_MIN,
            false => PATCH_LEVEL_MIN,
        }
    }

    /// Adds a chunk to the pack in the slot; gives the pack back when it is full.
    fn add(
        &self,
        slot: &mut Option<PackBuilder>,
        kind: Kind,
        level: Level,
        (id, plain): (ChunkId, &[u8]),
    ) -> Result<Option<PackBuilder>, EngineError> {
        let builder = match slot {
            Some(builder) => builder,
            None => {
                let domain = &self.session.at().domain;
                slot.insert(PackBuilder::new(self.session.sealed(), domain, kind)?)
            }
        };
        builder.add(id, plain, level)?;
        let room = usize::try_from(self.options.chunk_bytes).unwrap_or_default();
        let room = room.max(PATCH_BYTES);
        if builder.is_full(room) { Ok(slot.take()) } else { Ok(None) }
    }

    /// Seals a pack and hands it over to be put.
    ///
    /// # Errors
    /// When the putting task has failed.
    pub fn send(&self, pack: PackBuilder) -> Result<(), EngineError> {
        let pack = pack.finish()?;
        self.counters.stored.fetch_add(pack.len() as u64, Ordering::Relaxed);
        // The task has ended only if a put failed, and its own error is the one to tell.
        self.packs.blocking_send(pack).map_err(|_| EngineError::Cancelled)
    }
}

fn work(
    mut worker: Worker<'_>,
    entries: &[SourceEntry],
    units: &[Unit],
    next: &AtomicUsize,
    results: &Mutex<Vec<Vec<Option<PieceResult>>>>,
) -> Result<(), EngineError> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(unit) = units.get(number) else { break };
        worker.copier().cancel.check()?;
        let Some(entry) = entries.get(unit.file) else { continue };
        let result = worker.piece(number, unit, entry)?;
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = results.get_mut(unit.file).and_then(|pieces| pieces.get_mut(unit.piece));
        if let Some(slot) = slot {
            *slot = result;
        }
    }
    worker.flush()
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
fn joined(results: Vec<Option<PieceResult>>) -> CopiedFile {
    let mut pieces = Vec::with_capacity(results.len());
    let mut bad = Vec::new();
    let mut gap = 0;
    let mut gone = false;
    for (number, result) in results.into_iter().enumerate() {
        let Some(result) = result else {
            gone |= number == 0;
            break;
        };
        bad.extend(result.bad);
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
        return CopiedFile { pieces: None, bad: Vec::new() };
    }
    CopiedFile { pieces: Some(pieces), bad }
}

#[cfg(test)]
mod tests;
