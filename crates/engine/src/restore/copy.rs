//! The files of a backup, out of the repository and into their places: what has to be written is
//! found batch by batch, and brought unit by unit (`unit.rs`).

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use pgrecall_repo::chunks::Salvaged;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::map::{FileMap, Source};
use pgrecall_repo::format::table::{Entry, EntryKind, Piece, PieceMap};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::index::{Index, Location};
use pgrecall_repo::{RepoError, chunks, manifests};
use rustix::fs::OFlags;
use tokio::sync::mpsc;

use super::batch::{Batch, Looked, NO_LINK};
use super::layout::{Layout, is_left_out};
use super::lost::{Losses, OnLoss};
use super::threads::Threads;
use super::unit::{self, Opening, Unit};
use crate::cancel::Cancel;
use crate::catalog::chain;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::meanwhile::{or_changed, require_unchanged};
use crate::progress::Progress;

/// `global/pg_control` is written under this name and gets its own at the very end.
pub const CONTROL_BESIDE: &str = "global/.pgrecall-pg_control";

/// The file without which no server starts.
pub const CONTROL: &[u8] = b"global/pg_control";

/// Parts of the file table looked at in one go.
const TABLES_AT_ONCE: usize = 64;

/// Bytes of a file that a place of it stands for, about.
const PLACED_BYTES: u64 = 64 << 10;

/// Bytes and files of a batch.
const BATCH_BYTES: u64 = 1 << 30;
const BATCH_FILES: usize = 512;

/// Batches looked at ahead of the one being written.
const BATCHES_AHEAD: usize = 1;

/// Units fetched ahead of those being written.
const UNITS_AHEAD: usize = 2;

/// Reads of one unit under way at once.
const READS_OF_A_UNIT: usize = 8;

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
    /// What becomes of what the repository has lost.
    pub on_loss: OnLoss,
    /// Where that is noted.
    pub(super) losses: &'a Losses,
    /// Who is to own them, when that can be chosen.
    pub owner: Option<(u32, u32)>,
    /// Threads for hashes, ciphers and writes.
    pub threads: Threads,
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

impl Copied {
    fn add(&mut self, more: Self) {
        self.files += more.files;
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.written_bytes = self.written_bytes.saturating_add(more.written_bytes);
    }
}

/// A file on its way.
pub(super) struct Job {
    /// Its name in the backup.
    pub(super) name: Vec<u8>,
    pub(super) place: PathBuf,
    pub(super) len: u64,
    pub(super) mode: u32,
    pub(super) control: bool,
    pieces: Vec<Piece>,
}

/// Files that wait for their batch to fill.
#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    bytes: u64,
}

impl Waiting {
    fn add(&mut self, job: Job) {
        self.bytes = self.bytes.saturating_add(job.len);
        self.jobs.push(job);
    }

    /// Two batches are in memory at once; a file of many small extents is as long as it is.
    fn is_batch(&self, memory_budget_bytes: u64) -> bool {
        let places = self.jobs.len() as u64 + self.bytes / PLACED_BYTES;
        self.bytes >= BATCH_BYTES
            || self.jobs.len() >= BATCH_FILES
            || places.saturating_mul(PLACE_BYTES) > memory_budget_bytes / 8
    }

    fn take(&mut self) -> Vec<Job> {
        self.bytes = 0;
        std::mem::take(&mut self.jobs)
    }
}

/// A run of bytes that has to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) chunk_offset: u32,
    pub(super) len: u32,
    /// Bytes of the whole chunk, all of which is fetched.
    pub(super) chunk_len: u32,
}

