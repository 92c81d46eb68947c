//! H1, told from the log of expired backups: what was said to be held does not expire, and nobody
//! takes a hold off who was not asked to.

use std::collections::{BTreeMap, BTreeSet};

use pgrecall_repo::format::document::{Expired, Hold};
use pgrecall_repo::id::BackupId;

use super::Oracle;
use crate::request::ProcessId;

/// Who may change holds.
#[derive(Debug, Default)]
pub(super) struct Holders {
    holding: BTreeSet<ProcessId>,
    /// What each was asked to take off: its request may be late by hours.
    releasing: BTreeMap<ProcessId, BackupId>,
    /// What has ever been held.
    ever: BTreeSet<BackupId>,
}

impl Oracle {
    /// A process puts a hold on some backup.
    pub fn may_hold(&mut self, process: ProcessId) {
        self.holders.holding.insert(process);
    }

    /// A process takes the hold off a backup.
    pub fn may_release(&mut self, process: ProcessId, id: BackupId) {
        self.holders.releasing.insert(process, id);
    }

    /// Somebody was told that a backup is held.
    pub fn told_held(&mut self, id: BackupId) {
        // Where somebody takes it off at the same time, he may have done so since it was read.
        let is_released = self.holders.releasing.values().any(|released| *released == id);
        let is_held = self.log().held.iter().any(|hold| hold.backup == id);
        if !is_held && !is_released {
            self.violated("H1", format!("backup {id} was told to be held, and the log is silent"));
        }
    }

    /// The backups that are held, for however long.
    #[must_use]
    pub fn held(&self) -> Vec<BackupId> {
        self.log().held.iter().map(|hold| hold.backup).collect()
    }

    pub(super) fn was_held(&self, id: BackupId) -> bool {
        self.holders.ever.contains(&id)
    }

    /// A process's entry holds now, after another.
    pub(super) fn holds_go_on(&mut self, process: ProcessId, before: &Expired, after: &Expired) {
        self.holders.ever.extend(after.held.iter().map(|hold| hold.backup));
        for hold in &before.held {
            let id = hold.backup;
            // When others end is told by clocks, which are hours apart. One that was ended before
            // it committed, and is held by a host that cannot read that, is no backup.
            let is_backup = self.manifests.contains(&id);
            if hold.until.is_none() && after.backups.contains(&id) && is_backup {
                self.violated("H1", format!("{process} expires backup {id}, which is held"));
            }
            let still = after.held.iter().find(|after| after.backup == id);
            let may_go = self.holders.releasing.get(&process) == Some(&id)
                || ((hold.until.is_some() || !is_backup) && after.backups.contains(&id));
            if still.is_none_or(|still| *still != *hold)
                && !may_go
                && !self.may_renew(process, still)
            {
                self.violated("H1", format!("{process} changes the hold of backup {id}"));
            }
        }
    }

    fn may_renew(&self, process: ProcessId, hold: Option<&Hold>) -> bool {
        hold.is_some() && self.holders.holding.contains(&process)
    }
}
