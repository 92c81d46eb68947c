//! Looking for what does not read of the lineages' own objects: identities, and notes of damaged
//! WAL. They lie outside of their domain, and are sealed by it: one that does not open may be
//! another domain's.

use std::collections::HashSet;

use futures::StreamExt as _;
use pgrecall_store::Key;

use super::look::read;
use super::{RepairPlan, What};
use crate::archive;
use crate::error::{ErrorKind, RepoError};
use crate::format::document::{Damage, Identity};
use crate::format::header::Kind;
use crate::names::{self, ClusterRef, Name};
use crate::sealed_store::SealedStore;

/// Archived files that are tried before a cluster counts as another domain's.
const FILES_TRIED: usize = 16;

/// Takes up what does not read of this domain's lineages; `readable` are its manifests that do.
/// Gives the epochs of archived files that were read to tell whose a lineage is.
pub(super) async fn look(
    sealed: &SealedStore,
    domain: &Name,
    readable: &[Key],
    plan: &mut RepairPlan,
) -> Result<HashSet<u32>, RepoError> {
    let mut epochs = HashSet::new();
    for cluster in sealed.list_folders(&names::clusters()).await? {
        for lineage in sealed.list_folders(&cluster).await? {
            let Ok(cluster) = cluster.name().parse() else { continue };
            let lineage = lineage.name().to_owned();
            let at = ClusterRef { domain: domain.clone(), cluster, lineage };
            let Ok(identity) = names::cluster_object(&at, "identity") else { continue };
            let read_it = read::<Identity>(sealed, Kind::Identity, &identity).await;
            let lost = failed(identity, read_it)?;
            let note = match newest_note(sealed, &at).await? {
                Some(note) => {
                    let read_it = read::<Damage>(sealed, Kind::Damage, &note).await;
                    failed(note, read_it)?
                }
                None => None,
            };
            if lost.is_none() && note.is_none() {
                continue;
            }
            let of_us = proof(sealed, &at, readable).await?;
            if let Proof::File { epoch } = of_us {
                epochs.insert(epoch);
            }
            if of_us == Proof::None {
                continue;
            }
            if let Some((name, error)) = lost {
                plan.judge(sealed, name, What::Identity { at }, Err(error)).await?;
            }
            if let Some((name, error)) = note {
                plan.leave_note(name, &error);
            }
        }
    }
    Ok(epochs)
}

type Failed = (Key, RepoError);

/// What is there and does not read.
fn failed(name: Key, read: Result<(), RepoError>) -> Result<Option<Failed>, RepoError> {
    match read {
        Ok(()) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) if error.is_damage() => Ok(Some((name, error))),
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
        // Another cluster's, which this host may not read.
        Err(_) => Ok(None),
    }
}

/// The entry that holds of a lineage's log of damaged WAL.
async fn newest_note(sealed: &SealedStore, at: &ClusterRef) -> Result<Option<Key>, RepoError> {
    let log = names::damaged_wal(at)?;
    let listed = sealed.list(log.prefix()).await?;
    let highest = listed.iter().filter_map(|object| log.number(&object.key)).max();
    Ok(highest.map(|number| log.entry(number)))
}

/// What says that a lineage is of the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// One of its manifests opens with the domain's keys.
    Manifest,
    /// One of the files that it has archived does.
    File { epoch: u32 },
    /// Nothing: it may be another domain's.
    None,
}

async fn proof(
    sealed: &SealedStore,
    at: &ClusterRef,
    readable: &[Key],
) -> Result<Proof, RepoError> {
    let manifests = names::manifests_of(at);
    if readable.iter().any(|name| name.strip_prefix(&manifests).is_some()) {
        return Ok(Proof::Manifest);
    }
    for folder in ["timelines", "wal"] {
        let below = names::cluster_prefix(at, folder)?;
        let mut listed = sealed.store().list(&below).take(FILES_TRIED);
        while let Some(object) = listed.next().await {
            match archive::read_trailer(sealed, &object?.key).await {
                Ok(trailer) => return Ok(Proof::File { epoch: trailer.header.sealing.epoch }),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Proof::None)
}
