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
    /// Where notes were lost, of this or of the domain's chunks: the entry that said so. Until all
    /// has been read again nobody knows what is damaged.
    pub due: Option<u64>,
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
            due: note.due,
            number: Some(number),
        }))
    }

    /// Whether both are the same entry.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.number == other.number
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
        Say { damaged, due, found }: Say,
    ) -> Result<Stored, RepoError> {
        let log = names::damaged_wal(at)?;
        let number = self.number.map_or(0, |number| number.saturating_add(1));
        let wal = damaged.into_iter().collect();
        let note = Damage { chunks: Vec::new(), wal, found, due };
        let stored = sealed.put(Kind::Damage, &log.entry(number), &note).await?;
        if stored == Stored::Mine {
            remove_lower(sealed, &log, number).await;
        }
        Ok(stored)
    }
}

/// What an entry says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Say {
    /// All that is damaged.
    pub damaged: BTreeSet<DamagedWal>,
    /// As [`WalNotes::due`].
    pub due: Option<u64>,
    /// As [`WalNotes::found`].
    pub found: String,
}

/// Entries tried while others win them.
const TRIES_MAX: u32 = 16;

/// Says that notes were lost, above an entry that does not read too. What is noted stays so. It is
/// said anew also where it is said already: who has begun to read everything has not read what was
/// noted until now.
///
/// # Errors
/// When the store fails.
pub(crate) async fn mark_due(sealed: &SealedStore, at: &ClusterRef) -> Result<(), RepoError> {
    let log = names::damaged_wal(at)?;
    for _ in 0..TRIES_MAX {
        let listed = sealed.list(log.prefix()).await?;
        let highest = listed.iter().filter_map(|object| log.number(&object.key)).max();
        let known = match highest {
            None => WalNotes::default(),
            Some(number) => match sealed.get::<Damage>(Kind::Damage, &log.entry(number)).await {
                Ok(note) => WalNotes {
                    damaged: note.wal.into_iter().collect(),
                    found: note.found,
                    ..WalNotes::default()
                },
                Err(error) if error.is_not_found() => continue,
                Err(error) if error.is_damage() => WalNotes::default(),
                Err(error) => return Err(error),
            },
        };
        let next = highest.map_or(0, |number| number.saturating_add(1));
        let (wal, found) = (known.damaged.into_iter().collect(), known.found);
        let note = Damage { chunks: Vec::new(), wal, found, due: Some(next) };
        if sealed.put(Kind::Damage, &log.entry(next), &note).await? == Stored::Mine {
            return Ok(());
        }
    }
    Err(RepoError::Invalid {
        what: log.prefix().to_string(),
        reason: "other hosts keep changing it; try again".into(),
    })
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
