//! The directory that is restored into: what is there, who uses it, and the marker that says a
//! restore is under way.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrecall_pgformat::control::ControlFile;
use pgrecall_repo::id::BackupId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::batch::NO_LINK;
use crate::error::{EngineError, ErrorKind};

/// The marker's name; files that begin so are never part of a backup.
pub const MARKER: &str = ".pgrecall-restore";

/// The old control file's name while it is being taken away.
const CONTROL_ASIDE: &str = "global/.pgrecall-pg_control.old";

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The cluster whose files these are.
    pub system_identifier: u64,
    /// The backup being restored.
    pub backup: BackupId,
    /// When it began, RFC 3339.
    pub began: String,
    /// Whether files of a data directory were there: they may be the only copy of something.
    #[serde(default)]
    pub over_files: bool,
}

impl Marker {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads them; one that was cut short says nothing.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
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

impl Found {
    /// Whether a data directory was there before any restore.
    #[must_use]
    pub const fn is_over_files(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Interrupted(marker) => marker.over_files,
            Self::SameCluster => true,
        }
    }
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
    // The marker comes first: with nothing in it a restore ended before it had written anything.
    if marker.is_none() && names == [MARKER] {
        return Ok(Found::Empty);
    }
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

/// The restore that was interrupted in a directory: the same command goes on with its backup, even
/// where a newer one would serve by now.
#[must_use]
pub fn interrupted(dir: &Path, system_identifier: u64) -> Option<Marker> {
    let marker = read_marker(dir).ok()??;
    let is_open = !dir.join("global/pg_control").exists();
    (is_open && marker.system_identifier == system_identifier).then_some(marker)
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
        Ok(bytes) => Ok(Marker::decode(&bytes)),
        Err(error) if error.kind() == IoKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::file("read", &path, error)),
    }
}

/// Refuses a directory with a `postmaster.pid`: a server is at work there, or was not shut down.
///
/// Whether its process lives cannot be proven here: a server in a container has its number in a
/// namespace of its own (often 1), and one on another host that shares the disk has none.
///
/// # Errors
/// `Conflict`, with what is known of the process.
pub fn refuse_running(dir: &Path) -> Result<(), EngineError> {
    let path = dir.join("postmaster.pid");
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == IoKind::NotFound => return Ok(()),
        Err(error) => return Err(EngineError::file("read", &path, error)),
    };
    // In single-user mode the number is negative (`CreateLockFile`, miscinit.c).
    let pid = text.lines().next().and_then(|line| line.trim().parse::<i64>().ok());
    let pid = pid.map(i64::unsigned_abs);
    if let Some(pid) = pid.filter(|pid| is_at_work(*pid, dir)) {
        let message = format!("{} is the data directory of a running server", dir.display());
        return Err(EngineError::refused(ErrorKind::Conflict, message)
            .hint(format!("Stop it first (process {pid}), or restore into another directory.")));
    }
    let message = format!(
        "{} may be the data directory of a running server: postmaster.pid is there",
        dir.display()
    );
    let named = pid.map_or_else(
        || "It names no process.".to_owned(),
        |pid| {
            format!(
                "It names process {pid}, which does not work there on this host; it may in a \
                 container, or on another host that shares the disk."
            )
        },
    );
    Err(EngineError::refused(ErrorKind::Conflict, message).hint(named).hint(format!(
        "If the server has surely stopped (it crashed, say), remove {} and run this again.",
        path.display()
    )))
}

/// A server's working directory is its data directory.
fn is_at_work(pid: u64, dir: &Path) -> bool {
    let cwd = fs::metadata(format!("/proc/{pid}/cwd"));
    cwd.ok()
        .zip(fs::metadata(dir).ok())
        .is_some_and(|(cwd, dir)| (cwd.dev(), cwd.ino()) == (dir.dev(), dir.ino()))
}

/// The marker, locked for as long as this lives.
#[derive(Debug)]
pub struct Marked {
    path: PathBuf,
    lock: DirectoryLock,
}

/// Keeps a marked directory locked: goes with whatever may write there after the restore has ended.
#[derive(Debug, Clone)]
pub struct DirectoryLock {
    _file: Arc<File>,
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
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(NO_LINK);
        let mut file = options.open(&path).map_err(fail("create"))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let message = format!("another restore is at work in {}", dir.display());
            return Err(EngineError::refused(ErrorKind::Conflict, message));
        }
        file.set_len(0).and_then(|()| file.write_all(&marker.encode())).map_err(fail("write"))?;
        file.sync_all().map_err(fail("fsync"))?;
        sync_folder(dir)?;
        Ok(Self { path, lock: DirectoryLock { _file: Arc::new(file) } })
    }

    /// The lock, for those who write there.
    #[must_use]
    pub fn lock(&self) -> DirectoryLock {
        self.lock.clone()
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

/// Takes the control file away, durably: from then on no server starts.
///
/// A server that starts locks the directory with its `postmaster.pid` before it reads the control
/// file (`PostmasterMain`, postmaster.c). So with the control file gone a server either is seen
/// here, and gets it back, or cannot start.
///
/// # Errors
/// When a server has started since, or the disk fails.
pub fn take_control(dir: &Path) -> Result<(), EngineError> {
    let (control, aside) = (dir.join("global/pg_control"), dir.join(CONTROL_ASIDE));
    match fs::rename(&control, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == IoKind::NotFound => return Ok(()),
        Err(error) => return Err(EngineError::file("rename", &control, error)),
    }
    sync_folder(&dir.join("global"))?;
    if let Err(running) = refuse_running(dir) {
        fs::rename(&aside, &control).map_err(|error| EngineError::file("rename", &aside, error))?;
        return Err(running);
    }
    fs::remove_file(&aside).map_err(|error| EngineError::file("remove", &aside, error))
}
