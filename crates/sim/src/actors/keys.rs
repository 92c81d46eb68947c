//! Keys: new epochs, new key files, and the removal of old ones.

use std::sync::Arc;

use pgrecall_repo::keys::{KeyFile, Rotation, Unlock};
use pgrecall_repo::repository::{KeyNote, Repository};

use super::{Context, Ended, chain};

/// Starts a new epoch.
///
/// # Errors
/// When another host did, or the store fails.
pub async fn rotate(context: &mut Context) -> Ended {
    let repository = open(context).await?;
    let domain = context.cluster.domain().clone();
    let epoch =
        repository.rotate(&domain, Rotation::Sealing, None).await.map_err(|error| chain(&error))?;
    Ok(format!("epoch {epoch}"))
}

async fn open(context: &Context) -> Result<Repository, String> {
    let store = Arc::clone(&context.store) as _;
    Repository::open(store, context.options.clone()).await.map_err(|error| chain(&error))
}

/// Adds a key file, or removes one.
///
/// # Errors
/// When it could not.
pub async fn change(context: &mut Context) -> Ended {
    let repository = open(context).await?;
    let (_, log) = repository.key_log().await.map_err(|error| chain(&error))?;
    if log.living.len() < 2 || context.chance.happens(400) {
        let file = KeyFile::random(&context.chance.branch().shared());
        let unlock = Unlock::KeyFile(file.clone());
        let note = KeyNote { label: "another".into(), now: context.clock.now_text() };
        // Whoever may have the key has its file.
        context.keyring.add(file);
        let id = repository.add_key(&unlock, &note).await.map_err(|error| chain(&error))?;
        return Ok(format!("added {id}"));
    }
    let others: Vec<_> = log
        .living
        .iter()
        .map(|key| key.id)
        .filter(|id| Some(*id) != repository.opened_by())
        .collect();
    if others.is_empty() {
        return Ok("no other key is left".into());
    }
    let doomed = others[context.chance.place(others.len())];
    let proof = context.options.unlock.clone();
    repository.remove_key(doomed, &proof).await.map_err(|error| chain(&error))?;
    Ok(format!("removed {doomed}"))
}
