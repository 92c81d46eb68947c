//! Collection over a store in memory: what nobody refers to goes, what anybody may refer to stays,
//! whatever is under way and wherever a collector dies.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pgrecall_repo::RepoError;
use pgrecall_repo::backup::Claim;
use pgrecall_repo::format::document::RetireVerdict;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::gc::{
    Ids, IndexUse, Live, Swept, live_chunks, merge_index, remove_remains, retire, rewrite, rounds,
    sweep, usage,
};
use pgrecall_repo::id::{BackupId, PackId};
use pgrecall_repo::index;
use pgrecall_repo::keys::Rotation;
use pgrecall_repo::names::{self, ClusterRef, RoundPart};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{Key, Store, StoreError};
use pgrecall_testkit::chunked_backups::{
    at, backup, begin, check, domain, expire, finish, plain, put,
};
use pgrecall_testkit::repositories::InMemory;
use pgrecall_testkit::stores::{Call, Calls, FailNth, Hook, Hooked, Lasting, Meanwhile};

/// Retires packs that nothing is needed of.
async fn retire_dead(sealed: &SealedStore) -> Result<Vec<PackId>, RepoError> {
    let live = live_chunks(sealed, &at().domain).await?;
    let uses = usage(sealed, &at().domain, &live).await?.packs;
    let dead: Vec<PackId> = uses.iter().filter(|u| u.live_chunks == 0).map(|u| u.id).collect();
    if !dead.is_empty() {
        retire(sealed, &at().domain, dead.clone()).await?;
    }
    Ok(dead)
}

async fn sweep_all(sealed: &SealedStore, dead: bool) -> Result<Vec<Swept>, RepoError> {
    let ids: Vec<_> = rounds(sealed, &at().domain).await?.iter().map(|round| round.id).collect();
    let live = Live::default();
    let swept = sweep(sealed, &at().domain, &ids, live, async |_, _| Ok(dead)).await?.0;
    remove_remains(sealed, &at().domain).await?;
    Ok(swept.into_iter().map(|(_, swept)| swept).collect())
}

/// What is there of rounds and of backups under way.
async fn of_rounds_and_intents(sealed: &SealedStore) -> BTreeSet<Key> {
    let mut found = BTreeSet::new();
    for below in [names::all_intents(&at().domain), names::retired(&at().domain)] {
        found.extend(sealed.list(&below).await.unwrap().into_iter().map(|object| object.key));
    }
    found
}

/// A list and a verdict whose marker is gone, and a `.start` whose intent is, beside whole ones.
struct Remains {
    sealed: SealedStore,
    whole: BTreeSet<Key>,
    /// The marker and the intent that are gone.
    gone: Vec<(Key, Bytes)>,
}

impl Remains {
    async fn new() -> Self {
        let sealed = domain().await;
        let mut gone = Vec::new();
        let whole = Self::put(&sealed).await;
        let left = Self::put(&sealed).await;
        for name in left.iter().filter(|name| !name.file_name().contains('.')) {
            gone.push((name.clone(), sealed.store().get(name, 1 << 20).await.unwrap()));
            sealed.store().delete(name).await.unwrap();
        }
        assert_eq!((whole.len(), left.len(), gone.len()), (5, 5, 2));
        Self { sealed, whole, gone }
    }

    /// A whole round, and a backup under way that has said where it starts.
    async fn put(sealed: &SealedStore) -> BTreeSet<Key> {
        let before = of_rounds_and_intents(sealed).await;
        let session = begin(sealed).await;
        session.put_start("1".into(), "0/2000028".into()).await.unwrap();
        let packs = vec![PackId::from_bytes([1; 16])];
        let id = retire(sealed, &at().domain, packs.clone()).await.unwrap();
        let verdict = names::round(&at().domain, id, RoundPart::Verdict);
        sealed.put(Kind::RetireVerdict, &verdict, &RetireVerdict { packs }).await.unwrap();
        of_rounds_and_intents(sealed).await.difference(&before).cloned().collect()
    }
}

#[tokio::test]
async fn what_ended_rounds_and_backups_have_left_goes_and_nothing_else() {
    let Remains { sealed, whole, .. } = Remains::new().await;
    assert_eq!(of_rounds_and_intents(&sealed).await.len(), 8);
    for _ in 0..2 {
        remove_remains(&sealed, &at().domain).await.unwrap();
        assert_eq!(of_rounds_and_intents(&sealed).await, whole);
    }
}

