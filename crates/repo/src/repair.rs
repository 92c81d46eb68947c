//! Repairing a domain: what its index has lost is put into it again from the packs, and what cannot
//! be read and stands in the way of expiries and collections is moved to `quarantine/`.
//!
//! First a look, which changes nothing; then what it found is mended. Nothing is thrown away.

mod carry_out;
mod lineages;
mod look;

use pgrecall_store::Key;

use crate::error::ErrorKind;
use crate::format::header::Kind;
use crate::id::{BackupId, PackId};
use crate::names::ClusterRef;

pub use carry_out::{Repaired, carry_out, give_up};
pub use look::look;

/// What is to be done to a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairPlan {
    /// Packs of which the index names no chunk, or not all.
    pub reindexed: Vec<LostPack>,
    /// Objects that are damaged and are moved out of the way.
    pub quarantined: Vec<Quarantined>,
    /// What cannot be mended here, or must not be: of another version, or told by nobody any more.
    pub left: Vec<Left>,
}

impl RepairPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reindexed.is_empty() && self.quarantined.is_empty()
    }

    /// The backups that are given up.
    pub fn given_up(&self) -> impl Iterator<Item = BackupId> {
        self.quarantined.iter().filter_map(Quarantined::gives_up)
    }
}

/// A pack that the index does not name, or not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostPack {
    /// The pack.
    pub id: PackId,
    /// Data or metadata.
    pub kind: Kind,
    /// Its chunks, by its own directory.
    pub chunks: u64,
}

/// An object that is damaged and is moved out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Its name.
    pub name: Key,
    /// What it is.
    pub what: What,
    /// What is wrong with it, or with what it belongs to.
    pub reason: String,
}

impl Quarantined {
    const fn gives_up(&self) -> Option<BackupId> {
        match self.what {
            What::Manifest { backup, .. } | What::MissingManifest { backup, .. } => Some(backup),
            _ => None,
        }
    }
}

/// What a damaged object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A manifest or a tombstone: the backup is given up, and its id goes into the log of expired
    /// backups before the object moves.
    Manifest {
        /// Its cluster.
        at: ClusterRef,
        /// The backup.
        backup: BackupId,
    },
    /// A manifest that is not there, of a backup that others have seen: it is given up.
    MissingManifest {
        /// Its cluster.
        at: ClusterRef,
        /// The backup.
        backup: BackupId,
    },
    /// An index object: moved once all that the packs hold is in the index.
    Index,
    /// A note of damaged chunks for which another stands.
    DamageNote,
    /// The identity of a cluster of this domain: its backups say what it was, and who archives or
    /// backs up on its server puts it again.
    Identity {
        /// Its cluster.
        at: ClusterRef,
    },
    /// A pack whose directory does not read and of which no index object speaks: nobody knows what
    /// was in it, nor where.
    Pack {
        /// Data or metadata.
        kind: Kind,
        /// The pack.
        id: PackId,
    },
}

/// An object that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Its name.
    pub name: Key,
    /// The reaction that it calls for: [`ErrorKind::Unsupported`] for what another version wrote.
    pub kind: ErrorKind,
    /// What is wrong with it, and why it stays.
    pub reason: String,
}
