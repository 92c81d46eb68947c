//! Finding backups and reading what is in them.

use std::collections::HashSet;

use crate::chunks;
use crate::error::{FormatError, RepoError};
use crate::format::document::{Expired, Manifest, TableChunk};
use crate::format::header::{Header, Kind};
use crate::format::table::{self, Entry};
use crate::id::BackupId;
use crate::index::Index;
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
}

/// Lists the valid backups of a domain: names that hold manifests, listed first, without those that
/// the highest entry of the log of expired backups names, read after.
///
/// # Errors
/// When the store cannot list, or the log cannot be read.
pub async fn list(sealed: &SealedStore, domain: &Name) -> Result<Backups, RepoError> {
    let listed = sealed.list(&names::manifests(domain)).await?;
    let log = names::expired(domain);
    let expired: HashSet<BackupId> = sealed
        .newest::<Expired>(Kind::Expired, &log)
        .await?
        .map(|(_, log)| log.backups.into_iter().collect())
        .unwrap_or_default();
    let mut backups = Backups::default();
    for object in listed {
        let Some((at, id)) = names::manifest_of(domain, &object.key) else { continue };
        if expired.contains(&id) {
            continue;
        }
        match read(sealed, &at, id).await {
            Ok(Some(manifest)) => backups.valid.push(Backup { at, manifest }),
            Ok(None) => {}
            Err(error) if error.is_not_found() => {}
            Err(error @ (RepoError::Corrupt { .. } | RepoError::Newer { .. })) => {
                backups.unreadable.push(Unreadable { at, id, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(backups)
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
        return Ok(None);
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

/// Table chunks read at once: bounds memory, whatever the number of files.
const TABLES_AT_ONCE: usize = 64;

/// Reads the file table part by part, in order of paths. `each` gets every part's entries.
///
/// # Errors
/// When a chunk is missing or damaged, the parts are out of order, or `each` refuses.
pub async fn each_table<E: From<RepoError>>(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    manifest: &Manifest,
    mut each: impl FnMut(Vec<Entry>) -> Result<(), E>,
) -> Result<(), E> {
    let mut last: Option<table::RelativePath> = None;
    for part in manifest.tables.chunks(TABLES_AT_ONCE) {
        let wanted = part.iter().map(|chunk| chunk.id).collect();
        let read = chunks::read_many(sealed, domain, index, &wanted).await?;
        for chunk in part {
            let entries = decode_table(chunk, read.get(&chunk.id), last.as_ref())?;
            if let Some(entry) = entries.last() {
                last = Some(entry.path.clone());
            }
            each(entries)?;
        }
    }
    Ok(())
}

fn decode_table(
    chunk: &TableChunk,
    plain: Option<&Vec<u8>>,
    last: Option<&table::RelativePath>,
) -> Result<Vec<Entry>, RepoError> {
    let fail = |error| RepoError::format(format!("file table chunk {}", chunk.id), error);
    let plain = plain.map(Vec::as_slice).unwrap_or_default();
    let entries = table::decode(plain).map_err(fail)?;
    let in_order = match (last, entries.first()) {
        (Some(last), Some(first)) => *last < first.path,
        _ => true,
    };
    if in_order && u64::try_from(entries.len()) == Ok(chunk.entries) {
        return Ok(entries);
    }
    Err(fail(FormatError::Unexpected {
        what: "file table",
        expected: format!("{} entries, in order of paths", chunk.entries),
        found: format!("{} entries", entries.len()),
    }))
}
