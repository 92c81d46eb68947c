//! Repairs over a store in memory: what the index has lost is in it again, what does not read is out
//! of the way and kept, and what may be whole stays.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pgrecall_repo::ErrorKind;
use pgrecall_repo::damaged_chunks::{self, ChunkNotes};
use pgrecall_repo::expired::{self, ExpiredLog, Held};
use pgrecall_repo::format::document::{Damage, DamagedChunk, Hold};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::gc::{self, Live, live_chunks};
use pgrecall_repo::id::{ChunkId, PackId};
use pgrecall_repo::index::{self, Purpose};
use pgrecall_repo::manifests;
use pgrecall_repo::names::{self, RoundPart};
use pgrecall_repo::repair::{RepairPlan, Repaired, What, carry_out, look};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{Key, Put};
use pgrecall_testkit::chunked_backups::{at, backup, begin, check, domain, finish, plain, put};
use pgrecall_testkit::stores::{Calls, FailNth, Lasting, Meanwhile};

async fn plan(sealed: &SealedStore) -> RepairPlan {
    look(sealed, &at().domain).await.unwrap()
}

async fn repair(sealed: &SealedStore) -> Repaired {
    let plan = plan(sealed).await;
    carry_out(sealed, &at().domain, &plan).await.unwrap()
}

async fn below(sealed: &SealedStore, prefix: &pgrecall_store::Prefix) -> Vec<Key> {
    sealed.list(prefix).await.unwrap().into_iter().map(|object| object.key).collect()
}

/// Puts other bytes in an object's place, and gives those that were there.
async fn spoil(sealed: &SealedStore, name: &Key) -> Bytes {
    let store = sealed.store();
    let bytes = store.get(name, 1 << 30).await.unwrap();
    let mut other = bytes.to_vec();
    let at = other.len() / 2;
    other[at] ^= 1;
    store.delete(name).await.unwrap();
    assert!(matches!(store.put_if_absent(name, other.into()).await, Put::Created));
    bytes
}

#[tokio::test]
async fn a_sound_domain_has_nothing_to_mend() {
    let sealed = domain().await;
    backup(&sealed, 0..20).await;
    assert_eq!(plan(&sealed).await, RepairPlan::default());
}

#[tokio::test]
async fn a_lost_or_damaged_index_comes_back_from_the_packs() {
    let sealed = domain().await;
    backup(&sealed, 0..20).await;
    backup(&sealed, 10..30).await;
    let objects = below(&sealed, &names::indexes(&at().domain)).await;
    assert!(objects.len() >= 2, "{objects:?}");
    sealed.store().delete(&objects[0]).await.unwrap();
    let rot = spoil(&sealed, &objects[1]).await;
    let plan = plan(&sealed).await;
    assert!(!plan.reindexed.is_empty());
    let moved: Vec<_> =
        plan.quarantined.iter().map(|object| (&object.name, &object.what)).collect();
    assert_eq!(moved, [(&objects[1], &What::Index)]);
    let done = carry_out(&sealed, &at().domain, &plan).await.unwrap();
    assert_eq!((done.packs, done.moved), (plan.reindexed.len() as u64, 1));
    // It is kept, under its old name.
    let kept = names::quarantine(&objects[1], 1).unwrap();
    let kept = sealed.store().get(&kept, 1 << 30).await.unwrap();
    assert!(kept.len() == rot.len() && kept != rot);
    let index = index::Index::open(&sealed, &at().domain, Purpose::Refer).await.unwrap();
    let mut found = 0;
    index.each(&sealed, |_, _| found += 1).await.unwrap();
    assert!(found >= 30, "{found} entries");
    check(&sealed).await;
    assert_eq!(repair(&sealed).await, Repaired::default());
    // The next backup finds all that was stored.
    let session = begin(&sealed).await;
    for number in 0..30 {
        let chunk = sealed.keys().chunk_id(&plain(number));
        assert_eq!(session.claim(&chunk), pgrecall_repo::backup::Claim::Known, "{number}");
    }
}

