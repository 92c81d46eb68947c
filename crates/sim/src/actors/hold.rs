//! Holds: one is put on a backup, or taken off.

use jiff::SignedDuration;
use pgrecall_engine::retention::hold;
use pgrecall_repo::format::document::Hold;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::manifests;

use super::{Context, Ended, chain};

/// Puts a hold on a backup that is there, or takes one off.
///
/// # Errors
/// When the backup has expired meanwhile, or the store fails.
pub async fn run(context: &mut Context) -> Ended {
    if context.chance.happens(context.habits.releases) {
        let holds = hold::holds(&context.cluster).await.map_err(|error| chain(&error))?;
        if !holds.is_empty() {
            let backup = holds[context.chance.place(holds.len())].backup;
            return release(context, backup).await;
        }
    }
    add(context).await
}

/// Takes the hold off a backup.
///
/// # Errors
/// When the store fails.
pub async fn release(context: &Context, backup: BackupId) -> Ended {
    context.world.lock().oracle.may_release(context.process, backup);
    hold::remove(&context.cluster, backup).await.map_err(|error| chain(&error))?;
    Ok(format!("backup {backup} is held no more"))
}

/// One whose manifest does not read can be held, too.
async fn add(context: &mut Context) -> Ended {
    let (sealed, domain) = (&context.cluster.sealed, context.cluster.domain());
    let listed = manifests::list(sealed, domain).await.map_err(|error| chain(&error))?;
    let mut ids: Vec<BackupId> = listed.unreadable.iter().map(|row| row.id).collect();
    ids.extend(listed.valid.iter().map(|backup| backup.manifest.backup));
    if ids.is_empty() {
        return Ok("there is no backup".into());
    }
    let backup = ids[context.chance.place(ids.len())];
    let ends = context.chance.happens(150);
    let hours = SignedDuration::from_hours(1 + context.chance.below(20) as i64);
    let until = ends.then(|| context.clock.now().saturating_add(hours).ok()).flatten();
    let new = Hold {
        backup,
        reason: "somebody wants it".into(),
        until: until.map(|until| until.to_string()),
        by: context.process.to_string(),
    };
    context.world.lock().oracle.may_hold(context.process);
    hold::add(&context.cluster, &new).await.map_err(|error| chain(&error))?;
    context.world.lock().oracle.told_held(backup);
    Ok(format!("backup {backup} is held"))
}
