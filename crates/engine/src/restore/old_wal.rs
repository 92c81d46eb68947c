//! The `pg_wal` of a directory that is restored over: moved aside, never deleted, since it may hold
//! the only copy of the last commits.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use pgrecall_pgformat::data_directory::OWN_PREFIX;
use pgrecall_pgformat::page::{LONG_HEADER_BYTES, PageHeader};
use pgrecall_pgformat::{Lsn, SegmentName};

use super::wal_view::StoredWal;
use crate::error::EngineError;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldWal {
    /// Where it is now.
    pub at: PathBuf,
    /// Files in it that the archive never confirmed.
    pub not_archived: Vec<String>,
}

/// The files of a `pg_wal` that the archive does not have: those that wait for the archiver
/// (`archive_status/*.ready`), and segments that are not stored, above all the last one, which the
/// server was writing.
#[must_use]
pub fn not_archived(pg_wal: &Path, stored: &StoredWal) -> Vec<String> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    };
    let waiting = names(&pg_wal.join("archive_status"));
    let waiting = waiting.iter().filter_map(|name| Some(name.strip_suffix(".ready")?.to_owned()));
    let mut found: BTreeSet<String> = waiting.collect();
    for name in names(pg_wal) {
        if let Ok(segment) = SegmentName::parse(&name, stored.segment_size)
            && !stored.has(segment)
            && is_begun(&pg_wal.join(&name), segment.number.start(stored.segment_size))
        {
            found.insert(name);
        }
    }
    found.into_iter().collect()
}

/// Whether a segment has WAL of its own: one that was recycled still has the pages of an older one
/// (`InstallXLogFileSegment`, xlog.c).
fn is_begun(path: &Path, start: Lsn) -> bool {
    let mut page = [0; LONG_HEADER_BYTES as usize];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut page));
    read.is_ok() && PageHeader::decode(&page).is_some_and(|header| header.address == start)
}

/// Moves the WAL of a directory aside, when there is any: beside the data directory if that is
/// possible, else within it under a name that backups leave out. `stamp` tells one restore's from
/// another's.
///
/// # Errors
/// When the disk fails.
pub fn move_aside(
    dir: &Path,
    stamp: &str,
    stored: &StoredWal,
) -> Result<Option<OldWal>, EngineError> {
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
    let not_archived = not_archived(&real, stored);
    let name = if meta.is_symlink() { &real } else { dir };
    let file_name = name.file_name().map(|name| name.to_string_lossy().into_owned());
    let file_name = file_name.unwrap_or_else(|| "data".into());
    let what = if meta.is_symlink() { "" } else { ".pg_wal" };
    let beside = name.with_file_name(format!("{file_name}{what}.before-restore-{stamp}"));
    let within = dir.join(format!(".pgrecall-pg_wal.before-restore-{stamp}"));
    for at in [beside, within] {
        if fs::rename(&real, &at).is_ok() {
            return Ok(Some(OldWal { at, not_archived }));
        }
    }
    // A mount point cannot be moved, but what is in it can.
    let at = real.join(format!(".pgrecall-pg_wal.before-restore-{stamp}"));
    move_contents(&real, &at)?;
    Ok(Some(OldWal { at, not_archived }))
}

fn move_contents(from: &Path, to: &Path) -> Result<(), EngineError> {
    fs::create_dir(to).map_err(|error| EngineError::file("create", to, error))?;
    let fail = |error| EngineError::file("list", from, error);
    for entry in fs::read_dir(from).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let own = name.as_encoded_bytes().starts_with(OWN_PREFIX.as_bytes());
        if own || name == "lost+found" {
            continue;
        }
        let path = from.join(&name);
        fs::rename(&path, to.join(&name))
            .map_err(|error| EngineError::file("move", &path, error))?;
    }
    Ok(())
}
