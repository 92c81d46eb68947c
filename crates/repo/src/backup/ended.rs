//! Backups under way as others see them, and how a dead one is ended.

use crate::error::{ErrorKind, RepoError};
use crate::format::document::{Intent, Start, Tombstone};
use crate::format::header::Kind;
use crate::id::BackupId;
use crate::index::warn_unreadable;
use crate::names::{self, ClusterRef, Name};
use crate::sealed_store::{SealedStore, Stored};

/// An intent that is in the store.
#[derive(Debug, Clone)]
pub struct LiveIntent {
    /// What it says.
    pub intent: Intent,
    /// Where the backup starts, once it has said so and if that can be read.
    pub start: Option<Start>,
}

/// The backups under way of one cluster. What an unreadable intent says is unknown, `?`, but its
/// name tells that there is a backup, and by its id it can be ended.
///
/// # Errors
/// When the store fails.
pub async fn live_intents(
    sealed: &SealedStore,
    at: &ClusterRef,
) -> Result<Vec<LiveIntent>, RepoError> {
    let mut live = Vec::new();
    for object in sealed.list(&names::intents(at)).await? {
        let Ok(id) = object.key.file_name().parse::<BackupId>() else { continue };
        let intent = match sealed.get::<Intent>(Kind::Intent, &object.key).await {
            Ok(intent) => intent,
            Err(error) if error.is_not_found() => continue,
            Err(error) if is_damage(&error) => {
                warn_unreadable(&object.key, &error, "the intent of a backup cannot be read");
                unreadable(id)
            }
            Err(error) => return Err(error),
        };
        let name = names::start(at, id);
        let start = match sealed.get::<Start>(Kind::Start, &name).await {
            Ok(start) => Some(start),
            Err(error) if error.is_not_found() => None,
            Err(error) if is_damage(&error) => {
                warn_unreadable(&name, &error, "where a backup starts cannot be read");
                None
            }
            Err(error) => return Err(error),
        };
        live.push(LiveIntent { intent, start });
    }
    Ok(live)
}

fn is_damage(error: &RepoError) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}

/// No host has this name, so nobody takes the backup for one of his own.
fn unreadable(backup: BackupId) -> Intent {
    let unknown = || "?".to_owned();
    let (began, host) = (unknown(), unknown());
    Intent { backup, began, host, process: 0, incarnation: String::new() }
}

/// Ends a dead backup (S1): a tombstone under its manifest's name first, so that a manifest that
/// comes late is refused by the store itself, then its intent is deleted. True when the backup
/// turns out to have been committed, and stands.
///
/// # Errors
/// When the store fails.
pub async fn end_dead(
    sealed: &SealedStore,
    at: &ClusterRef,
    id: BackupId,
    reason: String,
) -> Result<bool, RepoError> {
    let name = names::manifest(at, id);
    let tombstone = Tombstone { backup: id, reason };
    let stored = sealed.put(Kind::Tombstone, &name, &tombstone).await?;
    delete_intent(sealed, at, id).await;
    if stored == Stored::Mine {
        return Ok(false);
    }
    Ok(sealed.header(&name).await?.kind == Kind::Manifest)
}

/// Deletes what says where backups start whose intents are gone: it goes after the intent, and
/// whoever was to delete it has died in between, or it has come late.
///
/// # Errors
/// When the store fails.
pub(crate) async fn remove_lone_starts(
    sealed: &SealedStore,
    domain: &Name,
) -> Result<(), RepoError> {
    for object in sealed.list(&names::all_intents(domain)).await? {
        let Some((at, id)) = names::start_of(domain, &object.key) else { continue };
        // An intent is there before its start is: gone now, it is gone for ever, while a listing
        // may have come by before both were there.
        match sealed.store().head(&names::intent(&at, id)).await {
            Ok(_) => {}
            Err(error) if error.kind() == pgrecall_store::ErrorKind::NotFound => {
                sealed.store().delete(&object.key).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Deletes an intent that a manifest or a tombstone has ended, or a backup that never sent its
/// manifest: one that stays is litter, and keeps gc from removing what it may refer to.
pub(super) async fn delete_intent(sealed: &SealedStore, at: &ClusterRef, id: BackupId) {
    for name in [names::intent(at, id), names::start(at, id)] {
        if let Err(error) = sealed.store().delete(&name).await {
            tracing::warn!(object = %name, %error, "an object that has served its time cannot be \
                deleted, and stays");
        }
    }
}
