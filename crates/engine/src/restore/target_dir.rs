//! The directory that is restored into: what is there, who uses it, and the marker that says a
//! restore is under way.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use pgrecall_pgformat::control::ControlFile;
use pgrecall_repo::id::BackupId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, ErrorKind};

/// The marker's name; files that begin so are never part of a backup.
pub const MARKER: &str = ".pgrecall-restore";

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The cluster whose files these are.
    pub system_identifier: u64,
    /// The backup being restored.
    pub backup: BackupId,
    /// When it began, RFC 3339.
    pub began: String,
}

/// Whether what is there may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Only an empty directory, or an interrupted restore of the same backup.
    Refuse,
    /// A data directory of the same cluster (`--delta`).
    Delta,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or an empty directory.
    Empty,
    /// A restore that was interrupted.
    Interrupted(Marker),
    /// A data directory of the same cluster.
    SameCluster,
}

/// Looks at the directory, and refuses what must not be touched.
///
/// # Errors
/// A running server's directory; one that is not empty, or another cluster's.
pub fn inspect(
    dir: &Path,
    system_identifier: u64,
    backup: BackupId,
    existing: Existing,
) -> Result<Found, EngineError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == IoKind::NotFound => return Ok(Found::Empty),
        Err(error) => return Err(EngineError::file("list", dir, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| EngineError::file("list", dir, error))?;
        names.push(entry.file_name());
    }
    refuse_running(dir)?;
    names.retain(|name| name != "lost+found");
    if names.is_empty() {
        return Ok(Found::Empty);
    }
    let marker = read_marker(dir)?;
    let control = control_file(dir)?;
    let other = |found: u64| {
        let message = format!(
            "{} belongs to another cluster: its system identifier is {found}, that of the backup \
             {system_identifier}",
            dir.display()
        );
        EngineError::refused(ErrorKind::Conflict, message).hint("Restore into another directory.")
    };
    if let Some(found) = control.as_ref().map(|control| control.system_identifier)
        && found != system_identifier
    {
        return Err(other(found));
    }
    if let Some(marker) = marker {
        if marker.system_identifier != system_identifier {
            return Err(other(marker.system_identifier));
        }
        // With its control file in place a restore has ended, whatever else is left of it.
        if existing == Existing::Delta || marker.backup == backup && control.is_none() {
            return Ok(Found::Interrupted(marker));
        }
    }
    match (existing, control) {
        (Existing::Delta, Some(_)) if dir.join("PG_VERSION").is_file() => Ok(Found::SameCluster),
        (Existing::Delta, _) => {
            let message = format!("{} is not empty, and no data directory", dir.display());
            let error = EngineError::refused(ErrorKind::AlreadyExists, message);
            Err(error.hint("Restore into an empty directory."))
        }
        (Existing::Refuse, _) => {
            let message = format!("{} is not empty", dir.display());
            let error = EngineError::refused(ErrorKind::AlreadyExists, message);
            Err(error
                .hint("Restore into an empty directory.")
                .hint("--delta uses a data directory of the same cluster that is there already."))
        }
    }
}

fn control_file(dir: &Path) -> Result<Option<ControlFile>, EngineError> {
    let path = dir.join("global/pg_control");
    match fs::read(&path) {
        // One that cannot be read says nothing; a delta then needs the marker.
        Ok(bytes) => Ok(ControlFile::decode(&bytes).ok()),
        Err(error) if error.kind() == IoKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::file("read", &path, error)),
    }
}

fn read_marker(dir: &Path) -> Result<Option<Marker>, EngineError> {
    let path = dir.join(MARKER);
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == IoKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::file("read", &path, error)),
    }
}

/// Refuses a directory whose `postmaster.pid` names a process that lives and works in it.
fn refuse_running(dir: &Path) -> Result<(), EngineError> {
    let path = dir.join("postmaster.pid");
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == IoKind::NotFound => return Ok(()),
        Err(error) => return Err(EngineError::file("read", &path, error)),
    };
    // In single-user mode the number is negative (`CreateLockFile`, miscinit.c).
    let pid = text.lines().next().and_then(|line| line.trim().parse::<i64>().ok());
    let Some(pid) = pid.map(i64::unsigned_abs).filter(|pid| *pid > 0) else { return Ok(()) };
    let process = PathBuf::from(format!("/proc/{pid}"));
    if !process.exists() {
        return Ok(());
    }
    // The number may be another process's by now: a server's working directory is its data
    // directory. One that cannot be seen is taken for a server.
    let elsewhere = fs::metadata(process.join("cwd"))
        .ok()
        .zip(fs::metadata(dir).ok())
        .is_some_and(|(cwd, dir)| (cwd.dev(), cwd.ino()) != (dir.dev(), dir.ino()));
    if elsewhere {
        return Ok(());
    }
    let message = format!("{} is the data directory of a running server", dir.display());
    Err(EngineError::refused(ErrorKind::Conflict, message)
        .hint(format!("Stop it first (process {pid}), or restore into another directory.")))
}

/// The marker, locked for as long as this lives.
#[derive(Debug)]
pub struct Marked {
    path: PathBuf,
    _file: File,
}

impl Marked {
    /// Puts the marker down durably.
    ///
    /// # Errors
    /// When another restore is at work here, or the disk fails.
    pub fn put(dir: &Path, marker: &Marker) -> Result<Self, EngineError> {
        let path = dir.join(MARKER);
        let fail = |act| {
            let path = path.clone();
            move |error| EngineError::file(act, &path, error)
        };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(fail("create"))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let message = format!("another restore is at work in {}", dir.display());
            return Err(EngineError::refused(ErrorKind::Conflict, message));
        }
        let text = serde_json::to_vec(marker).unwrap_or_default();
        file.set_len(0).and_then(|()| file.write_all(&text)).map_err(fail("write"))?;
        file.sync_all().map_err(fail("fsync"))?;
        sync_folder(dir)?;
        Ok(Self { path, _file: file })
    }

    /// Takes the marker away: the restore is done.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(self) -> Result<(), EngineError> {
        fs::remove_file(&self.path)
            .map_err(|error| EngineError::file("remove", &self.path, error))?;
        self.path.parent().map_or(Ok(()), sync_folder)
    }
}

/// Fsyncs a folder: the names in it are durable then.
///
/// # Errors
/// When the disk fails.
pub fn sync_folder(folder: &Path) -> Result<(), EngineError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|error| EngineError::file("fsync", folder, error))
}

/// Removes a file if it is there, durably.
///
/// # Errors
/// When the disk fails.
pub fn remove_durably(path: &Path) -> Result<(), EngineError> {
    match fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == IoKind::NotFound => Ok(()),
        Err(error) => Err(EngineError::file("remove", path, error)),
    }
}
