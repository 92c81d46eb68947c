//! The log of expired, ended and held backups, `expired/<n>`: its highest entry holds, and names
//! all the backups that those below it name. Who deletes a manifest goes by what the log says,
//! never by his own plan.

use std::collections::HashSet;

use crate::error::RepoError;
use crate::format::document::{Expired, ExpiredWal, Hold};
use crate::format::header::Kind;
use crate::id::BackupId;
use crate::names::{self, Name};
use crate::sealed_store::{SealedStore, Stored};
use pgrecall_store::Key;

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

    /// Makes the highest entry durable, before something is deleted because of it: its host may
    /// have put it at this moment. What is deleted, and a log that does not say so any more, would
    /// be a loss.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn make_durable(&self, sealed: &SealedStore, domain: &Name) -> Result<(), RepoError> {
        let mut number = self.number;
        while let Some(highest) = number {
            let entry = names::expired(domain).entry(highest);
            match sealed.store().make_durable(&entry).await.map_err(RepoError::from) {
                // A later entry, which says all that this one says, has taken its place.
                Err(error) if error.is_not_found() => {
                    number = Self::read(sealed, domain).await?.number;
                    if number == Some(highest) {
                        return Err(error);
                    }
                }
                made => return made,
            }
        }
        Ok(())
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
        let mut entry = self.entry.clone();
        let known: HashSet<BackupId> = entry.backups.iter().copied().collect();
        entry.backups.extend(more.backups.into_iter().filter(|id| !known.contains(id)));
        let said = |old: &ExpiredWal| {
            more.wal.iter().any(|new| (&new.cluster, &new.lineage) == (&old.cluster, &old.lineage))
        };
        entry.wal.retain(|old| !said(old));
        entry.wal.extend(more.wal);
        entry.held.retain(|hold| !entry.backups.contains(&hold.backup));
        self.put_next(sealed, domain, &entry).await
    }

    /// Puts the entry after the highest. The last number that there is has none after it: its own
    /// is taken, so that this is [`Stored::Other`], where the first one could be free again.
    async fn put_next(
        &self,
        sealed: &SealedStore,
        domain: &Name,
        entry: &Expired,
    ) -> Result<Stored, RepoError> {
        let next = self.number.map_or(0, |number| number.saturating_add(1));
        sealed.put(Kind::Expired, &names::expired(domain).entry(next), entry).await
    }
}

/// Entries tried while others keep winning them.
const TRIES_MAX: u32 = 16;

/// What became of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The log says so: nobody can expire the backup any more who has not read it.
    Held,
    /// The backup had expired before.
    Expired,
}

/// Holds a backup, in place of an earlier hold of it. Holds stand in the log of expired backups
/// itself: of a hold and an expiry at once one wins the next entry, and the other sees it.
///
/// # Errors
/// When the store does not say what became of it, or others keep changing the log.
pub async fn hold(sealed: &SealedStore, domain: &Name, hold: &Hold) -> Result<Held, RepoError> {
    let is_held = |entry: &Expired| entry.held.contains(hold);
    let put_it = |entry: &mut Expired| {
        entry.held.retain(|old| old.backup != hold.backup);
        entry.held.push(hold.clone());
    };
    let gone = |entry: &Expired| entry.backups.contains(&hold.backup);
    match change(sealed, domain, is_held, gone, put_it).await? {
        Change::Made => Ok(Held::Held),
        Change::Moot => Ok(Held::Expired),
    }
}

/// Takes the hold off a backup; nothing happens when there is none.
///
/// # Errors
/// As [`hold`].
pub async fn release(sealed: &SealedStore, domain: &Name, id: BackupId) -> Result<(), RepoError> {
    let is_free = |entry: &Expired| entry.held.iter().all(|hold| hold.backup != id);
    let take_it_off = |entry: &mut Expired| entry.held.retain(|hold| hold.backup != id);
    change(sealed, domain, is_free, |_| false, take_it_off).await.map(|_| ())
}

enum Change {
    Made,
    Moot,
}

/// Puts entries until the highest one is as wished. Whoever has put one reads the highest again: a
/// number that was freed may have been won by an entry that is out of date.
async fn change(
    sealed: &SealedStore,
    domain: &Name,
    is_made: impl Fn(&Expired) -> bool,
    is_moot: impl Fn(&Expired) -> bool,
    make: impl Fn(&mut Expired),
) -> Result<Change, RepoError> {
    for _ in 0..TRIES_MAX {
        let log = ExpiredLog::read(sealed, domain).await?;
        if is_moot(&log.entry) {
            return Ok(Change::Moot);
        }
        if is_made(&log.entry) {
            return Ok(Change::Made);
        }
        let mut entry = log.entry.clone();
        make(&mut entry);
        log.put_next(sealed, domain, &entry).await?;
    }
    Err(RepoError::Invalid {
        what: "the log of expired backups".into(),
        reason: "other hosts keep changing it; try again".into(),
    })
}

/// Deletes the manifests that the highest entry names, whoever has put them there (E3).
///
/// # Errors
/// When the store fails; what is left goes the next time.
pub async fn remove_manifests(sealed: &SealedStore, domain: &Name) -> Result<u64, RepoError> {
    let listed = sealed.list(&names::manifests(domain)).await?;
    let log = ExpiredLog::read(sealed, domain).await?;
    let named: HashSet<&BackupId> = log.entry.backups.iter().collect();
    let goes =
        |key: &Key| names::manifest_of(domain, key).is_some_and(|(_, id)| named.contains(&id));
    let going: Vec<_> = listed.into_iter().filter(|object| goes(&object.key)).collect();
    if !going.is_empty() {
        log.make_durable(sealed, domain).await?;
    }
    for object in &going {
        sealed.store().delete(&object.key).await?;
    }
    Ok(u64::try_from(going.len()).unwrap_or(u64::MAX))
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
    if numbers().any(|number| number < highest) {
        match sealed.store().make_durable(&log.entry(highest)).await.map_err(RepoError::from) {
            // Somebody has put a higher one, and tidies up himself.
            Err(error) if error.is_not_found() => return Ok(()),
            made => made?,
        }
    }
    for number in numbers().filter(|number| *number < highest) {
        sealed.store().delete(&log.entry(number)).await?;
    }
    Ok(())
}