/// Puts an object just before it is looked for.
#[derive(Debug)]
struct JustBefore {
    inner: Arc<dyn Store>,
    objects: Vec<(Key, Bytes)>,
}

#[async_trait]
impl Hook for JustBefore {
    async fn before(&self, call: &Call) -> Result<(), StoreError> {
        let named = |(name, _): &&(Key, Bytes)| name.as_str() == call.name;
        if let Some((name, bytes)) = self.objects.iter().find(named) {
            let _ = self.inner.put_if_absent(name, bytes.clone()).await;
        }
        Ok(())
    }
}

/// The pages of a listing are not of one moment: it may have come by before a marker or an intent
/// was there, and have met what was put after that.
#[tokio::test]
async fn what_a_listing_has_missed_is_looked_for_before_anything_goes() {
    let Remains { sealed, gone, .. } = Remains::new().await;
    let mut all = of_rounds_and_intents(&sealed).await;
    all.extend(gone.iter().map(|(name, _)| name.clone()));
    let hook = JustBefore { inner: sealed.store().clone(), objects: gone };
    let store = Hooked::new(sealed.store().clone(), hook);
    let late = SealedStore::new(store, sealed.keys().clone(), sealed.random().clone());
    remove_remains(&late, &at().domain).await.unwrap();
    assert_eq!(of_rounds_and_intents(&sealed).await, all);
}

/// How many packs went and were spared, round by round.
fn ended(swept: &[Swept]) -> Vec<(u64, u64)> {
    let ended = |swept: &Swept| match swept {
        Swept::Done { deleted, spared, .. } => (*deleted, *spared),
        Swept::Waiting(_) => panic!("{swept:?}"),
    };
    swept.iter().map(ended).collect()
}

/// Merges the whole index.
async fn merge_all(sealed: &SealedStore) -> Result<(), RepoError> {
    let live = live_chunks(sealed, &at().domain).await?;
    let index = usage(sealed, &at().domain, &live).await?.index;
    merge_index(sealed, &at().domain, &index.iter().collect::<Vec<&IndexUse>>()).await?;
    Ok(())
}

async fn collect(sealed: &SealedStore) -> Result<(), RepoError> {
    sweep_all(sealed, false).await?;
    retire_dead(sealed).await?;
    sweep_all(sealed, false).await?;
    merge_all(sealed).await
}

#[tokio::test]
async fn what_an_expired_backup_alone_had_goes() {
    let sealed = domain().await;
    let old = backup(&sealed, 0..10).await;
    backup(&sealed, 5..20).await;
    assert_eq!(check(&sealed).await, 4);
    expire(&sealed, old).await;
    collect(&sealed).await.unwrap();
    // The table of the old one is gone; its data are half in use.
    assert_eq!(check(&sealed).await, 3);
    let live = live_chunks(&sealed, &at().domain).await.unwrap();
    let uses = usage(&sealed, &at().domain, &live).await.unwrap().packs;
    let half = uses.iter().find(|used| used.live_chunks == 5).expect("the old data");
    let packs = HashSet::from([half.id]);
    let copied = rewrite(&sealed, &at().domain, &packs, &HashSet::new(), &live).await.unwrap();
    assert_eq!((copied.chunks, copied.packs), (5, 1));
    retire(&sealed, &at().domain, vec![half.id]).await.unwrap();
    let swept = sweep_all(&sealed, false).await.unwrap();
    assert_eq!(ended(&swept), [(1, 0)]);
    merge_all(&sealed).await.unwrap();
    assert_eq!(check(&sealed).await, 3);
    assert!(rounds(&sealed, &at().domain).await.unwrap().is_empty());
    assert!(retire_dead(&sealed).await.unwrap().is_empty(), "nothing is left to collect");
}