impl Copier<'_> {
    /// Copies everything but links, in order of paths. Once this has ended, well or not, nothing
    /// writes any more.
    ///
    /// # Errors
    /// When the repository or the disk fails.
    pub async fn run(
        self,
        manifest: &Manifest,
        seen: impl FnMut(&[u8]),
    ) -> Result<Copied, EngineError> {
        let (looked, to_write) = mpsc::channel(BATCHES_AHEAD);
        let done =
            futures::try_join!(self.look_at_all(manifest, seen, looked), self.write(to_write));
        self.threads.end().await;
        match done {
            Ok((copied, ())) => {
                if !self.losses.is_empty() {
                    require_unchanged(self.cluster, manifest).await?;
                }
                Ok(copied)
            }
            Err(error) => {
                // What seems lost may be what others have moved or removed.
                if self.on_loss == OnLoss::Zeros
                    && let Err(changed) = require_unchanged(self.cluster, manifest).await
                    && changed.kind() == ErrorKind::Conflict
                {
                    return Err(changed);
                }
                Err(or_changed(self.cluster, manifest, error).await)
            }
        }
    }

    async fn look_at_all(
        &self,
        manifest: &Manifest,
        mut seen: impl FnMut(&[u8]),
        looked: mpsc::Sender<Looked>,
    ) -> Result<Copied, EngineError> {
        let mut copied = Copied::default();
        let mut waiting = Waiting::default();
        let mut last: Option<Vec<u8>> = None;
        for part in manifest.tables.chunks(TABLES_AT_ONCE) {
            let mut entries: Vec<Entry> = Vec::new();
            let domain = self.cluster.domain();
            manifests::each_table(&self.cluster.sealed, domain, self.index, part, |more| {
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
                    waiting.add(job);
                }
                last = Some(path);
                if waiting.is_batch(self.memory_budget_bytes) {
                    self.pass_on(waiting.take(), &looked, &mut copied).await?;
                }
            }
        }
        self.pass_on(waiting.take(), &looked, &mut copied).await?;
        Ok(copied)
    }

    async fn pass_on(
        &self,
        jobs: Vec<Job>,
        looked: &mpsc::Sender<Looked>,
        copied: &mut Copied,
    ) -> Result<(), EngineError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let batch = self.look(jobs).await?;
        copied.add(batch.copied);
        // Nobody listens any more when writing has failed, and that is told there.
        let _ = looked.send(batch).await;
        Ok(())
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
            EntryKind::Directory if self.layout.left_behind.contains(path) => Ok(None),
            EntryKind::Directory => {
                make_folder(&place, mode, self.owner)?;
                Ok(None)
            }
            EntryKind::Link(_) => Ok(None),
            EntryKind::File(pieces) | EntryKind::Outside(_, pieces) => {
                let name = path.to_vec();
                Ok(Some(Job { name, place, len, mode, pieces, control }))
            }
        }
    }

    /// Reads the maps of a batch's files, makes the files, and finds what has to be written.
    async fn look(&self, jobs: Vec<Job>) -> Result<Looked, EngineError> {
        self.cancel.check()?;
        let wanted: HashSet<ChunkId> =
            jobs.iter().flat_map(|job| &job.pieces).filter_map(map_chunk).collect();
        let read = self.read_many(&wanted).await?;
        let mut maps: Vec<Vec<FileMap>> = Vec::with_capacity(jobs.len());
        for job in &jobs {
            self.note_lost_maps(job, &read)?;
            maps.push(maps_of(job, &read)?);
        }
        drop(read);
        let hashes = match self.reuse {
            Reuse::Nothing => HashMap::new(),
            Reuse::Pages => {
                let wanted = maps.iter().flatten().flat_map(|map| &map.hash_chunks);
                let wanted: HashSet<ChunkId> = wanted.map(|chunk| chunk.id).collect();
                // A page whose hash is lost is written.
                self.read_many(&wanted).await?.plain
            }
        };
        let keys = self.cluster.sealed.keys().clone();
        let (reuse, owner) = (self.reuse, self.owner);
        let batch = Batch { jobs, maps, hashes, reuse, owner, keys };
        let looked = self.threads.run(move |going| batch.look(going)).await?;
        self.progress.advance(looked.copied.bytes.saturating_sub(looked.copied.written_bytes));
        Ok(looked)
    }

    /// Brings what has to be written, several units at once, while the next batch is looked at.
    async fn write(&self, looked: mpsc::Receiver<Looked>) -> Result<(), EngineError> {
        let ahead = self.threads.count() + UNITS_AHEAD;
        let batches = futures::stream::unfold(looked, |mut looked| async move {
            looked.recv().await.map(|batch| (batch, looked))
        });
        let units = batches.flat_map(|batch| {
            let (files, names) = (Arc::new(batch.files), Arc::new(batch.names));
            let cut = unit::cut(batch.places).into_iter();
            let unit = move |places| (Unit::new(files.clone(), places), names.clone());
            futures::stream::iter(cut.map(unit))
        });
        units
            .map(|(unit, names)| async move {
                self.cancel.check()?;
                self.bring(unit, &names).await
            })
            .buffer_unordered(ahead)
            .try_collect()
            .await
    }

    /// Fetches the chunks of a unit, opens them on the pool and writes them to their places.
    async fn bring(&self, unit: Unit, names: &[Vec<u8>]) -> Result<(), EngineError> {
        let sealed = &self.cluster.sealed;
        let domain = self.cluster.domain();
        let (located, lacking) = self.locate(unit.chunks()).await?;
        let fetched = futures::stream::iter(chunks::plan_reads(domain, located))
            .map(|read| async move {
                match chunks::fetch(sealed, &read).await {
                    Ok(bytes) => Ok((read, Some(bytes))),
                    // Its chunks may have other copies.
                    Err(error) if error.is_damage() => Ok((read, None)),
                    Err(error) => Err(EngineError::from(error)),
                }
            })
            .buffer_unordered(READS_OF_A_UNIT)
            .try_collect::<Vec<_>>()
            .await?;
        let (keys, progress) = (sealed.clone(), self.progress.clone());
        let unit = Arc::new(unit);
        let opening = unit.clone();
        let opening = move |going: &_| opening.open(&keys, (&fetched, &lacking), &progress, going);
        let opened = self.threads.run(opening).await?;
        let Opening::Lacks { small, bad } = opened else { return Ok(()) };
        self.cancel.check()?;
        let others = match self.on_loss {
            OnLoss::Refuse => chunks::read_others(sealed, domain, self.index, bad).await?,
            OnLoss::Zeros => self.salvage(&unit, names, bad).await?,
        };
        let progress = self.progress.clone();
        self.threads.run(move |going| unit.finish(small, &others, &progress, going)).await
    }

    /// Where chunks are, and which of them are nowhere.
    async fn locate(
        &self,
        wanted: HashSet<ChunkId>,
    ) -> Result<(Vec<(ChunkId, Location)>, Vec<ChunkId>), EngineError> {
        let sealed = &self.cluster.sealed;
        match self.on_loss {
            OnLoss::Refuse => {
                Ok((chunks::locate_all(sealed, self.index, &wanted).await?, Vec::new()))
            }
            OnLoss::Zeros => {
                let located = self.index.locate(sealed, &wanted).await?;
                let lacking = wanted.into_iter().filter(|chunk| !located.contains_key(chunk));
                let lacking = lacking.collect();
                Ok((located.into_iter().collect(), lacking))
            }
        }
    }

    /// Reads chunks of metadata.
    async fn read_many(&self, wanted: &HashSet<ChunkId>) -> Result<Salvaged, EngineError> {
        let (sealed, domain) = (&self.cluster.sealed, self.cluster.domain());
        Ok(match self.on_loss {
            OnLoss::Refuse => {
                let plain = chunks::read_many(sealed, domain, self.index, wanted).await?;
                Salvaged { plain, ..Salvaged::default() }
            }
            OnLoss::Zeros => chunks::salvage_many(sealed, domain, self.index, wanted).await?,
        })
    }

    /// Without its map nobody knows of what chunks a piece of a file was made.
    fn note_lost_maps(&self, job: &Job, read: &Salvaged) -> Result<(), EngineError> {
        let mut start = 0;
        for piece in &job.pieces {
            let end = start + piece.len;
            if let Some(error) = map_chunk(piece).and_then(|chunk| read.lost.get(&chunk)) {
                self.losses.require_disk(error)?;
                self.losses.add(&job.name, start..end, &chain(error))?;
            }
            start = end;
        }
        Ok(())
    }

    /// What there is of chunks, and zeros for those that are lost, whose places are noted.
    async fn salvage(
        &self,
        unit: &Unit,
        names: &[Vec<u8>],
        bad: Vec<ChunkId>,
    ) -> Result<HashMap<ChunkId, Vec<u8>>, EngineError> {
        let (sealed, domain) = (&self.cluster.sealed, self.cluster.domain());
        let salvaged = chunks::salvage_others(sealed, domain, self.index, bad).await?;
        let mut plain = salvaged.plain;
        for (chunk, error) in &salvaged.lost {
            self.losses.require_disk(error)?;
            let reason = chain(error);
            for place in unit.places_of(chunk) {
                let number = usize::try_from(place.file).unwrap_or(usize::MAX);
                let name = names.get(number).map(Vec::as_slice).unwrap_or_default();
                self.losses.add(
                    name,
                    place.offset..place.offset + u64::from(place.len),
                    &reason,
                )?;
                let len = usize::try_from(place.chunk_len).unwrap_or(0);
                plain.entry(*chunk).or_insert_with(|| vec![0; len]);
            }
        }
        Ok(plain)
    }
}

