//! A backup from beginning to end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::control::{ControlFile, DataChecksums};
use pgrecall_pgformat::page_check::PageChecksums;
use pgrecall_pgserver::{Checkpoint, ConnectOptions, RunningBackup, Server, ServerInfo};
use pgrecall_repo::RepoError;
use pgrecall_repo::backup::{BackupNote, BackupSession};
use pgrecall_repo::codec::Level;
use pgrecall_repo::damaged_chunks::ChunkNotes;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::manifests::{self, Backup};
use tokio::task::JoinHandle;

use crate::backup::assemble::{self, Assembly, Copied};
use crate::backup::copy::{Copier, CopyOptions};
use crate::backup::listing::{self, Located};
use crate::backup::neighbours::{Host, make_way};
use crate::backup::proof::{self, read_control};
use crate::backup::reference::Reference;
use crate::backup::source::{self, Listing, SourceEntry, SourceKind};
use crate::backup::wal_wait::{self, Archiving, Waiting};
use crate::backup::{histories, incarnation, wal_proof};
use crate::cancel::Cancel;
use crate::catalog::chain;
use crate::clock::Clock;
use crate::cluster::ClusterStore;
use crate::details::{BackupDetails, TakenFrom};
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;
use crate::retention::floor;

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
    /// Notes of damage that do not read, sentences: what the backup shares with others may be among
    /// what they spoke of.
    pub unread_notes: Vec<String>,
}

/// Bytes of a cluster above which chunks are four times as large.
const LARGE_CLUSTER_BYTES: u64 = 1 << 40;

/// Tries of a backup whose old chunks turn out to be damaged: what the first one has found bad is
/// stored again by the second.
const TRIES: usize = 2;

/// Takes a backup. When this returns without an error, it exists, and can be restored.
///
/// # Errors
/// Whatever fails; nothing that was stored before is harmed, and what was copied serves the next
/// try.
pub async fn run(request: &BackupRequest) -> Result<BackupReport, EngineError> {
    let began = request.clock.elapsed();
    let mut tries = Vec::new();
    loop {
        match run_once(request, &mut tries).await {
            Ok((id, details)) => {
                let elapsed = request.clock.elapsed().saturating_sub(began);
                let unread_notes = unread_notes(&request.cluster).await;
                return Ok(BackupReport { id, details, elapsed, unread_notes });
            }
            Err(Ended { error, sequel: Sequel::TryAgain }) if tries.len() < TRIES => {
                request.progress.note(format!(
                    "{error}; what was found bad is stored again: the backup starts anew, and \
                     what it copied so far is used"
                ));
            }
            Err(ended) => return Err(ended.error),
        }
    }
}

/// The backup exists by now: what cannot be asked is told.
async fn unread_notes(cluster: &ClusterStore) -> Vec<String> {
    match ChunkNotes::read(&cluster.sealed, cluster.domain()).await {
        Ok(notes) => notes.unread.iter().map(|note| chain(&note.error)).collect(),
        Err(error) => vec![chain(&error)],
    }
}

async fn run_once(
    request: &BackupRequest,
    tries: &mut Vec<BackupId>,
) -> Result<(BackupId, BackupDetails), Ended> {
    let server = Server::connect(&request.server).await?;
    let info = server.info().await?;
    proof::check_server(request, &info)?;
    let host = Host { name: request.host.clone(), process: request.process };
    make_way(&request.cluster, &host, tries, &request.progress).await?;
    let before = manifests::list(&request.cluster.sealed, request.cluster.domain()).await?;
    let note = BackupNote {
        host: request.host.clone(),
        process: request.process,
        incarnation: incarnation::of(request.process),
        began: request.clock.now_text(),
    };
    let (sealed, at) = (request.cluster.sealed.clone(), request.cluster.at.clone());
    let session = Arc::new(BackupSession::begin(sealed, at, &note).await?);
    tries.push(session.id());
    let run = Run { request, info, session: session.clone(), before: before.valid };
    let result = match make_way(&request.cluster, &host, tries, &request.progress).await {
        Ok(()) => run.copy_and_commit(server, note.began).await,
        Err(error) => Err(error.into()),
    };
    if result.is_err()
        && let Err(left) = session.abandon().await
    {
        // The error is what counts; a store that is gone cannot be tidied either.
        tracing::warn!(%left, "what this backup stored may not serve the next one");
    }
    result
}

/// Whether another try can do better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sequel {
    End,
    TryAgain,
}

