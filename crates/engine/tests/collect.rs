//! A whole collection over a store in memory: what nobody refers to goes and nothing else does,
//! whoever is under way, wherever it dies, and whoever collects or expires beside it.

use std::time::Duration;

use jiff::Timestamp;
use pgrecall_engine::backup::Host;
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::clock::{Clock, TimeSource};
use pgrecall_engine::collection::carry_out::{Collected, carry_out};
use pgrecall_engine::collection::dead::{Dead, DeadRule, Sightings, Waiting};
use pgrecall_engine::collection::plan::{CollectPlan, CollectRequest, plan};
use pgrecall_engine::collection::policy::Policy;
use pgrecall_engine::error::{EngineError, ErrorKind};
use pgrecall_engine::progress::Progress;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::gc;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::index::{self, Index, Purpose};
use pgrecall_repo::manifests;
use pgrecall_repo::names;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{Key, Prefix, Put};
use pgrecall_testkit::chunked_backups::{
    at, backup, begin, check, domain, expire, finish, plain, put,
};
use pgrecall_testkit::stores::{CallKind, Calls, FailNth, Lasting, Meanwhile};

/// A clock that stands at some day of November.
struct Day(i8);

impl TimeSource for Day {
    fn now(&self) -> Timestamp {
        format!("2026-11-{:02}T12:00:00Z", self.0).parse().unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

fn request() -> CollectRequest {
    CollectRequest {
        policy: Policy { rewrite_below_percent: 99, ..Policy::default() },
        dead: DeadRule {
            // Not the host of the backups.
            host: Host { name: "backups".into(), process: 1 },
            after: None,
            clock: Clock::new(Day(1)),
        },
        sightings: Sightings::default(),
        progress: Progress::silent(),
        cancel: Cancel::new(),
    }
}

async fn planned(sealed: &SealedStore) -> Result<CollectPlan, EngineError> {
    plan(sealed, &at().domain, &mut request()).await
}

async fn collect(sealed: &SealedStore) -> Result<Collected, EngineError> {
    carry_out(sealed, planned(sealed).await?, &request()).await
}

/// Bytes of packs that hold nothing that a backup refers to, retired ones included.
async fn unreferenced_bytes(sealed: &SealedStore) -> u64 {
    let live = gc::live_chunks(sealed, &at().domain).await.unwrap();
    let used = gc::usage(sealed, &at().domain, &live).await.unwrap().packs;
    let used = used.iter().filter(|used| used.live_bytes == used.frame_bytes);
    let used: u64 = used.map(|used| used.size).sum();
    index::list_packs(sealed, &at().domain).await.unwrap().values().sum::<u64>() - used
}

/// What is left in the domain besides packs, index objects, manifests, keys and the log.
async fn debris(sealed: &SealedStore) -> Vec<String> {
    let below = Prefix::parse("domains/main/").unwrap();
    let listed = sealed.list(&below).await.unwrap();
    let known = ["packs/", "index/", "backups/", "keys/", "expired/", "damaged/"];
    let names = listed.iter().filter_map(|object| object.key.strip_prefix(&below));
    let odd = names.filter(|name| !known.iter().any(|folder| name.starts_with(folder)));
    odd.map(str::to_owned).collect()
}

#[tokio::test]
async fn after_it_nothing_is_stored_that_no_backup_refers_to() {
    let sealed = domain().await;
    let old = backup(&sealed, 0..10).await;
    backup(&sealed, 5..20).await;
    expire(&sealed, old).await;
    let planned = planned(&sealed).await.unwrap();
    assert_eq!((planned.backups, planned.packs), (1, 4));
    assert_eq!(planned.choice.unused.packs.len(), 1, "the old table");
    assert_eq!(planned.choice.rewritten.packs.len(), 1, "half of the old data");
    let freed = planned.freed_bytes();
    assert!(unreferenced_bytes(&sealed).await > 0);
    let done = carry_out(&sealed, planned, &request()).await.unwrap();
    assert_eq!((done.removed_packs, done.spared_packs, done.copied_chunks), (2, 0, 5));
    // What is copied has a header and a directory besides.
    let grown = done.removed_bytes - done.copied_bytes;
    assert!(freed.abs_diff(grown) < 2000, "{freed} were planned, {grown} are free");
    assert_eq!(check(&sealed).await, 3);
    assert_eq!(unreferenced_bytes(&sealed).await, 0);
    assert_eq!(debris(&sealed).await, Vec::<String>::new());
    // What the index says of packs that are gone goes by the next run.
    let next = collect(&sealed).await.unwrap();
    assert_eq!((next.removed_packs, next.merged_objects), (0, 1));
    assert_eq!(collect(&sealed).await.unwrap(), Collected::default(), "nothing is left to do");
}

/// Two backups at once store the same. Of a chunk of which a pack has a copy that stays no
/// collection makes one more: one of the two would be garbage, and the next collection's.
#[tokio::test]
async fn what_two_backups_have_stored_at_once_is_left_once() {
    // Which pack's copies stay is chance.
    for _ in 0..12 {
        let sealed = domain().await;
        let (first, second) = (begin(&sealed).await, begin(&sealed).await);
        let plains: Vec<_> = (0..30).map(plain).collect();
        // All of the first's pack is needed, and of the second's a third: the same, and one more.
        let ids = put(&first, Kind::DataPack, &plains[..10]).await;
        finish(&first, &ids).await.unwrap();
        let ids = put(&second, Kind::DataPack, &plains).await;
        let half = finish(&second, &ids).await.unwrap();
        backup(&sealed, 0..11).await;
        expire(&sealed, half).await;
        assert!(unreferenced_bytes(&sealed).await > 0);
        let done = collect(&sealed).await.unwrap();
        assert!([1, 11].contains(&done.copied_chunks) && done.spared_packs == 0, "{done:?}");
        assert_eq!(unreferenced_bytes(&sealed).await, 0);
        check(&sealed).await;
    }
}

/// Somebody may still bring it back, by the name that the index alone tells.
#[tokio::test]
async fn a_pack_that_is_lost_keeps_its_name_in_the_index() {
    let sealed = domain().await;
    let old = backup(&sealed, 0..10).await;
    backup(&sealed, 5..20).await;
    expire(&sealed, old).await;
    let index = Index::open(&sealed, &at().domain, Purpose::Read).await.unwrap();
    let chunk = sealed.keys().chunk_id(&plain(15));
    let pack = index.copies(&sealed, &chunk).await.unwrap().remove(0).pack;
    let name = names::pack(&at().domain, pack.kind, pack.id);
    let bytes = sealed.store().get(&name, 64 << 20).await.unwrap();
    sealed.store().delete(&name).await.unwrap();
    for _ in 0..3 {
        collect(&sealed).await.unwrap();
        let live = gc::live_chunks(&sealed, &at().domain).await.unwrap();
        let lost = gc::usage(&sealed, &at().domain, &live).await.unwrap().lost;
        assert_eq!(lost.into_iter().collect::<Vec<_>>(), [(pack.id, (pack.kind, 10))]);
    }
    assert!(matches!(sealed.store().put_if_absent(&name, bytes).await, Put::Created));
    assert_eq!(collect(&sealed).await.unwrap().merged_objects, 1);
    assert_eq!(check(&sealed).await, 3);
}

#[tokio::test]
async fn what_dead_backups_left_goes_and_two_collections_are_enough() {
    let sealed = domain().await;
    backup(&sealed, 0..10).await;
    // One died before its index object, one after, one with its manifest sent.
    let first = begin(&sealed).await;
    put(&first, Kind::DataPack, &[plain(30)]).await;
    let second = begin(&sealed).await;
    put(&second, Kind::DataPack, &[plain(31)]).await;
    second.flush_index().await.unwrap();
    let third = begin(&sealed).await;
    put(&third, Kind::DataPack, &[plain(32)]).await;
    let mut request = request();
    request.dead.host = Host { name: "db1".into(), process: 1 };
    let planned = plan(&sealed, &at().domain, &mut request).await.unwrap();
    assert_eq!(planned.under_way.iter().filter(|waiting| waiting.dead.is_some()).count(), 3);
    let done = carry_out(&sealed, planned, &request).await.unwrap();
    assert_eq!(done.ended.len(), 3);
    collect(&sealed).await.unwrap();
    assert_eq!(check(&sealed).await, 2);
    assert_eq!(unreferenced_bytes(&sealed).await, 0);
    assert_eq!(debris(&sealed).await, Vec::<String>::new());
    // Nothing stands under their names, and none of them can commit.
    assert_eq!(sealed.list(&names::manifests(&at().domain)).await.unwrap().len(), 1);
    for dead in [first, second, third] {
        assert!(finish(&dead, &[]).await.is_err());
    }
}

#[tokio::test]
async fn a_backup_under_way_is_waited_for_by_as_many_collections_as_it_takes() {
    let sealed = domain().await;
    let old = backup(&sealed, 0..10).await;
    let running = begin(&sealed).await;
    put(&running, Kind::DataPack, &[plain(40)]).await;
    expire(&sealed, old).await;
    for _ in 0..2 {
        let done = collect(&sealed).await.unwrap();
        assert_eq!((done.removed_packs, done.waiting_packs), (0, 2));
        assert_eq!(done.waits_for, [running.id()]);
    }
    let plains: Vec<_> = (0..9).map(plain).collect();
    let ids = put(&running, Kind::DataPack, &plains).await;
    finish(&running, &ids).await.unwrap();
    let done = collect(&sealed).await.unwrap();
    // The old table, and the chunk that the backup did without in the end.
    assert_eq!((done.removed_packs, done.spared_packs), (2, 1), "{done:?}");
    collect(&sealed).await.unwrap();
    check(&sealed).await;
    assert_eq!(unreferenced_bytes(&sealed).await, 0);
}

#[tokio::test]
async fn a_backup_of_another_host_is_dead_once_this_one_has_known_it_for_long() {
    let sealed = domain().await;
    let lost = begin(&sealed).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seen.json");
    let on = async |day: i8| {
        let mut request = request();
        request.dead.after = Some(Duration::from_secs(10 * 24 * 3600));
        request.dead.clock = Clock::new(Day(day));
        request.sightings = Sightings::read(&file);
        let plan = plan(&sealed, &at().domain, &mut request).await.unwrap();
        carry_out(&sealed, plan, &request).await.unwrap().ended
    };
    assert_eq!(on(1).await, Vec::<BackupId>::new());
    assert_eq!(on(11).await, Vec::<BackupId>::new());
    assert_eq!(on(12).await, [lost.id()]);
    assert_eq!(on(13).await, Vec::<BackupId>::new());
    let ids = put(&lost, Kind::DataPack, &[plain(1)]).await;
    assert!(finish(&lost, &ids).await.is_err());
}

/// Exchanges one byte in the middle of an object.
async fn spoil(sealed: &SealedStore, name: &Key) {
    let mut bytes = sealed.store().get(name, 1 << 30).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    sealed.store().delete(name).await.unwrap();
    let _ = sealed.store().put_if_absent(name, bytes.into()).await;
}

#[tokio::test]
async fn whatever_cannot_be_read_ends_it_is_named_and_nothing_is_deleted() {
    for what in ["manifest", "table", "marker", "list", "damaged", "expired"] {
        let sealed = domain().await;
        let old = backup(&sealed, 0..10).await;
        let kept = backup(&sealed, 5..20).await;
        expire(&sealed, old).await;
        let running = begin(&sealed).await;
        collect(&sealed).await.unwrap();
        let listed = |below: Prefix| {
            let sealed = sealed.clone();
            async move { sealed.list(&below).await.unwrap() }
        };
        let rounds = listed(names::retired(&at().domain)).await;
        let is_list = |key: &Key| key.as_str().ends_with(".intents");
        let name = match what {
            "manifest" => names::manifest(&at(), kept),
            "table" => {
                let live = gc::live_chunks(&sealed, &at().domain).await.unwrap();
                let packs = gc::usage(&sealed, &at().domain, &live).await.unwrap().packs;
                let table = packs.iter().find(|used| used.kind == Kind::MetaPack).unwrap();
                names::pack(&at().domain, Kind::MetaPack, table.id)
            }
            "marker" => rounds.iter().find(|o| !o.key.as_str().contains('.')).unwrap().key.clone(),
            "list" => rounds.iter().find(|object| is_list(&object.key)).unwrap().key.clone(),
            "damaged" => {
                let note = pgrecall_repo::format::document::DamagedChunk {
                    pack: pgrecall_repo::id::PackId::from_bytes([1; 16]),
                    chunk: sealed.keys().chunk_id(b"x"),
                };
                let found = "a test".to_owned();
                pgrecall_repo::backup::report_damage(&sealed, &at(), vec![note], found)
                    .await
                    .unwrap();
                listed(names::all_damaged(&at().domain)).await[0].key.clone()
            }
            _ => names::expired(&at().domain).entry(0),
        };
        spoil(&sealed, &name).await;
        running.abandon().await.unwrap();
        let packs = index::list_packs(&sealed, &at().domain).await.unwrap();
        let error = collect(&sealed).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        let mut told = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            told.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        let named = told.contains(name.as_str()) || (what == "table" && told.contains("chunk"));
        assert!(named, "{what}: {told} does not name {name}");
        assert_eq!(index::list_packs(&sealed, &at().domain).await.unwrap(), packs, "{what}");
    }
}

/// A backup whose process died when its manifest was there.
async fn backup_with_intent(sealed: &SealedStore) -> BackupId {
    let deletes = Calls::of(&[CallKind::Delete]);
    let kind = pgrecall_store::ErrorKind::Unavailable;
    let store = FailNth::over(sealed.store().clone(), deletes, 1, Lasting::ForEver, kind);
    let (keys, random) = (sealed.keys().clone(), sealed.random().clone());
    let id = backup(&SealedStore::new(store, keys, random), 3..8).await;
    assert!(sealed.store().head(&names::intent(&at(), id)).await.is_ok(), "its intent is left");
    id
}

#[tokio::test]
async fn killed_at_any_call_it_is_followed_by_the_next() {
    let mut died = 0;
    for nth in 1.. {
        let sealed = domain().await;
        let old = backup(&sealed, 0..10).await;
        backup(&sealed, 5..20).await;
        expire(&sealed, old).await;
        // One that was committed and left its intent, and a dead one.
        let committed = backup_with_intent(&sealed).await;
        begin(&sealed).await;
        let kind = pgrecall_store::ErrorKind::Denied;
        let failing =
            FailNth::over(sealed.store().clone(), Calls::all(), nth, Lasting::ForEver, kind);
        let (keys, random) = (sealed.keys().clone(), sealed.random().clone());
        let dying = SealedStore::new(failing.clone(), keys, random);
        let as_db1 = async |sealed: &SealedStore| {
            let mut request = request();
            request.dead.host = Host { name: "db1".into(), process: 1 };
            let plan = plan(sealed, &at().domain, &mut request).await?;
            let of_committed = |waiting: &&Waiting| waiting.live.intent.backup == committed;
            if let Some(waiting) = plan.under_way.iter().find(of_committed) {
                assert_eq!(waiting.dead, Some(Dead::Committed));
            }
            let done = carry_out(sealed, plan, &request).await?;
            assert!(!done.ended.contains(&committed), "it stands");
            Ok::<Collected, EngineError>(done)
        };
        let collected = as_db1(&dying).await;
        if !failing.hook().has_failed() {
            collected.unwrap();
            break;
        }
        died += u32::from(collected.is_err());
        check(&sealed).await;
        as_db1(&sealed).await.unwrap();
        as_db1(&sealed).await.unwrap();
        check(&sealed).await;
        let backups = manifests::list(&sealed, &at().domain).await.unwrap();
        let valid: Vec<BackupId> =
            backups.valid.iter().map(|valid| valid.manifest.backup).collect();
        assert!(valid.len() == 2 && valid.contains(&committed), "call {nth}: {valid:?}");
        assert_eq!(unreferenced_bytes(&sealed).await, 0, "call {nth}");
        assert_eq!(debris(&sealed).await, Vec::<String>::new(), "call {nth}");
    }
    assert!(died > 50, "{died}");
}

#[tokio::test]
async fn two_at_once_lose_nothing_and_leave_nothing() {
    for nth in 1.. {
        let sealed = domain().await;
        let old = backup(&sealed, 0..10).await;
        backup(&sealed, 5..20).await;
        expire(&sealed, old).await;
        let second = sealed.clone();
        let store = Meanwhile::over(sealed.store().clone(), nth, async move || {
            collect(&second).await.unwrap();
        });
        let (keys, random) = (sealed.keys().clone(), sealed.random().clone());
        collect(&SealedStore::new(store.clone(), keys, random)).await.unwrap();
        check(&sealed).await;
        collect(&sealed).await.unwrap();
        check(&sealed).await;
        assert_eq!(unreferenced_bytes(&sealed).await, 0, "call {nth}");
        assert_eq!(debris(&sealed).await, Vec::<String>::new(), "call {nth}");
        if !store.hook().has_happened() {
            return assert!(nth > 50, "{nth}");
        }
    }
}

#[tokio::test]
async fn a_backup_and_an_expiry_at_any_moment_of_it_are_safe() {
    for nth in 1.. {
        let sealed = domain().await;
        let old = backup(&sealed, 0..10).await;
        let middle = backup(&sealed, 5..20).await;
        expire(&sealed, old).await;
        let other = sealed.clone();
        let store = Meanwhile::over(sealed.store().clone(), nth, async move || {
            backup(&other, 3..8).await;
            expire(&other, middle).await;
        });
        let (keys, random) = (sealed.keys().clone(), sealed.random().clone());
        collect(&SealedStore::new(store.clone(), keys, random)).await.unwrap();
        check(&sealed).await;
        collect(&sealed).await.unwrap();
        collect(&sealed).await.unwrap();
        check(&sealed).await;
        assert_eq!(unreferenced_bytes(&sealed).await, 0, "call {nth}");
        if !store.hook().has_happened() {
            return assert!(nth > 50, "{nth}");
        }
    }
}