/// A merge names a chunk once in an object, and its second copy in the next one: so an object may
/// name a part of a pack, and what named the rest may be lost.
#[tokio::test]
async fn a_chunk_is_read_from_a_pack_that_the_index_names_in_part() {
    let sealed = domain().await;
    let (first, second) = (begin(&sealed).await, begin(&sealed).await);
    for (session, numbers) in [(&first, 0..3), (&second, 2..5)] {
        let plains: Vec<_> = numbers.map(plain).collect();
        let ids = put(session, Kind::DataPack, &plains).await;
        finish(session, &ids).await.unwrap();
    }
    let live = Live::default();
    let index = gc::usage(&sealed, &at().domain, &live).await.unwrap().index;
    gc::merge_index(&sealed, &at().domain, &index.iter().collect::<Vec<_>>()).await.unwrap();
    let objects = below(&sealed, &names::indexes(&at().domain)).await;
    assert_eq!(objects.len(), 2);
    for lost in objects {
        let bytes = sealed.store().get(&lost, 1 << 30).await.unwrap();
        sealed.store().delete(&lost).await.unwrap();
        check(&sealed).await;
        assert!(matches!(sealed.store().put_if_absent(&lost, bytes).await, Put::Created));
    }
}

#[tokio::test]
async fn a_backup_whose_manifest_does_not_read_is_given_up_and_others_stay() {
    let sealed = domain().await;
    let lost = backup(&sealed, 0..20).await;
    let kept = backup(&sealed, 10..30).await;
    let name = names::manifest(&at(), lost);
    spoil(&sealed, &name).await;
    assert!(live_chunks(&sealed, &at().domain).await.is_err(), "nothing can be collected");
    let plan = plan(&sealed).await;
    assert_eq!(plan.given_up().collect::<Vec<_>>(), [lost]);
    // A store that stops between the log's entry and the rest: nothing is lost, and it goes on.
    for nth in 1..12 {
        let (calls, kind) = (Calls::all(), pgrecall_store::ErrorKind::Unavailable);
        let inner = sealed.store().clone();
        let store = FailNth::over(inner, calls, nth, Lasting::ForEver, kind);
        let broken = SealedStore::new(store, sealed.keys().clone(), sealed.random().clone());
        let _ = carry_out(&broken, &at().domain, &plan).await;
        let there = sealed.store().head(&name).await.is_ok();
        let moved = sealed.store().head(&names::quarantine(&name, 1).unwrap()).await.is_ok();
        let log = ExpiredLog::read(&sealed, &at().domain).await.unwrap();
        assert!(there || (moved && log.entry().backups.contains(&lost)), "lost at {nth}");
    }
    repair(&sealed).await;
    live_chunks(&sealed, &at().domain).await.unwrap();
    let valid = manifests::list(&sealed, &at().domain).await.unwrap().valid;
    assert_eq!(valid.iter().map(|b| b.manifest.backup).collect::<Vec<_>>(), [kept]);
    let log = ExpiredLog::read(&sealed, &at().domain).await.unwrap();
    assert_eq!(log.entry().backups, [lost]);
    check(&sealed).await;
}

/// An index object names a chunk once, and packs may share some.
#[tokio::test]
async fn packs_that_share_chunks_are_all_in_the_index_again() {
    let sealed = domain().await;
    backup(&sealed, 0..20).await;
    // Noted as damaged, chunks are stored a second time.
    let packs = index::list_packs(&sealed, &at().domain).await.unwrap();
    let bad = packs.keys().flat_map(|pack| {
        let chunk = |number| sealed.keys().chunk_id(&plain(number));
        (0..5).map(chunk).map(|chunk| DamagedChunk { pack: *pack, chunk })
    });
    let note = "a test".to_owned();
    pgrecall_repo::backup::report_damage(&sealed, &at(), bad.collect(), note).await.unwrap();
    backup(&sealed, 0..20).await;
    assert_eq!(entries(&sealed).await.len(), 25, "five have two copies");
    let before = entries(&sealed).await;
    for object in below(&sealed, &names::indexes(&at().domain)).await {
        sealed.store().delete(&object).await.unwrap();
    }
    let done = repair(&sealed).await;
    let packs = index::list_packs(&sealed, &at().domain).await.unwrap().len() as u64;
    assert_eq!((done.packs, done.index_objects), (packs, 2));
    assert_eq!(entries(&sealed).await, before);
    assert_eq!(repair(&sealed).await, Repaired::default());
    check(&sealed).await;
}

