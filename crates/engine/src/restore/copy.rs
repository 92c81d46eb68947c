//! The files of a backup, out of the repository and into their places: by pack, not by file. Each
//! chunk of a batch is fetched, opened and inflated once and written to all its places.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::map::{FileMap, Source};
use pgrecall_repo::format::table::{Entry, EntryKind, Piece, PieceMap};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::index::Index;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{RepoError, chunks, manifests};
use rayon::ThreadPool;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};
use rustix::fs::{Gid, Uid};

use super::delta;
use super::layout::{Layout, is_left_out};
use crate::cancel::Cancel;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;

/// `global/pg_control` is written under this name and gets its own at the very end.
pub const CONTROL_BESIDE: &str = "global/.pgrecall-pg_control";

/// The file without which no server starts.
pub const CONTROL: &[u8] = b"global/pg_control";

/// Parts of the file table looked at in one go.
const TABLES_AT_ONCE: usize = 16;

/// Memory that one place of a chunk takes while it waits, with its share of the map.
const PLACE_BYTES: u64 = 160;

/// Whether files that are there are made use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// There are none.
    Nothing,
    /// Pages that are right stay.
    Pages,
}

/// Copies files.
pub struct Copier<'a> {
    /// Where the backup is.
    pub cluster: &'a ClusterStore,
    /// Where its chunks are.
    pub index: &'a Index,
    /// Where its files go.
    pub layout: &'a Layout,
    /// Whether files are there.
    pub reuse: Reuse,
    /// Who is to own them, when that can be chosen.
    pub owner: Option<(u32, u32)>,
    /// Threads for hashes, ciphers and writes.
    pub pool: Arc<ThreadPool>,
    /// Memory for what waits.
    pub memory_budget_bytes: u64,
    /// Who listens.
    pub progress: Progress,
    /// Who may wish to stop.
    pub cancel: Cancel,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files in their places.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes written; less than the above when pages were right already, or are zero.
    pub written_bytes: u64,
}

/// A file on its way.
pub(super) struct Job {
    pub(super) place: PathBuf,
    pub(super) len: u64,
    mode: u32,
    pieces: Vec<Piece>,
    control: bool,
}

/// A run of bytes that has to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) chunk_offset: u32,
    pub(super) len: u32,
}

struct Batch {
    files: Vec<PathBuf>,
    /// Sorted by chunk.
    places: Vec<(ChunkId, Place)>,
}

impl Batch {
    fn of(&self, chunk: &ChunkId) -> &[(ChunkId, Place)] {
        let start = self.places.partition_point(|(id, _)| id < chunk);
        let rest = self.places.get(start..).unwrap_or_default();
        rest.get(..rest.partition_point(|(id, _)| id == chunk)).unwrap_or_default()
    }
}