#[tokio::test]
async fn a_backup_that_saw_no_marker_is_waited_for_and_spares_what_it_needs() {
    let sealed = domain().await;
    let old = backup(&sealed, 0..10).await;
    let before = begin(&sealed).await;
    expire(&sealed, old).await;
    assert_eq!(retire_dead(&sealed).await.unwrap().len(), 2);
    let swept = sweep_all(&sealed, false).await.unwrap();
    let waits = |ids: &[(ClusterRef, BackupId)]| *ids == [(at(), before.id())];
    assert!(matches!(&swept[..], [Swept::Waiting(ids)] if waits(ids)), "{swept:?}");
    // One that begins now stores again what is retired.
    let after = begin(&sealed).await;
    let id = sealed.keys().chunk_id(&plain(3));
    assert_eq!(after.claim(&id), Claim::Store);
    after.abandon().await.unwrap();
    let plains: Vec<_> = (0..9).map(plain).collect();
    let ids = put(&before, Kind::DataPack, &plains).await;
    finish(&before, &ids).await.unwrap();
    let swept = sweep_all(&sealed, false).await.unwrap();
    assert_eq!(ended(&swept), [(1, 1)], "the old table alone");
    check(&sealed).await;
}

#[tokio::test]
async fn a_backup_that_is_taken_for_dead_cannot_commit_any_more() {
    let sealed = domain().await;
    let old = backup(&sealed, 0..10).await;
    let slow = begin(&sealed).await;
    expire(&sealed, old).await;
    retire_dead(&sealed).await.unwrap();
    let swept = sweep_all(&sealed, true).await.unwrap();
    assert_eq!(ended(&swept), [(2, 0)]);
    let plains: Vec<_> = (0..10).map(plain).collect();
    let ids = put(&slow, Kind::DataPack, &plains).await;
    assert!(finish(&slow, &ids).await.is_err(), "its packs are gone, and it is fenced");
    check(&sealed).await;
}

#[tokio::test]
async fn a_second_copy_goes_and_the_last_one_stays() {
    let sealed = domain().await;
    let first = begin(&sealed).await;
    let second = begin(&sealed).await;
    let plains: Vec<_> = (0..10).map(plain).collect();
    // Neither knows of the other.
    let ids = put(&first, Kind::DataPack, &plains).await;
    put(&second, Kind::DataPack, &plains).await;
    finish(&first, &ids).await.unwrap();
    finish(&second, &ids).await.unwrap();
    let packs = check(&sealed).await;
    collect(&sealed).await.unwrap();
    assert!(check(&sealed).await < packs);
    // Two collectors that each count the other's pack as the copy that stays.
    let listed = index::list_packs(&sealed, &at().domain).await.unwrap();
    for pack in listed.keys() {
        retire(&sealed, &at().domain, vec![*pack]).await.unwrap();
    }
    sweep_all(&sealed, false).await.unwrap();
    check(&sealed).await;
}

#[tokio::test]
async fn nothing_is_collected_by_what_does_not_read() {
    let sealed = domain().await;
    let old = backup(&sealed, 0..10).await;
    let other = backup(&sealed, 5..20).await;
    expire(&sealed, old).await;
    retire_dead(&sealed).await.unwrap();
    let name = names::manifest(&at(), other);
    let mut bytes = sealed.store().get(&name, 1 << 20).await.unwrap().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    sealed.store().delete(&name).await.unwrap();
    let _ = sealed.store().put_if_absent(&name, bytes.into()).await;
    let packs = index::list_packs(&sealed, &at().domain).await.unwrap();
    assert!(sweep_all(&sealed, false).await.unwrap_err().is_damage());
    assert_eq!(index::list_packs(&sealed, &at().domain).await.unwrap(), packs);
}

#[tokio::test]
async fn a_collector_that_dies_anywhere_is_followed_by_the_next() {
    let mut died = 0;
    for nth in 1.. {
        let sealed = domain().await;
        let old = backup(&sealed, 0..10).await;
        backup(&sealed, 12..20).await;
        expire(&sealed, old).await;
        let kind = pgrecall_store::ErrorKind::Denied;
        let store = sealed.store().clone();
        let failing = FailNth::over(store, Calls::all(), nth, Lasting::ForEver, kind);
        let keys = sealed.keys().clone();
        let dying = SealedStore::new(failing.clone(), keys, sealed.random().clone());
        let collected = collect(&dying).await;
        if !failing.hook().has_failed() {
            collected.unwrap();
            break;
        }
        died += u32::from(collected.is_err());
        check(&sealed).await;
        collect(&sealed).await.unwrap();
        assert_eq!(check(&sealed).await, 2, "call {nth}");
        assert!(rounds(&sealed, &at().domain).await.unwrap().is_empty(), "call {nth}");
    }
    assert!(died > 30, "{died}");
}

