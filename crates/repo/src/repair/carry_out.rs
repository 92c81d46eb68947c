//! Carrying a repair out. It can be ended at any moment, and begun again.

use std::collections::HashSet;

use pgrecall_store::{Key, Put};

use super::{LostPack, Quarantined, RepairPlan, look};
use crate::error::RepoError;
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

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Packs that the index names again.
    pub packs: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Index objects that were put for them.
    pub index_objects: u64,
    /// Objects that were moved to `quarantine/`.
    pub moved: u64,
}

/// Does what a plan says. Anything may run meanwhile.
///
/// # Errors
/// When the store fails, or an object stands under the name that a damaged one would move to. What
/// was done stays done.
pub async fn carry_out(
    sealed: &SealedStore,
    domain: &Name,
    plan: &RepairPlan,
) -> Result<Repaired, RepoError> {
    let mut done = Repaired::default();
    // A person may have thought about it for an hour, and a read may have gone wrong: what is moved
    // has to be damaged twice.
    let again = look(sealed, domain).await?;
    for part in cut(&again.reindexed) {
        reindex(sealed, domain, part, &mut done).await?;
    }
    let still = |object: &&Quarantined| {
        again.quarantined.iter().any(|now| (&now.name, &now.what) == (&object.name, &object.what))
    };
    let mut moved: Vec<&Quarantined> = Vec::new();
    // Kept before anything is said or deleted: who sees a backup in the log deletes its manifest.
    for object in plan.quarantined.iter().filter(still) {
        match copy(sealed, &object.name).await {
            Ok(()) => moved.push(object),
            Err(error) => {
                tracing::error!(object = %object.name, %error, "it cannot be moved, and stays");
            }
        }
    }
    let given_up: Vec<BackupId> = moved.iter().filter_map(|object| object.gives_up()).collect();
    if !given_up.is_empty() {
        give_up(sealed, domain, given_up).await?;
    }
    for object in moved {
        sealed.store().delete(&object.name).await?;
        done.moved += 1;
    }
    Ok(done)
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
/// who deletes by the log deletes what is left.
async fn give_up(
    sealed: &SealedStore,
    domain: &Name,
    backups: Vec<BackupId>,
) -> Result<(), RepoError> {
    let more = Expired { backups, ..Expired::default() };
    for _ in 0..TRIES_MAX {
        let log = ExpiredLog::read(sealed, domain).await?;
        if log.says(&more) {
            return Ok(());
        }
        log.append(sealed, domain, more.clone()).await?;
    }
    Err(RepoError::Invalid {
        what: "the log of expired backups".into(),
        reason: "other hosts keep changing it; try again".into(),
    })
}

/// Copies an object to `quarantine/`; nothing happens when it is gone.
async fn copy(sealed: &SealedStore, name: &Key) -> Result<(), RepoError> {
    let store = sealed.store();
    let bytes = match store.get(name, MOVED_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == pgrecall_store::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let to = names::quarantine(name)?;
    match store.put_if_absent(&to, bytes.clone()).await {
        Put::Created => Ok(()),
        // An earlier repair was ended between the copy and the deletion.
        Put::Exists if store.get(&to, MOVED_BYTES_MAX).await? == bytes => Ok(()),
        Put::Exists => Err(RepoError::Invalid {
            what: to.to_string(),
            reason: format!("it holds something else than {name}"),
        }),
        Put::Unknown(source) => Err(RepoError::Unknown { object: to.to_string(), source }),
    }
}
