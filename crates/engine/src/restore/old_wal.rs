//! The `pg_wal` of a directory that is restored over: moved aside, never deleted, since it may hold
//! the only copy of the last commits.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::EngineError;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldWal {
    /// Where it is now.
    pub at: PathBuf,
    /// Files in it that the archive never confirmed.
    pub not_archived: Vec<String>,
}

/// The files of a `pg_wal` that wait for the archiver (`archive_status/*.ready`).
#[must_use]
pub fn not_archived(pg_wal: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(pg_wal.join("archive_status")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".ready").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// Moves the WAL of a directory aside, when there is any: beside the data directory if that is
/// possible, else within it under a name that backups leave out. `stamp` tells one restore's from
/// another's.
///
/// # Errors
/// When the disk fails.
pub fn move_aside(dir: &Path, stamp: &str) -> Result<Option<OldWal>, EngineError> {
    let link = dir.join("pg_wal");
    let Ok(meta) = fs::symlink_metadata(&link) else { return Ok(None) };
    let real = fs::canonicalize(&link).unwrap_or_else(|_| link.clone());
    let has_files = fs::read_dir(&real)
        .map(|entries| {
            entries.flatten().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        })
        .unwrap_or(false);
    if meta.is_symlink() {
        fs::remove_file(&link).map_err(|error| EngineError::file("remove", &link, error))?;
    }
    if !has_files {
        return Ok(None);
    }
    let not_archived = not_archived(&real);
    let name = if meta.is_symlink() { &real } else { dir };
    let file_name = name.file_name().map(|name| name.to_string_lossy().into_owned());
    let file_name = file_name.unwrap_or_else(|| "data".into());
    let what = if meta.is_symlink() { "" } else { ".pg_wal" };
    let beside = name.with_file_name(format!("{file_name}{what}.before-restore-{stamp}"));
    let within = dir.join(format!(".pgrecall-pg_wal.before-restore-{stamp}"));
    let at = match fs::rename(&real, &beside) {
        Ok(()) => beside,
        Err(_) => {
            fs::rename(&real, &within).map_err(|error| EngineError::file("move", &real, error))?;
            within
        }
    };
    Ok(Some(OldWal { at, not_archived }))
}
