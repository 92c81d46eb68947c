//! What becomes of a copy: the file table's entries, the details, the manifest.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::control::ControlFile;
use pgrecall_pgformat::label::{BackupFrom, BackupLabel};
use pgrecall_pgserver::{ServerInfo, StoppedBackup};
use pgrecall_repo::backup::BackupSession;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::table::{Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::id::BackupId;

use crate::backup::copy::{CopiedFile, Copier};
use crate::backup::map_builder::MapBuilder;
use crate::backup::page_scan::BadPage;
use crate::backup::piece::Content;
use crate::backup::run::{BackupRequest, blocking};
use crate::backup::source::{SourceEntry, SourceKind};
use crate::backup::table_writer;
use crate::details::{
    BackupDetails, BackupStats, DamagedFile, Method, Position, Tablespace, TakenFrom,
};
use crate::error::{EngineError, ErrorKind};

/// Damaged blocks of a file that are named one by one.
const DAMAGE_NAMED_MAX: usize = 100;

/// What came of copying.
pub struct Copied {
    /// Files and folders, in order of their paths.
    pub entries: Vec<Entry>,
    /// Pages that looked bad.
    pub bad: Vec<BadPages>,
    /// Where `pg_wal` leads, if it is a link.
    pub pg_wal_link: Option<std::path::PathBuf>,
    /// Tablespaces when the files were listed.
    pub tablespaces: Vec<Tablespace>,
    /// The control file, as it was copied last of all.
    pub control: ControlFile,
}

/// Pages of a file that looked bad twice.
pub struct BadPages {
    path: String,
    pages: Vec<BadPage>,
}

/// Joins the listing and what became of each file.
///
/// # Errors
/// When a path cannot stand in a file table.
pub fn collect(
    entries: &[SourceEntry],
    files: Vec<CopiedFile>,
) -> Result<(Vec<Entry>, Vec<BadPages>), EngineError> {
    let mut all = Vec::with_capacity(entries.len() + 1);
    let mut bad = Vec::new();
    for (entry, file) in entries.iter().zip(files) {
        if !file.bad.is_empty() {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            bad.push(BadPages { path, pages: file.bad });
        }
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
    Ok((all, bad))
}

/// Those pages that are damaged in the source, now that the end of the backup is known.
fn damage_of(bad: &[BadPages], stop: Lsn) -> Vec<DamagedFile> {
    let of_file = |file: &BadPages| {
        let damaged: Vec<u32> =
            file.pages.iter().filter(|page| page.is_damage(stop)).map(|page| page.block).collect();
        (!damaged.is_empty()).then(|| DamagedFile {
            path: file.path.clone(),
            count: damaged.len() as u64,
            blocks: damaged.into_iter().take(DAMAGE_NAMED_MAX).collect(),
        })
    };
    bad.iter().filter_map(of_file).collect()
}

/// `pg_control` is small and changes always: one chunk.
///
/// # Errors
/// When it cannot be stored.
pub async fn control_entry(
    pgdata: &Path,
    copier: &Arc<Copier>,
    bytes: Vec<u8>,
) -> Result<Entry, EngineError> {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let id = {
        let copier = copier.clone();
        blocking(move || {
            let mut pack = None;
            let id = copier.session.sealed().keys().chunk_id(&bytes);
            copier.store_data(&mut pack, Content::Region, (id, &bytes))?;
            pack.map_or(Ok(()), |pack| copier.send(pack))?;
            Ok(id)
        })
        .await?
    };
    let mut map = MapBuilder::new(0);
    let chunk = map.fresh_chunk(id, len, Vec::new());
    map.part(chunk, 0, len.into());
    let map = map.finish(None);
    let path = pgdata.join("global/pg_control");
    let meta =
        std::fs::metadata(&path).map_err(|source| EngineError::file("read", path, source))?;
    Ok(Entry {
        path: RelativePath::new(b"global/pg_control")
            .map_err(|error| EngineError::refused(ErrorKind::Internal, error.to_string()))?,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime_us: 0,
        kind: EntryKind::File(vec![Piece { len: len.into(), map: PieceMap::Inline(map.encode()) }]),
    })
}

/// What goes into a manifest beside the copy.
pub struct Assembly<'a> {
    /// What was asked for.
    pub request: &'a BackupRequest,
    /// The backup.
    pub session: &'a BackupSession,
    /// The server, before the start.
    pub info: &'a ServerInfo,
    /// When the backup began.
    pub began: String,
    /// The server's last word.
    pub stopped: &'a StoppedBackup,
    /// The cluster's backups when this one began.
    pub saw_backups: Vec<BackupId>,
}

impl Assembly<'_> {
    /// Stores the file table and gives the manifest.
    ///
    /// # Errors
    /// When the table cannot be stored, or the server's label does not read.
    pub async fn manifest(
        self,
        copied: Copied,
        copier: &Arc<Copier>,
    ) -> Result<(Manifest, BackupDetails), EngineError> {
        let bytes: u64 = copied.entries.iter().map(Entry::len).sum();
        let files =
            copied.entries.iter().filter(|e| !matches!(e.kind, EntryKind::Directory)).count();
        let count = copied.entries.len() as u64;
        let (backup, at) = (self.session.id(), self.session.at().clone());
        let keys = self.session.sealed().keys().clone();
        let mut details = self.details(&copied)?;
        details.chunk_bytes = copier.chunk_bytes();
        details.reference = copier.reference();
        details.method = if details.reference.is_some() { Method::Scan } else { Method::Full };
        let entries = copied.entries;
        let tables = {
            let copier = copier.clone();
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
            backup,
            cluster: at.cluster.to_string(),
            lineage: at.lineage,
            tables,
            entries: count,
            bytes,
            details: details.to_value(),
        };
        Ok((manifest, details))
    }

    fn details(self, copied: &Copied) -> Result<BackupDetails, EngineError> {
        let stopped = self.stopped;
        let label = BackupLabel::parse(stopped.label_file.as_bytes()).map_err(|source| {
            EngineError::Postgres { path: "the server's backup label".into(), source }
        })?;
        let control = &copied.control;
        Ok(BackupDetails {
            began: self.began,
            ended: self.request.clock.now_in_seconds(),
            host: self.request.host.clone(),
            major: control.major,
            server_version: self.info.version.number(),
            catalog_version: control.catalog_version,
            from: match label.from {
                BackupFrom::Primary => TakenFrom::Primary,
                BackupFrom::Standby => TakenFrom::Standby,
            },
            start: Position { timeline: label.start_timeline, lsn: label.start_lsn },
            checkpoint_lsn: label.checkpoint_lsn,
            stop: Position { timeline: stopped.stop_timeline, lsn: stopped.stop_lsn },
            backup_label: stopped.label_file.clone(),
            tablespace_map: stopped.tablespace_map.clone().unwrap_or_default(),
            tablespaces: copied.tablespaces.clone(),
            pg_wal_link: copied.pg_wal_link.as_ref().map(|p| p.display().to_string()),
            page_size_bytes: control.page_size_bytes,
            wal_segment_size: control.wal_segment_size,
            relation_segment_pages: control.relation_segment_pages,
            data_checksums: control.data_checksums,
            chunk_bytes: 0,
            method: Method::Full,
            reference: None,
            damage: damage_of(&copied.bad, stopped.stop_lsn),
            stats: BackupStats::default(),
            saw_backups: self.saw_backups,
        })
    }
}
