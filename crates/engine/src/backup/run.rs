//! A backup from beginning to end.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgrecall_pgformat::TimelineId;
use pgrecall_pgformat::control::{ControlFile, DataChecksums};
use pgrecall_pgformat::label::BackupLabel;
use pgrecall_pgformat::page_check::PageChecksums;
use pgrecall_pgserver::{
    Checkpoint, ConnectOptions, RecoveryState, RunningBackup, Server, ServerInfo, StoppedBackup,
};
use pgrecall_repo::backup::{BackupNote, BackupSession};
use pgrecall_repo::codec::Level;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::map::FileMap;
use pgrecall_repo::format::table::{Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::id::BackupId;
use pgrecall_repo::manifests::{self, Backup};
use tokio::task::JoinHandle;

use crate::backup::copy::{CopiedFile, Copier, CopyOptions};
use crate::backup::map_builder::MapBuilder;
use crate::backup::neighbours::{Host, make_way};
use crate::backup::reference::Reference;
use crate::backup::source::{Listing, LocalSource, Source, SourceEntry, SourceKind};
use crate::backup::table_writer;
use crate::backup::wal_wait::{self, Waiting};
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::cluster::ClusterStore;
use crate::details::{
    BackupDetails, BackupStats, DamagedFile, Method, Position, Tablespace, TakenFrom,
};
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;

/// A backup to be taken.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The cluster, registered in the repository.
    pub cluster: ClusterStore,
    /// Its data directory on this host.
    pub pgdata: PathBuf,
    /// How to reach the server.
    pub server: ConnectOptions,
    /// How to reach the primary, for a backup taken from a standby: to close the last segment.
    pub primary: Option<ConnectOptions>,
    /// How the first checkpoint is run.
    pub checkpoint: Checkpoint,
    /// Threads that read, hash, compress and seal.
    pub threads: usize,
    /// zstd's level.
    pub level: Level,
    /// How long to wait for a WAL segment.
    pub wal_timeout: Duration,
    /// This host's name.
    pub host: String,
    /// This process.
    pub process: u32,
    /// The time.
    pub clock: Clock,
    /// A wish to stop.
    pub cancel: Cancel,
    /// Told what happens.
    pub progress: Progress,
}

/// A backup that was taken.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// Its id.
    pub id: BackupId,
    /// What its manifest says.
    pub details: BackupDetails,
    /// How long it took.
    pub elapsed: Duration,
}

/// Bytes of a cluster above which chunks are four times as large.
const LARGE_CLUSTER_BYTES: u64 = 1 << 40;

/// Takes a backup. When this returns without an error, it exists, and can be restored.
///
/// # Errors
/// Whatever fails; nothing that was stored before is harmed, and what was copied serves the next
/// try.
pub async fn run(request: &BackupRequest) -> Result<BackupReport, EngineError> {
    let began = request.clock.elapsed();
    let server = Server::connect(&request.server).await?;
    let info = server.info().await?;
    check_server(request, &info)?;
    let host = Host { name: request.host.clone() };
    make_way(&request.cluster, &host, None, &request.progress).await?;
    let before = manifests::list(&request.cluster.sealed, request.cluster.domain()).await?;
    let note = BackupNote {
        host: request.host.clone(),
        process: request.process,
        began: request.clock.now_text(),
    };
    let (sealed, at) = (request.cluster.sealed.clone(), request.cluster.at.clone());
    let session = Arc::new(BackupSession::begin(sealed, at, &note).await?);
    let run = Run { request, info, session: session.clone(), host, before: before.valid };
    match run.copy_and_commit(server, note.began).await {
        Ok((id, details)) => {
            let elapsed = request.clock.elapsed().saturating_sub(began);
            Ok(BackupReport { id, details, elapsed })
        }
        Err(error) => {
            // The error is what counts; a store that is gone cannot be tidied either.
            if let Err(left) = session.abandon().await {
                tracing::warn!(%left, "what this backup stored may not serve the next one");
            }
            Err(error)
        }
    }
}

fn check_server(request: &BackupRequest, info: &ServerInfo) -> Result<(), EngineError> {
    let ours = request.cluster.facts.system_identifier;
    if info.system_identifier != ours {
        return Err(EngineError::refused(
            ErrorKind::Invalid,
            format!(
                "the server at {} has system identifier {}, and the data directory {} has {ours}",
                request.server.address(),
                info.system_identifier,
                request.pgdata.display()
            ),
        )
        .hint("Check host and port: another cluster answers there."));
    }
    if !info.settings.full_page_writes && info.state == RecoveryState::Primary {
        return Err(EngineError::refused(
            ErrorKind::Invalid,
            "full_page_writes is off: pages that are written while they are read could not be \
             mended",
        )
        .hint("Set full_page_writes = on and reload."));
    }
    Ok(())
}

