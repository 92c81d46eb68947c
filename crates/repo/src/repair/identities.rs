//! Looking for identities that do not read. A cluster's identity lies outside of its domain, and is
//! sealed by it: one that does not open may be another domain's.

use futures::StreamExt as _;
use pgrecall_store::Key;

use super::look::read;
use super::{RepairPlan, What};
use crate::archive;
use crate::error::RepoError;
use crate::format::document::Identity;
use crate::format::header::Kind;
use crate::names::{self, ClusterRef, Name};
use crate::sealed_store::SealedStore;

/// Archived files that are tried before a cluster counts as another domain's.
const FILES_TRIED: usize = 16;

/// Takes up the identities of this domain's clusters that do not read; `readable` are its manifests
/// that do.
pub(super) async fn look(
    sealed: &SealedStore,
    domain: &Name,
    readable: &[Key],
    plan: &mut RepairPlan,
) -> Result<(), RepoError> {
    for cluster in sealed.list_folders(&names::clusters()).await? {
        for lineage in sealed.list_folders(&cluster).await? {
            let Ok(cluster) = cluster.name().parse() else { continue };
            let lineage = lineage.name().to_owned();
            let at = ClusterRef { domain: domain.clone(), cluster, lineage };
            let Ok(name) = names::cluster_object(&at, "identity") else { continue };
            let read = read::<Identity>(sealed, Kind::Identity, &name).await;
            if read.as_ref().is_err_and(|error| error.is_damage() && !error.is_not_found())
                && is_of(sealed, &at, readable).await?
            {
                plan.judge(sealed, name, What::Identity { at }, read).await?;
            }
        }
    }
    Ok(())
}

/// Whether a cluster is of the domain: one of its manifests opens with the domain's keys, or one of
/// the files that it has archived.
async fn is_of(sealed: &SealedStore, at: &ClusterRef, readable: &[Key]) -> Result<bool, RepoError> {
    let manifests = names::manifests_of(at);
    if readable.iter().any(|name| name.strip_prefix(&manifests).is_some()) {
        return Ok(true);
    }
    for folder in ["timelines", "wal"] {
        let below = names::cluster_prefix(at, folder)?;
        let mut listed = sealed.store().list(&below).take(FILES_TRIED);
        while let Some(object) = listed.next().await {
            match archive::read_trailer(sealed, &object?.key).await {
                Ok(_) => return Ok(true),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(false)
}