/// A backup that ended without a manifest that is known to be there.
struct Ended {
    error: EngineError,
    sequel: Sequel,
}

impl<E: Into<EngineError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self { error: error.into(), sequel: Sequel::End }
    }
}

impl Ended {
    /// A commit that failed. One that met missing packs or bad chunks has noted what is bad, so
    /// that it is stored again by the next try.
    fn in_commit(error: RepoError) -> Self {
        let sequel = match &error {
            RepoError::PacksMissing { .. }
            | RepoError::ChunkMissing { .. }
            | RepoError::Corrupt { .. }
            | RepoError::KeysMissing { .. } => Sequel::TryAgain,
            _ => Sequel::End,
        };
        Self { error: error.into(), sequel }
    }
}

struct Run<'a> {
    request: &'a BackupRequest,
    info: ServerInfo,
    session: Arc<BackupSession>,
    before: Vec<Backup>,
}

/// A copier and the task that puts its packs.
type Copying = (Arc<Copier>, JoinHandle<Result<u64, EngineError>>);

impl Run<'_> {
    async fn copy_and_commit(
        &self,
        server: Server,
        began: String,
    ) -> Result<(BackupId, BackupDetails), Ended> {
        let request = self.request;
        let reference = self.reference().await?;
        let files = listing::configuration_files(&server, &request.pgdata, &self.info).await?;
        request.progress.phase("waiting for the checkpoint", None);
        let label = format!("pgrecall {}", self.session.id());
        let running = tokio::select! {
            // A session that ends takes its backup along.
            () = request.cancel.raised() => return Err(EngineError::Cancelled.into()),
            running = server.start_backup(&label, request.checkpoint) => running?,
        };
        let timeline = running.start_timeline().to_string();
        self.session.put_start(timeline, running.start_lsn().to_string()).await?;
        // Whoever expires WAL from now on sees where this starts; what went before stands in a log.
        floor::require_wal_from(&request.cluster, running.start_timeline(), running.start_lsn())
            .await?;
        let lost = running.lost();
        let (copied, (copier, putting)) = tokio::select! {
            copied = self.copy(&running, reference, files) => copied?,
            error = lost => {
                // The threads see it at their next file.
                request.cancel.raise();
                return Err(error.into());
            }
        };
        request.progress.phase("finishing", None);
        let (stopped, server) = running.stop().await?;
        let assembly = Assembly {
            request,
            session: &self.session,
            info: &self.info,
            began,
            stopped: &stopped,
            saw_backups: self.own_before().map(|backup| backup.manifest.backup).collect(),
        };
        let manifest = assembly.manifest(copied, &copier).await;
        drop(copier);
        put_result(putting).await?;
        let (document, details) = manifest?;
        // The wait may take an hour: whatever ends it, the next try is to find all that was copied.
        self.session.flush_index().await?;
        self.wait_for_wal(&details, &server).await?;
        request.cancel.check()?;
        match self.session.commit(&document).await {
            Ok(()) => Ok((self.session.id(), details)),
            Err(error) => Err(Ended::in_commit(error)),
        }
    }

    /// The backups of this lineage that were there.
    fn own_before(&self) -> impl Iterator<Item = &Backup> {
        self.before.iter().filter(|backup| backup.at == self.request.cluster.at)
    }

    /// The backup to compare with: the newest that this server's history has gone through, for one
    /// of a timeline that was left shares less; failing that, the newest of all.
    async fn reference(&self) -> Result<Option<Reference>, EngineError> {
        let history = histories::local(&self.request.pgdata, self.info.timeline)?;
        let ours = |details: &BackupDetails| {
            let last = Lsn(details.stop.lsn.0.saturating_sub(1));
            history.owner_of(last) == details.stop.timeline
        };
        let newest = self
            .own_before()
            .filter_map(|backup| Some((backup, BackupDetails::of(&backup.manifest).ok()?)))
            .filter(|(_, d)| d.page_size_bytes == self.request.cluster.facts.page_size_bytes)
            .max_by_key(|(_, details)| (ours(details), details.stop.lsn, details.ended));
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
        files: Vec<source::OutsideFile>,
    ) -> Result<(Copied, Copying), EngineError> {
        let request = self.request;
        let pgdata = &request.pgdata;
        let control = read_control(|| source::control_file(pgdata)).await?.1;
        proof::check_directory(pgdata, running, &control).await?;
        let Located { source, listing, tablespaces } =
            listing::list(pgdata, &control, files, running.server()).await?;
        let total = listing.entries.iter().map(len_of).sum();
        for note in &listing.notes {
            request.progress.note(note.clone());
        }
        request.progress.phase("copying files", Some(total));
        let options = self.options(running, &control, reference.as_ref(), total);
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
            blocking(move || assemble::collect(&entries, copier.copy(&entries)?)).await
        };
        let (mut entries, bad) = match copied {
            Ok(copied) => copied,
            Err(error) => return Err(cause(error, (copier, putting)).await),
        };
        // Last of all files, and before pg_backup_stop: on a standby recovery takes the end of the
        // backup from it.
        let (bytes, control) = read_control(|| source.control_file()).await?;
        match assemble::control_entry(pgdata, &copier, bytes).await {
            Ok(entry) => entries.push(entry),
            Err(error) => return Err(cause(error, (copier, putting)).await),
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let copied = Copied { entries, bad, pg_wal_link, tablespaces, control };
        Ok((copied, (copier, putting)))
    }

    fn options(
        &self,
        running: &RunningBackup,
        control: &ControlFile,
        reference: Option<&Reference>,
        total: u64,
    ) -> CopyOptions {
        let chunk_bytes = match reference {
            Some(reference) => reference.details.chunk_bytes,
            None if total > LARGE_CLUSTER_BYTES => 1 << 20,
            None => 256 << 10,
        };
        CopyOptions {
            threads: self.request.threads,
            level: self.request.level,
            chunk_bytes,
            page_size: control.page_size_bytes,
            relation_segment_pages: control.relation_segment_pages,
            checksums: match control.data_checksums {
                DataChecksums::On { .. } => PageChecksums::On,
                DataChecksums::Off => PageChecksums::Off,
            },
            start_lsn: running.start_lsn(),
        }
    }

    async fn wait_for_wal(
        &self,
        details: &BackupDetails,
        server: &Server,
    ) -> Result<(), EngineError> {
        let request = self.request;
        request.progress.phase("waiting for WAL", None);
        let mut last = details.stop;
        let mut archiving = Archiving::Itself;
        if details.from == TakenFrom::Standby {
            let known = request.primary.is_some();
            archiving = if known { Archiving::Primary } else { Archiving::UnknownPrimary };
            last.lsn = last.lsn.max(self.close_segment().await?.unwrap_or(last.lsn));
        }
        let history = histories::local(&request.pgdata, last.timeline)?;
        let needed = wal_wait::needed(&request.cluster, details.start, last, &history);
        let waiting = Waiting {
            cluster: &request.cluster,
            pgdata: &request.pgdata,
            start: details.start.lsn,
            server,
            archiving,
            patience: request.wal_timeout,
            clock: &request.clock,
            cancel: &request.cancel,
        };
        waiting.wait(&needed).await?;
        histories::require(request, details.stop.timeline).await?;
        wal_proof::check(&request.cluster, &request.pgdata, details, &needed).await
    }

    /// A standby cannot close the segment that the backup ends in; its primary can. It writes a
    /// record besides, and tells where that ends: recovery finds itself consistent when it looks
    /// for the record after the last one it needs (`PerformWalRecovery`), and an idle primary
    /// writes none.
    async fn close_segment(&self) -> Result<Option<Lsn>, EngineError> {
        let Some(primary) = &self.request.primary else {
            self.request.progress.note(
                "the backup is of a standby and no primary is configured: its last WAL segment is \
                 complete when the primary has filled it",
            );
            return Ok(None);
        };
        let primary = Server::connect(primary).await?;
        let name = format!("pgrecall {}", self.session.id());
        let mark = match primary.create_restore_point(&name).await {
            Ok(mark) => Some(mark),
            Err(error) => {
                self.request.progress.note(format!("no record after the backup's end: {error}"));
                None
            }
        };
        primary.switch_wal().await?;
        primary.close().await;
        Ok(mark)
    }
}

fn len_of(entry: &SourceEntry) -> u64 {
    match entry.kind {
        SourceKind::File { len } | SourceKind::Outside { len, .. } => len,
        SourceKind::Directory | SourceKind::Link { .. } => 0,
    }
}

/// Runs what blocks on a thread of its own.
///
/// # Errors
/// As the work.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Why the copy ended: the packs' own error, when it only stopped because they could not be put.
async fn cause(error: EngineError, (copier, putting): Copying) -> EngineError {
    drop(copier);
    put_result(putting).await.err().unwrap_or(error)
}

async fn put_result(putting: JoinHandle<Result<u64, EngineError>>) -> Result<u64, EngineError> {
    match putting.await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