fn map_chunk(piece: &Piece) -> Option<ChunkId> {
    match &piece.map {
        PieceMap::Chunk { id, .. } => Some(*id),
        PieceMap::Zeros | PieceMap::Inline(_) => None,
    }
}

/// The maps of a file's pieces; that of a piece of zeros, or of one that is lost, is one extent.
fn maps_of(job: &Job, read: &Salvaged) -> Result<Vec<FileMap>, EngineError> {
    use pgrecall_repo::format::map::Extent;
    let mut maps = Vec::with_capacity(job.pieces.len());
    for piece in &job.pieces {
        let fail = |source| RepoError::Corrupt {
            object: format!("the map of {}", job.place.display()),
            source,
        };
        let zeros = || FileMap {
            extents: vec![Extent { len: piece.len, source: Source::Zeros }],
            ..FileMap::default()
        };
        let map = match &piece.map {
            PieceMap::Zeros => zeros(),
            PieceMap::Chunk { id, .. } if read.lost.contains_key(id) => zeros(),
            PieceMap::Inline(bytes) => FileMap::decode(bytes).map_err(fail)?,
            PieceMap::Chunk { id, .. } => {
                let bytes = read.plain.get(id).map(Vec::as_slice).unwrap_or_default();
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
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(NO_LINK | OFlags::DIRECTORY.bits().cast_signed());
    let folder = options.open(place).map_err(fail("open"))?;
    let mode = (mode & 0o750) | 0o700;
    folder.set_permissions(Permissions::from_mode(mode)).map_err(fail("set the mode of"))?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(&folder, Some(uid), Some(gid))
            .map_err(fail("set the owner of"))?;
    }
    Ok(())
}