impl Copier<'_> {
    /// Copies everything but links, in order of paths.
    ///
    /// # Errors
    /// When the repository or the disk fails.
    pub async fn run(
        &self,
        manifest: &Manifest,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<Copied, EngineError> {
        let mut copied = Copied::default();
        let mut waiting: Vec<Job> = Vec::new();
        let mut weight = 0_u64;
        let mut last: Option<Vec<u8>> = None;
        for part in manifest.tables.chunks(TABLES_AT_ONCE) {
            let mut some = manifest.clone();
            some.tables = part.to_vec();
            let mut entries: Vec<Entry> = Vec::new();
            let domain = self.cluster.domain();
            manifests::each_table(&self.cluster.sealed, domain, self.index, &some, |more| {
                entries.extend(more);
                Ok::<(), EngineError>(())
            })
            .await?;
            for entry in entries {
                let path = entry.path.as_bytes().to_vec();
                if last.as_ref().is_some_and(|last| *last >= path) {
                    let message = "the parts of the backup's file table are out of order";
                    return Err(EngineError::refused(ErrorKind::Corrupt, message));
                }
                seen(&path);
                if let Some(job) = self.take(entry)? {
                    weight = weight.saturating_add(1 + job.len / 65536);
                    waiting.push(job);
                }
                last = Some(path);
                if weight.saturating_mul(PLACE_BYTES) > self.memory_budget_bytes / 4 {
                    self.batch(std::mem::take(&mut waiting), &mut copied).await?;
                    weight = 0;
                }
            }
        }
        self.batch(waiting, &mut copied).await?;
        Ok(copied)
    }

    /// Makes a directory, or gives a file to copy.
    fn take(&self, entry: Entry) -> Result<Option<Job>, EngineError> {
        let path = entry.path.as_bytes();
        if is_left_out(path) {
            return Ok(None);
        }
        let control = path == CONTROL;
        let place =
            if control { self.layout.dir.join(CONTROL_BESIDE) } else { self.layout.place(path) };
        let (len, mode) = (entry.len(), entry.mode & 0o7777);
        match entry.kind {
            EntryKind::Directory => {
                make_folder(&place, mode, self.owner)?;
                Ok(None)
            }
            EntryKind::Link(_) => Ok(None),
            EntryKind::File(pieces) | EntryKind::Outside(_, pieces) => {
                Ok(Some(Job { place, len, mode, pieces, control }))
            }
        }
    }

    async fn batch(&self, jobs: Vec<Job>, copied: &mut Copied) -> Result<(), EngineError> {
        if jobs.is_empty() {
            return Ok(());
        }
        self.cancel.check()?;
        let sealed = &self.cluster.sealed;
        let domain = self.cluster.domain();
        let wanted: HashSet<ChunkId> =
            jobs.iter().flat_map(|job| &job.pieces).filter_map(map_chunk).collect();
        let read = chunks::read_many(sealed, domain, self.index, &wanted).await?;
        let mut maps: Vec<Vec<FileMap>> = Vec::with_capacity(jobs.len());
        for job in &jobs {
            maps.push(maps_of(job, &read)?);
        }
        drop(read);
        let hashes = match self.reuse {
            Reuse::Nothing => HashMap::new(),
            Reuse::Pages => {
                let wanted = maps.iter().flatten().flat_map(|map| &map.hash_chunks);
                let wanted: HashSet<ChunkId> = wanted.map(|chunk| chunk.id).collect();
                chunks::read_many(sealed, domain, self.index, &wanted).await?
            }
        };
        let mut places = Vec::new();
        for (number, (job, maps)) in jobs.iter().zip(&maps).enumerate() {
            let file = u32::try_from(number).unwrap_or(u32::MAX);
            let reuse = if job.control { Reuse::Nothing } else { self.reuse };
            let there = self.prepare(job, reuse)?;
            match there {
                None => fresh_places(file, maps, &mut places),
                Some(there) => {
                    let keys = sealed.keys();
                    let found = self
                        .pool
                        .install(|| delta::places(file, job, &there, maps, &hashes, keys))?;
                    places.extend(found);
                }
            }
            copied.files += 1;
            copied.bytes = copied.bytes.saturating_add(job.len);
        }
        drop((maps, hashes));
        let to_write = places.iter().fold(0, |sum: u64, (_, place)| sum + u64::from(place.len));
        copied.written_bytes = copied.written_bytes.saturating_add(to_write);
        let total: u64 = jobs.iter().map(|job| job.len).sum();
        self.progress.advance(total.saturating_sub(to_write));
        places.sort_unstable_by_key(|(id, place)| (*id, place.file, place.offset));
        let files = jobs.into_iter().map(|job| job.place).collect();
        self.write(Batch { files, places }).await
    }

    /// Makes a file with its length, mode and owner; gives it when it was there and may be right in
    /// parts.
    fn prepare(&self, job: &Job, reuse: Reuse) -> Result<Option<File>, EngineError> {
        let fail = |act| move |error| EngineError::file(act, &job.place, error);
        let is_there = match std::fs::symlink_metadata(&job.place) {
            Ok(meta) if meta.is_file() && reuse == Reuse::Pages => true,
            Ok(meta) if meta.is_dir() => {
                let message =
                    format!("{} is a directory, and a file goes there", job.place.display());
                return Err(EngineError::refused(ErrorKind::AlreadyExists, message));
            }
            Ok(_) => {
                std::fs::remove_file(&job.place).map_err(fail("remove"))?;
                false
            }
            Err(_) => false,
        };
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        if is_there {
            options.read(true);
        } else {
            options.create_new(true);
        }
        let file = options.open(&job.place).map_err(fail("create"))?;
        file.set_len(job.len).map_err(fail("set the length of"))?;
        // Writing is for the owner alone, whatever the backup says.
        let mode = (job.mode & 0o640) | 0o600;
        if is_there || mode != 0o600 {
            file.set_permissions(Permissions::from_mode(mode)).map_err(fail("set the mode of"))?;
        }
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))
                .map_err(|errno| fail("set the owner of")(errno.into()))?;
        }
        Ok(is_there.then_some(file))
    }

    async fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let sealed = &self.cluster.sealed;
        let domain = self.cluster.domain();
        let wanted: HashSet<ChunkId> = batch.places.iter().map(|(id, _)| *id).collect();
        let located = chunks::locate_all(sealed, domain, self.index, &wanted).await?;
        let reads = chunks::plan_reads(domain, located);
        let batch = Arc::new(batch);
        let at_once = self.pool.current_num_threads() + 1;
        futures::stream::iter(reads)
            .map(|read| {
                let batch = batch.clone();
                async move {
                    self.cancel.check()?;
                    let bad = match chunks::fetch(sealed, &read).await {
                        Ok(bytes) => self.scatter(batch.clone(), read, bytes).await?,
                        Err(error) if error.is_damage() => {
                            read.chunks.into_iter().map(|(chunk, _)| chunk).collect()
                        }
                        Err(error) => return Err(error.into()),
                    };
                    self.write_other_copies(&batch, bad).await
                }
            })
            .buffer_unordered(at_once)
            .try_collect()
            .await
    }

    /// Writes chunks whose first copy is bad from another one that is good.
    async fn write_other_copies(
        &self,
        batch: &Batch,
        bad: Vec<ChunkId>,
    ) -> Result<(), EngineError> {
        let mut file = None;
        for chunk in bad {
            self.cancel.check()?;
            let sealed = &self.cluster.sealed;
            let plain = chunks::read_any(sealed, self.cluster.domain(), self.index, &chunk).await?;
            write_places(&mut file, &plain, batch, &chunk, &self.progress)?;
        }
        Ok(())
    }

    /// Opens the chunks of a read on the pool and writes them to their places; gives those that
    /// are bad.
    async fn scatter(
        &self,
        batch: Arc<Batch>,
        read: chunks::ReadRange,
        bytes: bytes::Bytes,
    ) -> Result<Vec<ChunkId>, EngineError> {
        let (done, waiting) = tokio::sync::oneshot::channel();
        let sealed = self.cluster.sealed.clone();
        let progress = self.progress.clone();
        self.pool.spawn(move || {
            let result = scatter_read(&sealed, &batch, &read, &bytes, &progress);
            // Nobody waits any more when another part failed.
            let _ = done.send(result);
        });
        waiting.await.unwrap_or_else(|_| {
            let message = "a thread that writes files ended before its work was done";
            Err(EngineError::refused(ErrorKind::Internal, message))
        })
    }
}

