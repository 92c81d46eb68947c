//! Which copies of chunks are known to be bad, so that a good one does not go in their favour.

use std::collections::{BTreeSet, HashSet};

use crate::damaged_wal::WalNotes;
use crate::error::RepoError;
use crate::format::document::DamagedChunk;
use crate::index::{self, Purpose};
use crate::names::{self, ClusterRef, Name};
use crate::sealed_store::SealedStore;

/// Every copy that is noted as bad, if no note was lost since all was read the last time.
///
/// A repair says in each lineage's log that notes were lost, and moves the note then. So one that
/// the first look at the notes does not find is said there to be lost; or everything has been read
/// again already, and what it told of is noted anew, which the second look finds.
///
/// # Errors
/// [`RepoError::NotesLost`]; when a note does not read, or the store fails.
pub(super) async fn known_damage(
    sealed: &SealedStore,
    domain: &Name,
) -> Result<HashSet<DamagedChunk>, RepoError> {
    let mut damaged = index::read_damage(sealed, domain, Purpose::Refer).await?;
    for at in lineages(sealed, domain).await? {
        if WalNotes::read(sealed, &at).await?.due.is_some() {
            let (cluster, lineage) = (at.cluster.to_string(), at.lineage);
            return Err(RepoError::NotesLost { cluster, lineage });
        }
    }
    damaged.extend(index::read_damage(sealed, domain, Purpose::Refer).await?);
    Ok(damaged)
}

/// Those that have backups: nothing is needed of others.
async fn lineages(sealed: &SealedStore, domain: &Name) -> Result<BTreeSet<ClusterRef>, RepoError> {
    let listed = sealed.list(&names::manifests(domain)).await?;
    let at = |name| names::manifest_of(domain, name).map(|(at, _)| at);
    Ok(listed.iter().filter_map(|object| at(&object.key)).collect())
}
