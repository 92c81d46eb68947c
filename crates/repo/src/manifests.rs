//! Finding backups and reading what is in them.

use std::collections::HashSet;

use futures::StreamExt as _;
use pgrecall_store::Key;

use crate::chunks;
use crate::error::{FormatError, RepoError};
use crate::format::document::{Expired, Manifest, TableChunk, Tombstone};
use crate::format::header::{Header, Kind};
use crate::format::table::{self, Entry};
use crate::id::BackupId;
use crate::index::{Index, warn_unreadable};
use crate::names::{self, ClusterRef, Name};
use crate::sealed_store::SealedStore;

/// A backup that exists.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its cluster.
    pub at: ClusterRef,
    /// Its manifest.
    pub manifest: Manifest,
}

/// A name under `backups/` whose object could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The cluster.
    pub at: ClusterRef,
    /// The backup.
    pub id: BackupId,
    /// Why not.
    pub error: RepoError,
}

/// The backups of a domain.
#[derive(Debug, Default)]
pub struct Backups {
    /// Those that exist, in the order of their names.
    pub valid: Vec<Backup>,
    /// Those that may.
    pub unreadable: Vec<Unreadable>,
    /// Those that were ended, and never will.
    pub tombstones: Vec<BackupId>,
    /// Why the log of expired backups could not be read, if so: some of the valid ones may have
    /// expired.
    pub log_error: Option<RepoError>,
}

/// Manifests read at once.
const MANIFESTS_AT_ONCE: usize = 16;

/// Lists the valid backups of a domain: names that hold manifests, listed first, without those that
/// the highest entry of the log of expired backups names, read after.
///
/// What cannot be read is told and passed over: no single object keeps the other backups from
/// being restored. Who deletes must not go by a list of which anything could not be read.
///
/// # Errors
/// When the store fails.
pub async fn list(sealed: &SealedStore, domain: &Name) -> Result<Backups, RepoError> {
    let listed = sealed.list(&names::manifests(domain)).await?;
    let (expired, log_error) = expired(sealed, domain).await?;
    let mut backups = Backups { log_error, ..Backups::default() };
    let named = listed.iter().filter_map(|object| names::manifest_of(domain, &object.key));
    let mut read = futures::stream::iter(named.filter(|(_, id)| !expired.contains(id)))
        .map(|(at, id)| async move {
            let manifest = read(sealed, &at, id).await;
            (at, id, manifest)
        })
        .buffered(MANIFESTS_AT_ONCE);
    while let Some((at, id, manifest)) = read.next().await {
        match manifest {
            Ok(Some(manifest)) => backups.valid.push(Backup { at, manifest }),
            Ok(None) => backups.tombstones.push(id),
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_damage() => {
                backups.unreadable.push(Unreadable { at, id, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(backups)
}

/// The backups that the log of expired ones names; where its highest entry cannot be read, those
/// that the one before names, and the error.
async fn expired(
    sealed: &SealedStore,
    domain: &Name,
) -> Result<(HashSet<BackupId>, Option<RepoError>), RepoError> {
    let log = names::expired(domain);
    let mut first_error = None;
    let mut below = u64::MAX;
    loop {
        // Listed again each time: an entry that vanished was not the highest any more.
        let entries = sealed.list(log.prefix()).await?;
        let numbers = entries.iter().filter_map(|entry| log.number(&entry.key));
        let Some(number) = numbers.filter(|number| *number < below).max() else {
            return Ok((HashSet::new(), first_error));
        };
        match sealed.get::<Expired>(Kind::Expired, &log.entry(number)).await {
            Ok(entry) => return Ok((entry.backups.into_iter().collect(), first_error)),
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_damage() => {
                let what = "an entry of the log of expired backups cannot be read: backups that \
                            expired may be listed";
                warn_unreadable(&log.entry(number), &error, what);
                first_error.get_or_insert(error);
                below = number;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads one manifest; nothing when a tombstone stands there.
///
/// # Errors
/// When it is not there or damaged.
pub async fn read(
    sealed: &SealedStore,
    at: &ClusterRef,
    id: BackupId,
) -> Result<Option<Manifest>, RepoError> {
    let name = names::manifest(at, id);
    let limit = crate::sealed_store::DOCUMENT_BYTES_MAX as u64;
    let object = sealed.store().get(&name, limit).await?;
    let header = Header::decode(&mut crate::format::bytes::Reader::new(&object))
        .map_err(|error| RepoError::format(&name, error))?;
    if header.kind == Kind::Tombstone {
        // The header is in the clear: nobody is to make a backup vanish by one byte of it.
        let tombstone: Tombstone = sealed.open(Kind::Tombstone, &name, &object)?;
        return check_backup(&name, id, tombstone.backup).map(|()| None);
    }
    let manifest: Manifest = sealed.open(Kind::Manifest, &name, &object)?;
    let same = manifest.backup == id
        && manifest.cluster == at.cluster.as_str()
        && manifest.lineage == at.lineage;
    if same {
        return Ok(Some(manifest));
    }
    let error = FormatError::Unexpected {
        what: "the backup that the manifest is of",
        expected: format!("{id} of {}", at.cluster),
        found: format!("{} of {}", manifest.backup, manifest.cluster),
    };
    Err(RepoError::format(&name, error))
}

fn check_backup(name: &Key, expected: BackupId, found: BackupId) -> Result<(), RepoError> {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (expected.to_string(), found.to_string());
    let what = "the backup that the tombstone is of";
    Err(RepoError::format(name, FormatError::Unexpected { what, expected, found }))
}

/// Table chunks read at once: bounds memory, whatever the number of files.
const TABLES_AT_ONCE: usize = 64;

/// Reads a file table, or some of its chunks in a row, part by part, in order of paths. `each` gets
/// every part's entries.
///
/// # Errors
/// When a chunk is missing or damaged, the parts are out of order, or `each` refuses.
pub async fn each_table<E: From<RepoError>>(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    tables: &[TableChunk],
    mut each: impl FnMut(Vec<Entry>) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = TableReader::default();
    for part in tables.chunks(TABLES_AT_ONCE) {
        let wanted = part.iter().map(|chunk| chunk.id).collect();
        let read = chunks::read_many(sealed, domain, index, &wanted).await?;
        for chunk in part {
            let plain = read.get(&chunk.id).map(Vec::as_slice).unwrap_or_default();
            each(reader.decode(chunk, plain)?)?;
        }
    }
    Ok(())
}

/// Decodes the chunks of a file table, one after the other.
#[derive(Debug, Default)]
pub struct TableReader {
    last: Option<table::RelativePath>,
}

impl TableReader {
    /// The entries of the next chunk.
    ///
    /// # Errors
    /// When it is no table chunk, or does not go on where the last one ended.
    pub fn decode(&mut self, chunk: &TableChunk, plain: &[u8]) -> Result<Vec<Entry>, RepoError> {
        let fail = |error| RepoError::format(format!("file table chunk {}", chunk.id), error);
        let entries = table::decode(plain).map_err(fail)?;
        let in_order = match (&self.last, entries.first()) {
            (Some(last), Some(first)) => *last < first.path,
            _ => true,
        };
        if !in_order || u64::try_from(entries.len()) != Ok(chunk.entries) {
            return Err(fail(FormatError::Unexpected {
                what: "file table",
                expected: format!("{} entries, in order of paths", chunk.entries),
                found: format!("{} entries", entries.len()),
            }));
        }
        if let Some(entry) = entries.last() {
            self.last = Some(entry.path.clone());
        }
        Ok(entries)
    }
}