#[derive(Default)]
struct Writer {
    buffers: chunks::Buffers,
    file: Option<(u32, File)>,
}

fn scatter_read(
    sealed: &SealedStore,
    batch: &Batch,
    read: &chunks::ReadRange,
    bytes: &[u8],
    progress: &Progress,
) -> Result<Vec<ChunkId>, EngineError> {
    let opener = chunks::Opener::new(sealed, read, bytes);
    let opened = read.chunks.par_iter().map_init(Writer::default, |writer, (chunk, location)| {
        let Writer { buffers, file } = writer;
        match opener.open((chunk, location), buffers) {
            Ok(plain) => write_places(file, plain, batch, chunk, progress).map(|()| None),
            Err(_) => Ok(Some(*chunk)),
        }
    });
    let bad: Vec<Option<ChunkId>> = opened.collect::<Result<_, EngineError>>()?;
    Ok(bad.into_iter().flatten().collect())
}

/// Writes a chunk's bytes to all of its places.
fn write_places(
    file: &mut Option<(u32, File)>,
    plain: &[u8],
    batch: &Batch,
    chunk: &ChunkId,
    progress: &Progress,
) -> Result<(), EngineError> {
    let mut written = 0;
    for (_, place) in batch.of(chunk) {
        write(file, plain, batch, place)?;
        written += u64::from(place.len);
    }
    progress.advance(written);
    Ok(())
}