#[tokio::test]
async fn what_is_bad_is_noted_by_a_rewrite_and_stays_where_it_is() {
    let sealed = domain().await;
    backup(&sealed, 0..10).await;
    let live = live_chunks(&sealed, &at().domain).await.unwrap();
    let packs = usage(&sealed, &at().domain, &live).await.unwrap().packs;
    let data = packs.iter().find(|used| used.kind == Kind::DataPack).unwrap();
    let name = names::pack(&at().domain, Kind::DataPack, data.id);
    let mut bytes = sealed.store().get(&name, 1 << 30).await.unwrap().to_vec();
    bytes[200] ^= 1;
    sealed.store().delete(&name).await.unwrap();
    let _ = sealed.store().put_if_absent(&name, bytes.into()).await;
    let chosen = HashSet::from([data.id]);
    let copied = rewrite(&sealed, &at().domain, &chosen, &HashSet::new(), &live).await.unwrap();
    assert_eq!((copied.chunks, &copied.bad), (9, &chosen));
    let packs = usage(&sealed, &at().domain, &live).await.unwrap().packs;
    let old = packs.iter().find(|used| used.id == data.id).unwrap();
    assert_eq!(old.damaged_chunks, 1);
    assert!(old.live_chunks >= 1, "the only copy of the bad one, whatever the others are");
    // Retired all the same, it is spared: nobody has a copy of the bad chunk.
    retire(&sealed, &at().domain, vec![data.id]).await.unwrap();
    assert_eq!(ended(&sweep_all(&sealed, false).await.unwrap()), [(0, 1)]);
}

#[tokio::test]
async fn chunks_with_ids_of_an_earlier_key_are_not_copied() {
    let InMemory { repository, .. } = InMemory::create().await;
    let old_keys = repository.domain(&at().domain).await.unwrap();
    backup(&old_keys, 0..10).await;
    repository.rotate(&at().domain, Rotation::Ids, None).await.unwrap();
    let sealed = repository.existing_domain(&at().domain).await.unwrap();
    let live = live_chunks(&sealed, &at().domain).await.unwrap();
    let packs = usage(&sealed, &at().domain, &live).await.unwrap().packs;
    assert!(packs.iter().all(|used| used.ids == Ids::Earlier), "{packs:?}");
    let all: HashSet<PackId> = packs.iter().map(|used| used.id).collect();
    let copied = rewrite(&sealed, &at().domain, &all, &HashSet::new(), &live).await.unwrap();
    assert_eq!((copied.chunks, &copied.bad), (0, &all));
    backup(&sealed, 0..10).await;
    let live = live_chunks(&sealed, &at().domain).await.unwrap();
    let packs = usage(&sealed, &at().domain, &live).await.unwrap().packs;
    assert_eq!(packs.iter().filter(|used| used.ids == Ids::Current).count(), 2);
    check(&sealed).await;
}

#[tokio::test]
async fn liveness_that_is_asked_for_again_knows_what_has_come_since() {
    let sealed = domain().await;
    backup(&sealed, 0..10).await;
    let live = live_chunks(&sealed, &at().domain).await.unwrap();
    let before = live.len();
    backup(&sealed, 5..20).await;
    let live = live.and_newer(&sealed, &at().domain).await.unwrap();
    let fresh = live_chunks(&sealed, &at().domain).await.unwrap();
    assert_eq!((live.len(), live.backups), (fresh.len(), fresh.backups));
    assert_eq!(live.len(), before + 11, "ten more, and a table");
    for number in 0..20 {
        assert!(live.has(&sealed.keys().chunk_id(&plain(number))), "{number}");
    }
}

#[tokio::test]
async fn two_collectors_at_once_end_every_round() {
    for nth in 1.. {
        let sealed = domain().await;
        let old = backup(&sealed, 0..10).await;
        backup(&sealed, 12..20).await;
        expire(&sealed, old).await;
        retire_dead(&sealed).await.unwrap();
        // The second one runs to its end before some call of the first.
        let second = sealed.clone();
        let store = Meanwhile::over(sealed.store().clone(), nth, async move || {
            collect(&second).await.unwrap();
        });
        let (keys, random) = (sealed.keys().clone(), sealed.random().clone());
        collect(&SealedStore::new(store.clone(), keys, random)).await.unwrap();
        assert_eq!(check(&sealed).await, 2, "call {nth}");
        assert!(sealed.list(&names::retired(&at().domain)).await.unwrap().is_empty(), "{nth}");
        if !store.hook().has_happened() {
            return assert!(nth > 30, "{nth}");
        }
    }
}
