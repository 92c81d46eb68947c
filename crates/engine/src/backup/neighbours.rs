//! One backup of a cluster at a time: what other backups are under way, and which of them are dead.
//!
//! Nothing here decides safety (the protocol does, without clocks): it spares the server two
//! copies at once, and clears away what a killed backup has left.

use pgrecall_repo::backup::{self, LiveIntent};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::names;

use crate::backup::incarnation;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;

/// Who runs this backup.
#[derive(Debug, Clone)]
pub struct Host {
    /// The host's name.
    pub name: String,
    /// This process.
    pub process: u32,
}

impl Host {
    /// True when the intent's process ran on this host and is no more.
    #[must_use]
    pub fn knows_dead(&self, live: &LiveIntent) -> bool {
        let intent = &live.intent;
        if intent.host != self.name {
            return false;
        }
        // Another backup cannot be this very process: its number came back.
        if intent.process == self.process || !incarnation::is_alive(intent.process) {
            return true;
        }
        let now = incarnation::of(intent.process);
        !intent.incarnation.is_empty() && !now.is_empty() && now != intent.incarnation
    }
}

/// How a backup ended that was taken for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadEnd {
    /// It can never be committed any more. What it stored serves the next one.
    Ended,
    /// It had been committed, and stands; what it left behind is gone.
    Committed,
}

/// Ends a backup that a person knows to be dead: from here on it can never be committed, whether
/// its process still runs or not.
///
/// # Errors
/// The store's failures.
pub async fn end_dead(
    cluster: &ClusterStore,
    id: BackupId,
    reason: String,
) -> Result<DeadEnd, EngineError> {
    let stands = backup::end_dead(&cluster.sealed, &cluster.at, id, reason).await?;
    Ok(if stands { DeadEnd::Committed } else { DeadEnd::Ended })
}

/// Ends the dead backups of this host; refuses while another one is under way. `own` are the tries
/// of this run, the last one under way.
///
/// # Errors
/// `Conflict` when another backup of the cluster runs; the store's failures.
pub async fn make_way(
    cluster: &ClusterStore,
    host: &Host,
    own: &[BackupId],
    progress: &Progress,
) -> Result<(), EngineError> {
    for live in backup::live_intents(&cluster.sealed, &cluster.at).await? {
        let id = live.intent.backup;
        if own.contains(&id) {
            continue;
        }
        if is_committed(cluster, id).await? {
            // It died, or was cut off, between its manifest and the end.
            end_dead(cluster, id, "it is committed".into()).await?;
            continue;
        }
        if host.knows_dead(&live) {
            let reason = format!("its process {} on {} was gone", live.intent.process, host.name);
            end_dead(cluster, id, reason).await?;
            progress.note(format!(
                "the backup {id}, begun {}, had died: it is ended, and what it stored is used",
                live.intent.began
            ));
            continue;
        }
        // Of two that began at the same moment the one with the smaller id goes on.
        if own.last().is_some_and(|own| *own < id) {
            continue;
        }
        return Err(refusal(cluster, &live));
    }
    Ok(())
}

async fn is_committed(cluster: &ClusterStore, id: BackupId) -> Result<bool, EngineError> {
    match cluster.sealed.header(&names::manifest(&cluster.at, id)).await {
        Ok(header) => Ok(header.kind == Kind::Manifest),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
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
    .hint("Wait until it has ended.")
    .hint(format!(
        "If it died (that host or container is gone for good), end it: pgrecall backup --end-dead \
         {}. It can never be committed then; what it stored is used.",
        intent.backup
    ))
}

#[cfg(test)]
mod tests {
    use pgrecall_repo::format::document::Intent;

    use super::*;

    fn live(host: &str, process: u32, incarnation: &str) -> LiveIntent {
        let intent = Intent {
            backup: BackupId::from_bytes([1; 16]),
            began: "now".into(),
            host: host.into(),
            process,
            incarnation: incarnation.into(),
        };
        LiveIntent { intent, start: None }
    }

    #[test]
    fn a_process_number_that_came_back_does_not_keep_a_dead_backup_alive() {
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        let host = Host { name: "db1".into(), process: own };
        assert!(host.knows_dead(&live("db1", own, "")), "our own number, another backup");
        assert!(host.knows_dead(&live("db1", u32::MAX >> 1, "")), "no such process");
        assert!(host.knows_dead(&live("db1", parent, "earlier-boot/7")), "started since");
        assert!(!host.knows_dead(&live("db1", parent, &incarnation::of(parent))));
        assert!(!host.knows_dead(&live("db1", parent, "")), "nothing is known of it");
        assert!(!host.knows_dead(&live("db2", own, "")), "another host");
    }
}