struct Run<'a> {
    request: &'a BackupRequest,
    info: ServerInfo,
    session: Arc<BackupSession>,
    host: Host,
    before: Vec<Backup>,
}

/// What came of copying.
struct Copied {
    entries: Vec<Entry>,
    damage: Vec<DamagedFile>,
    pg_wal_link: Option<PathBuf>,
    control: ControlFile,
}

/// A copier and the task that puts its packs.
type Copying = (Arc<Copier>, JoinHandle<Result<u64, EngineError>>);

impl Run<'_> {
    async fn copy_and_commit(
        &self,
        server: Server,
        began: String,
    ) -> Result<(BackupId, BackupDetails), EngineError> {
        let request = self.request;
        make_way(&request.cluster, &self.host, Some(self.session.id()), &request.progress).await?;
        let reference = self.reference().await?;
        request.progress.phase("waiting for the checkpoint", None);
        let label = format!("pgrecall {}", self.session.id());
        let running = server.start_backup(&label, request.checkpoint).await?;
        let timeline = running.start_timeline().to_string();
        self.session.put_start(timeline, running.start_lsn().to_string()).await?;
        let lost = running.lost();
        let (copied, (copier, putting)) = tokio::select! {
            copied = self.copy(&running, reference) => copied?,
            error = lost => {
                // The threads see it at their next file.
                request.cancel.raise();
                return Err(error.into());
            }
        };
        request.progress.phase("finishing", None);
        let (stopped, server) = running.stop().await?;
        let manifest = self.manifest(began, copied, &stopped, &server, &copier).await;
        drop(copier);
        put_result(putting).await?;
        let (document, details) = manifest?;
        self.wait_for_wal(&details, &server).await?;
        request.cancel.check()?;
        self.session.commit(&document).await?;
        Ok((self.session.id(), details))
    }

    /// The newest backup of this lineage, to compare with.
    async fn reference(&self) -> Result<Option<Reference>, EngineError> {
        let newest = self
            .before
            .iter()
            .filter(|backup| backup.at == self.request.cluster.at)
            .filter_map(|backup| Some((backup, BackupDetails::of(&backup.manifest).ok()?)))
            .filter(|(_, d)| d.page_size_bytes == self.request.cluster.facts.page_size_bytes)
            .max_by_key(|(_, details)| (details.stop.lsn, details.ended.clone()));
        let Some((backup, _)) = newest else { return Ok(None) };
        match Reference::read(&self.session, &backup.manifest).await {
            Ok(reference) => Ok(Some(reference)),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incomplete) => {
                tracing::warn!(
                    backup = %backup.manifest.backup,
                    %error,
                    "the file table of the last backup cannot be read: every file is stored as \
                     if it were new (what is there already is not stored again)"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn copy(
        &self,
        running: &RunningBackup,
        reference: Option<Reference>,
    ) -> Result<(Copied, Copying), EngineError> {
        let request = self.request;
        let source: Arc<dyn Source> = Arc::new(LocalSource::new(
            &request.pgdata,
            self.info.version.major(),
            outside_files(request, &self.info),
        ));
        let control = read_control(&*source).await?.1;
        let listing = {
            let source = source.clone();
            blocking(move || source.list()).await?
        };
        let total = listing.entries.iter().map(len_of).sum();
        let chunk_bytes = match &reference {
            Some(reference) => reference.details.chunk_bytes,
            None if total > LARGE_CLUSTER_BYTES => 1 << 20,
            None => 256 << 10,
        };
        let options = CopyOptions {
            threads: request.threads,
            level: request.level,
            chunk_bytes,
            page_size: control.page_size_bytes,
            relation_segment_pages: control.relation_segment_pages,
            checksums: match control.data_checksums {
                DataChecksums::On { .. } => PageChecksums::On,
                DataChecksums::Off => PageChecksums::Off,
            },
            start_lsn: running.start_lsn(),
        };
        for note in &listing.notes {
            request.progress.note(note.clone());
        }
        request.progress.phase("copying files", Some(total));
        let (copier, putting) = Copier::start(
            self.session.clone(),
            source.clone(),
            reference,
            options,
            request.cancel.clone(),
            request.progress.clone(),
        );
        let Listing { entries, pg_wal_link, .. } = listing;
        let copied = {
            let copier = copier.clone();
            blocking(move || collect(&entries, copier.copy(&entries)?)).await
        };
        let (mut entries, damage) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                drop(copier);
                return Err(put_result(putting).await.err().unwrap_or(error));
            }
        };
        // Last of all files, and before pg_backup_stop: on a standby recovery takes the end of the
        // backup from it.
        let (bytes, control) = read_control(&*source).await?;
        entries.push(self.control_entry(&copier, bytes).await?);
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((Copied { entries, damage, pg_wal_link, control }, (copier, putting)))
    }

    /// `pg_control` is small and changes always: one chunk.
    async fn control_entry(
        &self,
        copier: &Arc<Copier>,
        bytes: Vec<u8>,
    ) -> Result<Entry, EngineError> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let id = {
            let copier = copier.clone();
            blocking(move || copier.store_meta(&bytes)).await?
        };
        let mut map = MapBuilder::new(0);
        let chunk = map.fresh_chunk(id, len, Vec::new());
        map.part(chunk, 0, len.into());
        let map: FileMap = map.finish(None);
        let path = self.request.pgdata.join("global/pg_control");
        let meta =
            std::fs::metadata(&path).map_err(|source| EngineError::file("read", path, source))?;
        Ok(Entry {
            path: RelativePath::new(b"global/pg_control")
                .map_err(|error| EngineError::refused(ErrorKind::Internal, error.to_string()))?,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime_us: 0,
            kind: EntryKind::File(vec![Piece {
                len: len.into(),
                map: PieceMap::Inline(map.encode()),
            }]),
        })
    }

    async fn manifest(
        &self,
        began: String,
        copied: Copied,
        stopped: &StoppedBackup,
        server: &Server,
        copier: &Arc<Copier>,
    ) -> Result<(Manifest, BackupDetails), EngineError> {
        let bytes: u64 = copied.entries.iter().map(Entry::len).sum();
        let files =
            copied.entries.iter().filter(|e| !matches!(e.kind, EntryKind::Directory)).count();
        let count = copied.entries.len() as u64;
        let mut details = self.details(began, &copied, stopped, server).await?;
        details.chunk_bytes = copier.chunk_bytes();
        details.reference = copier.reference();
        details.method = if details.reference.is_some() { Method::Scan } else { Method::Full };
        let entries = copied.entries;
        let tables = {
            let (copier, keys) = (copier.clone(), self.session.sealed().keys().clone());
            blocking(move || {
                let tables = table_writer::write(&copier, &keys, &entries)?;
                copier.flush_meta()?;
                Ok(tables)
            })
            .await?
        };
        let counters = &copier.counters;
        details.stats = BackupStats {
            files: files as u64,
            bytes,
            read_bytes: counters.read.load(Ordering::Relaxed),
            new_bytes: counters.new.load(Ordering::Relaxed),
            stored_bytes: counters.stored.load(Ordering::Relaxed),
        };
        let manifest = Manifest {
            backup: self.session.id(),
            cluster: self.request.cluster.at.cluster.to_string(),
            lineage: self.request.cluster.at.lineage.clone(),
            tables,
            entries: count,
            bytes,
            details: details.to_value(),
        };
        Ok((manifest, details))
    }

    async fn details(
        &self,
        began: String,
        copied: &Copied,
        stopped: &StoppedBackup,
        server: &Server,
    ) -> Result<BackupDetails, EngineError> {
        let label = BackupLabel::parse(stopped.label_file.as_bytes()).map_err(|source| {
            EngineError::Postgres { path: "the server's backup label".into(), source }
        })?;
        let stop_timeline: TimelineId = server.timeline().await?;
        let control = &copied.control;
        Ok(BackupDetails {
            began,
            ended: self.request.clock.now_text(),
            host: self.request.host.clone(),
            major: control.major,
            server_version: self.info.version.number(),
            catalog_version: control.catalog_version,
            from: match self.info.state {
                RecoveryState::Primary => TakenFrom::Primary,
                RecoveryState::Standby => TakenFrom::Standby,
            },
            start: Position { timeline: label.start_timeline, lsn: label.start_lsn },
            checkpoint_lsn: label.checkpoint_lsn,
            stop: Position { timeline: stop_timeline, lsn: stopped.stop_lsn },
            backup_label: stopped.label_file.clone(),
            tablespace_map: stopped.tablespace_map.clone().unwrap_or_default(),
            tablespaces: self
                .info
                .tablespaces
                .iter()
                .map(|t| Tablespace { oid: t.oid, location: t.location.display().to_string() })
                .collect(),
            pg_wal_link: copied.pg_wal_link.as_ref().map(|p| p.display().to_string()),
            page_size_bytes: control.page_size_bytes,
            wal_segment_size: control.wal_segment_size,
            relation_segment_pages: control.relation_segment_pages,
            data_checksums: control.data_checksums,
            chunk_bytes: 0,
            method: Method::Full,
            reference: None,
            damage: copied.damage.clone(),
            stats: BackupStats::default(),
            saw_backups: self
                .before
                .iter()
                .filter(|backup| backup.at == self.request.cluster.at)
                .map(|backup| backup.manifest.backup)
                .collect(),
        })
    }

    async fn wait_for_wal(
        &self,
        details: &BackupDetails,
        server: &Server,
    ) -> Result<(), EngineError> {
        let request = self.request;
        request.progress.phase("waiting for WAL", None);
        if details.from == TakenFrom::Standby {
            self.close_segment().await?;
        }
        let history = wal_wait::history(&request.pgdata, details.stop.timeline)?;
        let needed = wal_wait::needed(&request.cluster, details.start, details.stop, &history);
        let waiting = Waiting {
            cluster: &request.cluster,
            server,
            patience: request.wal_timeout,
            clock: &request.clock,
            cancel: &request.cancel,
        };
        waiting.wait(&needed).await
    }

    /// A standby cannot close the segment that the backup ends in; its primary can.
    async fn close_segment(&self) -> Result<(), EngineError> {
        let Some(primary) = &self.request.primary else {
            self.request.progress.note(
                "the backup is of a standby and no primary is configured: its last WAL segment is \
                 complete when the primary has filled it",
            );
            return Ok(());
        };
        let primary = Server::connect(primary).await?;
        primary.switch_wal().await?;
        primary.close().await;
        Ok(())
    }
}

