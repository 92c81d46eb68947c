//! A collection in one go, for tests of what it does to others.

use std::collections::HashSet;

use pgrecall_repo::RepoError;
use pgrecall_repo::gc::{self, Live};
use pgrecall_repo::id::{BackupId, PackId};
use pgrecall_repo::names::{self, ClusterRef, Name};
use pgrecall_repo::sealed_store::SealedStore;

/// Copies every chunk that is needed into new packs, deletes the old ones and merges the index, as
/// the most thorough collection would.
///
/// # Panics
/// When a step fails.
pub async fn replace_all_packs(sealed: &SealedStore, domain: &Name) {
    let listed = sealed.list(&names::packs(domain)).await.expect("packs are listed");
    let pack = |key| names::pack_of(domain, key).map(|(_, id)| id);
    let packs: HashSet<PackId> = listed.iter().filter_map(|object| pack(&object.key)).collect();
    let live = gc::live_chunks(sealed, domain).await.expect("liveness is read");
    gc::rewrite(sealed, domain, &packs, &HashSet::new(), &live).await.expect("chunks are copied");
    let packs = packs.into_iter().collect();
    let round = gc::retire(sealed, domain, packs).await.expect("packs are retired");
    let nobody = async |_: &ClusterRef, _: BackupId| Ok::<bool, RepoError>(false);
    let swept = gc::sweep(sealed, domain, &[round], Live::default(), nobody).await;
    swept.expect("packs are removed");
    let index = gc::usage(sealed, domain, &Live::default()).await.expect("the index is read");
    let index: Vec<_> = index.index.iter().collect();
    gc::merge_index(sealed, domain, &index).await.expect("the index is merged");
}
