//! One backup of a cluster at a time: what other backups are under way, and which of them are dead.
//!
//! Nothing here decides safety (the protocol does, without clocks): it spares the server two
//! copies at once, and clears away what a killed backup has left.

use pgrecall_repo::backup::{self, LiveIntent};
use pgrecall_repo::id::BackupId;

use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;

/// Who runs this backup.
#[derive(Debug, Clone)]
pub struct Host {
    /// The host's name.
    pub name: String,
}

impl Host {
    /// True when the intent's process ran on this host and is no more.
    fn knows_dead(&self, live: &LiveIntent) -> bool {
        live.intent.host == self.name && !is_alive(live.intent.process)
    }
}

/// Ends the dead backups of this host; refuses while another one is under way.
///
/// # Errors
/// `Conflict` when another backup of the cluster runs; the store's failures.
pub async fn make_way(
    cluster: &ClusterStore,
    host: &Host,
    own: Option<BackupId>,
    progress: &Progress,
) -> Result<(), EngineError> {
    for live in backup::live_intents(&cluster.sealed, &cluster.at).await? {
        let id = live.intent.backup;
        if own == Some(id) {
            continue;
        }
        if host.knows_dead(&live) {
            let reason = format!("its process {} on {} was gone", live.intent.process, host.name);
            backup::end_dead(&cluster.sealed, &cluster.at, id, reason).await?;
            progress.note(format!(
                "the backup {id}, begun {}, had died: it is ended, and what it stored is used",
                live.intent.began
            ));
            continue;
        }
        // Of two that began at the same moment the one with the smaller id goes on.
        if own.is_some_and(|own| own < id) {
            continue;
        }
        return Err(refusal(cluster, &live));
    }
    Ok(())
}

fn refusal(cluster: &ClusterStore, live: &LiveIntent) -> EngineError {
    let intent = &live.intent;
    EngineError::refused(
        ErrorKind::Conflict,
        format!(
            "another backup of cluster {} is under way: {} on {} (process {}), begun {}",
            cluster.at.cluster, intent.backup, intent.host, intent.process, intent.began
        ),
    )
    .hint(format!(
        "Wait until it has ended. If that host is gone for good, remove the object {} from the \
         repository: it is all that is left of that backup.",
        pgrecall_repo::names::intent(&cluster.at, intent.backup)
    ))
}

fn is_alive(process: u32) -> bool {
    let pid = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    match pid.map(rustix::process::test_kill_process) {
        None => false,
        Some(Ok(())) => true,
        // It is there and belongs to somebody else.
        Some(Err(error)) => error == rustix::io::Errno::PERM,
    }
}