/// Every chunk and the pack that a copy is in, by the index.
async fn entries(sealed: &SealedStore) -> std::collections::BTreeSet<(ChunkId, PackId)> {
    let mut found = std::collections::BTreeSet::new();
    for object in below(sealed, &names::indexes(&at().domain)).await {
        let object = index::read_object(sealed, &object).await.unwrap();
        for entry in &object.entries {
            let pack = object.pack(entry).unwrap();
            if pack.kind == Kind::DataPack {
                found.insert((entry.chunk, pack.id));
            }
        }
    }
    found
}

/// What was moved once and is damaged again has a place of its own, until there are too many.
#[tokio::test]
async fn an_object_that_is_moved_twice_is_kept_twice() {
    let sealed = domain().await;
    backup(&sealed, 0..20).await;
    let name = below(&sealed, &names::indexes(&at().domain)).await.remove(0);
    let bytes = sealed.store().get(&name, 1 << 30).await.unwrap();
    for number in 1..=17_u8 {
        let mut bad = bytes.to_vec();
        bad[200] ^= number;
        let _ = sealed.store().delete(&name).await;
        assert!(matches!(
            sealed.store().put_if_absent(&name, bad.clone().into()).await,
            Put::Created
        ));
        let done = repair(&sealed).await;
        if number == 17 {
            assert_eq!((done.moved, done.stayed.len()), (0, 1));
            assert!(done.stayed[0].reason.contains("16 other objects"), "{done:?}");
            assert_eq!(sealed.store().get(&name, 1 << 30).await.unwrap(), bad);
            break;
        }
        assert_eq!((done.moved, done.stayed.len()), (1, 0), "{number}");
        let kept = names::quarantine(&name, number.into()).unwrap();
        assert_eq!(sealed.store().get(&kept, 1 << 30).await.unwrap(), bad);
    }
}

/// A person brought the object back while the question stood, or one read went wrong.
#[tokio::test]
async fn what_reads_again_when_it_comes_to_it_stays() {
    let sealed = domain().await;
    let id = backup(&sealed, 0..20).await;
    backup(&sealed, 0..20).await;
    let name = names::manifest(&at(), id);
    let whole = spoil(&sealed, &name).await;
    let plan = plan(&sealed).await;
    assert_eq!(plan.given_up().collect::<Vec<_>>(), [id]);
    sealed.store().delete(&name).await.unwrap();
    assert!(matches!(sealed.store().put_if_absent(&name, whole).await, Put::Created));
    let done = carry_out(&sealed, &at().domain, &plan).await.unwrap();
    assert_eq!(done, Repaired::default());
    let log = ExpiredLog::read(&sealed, &at().domain).await.unwrap();
    assert_eq!(log.entry().backups, []);
    check(&sealed).await;
}

/// Somebody holds the backup at any moment of the repair.
#[tokio::test]
async fn a_backup_that_is_held_meanwhile_is_not_given_up() {
    let mut ends = std::collections::BTreeSet::new();
    for nth in 1..60 {
        let sealed = domain().await;
        let id = backup(&sealed, 0..20).await;
        backup(&sealed, 0..20).await;
        let name = names::manifest(&at(), id);
        spoil(&sealed, &name).await;
        let plan = plan(&sealed).await;
        assert_eq!(plan.given_up().collect::<Vec<_>>(), [id]);
        let hold = Hold { backup: id, reason: "a test".into(), until: None, by: "db1".into() };
        let (by, told) = (sealed.clone(), Arc::new(Mutex::new(None)));
        let tell = told.clone();
        let store = Meanwhile::over(sealed.store().clone(), nth, async move || {
            let held = expired::hold(&by, &at().domain, &hold).await.unwrap();
            *tell.lock().unwrap() = Some(held);
        });
        let there = SealedStore::new(store, sealed.keys().clone(), sealed.random().clone());
        let done = carry_out(&there, &at().domain, &plan).await.unwrap();
        let held = *told.lock().unwrap();
        let log = ExpiredLog::read(&sealed, &at().domain).await.unwrap();
        let is_there = sealed.store().head(&name).await.is_ok();
        let is_held = held == Some(Held::Held);
        assert_eq!((is_there, log.entry().held.len()), (is_held, usize::from(is_held)), "{nth}");
        assert_eq!(log.entry().backups.contains(&id), !is_held, "{nth}");
        let told = done.stayed.iter().any(|left| left.reason.contains("the backup is held"));
        ends.insert((held.is_some(), is_held, told));
    }
    let all =
        [(false, false, false), (true, false, false), (true, true, false), (true, true, true)];
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), all, "at every moment");
}