/// Writes a chunk's bytes to one of its places; `open` is the file that was written to last.
fn write(
    open: &mut Option<(u32, File)>,
    plain: &[u8],
    batch: &Batch,
    place: &Place,
) -> Result<(), EngineError> {
    let number = usize::try_from(place.file).unwrap_or(usize::MAX);
    let Some(path) = batch.files.get(number) else { return Ok(()) };
    let fail = |error| EngineError::file("write", path, error);
    let from = usize::try_from(place.chunk_offset).unwrap_or(usize::MAX);
    let len = usize::try_from(place.len).unwrap_or(usize::MAX);
    let bytes = plain.get(from..).and_then(|rest| rest.get(..len)).ok_or_else(|| {
        let message = format!("a chunk of {} is shorter than its map says", path.display());
        EngineError::refused(ErrorKind::Corrupt, message)
    })?;
    let file = match open {
        Some((number, file)) if *number == place.file => file,
        open => {
            let file = OpenOptions::new().write(true).open(path).map_err(fail)?;
            &mut open.insert((place.file, file)).1
        }
    };
    file.write_all_at(bytes, place.offset).map_err(fail)
}

fn map_chunk(piece: &Piece) -> Option<ChunkId> {
    match &piece.map {
        PieceMap::Chunk { id, .. } => Some(*id),
        PieceMap::Zeros | PieceMap::Inline(_) => None,
    }
}

/// The maps of a file's pieces; that of a piece of zeros is one extent.
fn maps_of(job: &Job, read: &HashMap<ChunkId, Vec<u8>>) -> Result<Vec<FileMap>, EngineError> {
    use pgrecall_repo::format::map::Extent;
    let mut maps = Vec::with_capacity(job.pieces.len());
    for piece in &job.pieces {
        let fail = |source| RepoError::Corrupt {
            object: format!("the map of {}", job.place.display()),
            source,
        };
        let map = match &piece.map {
            PieceMap::Zeros => FileMap {
                extents: vec![Extent { len: piece.len, source: Source::Zeros }],
                ..FileMap::default()
            },
            PieceMap::Inline(bytes) => FileMap::decode(bytes).map_err(fail)?,
            PieceMap::Chunk { id, .. } => {
                let bytes = read.get(id).map(Vec::as_slice).unwrap_or_default();
                FileMap::decode(bytes).map_err(fail)?
            }
        };
        if map.len() != piece.len {
            let message = format!(
                "the map of {} describes {} bytes where the file table says {}",
                job.place.display(),
                map.len(),
                piece.len
            );
            return Err(EngineError::refused(ErrorKind::Corrupt, message));
        }
        maps.push(map);
    }
    Ok(maps)
}

/// All that is not zero, of a file that was just made.
fn fresh_places(file: u32, maps: &[FileMap], places: &mut Vec<(ChunkId, Place)>) {
    let mut offset = 0;
    for map in maps {
        for extent in &map.extents {
            if let Source::Chunk { chunk, offset: chunk_offset } = extent.source {
                let chunk = map.chunks.get(usize::try_from(chunk).unwrap_or(usize::MAX));
                let len = u32::try_from(extent.len);
                if let (Some(chunk), Ok(len)) = (chunk, len) {
                    places.push((chunk.id, Place { file, offset, chunk_offset, len }));
                }
            }
            offset += extent.len;
        }
    }
}

/// Makes a folder, or sees that one is there.
pub(super) fn make_folder(
    place: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<(), EngineError> {
    let fail = |act| move |error| EngineError::file(act, place, error);
    match std::fs::symlink_metadata(place) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            let message = format!("{} is in the way: a directory goes there", place.display());
            return Err(EngineError::refused(ErrorKind::AlreadyExists, message));
        }
        Err(_) => DirBuilder::new().mode(0o700).create(place).map_err(fail("create"))?,
    }
    let mode = (mode & 0o750) | 0o700;
    std::fs::set_permissions(place, Permissions::from_mode(mode))
        .map_err(fail("set the mode of"))?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(place, Some(uid), Some(gid)).map_err(fail("set the owner of"))?;
    }
    Ok(())
}
