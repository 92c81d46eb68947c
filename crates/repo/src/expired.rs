//! The log of expired and ended backups, `expired/<n>`: its highest entry holds, and says all that
//! those below it say. Who deletes a manifest goes by what the log says, never by his own plan.

use std::collections::HashSet;

use crate::error::RepoError;
use crate::format::document::{Expired, ExpiredWal};
use crate::format::header::Kind;
use crate::id::BackupId;
use crate::names::{self, Name};
use crate::sealed_store::{SealedStore, Stored};

/// The highest entry, as it was read.
#[derive(Debug, Clone, Default)]
pub struct ExpiredLog {
    number: Option<u64>,
    entry: Expired,
}

impl ExpiredLog {
    /// Reads the highest entry; one that is damaged is an error, since nobody may delete who does
    /// not know what it says.
    ///
    /// # Errors
    /// When it cannot be listed or read.
    pub async fn read(sealed: &SealedStore, domain: &Name) -> Result<Self, RepoError> {
        let newest = sealed.newest(Kind::Expired, &names::expired(domain)).await?;
        Ok(newest
            .map_or_else(Self::default, |(number, entry)| Self { number: Some(number), entry }))
    }

    /// What it says.
    #[must_use]
    pub const fn entry(&self) -> &Expired {
        &self.entry
    }

    /// Whether it says all of this.
    #[must_use]
    pub fn says(&self, more: &Expired) -> bool {
        let known: HashSet<&BackupId> = self.entry.backups.iter().collect();
        more.backups.iter().all(|id| known.contains(id))
            && more.wal.iter().all(|wal| self.entry.wal.contains(wal))
    }

    /// Appends an entry that says `more` besides what this one says (E2). Of a lineage whose WAL is
    /// in `more`, it says that instead of what it said of its WAL.
    ///
    /// # Errors
    /// When the store does not say what became of it. [`Stored::Other`] is no error: somebody was
    /// faster, and whatever was planned has to be planned anew.
    pub async fn append(
        &self,
        sealed: &SealedStore,
        domain: &Name,
        more: Expired,
    ) -> Result<Stored, RepoError> {
        let next = self.number.map_or(0, |number| number + 1);
        let mut entry = self.entry.clone();
        let known: HashSet<BackupId> = entry.backups.iter().copied().collect();
        entry.backups.extend(more.backups.into_iter().filter(|id| !known.contains(id)));
        let said = |old: &ExpiredWal| {
            more.wal.iter().any(|new| (&new.cluster, &new.lineage) == (&old.cluster, &old.lineage))
        };
        entry.wal.retain(|old| !said(old));
        entry.wal.extend(more.wal);
        sealed.put(Kind::Expired, &names::expired(domain).entry(next), &entry).await
    }
}

/// Deletes the manifests that the highest entry names, whoever has put them there (E3).
///
/// # Errors
/// When the store fails; what is left goes the next time.
pub async fn remove_manifests(sealed: &SealedStore, domain: &Name) -> Result<u64, RepoError> {
    let listed = sealed.list(&names::manifests(domain)).await?;
    let log = ExpiredLog::read(sealed, domain).await?;
    let named: HashSet<&BackupId> = log.entry.backups.iter().collect();
    let mut removed = 0;
    for object in listed {
        if names::manifest_of(domain, &object.key).is_some_and(|(_, id)| named.contains(&id)) {
            sealed.store().delete(&object.key).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Deletes entries below the highest (E4).
///
/// # Errors
/// When the store fails.
pub async fn remove_lower_entries(sealed: &SealedStore, domain: &Name) -> Result<(), RepoError> {
    let log = names::expired(domain);
    let listed = sealed.list(log.prefix()).await?;
    let numbers = || listed.iter().filter_map(|object| log.number(&object.key));
    let Some(highest) = numbers().max() else { return Ok(()) };
    for number in numbers().filter(|number| *number < highest) {
        sealed.store().delete(&log.entry(number)).await?;
    }
    Ok(())
}