#[tokio::test]
async fn notes_for_which_others_stand_are_moved_and_rounds_are_not() {
    let sealed = domain().await;
    backup(&sealed, 0..20).await;
    let chunk = sealed.keys().chunk_id(&plain(3));
    let pack = *index::list_packs(&sealed, &at().domain).await.unwrap().keys().next().unwrap();
    let bad = vec![DamagedChunk { pack, chunk }];
    for _ in 0..2 {
        let note = "a test".to_owned();
        pgrecall_repo::backup::report_damage(&sealed, &at(), bad.clone(), note).await.unwrap();
    }
    let notes = below(&sealed, &names::all_damaged(&at().domain)).await;
    spoil(&sealed, &notes[0]).await;
    let sound = gc::retire(&sealed, &at().domain, vec![]).await.unwrap();
    let broken = gc::retire(&sealed, &at().domain, vec![]).await.unwrap();
    spoil(&sealed, &names::round(&at().domain, broken, RoundPart::Intents)).await;
    // Nobody knows what it said: a collection could keep a copy that it named.
    assert_eq!(repair(&sealed).await.moved, 0);
    let left = plan(&sealed).await.left;
    assert_eq!(left.len(), 2, "the note and the list: {left:?}");
    assert!(left[0].reason.contains("verify --read-data"), "{left:?}");
    let nobody = async |_: &_, _| Ok::<bool, pgrecall_repo::RepoError>(false);
    let live = live_chunks(&sealed, &at().domain).await.unwrap();
    let swept = gc::sweep(&sealed, &at().domain, &[sound], live, nobody).await;
    assert_eq!(swept.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(gc::usage(&sealed, &at().domain, &Live::default()).await.is_err());

    let id = names::damaged_of(&at().domain, &notes[0]).unwrap();
    damaged_chunks::note(&sealed, &at().domain, bad, vec![id], "again".into()).await.unwrap();
    let read = ChunkNotes::read(&sealed, &at().domain).await.unwrap();
    assert_eq!((read.unread.len(), read.replaced), (0, vec![notes[0].clone()]));
    gc::sweep(&sealed, &at().domain, &[sound], Live::default(), nobody).await.unwrap();
    assert_eq!(repair(&sealed).await.moved, 1, "the note");
    let now = below(&sealed, &names::all_damaged(&at().domain)).await;
    assert!(now.len() == 2 && !now.contains(&notes[0]), "{now:?}");
    assert_eq!(gc::rounds(&sealed, &at().domain).await.unwrap().len(), 1);
    assert_eq!(plan(&sealed).await.left.len(), 1, "the list");
}

/// Of what was sealed in an epoch whose keys are missing, all looks damaged.
#[tokio::test]
async fn what_another_key_may_open_stays_where_it_is() {
    let made = pgrecall_testkit::repositories::InMemory::create().await;
    let name = "main".parse().unwrap();
    made.repository.domain(&name).await.unwrap();
    made.repository.rotate(&name, pgrecall_repo::keys::Rotation::Sealing, None).await.unwrap();
    let new = made.repository.existing_domain(&name).await.unwrap();
    backup(&new, 0..20).await;
    let note = names::damaged(&name, pgrecall_repo::id::DamageId::random(new.random()));
    let document = Damage { chunks: vec![], wal: vec![], found: "a test".into(), replaces: vec![] };
    new.put(Kind::Damage, &note, &document).await.unwrap();
    let keys = names::domain_keys(&name).entry(1);
    made.store.delete(&keys).await.unwrap();
    let old = made.repository.existing_domain(&name).await.unwrap();
    let plan = plan(&old).await;
    assert!(plan.is_empty(), "{:?}", plan.quarantined);
    assert!(plan.left.len() >= 3, "{:?}", plan.left);
    for left in &plan.left {
        assert_eq!(left.kind, ErrorKind::Corrupt);
        assert!(left.reason.contains("epoch"), "{left:?}");
    }
}
