//! Carrying a repair out. It can be ended at any moment, and begun again.

use std::collections::HashSet;

use bytes::Bytes;
use pgrecall_store::{Key, Put};
use sha2::{Digest as _, Sha256};

use super::look::{is_still_damaged, look};
use super::{Left, LostPack, Quarantined, RepairPlan, What};
use crate::error::{ErrorKind, RepoError};
use crate::expired::ExpiredLog;
use crate::format::document::Expired;
use crate::id::BackupId;
use crate::index;
use crate::names::{self, Name};
use crate::sealed_store::SealedStore;

/// Packs and chunks of one new index object, which is put together in memory.
const PACKS_MAX: usize = 4096;
const CHUNKS_MAX: u64 = 1 << 20;

/// Entries tried while other hosts keep winning the next one.
const TRIES_MAX: u32 = 16;

/// No object that is moved is longer.
const MOVED_BYTES_MAX: u64 = 1 << 30;

/// Copies of one name that are kept.
const COPIES_MAX: u32 = 16;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Packs that the index names again.
    pub packs: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Index objects that were put for them.
    pub index_objects: u64,
    /// Objects that were moved to `quarantine/`.
    pub moved: u64,
    /// Objects that were to be moved and could not be.
    pub stayed: Vec<Left>,
}

/// Does what a plan says. Anything may run meanwhile.
///
/// # Errors
/// When the store fails. What was done stays done.
pub async fn carry_out(
    sealed: &SealedStore,
    domain: &Name,
    plan: &RepairPlan,
) -> Result<Repaired, RepoError> {
    let mut done = Repaired::default();
    // A person may have thought about it for an hour.
    let again = look(sealed, domain).await?;
    for part in cut(&again.reindexed) {
        reindex(sealed, domain, part, &mut done).await?;
    }
    let mut copied: Vec<(&Quarantined, ContentHash)> = Vec::new();
    let planned = |object: &&Quarantined| plan.quarantined.iter().any(|old| old.is(object));
    // Kept before anything is said or deleted: who sees a backup in the log deletes its manifest.
    for object in again.quarantined.iter().filter(planned) {
        match copy(sealed, &object.name).await {
            // A read may have gone wrong: what is moved has been damaged three times.
            Ok(Some(bytes)) if is_still_damaged(sealed, domain, object).await? => {
                copied.push((object, content_hash(&bytes)));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Invalid || error.is_damage() => {
                done.stayed.push(object.stays(&error.chain()));
            }
            Err(error) => return Err(error),
        }
    }
    move_away(sealed, domain, copied, &mut done).await?;
    Ok(done)
}

/// Gives backups up whose manifests read, and that are lost otherwise: the caller has made sure of
/// that, and has asked. What the plan says of anything else is not done.
///
/// # Errors
/// As [`carry_out`].
pub async fn give_up(
    sealed: &SealedStore,
    domain: &Name,
    plan: &RepairPlan,
) -> Result<Repaired, RepoError> {
    let mut done = Repaired::default();
    let mut copied: Vec<(&Quarantined, ContentHash)> = Vec::new();
    for object in &plan.quarantined {
        let Some(backup) = object.gives_up() else { continue };
        if matches!(object.what, What::MissingManifest { .. }) {
            if stored(sealed, &object.name).await?.is_some() {
                done.stayed.push(object.stays("it is there again"));
            } else if write_down(sealed, domain, vec![backup]).await?.contains(&backup) {
                done.stayed.push(object.stays("the backup is held"));
            }
        } else if let Some(bytes) = copy(sealed, &object.name).await? {
            copied.push((object, content_hash(&bytes)));
        }
    }
    move_away(sealed, domain, copied, &mut done).await?;
    Ok(done)
}

/// Has the log say which backups are given up, and deletes what was copied, if it is that still.
async fn move_away(
    sealed: &SealedStore,
    domain: &Name,
    copied: Vec<(&Quarantined, ContentHash)>,
    done: &mut Repaired,
) -> Result<(), RepoError> {
    let giving_up = copied.iter().filter_map(|(object, _)| object.gives_up()).collect();
    let held = write_down(sealed, domain, giving_up).await?;
    for (object, hash) in copied {
        if object.gives_up().is_some_and(|backup| held.contains(&backup)) {
            done.stayed.push(object.stays("the backup is held"));
            continue;
        }
        // What somebody has put in its place is not what was looked at.
        let now = stored(sealed, &object.name).await?;
        if now.is_some_and(|bytes| content_hash(&bytes) == hash) {
            sealed.store().delete(&object.name).await?;
            done.moved += 1;
        }
    }
    Ok(())
}

impl Quarantined {
    fn is(&self, other: &Self) -> bool {
        (&self.name, &self.what) == (&other.name, &other.what)
    }

    fn stays(&self, why: &str) -> Left {
        let reason = format!("it cannot be moved, and stays: {why}");
        Left { name: self.name.clone(), kind: ErrorKind::Corrupt, reason }
    }
}

/// Packs cut into parts, each for one index object.
fn cut(packs: &[LostPack]) -> Vec<&[LostPack]> {
    let mut parts = Vec::new();
    let mut rest = packs;
    while !rest.is_empty() {
        let mut chunks = 0;
        let fits = rest.iter().take(PACKS_MAX).take_while(|pack| {
            chunks += pack.chunks;
            chunks <= CHUNKS_MAX
        });
        let (part, later) = rest.split_at(fits.count().max(1));
        parts.push(part);
        rest = later;
    }
    parts
}

async fn reindex(
    sealed: &SealedStore,
    domain: &Name,
    packs: &[LostPack],
    done: &mut Repaired,
) -> Result<(), RepoError> {
    let mut found = Vec::with_capacity(packs.len());
    for pack in packs {
        match index::read_directory(sealed, domain, pack.kind, pack.id).await {
            Ok(directory) => found.push(directory),
            // A collection has removed it.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    // An index object names a chunk once: a second copy of one goes into the next object.
    let (mut packs, mut chunks) = (Vec::new(), HashSet::new());
    for pack in &found {
        if pack.entries.iter().any(|entry| chunks.contains(&entry.chunk)) {
            index::put_index(sealed, domain, &packs).await?;
            done.index_objects += 1;
            (packs, chunks) = (Vec::new(), HashSet::new());
        }
        chunks.extend(pack.entries.iter().map(|entry| entry.chunk));
        packs.push(pack.clone());
    }
    index::put_index(sealed, domain, &packs).await?;
    done.index_objects += 1;
    done.packs += found.len() as u64;
    done.chunks += found.iter().map(|pack| pack.entries.len() as u64).sum::<u64>();
    Ok(())
}

/// The log says that the backups are none any more: a manifest that comes late changes nothing, and
/// who deletes by the log deletes what is left. Gives those that somebody holds: they are not given
/// up. A hold and this stand in the same log, so that one of the two sees the other.
async fn write_down(
    sealed: &SealedStore,
    domain: &Name,
    mut backups: Vec<BackupId>,
) -> Result<HashSet<BackupId>, RepoError> {
    let mut held = HashSet::new();
    for _ in 0..TRIES_MAX {
        if backups.is_empty() {
            return Ok(held);
        }
        let log = ExpiredLog::read(sealed, domain).await?;
        held.extend(log.entry().held.iter().map(|hold| hold.backup));
        backups.retain(|backup| !held.contains(backup));
        let more = Expired { backups: backups.clone(), ..Expired::default() };
        if log.says(&more) {
            return Ok(held);
        }
        log.append(sealed, domain, more).await?;
    }
    Err(RepoError::Invalid {
        what: "the log of expired backups".into(),
        reason: "other hosts keep changing it; try again".into(),
    })
}

/// Copies an object to `quarantine/`, and gives its bytes; nothing when it is gone.
async fn copy(sealed: &SealedStore, name: &Key) -> Result<Option<Bytes>, RepoError> {
    let Some(bytes) = stored(sealed, name).await? else { return Ok(None) };
    for number in 1..=COPIES_MAX {
        let to = names::quarantine(name, number)?;
        match sealed.store().put_if_absent(&to, bytes.clone()).await {
            Put::Created => return Ok(Some(bytes)),
            // An earlier repair was ended between the copy and the deletion.
            Put::Exists if stored(sealed, &to).await?.as_ref() == Some(&bytes) => {
                return Ok(Some(bytes));
            }
            // Something else was moved from here before.
            Put::Exists => {}
            Put::Unknown(source) => {
                return Err(RepoError::Unknown { object: to.to_string(), source });
            }
        }
    }
    Err(RepoError::Invalid {
        what: names::quarantine(name, 1)?.to_string(),
        reason: format!("{COPIES_MAX} other objects were moved there before"),
    })
}

type ContentHash = [u8; 32];

fn content_hash(bytes: &[u8]) -> ContentHash {
    Sha256::digest(bytes).into()
}

/// An object's bytes, if it is there.
async fn stored(sealed: &SealedStore, name: &Key) -> Result<Option<Bytes>, RepoError> {
    match sealed.store().get(name, MOVED_BYTES_MAX).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == pgrecall_store::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