fn len_of(entry: &SourceEntry) -> u64 {
    match entry.kind {
        SourceKind::File { len } | SourceKind::Outside { len, .. } => len,
        SourceKind::Directory | SourceKind::Link { .. } => 0,
    }
}

/// Configuration files outside of the data directory.
fn outside_files(request: &BackupRequest, info: &ServerInfo) -> Vec<PathBuf> {
    let settings = &info.settings;
    let roots = [request.pgdata.clone(), settings.data_directory.clone()];
    [&settings.config_file, &settings.hba_file, &settings.ident_file]
        .into_iter()
        .filter(|path| path.is_absolute() && !roots.iter().any(|root| path.starts_with(root)))
        .filter(|path| path.is_file())
        .cloned()
        .collect()
}

/// Tries of a read of `pg_control` that may meet a write.
const CONTROL_TRIES: u32 = 20;

/// Reads `pg_control`; a torn read shows in its CRC and is tried again.
async fn read_control(source: &dyn Source) -> Result<(Vec<u8>, ControlFile), EngineError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let bytes = source.control_file()?;
        match ControlFile::decode(&bytes) {
            Ok(control) => return Ok((bytes, control)),
            Err(source) if tries >= CONTROL_TRIES => {
                return Err(EngineError::Postgres { path: "global/pg_control".into(), source });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Joins the listing and what became of each file.
fn collect(
    entries: &[SourceEntry],
    files: Vec<CopiedFile>,
) -> Result<(Vec<Entry>, Vec<DamagedFile>), EngineError> {
    let mut all = Vec::with_capacity(entries.len() + 1);
    let mut damage = Vec::new();
    for (entry, file) in entries.iter().zip(files) {
        damage.extend(file.damage);
        let kind = match (&entry.kind, file.pieces) {
            (SourceKind::Directory, _) => EntryKind::Directory,
            (SourceKind::Link { target }, _) => EntryKind::Link(target.clone()),
            (SourceKind::File { .. }, Some(pieces)) => EntryKind::File(pieces),
            (SourceKind::Outside { original, .. }, Some(pieces)) => {
                let original = original.as_os_str().as_encoded_bytes().to_vec();
                EntryKind::Outside(original, pieces)
            }
            // Dropped while the backup ran: WAL replay would drop it too.
            (_, None) => continue,
        };
        let path = RelativePath::new(&entry.path).map_err(|error| {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            let message = format!("the file {path:?} cannot be kept: {error}");
            EngineError::refused(ErrorKind::Invalid, message)
        })?;
        let (mode, uid, gid, mtime_us) = (entry.mode, entry.uid, entry.gid, entry.mtime_us);
        all.push(Entry { path, mode, uid, gid, mtime_us, kind });
    }
    Ok((all, damage))
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The packs' own error, when the copy only stopped because they could not be put.
async fn put_result(putting: JoinHandle<Result<u64, EngineError>>) -> Result<u64, EngineError> {
    match putting.await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
