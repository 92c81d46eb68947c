//! Notes of WAL that a verification found damaged: backups that cannot do without it are no good
//! ones to those that expire others.
//!
//! A note stays until a later verification has read the segment and found it sound, or it is gone;
//! then another note is put with what is left, and the old one is deleted, in that order.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};
use pgrecall_store::Key;

use crate::error::RepoError;
use crate::format::document::{Damage, DamagedWal};
use crate::format::header::Kind;
use crate::id::DamageId;
use crate::index;
use crate::names::{self, ClusterRef};
use crate::sealed_store::SealedStore;

/// Notes read at once.
const READS_AT_ONCE: usize = 16;

/// What the notes say of one lineage.
#[derive(Debug, Clone, Default)]
pub struct WalNotes {
    /// All that was found damaged.
    pub damaged: BTreeSet<DamagedWal>,
    /// Who found it and when, for people; of several the last one read.
    pub found: String,
    /// The notes.
    objects: Vec<Key>,
}

impl WalNotes {
    /// Reads what is noted of a lineage's WAL. A note that does not read is passed over, with a
    /// warning.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read(sealed: &SealedStore, at: &ClusterRef) -> Result<Self, RepoError> {
        let below = names::cluster_prefix(at, "")?;
        let is_ours = |wal: &DamagedWal| wal.object.starts_with(below.as_str());
        let listed = sealed.list(&names::all_damaged(&at.domain)).await?;
        let mut read = futures::stream::iter(listed)
            .map(|object| async move {
                match sealed.get::<Damage>(Kind::Damage, &object.key).await {
                    Ok(note) => Ok(Some((object.key, note))),
                    // Another verification has put a newer one, or a repair moved it.
                    Err(error) if error.is_not_found() => Ok(None),
                    Err(error) if error.is_damage() => {
                        let what = "a note of damage cannot be read";
                        index::warn_unreadable(&object.key, &error, what);
                        Ok(None)
                    }
                    Err(error) => Err(error),
                }
            })
            .buffered(READS_AT_ONCE);
        let mut notes = Self::default();
        while let Some(note) = read.try_next().await? {
            let Some((object, note)) = note.filter(|(_, note)| note.wal.iter().any(is_ours)) else {
                continue;
            };
            // What speaks of anything else too is not ours to replace.
            if note.chunks.is_empty() && note.wal.iter().all(is_ours) {
                notes.objects.push(object);
            }
            notes.damaged.extend(note.wal.into_iter().filter(is_ours));
            notes.found = note.found;
        }
        Ok(notes)
    }

    /// Puts what is damaged now in the place of these notes; where they say just that, nothing is
    /// done.
    ///
    /// # Errors
    /// When the store does not confirm the new note, or deletes no old one.
    pub async fn replace(
        &self,
        sealed: &SealedStore,
        at: &ClusterRef,
        damaged: &BTreeSet<DamagedWal>,
        found: String,
    ) -> Result<(), RepoError> {
        if self.damaged == *damaged {
            return Ok(());
        }
        if !damaged.is_empty() {
            let wal = damaged.iter().cloned().collect();
            let name = names::damaged(&at.domain, DamageId::random(sealed.random()));
            let note = Damage { chunks: Vec::new(), wal, found };
            sealed.put(Kind::Damage, &name, &note).await?;
        }
        for object in &self.objects {
            sealed.store().delete(object).await?;
        }
        Ok(())
    }
}
