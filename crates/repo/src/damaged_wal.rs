//! Notes of WAL that verifications found damaged: backups that cannot do without it are no good
//! ones to those that expire others.
//!
//! Each lineage has a log, of which the highest entry says all that is damaged. So a reader never
//! meets an old entry that is gone and a new one that he has not listed, and who may not delete can
//! still write one.

use std::collections::BTreeSet;

use crate::error::RepoError;
use crate::format::document::{Damage, DamagedWal};
use crate::format::header::Kind;
use crate::names::{self, ClusterRef};
use crate::sealed_store::{SealedStore, Stored};

/// The highest entry of a lineage's log, as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalNotes {
    /// All that was found damaged.
    pub damaged: BTreeSet<DamagedWal>,
    /// Who found it and when, for people.
    pub found: String,
    /// The entry's number; nothing before the first.
    number: Option<u64>,
}

impl WalNotes {
    /// Reads what is noted of a lineage's WAL.
    ///
    /// # Errors
    /// When it cannot be listed or read.
    pub async fn read(sealed: &SealedStore, at: &ClusterRef) -> Result<Self, RepoError> {
        let log = names::damaged_wal(at)?;
        let newest = sealed.newest::<Damage>(Kind::Damage, &log).await?;
        Ok(newest.map_or_else(Self::default, |(number, note)| Self {
            damaged: note.wal.into_iter().collect(),
            found: note.found,
            number: Some(number),
        }))
    }

    /// Whether both are the same entry.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }

    /// The highest entry, whether it reads or not: what it says is not known.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub async fn unread(sealed: &SealedStore, at: &ClusterRef) -> Result<Self, RepoError> {
        let log = names::damaged_wal(at)?;
        Ok(Self { number: highest(sealed, &log).await?, ..Self::default() })
    }

    /// Puts the entry after this one. [`Stored::Other`] is no error: somebody was faster, and what
    /// is to be said has to be thought over.
    ///
    /// # Errors
    /// When the store does not say what became of it.
    pub async fn put_next(
        &self,
        sealed: &SealedStore,
        at: &ClusterRef,
        Say { damaged, found }: Say,
    ) -> Result<Stored, RepoError> {
        let log = names::damaged_wal(at)?;
        let number = self.number.map_or(0, |number| number.saturating_add(1));
        let wal = damaged.into_iter().collect();
        let note = Damage { chunks: Vec::new(), wal, found, replaces: Vec::new() };
        if sealed.put(Kind::Damage, &log.entry(number), &note).await? == Stored::Other {
            return Ok(Stored::Other);
        }
        // The number may have been taken before, and tidied away: then nobody reads this.
        if highest(sealed, &log).await? != Some(number) {
            return Ok(Stored::Other);
        }
        remove_lower(sealed, &log, number).await;
        Ok(Stored::Mine)
    }
}

async fn highest(sealed: &SealedStore, log: &names::LogName) -> Result<Option<u64>, RepoError> {
    let listed = sealed.list(log.prefix()).await?;
    Ok(listed.iter().filter_map(|object| log.number(&object.key)).max())
}

/// What an entry says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Say {
    /// All that is damaged.
    pub damaged: BTreeSet<DamagedWal>,
    /// As [`WalNotes::found`].
    pub found: String,
}

/// Those below the highest say nothing any more; who may not delete them leaves them.
async fn remove_lower(sealed: &SealedStore, log: &names::LogName, number: u64) {
    let lower = async {
        for object in sealed.list(log.prefix()).await? {
            if log.number(&object.key).is_some_and(|other| other < number) {
                sealed.store().delete(&object.key).await?;
            }
        }
        Ok::<_, RepoError>(())
    };
    if let Err(error) = lower.await {
        tracing::debug!("earlier notes of damaged WAL stay: {error}");
    }
}
