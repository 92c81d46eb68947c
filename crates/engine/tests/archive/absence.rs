//! "No such file" is said when it is proven, and for no other reason.

use std::sync::Arc;

use pgrecall_engine::ErrorKind;
use pgrecall_engine::archive::fetch::FetchOutcome;
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::{Lsn, Major, TimelineId};
use pgrecall_repo::id::RepositoryId;
use pgrecall_repo::names;
use pgrecall_store::{ErrorKind as StoreErrorKind, MemoryStore, Store};
use pgrecall_testkit::stores::{Calls, FailNth, Lasting};

use crate::bench::{Bench, FIRST, SYSTEM, fetch_as, object, push, segment};

const MISSING: &str = "0000000100000000000000AA";

async fn filled() -> Bench {
    let bench = Bench::new().await;
    let path = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    push(&bench.access(), &path).await.unwrap();
    bench
}

#[tokio::test]
async fn absence_is_proven_by_root_and_identity() {
    let bench = filled().await;
    let access = bench.access();
    for name in [MISSING, "00000002.history", "0000000100000000000000AA.partial"] {
        let outcome = fetch_as(&access, &bench, name, Some(SYSTEM)).await.unwrap();
        assert_eq!(outcome, FetchOutcome::ProvenAbsent, "{name}");
    }
    assert_eq!(bench.left_beside(), [""; 0]);
}

#[tokio::test]
async fn nothing_else_is_proof() {
    let bench = filled().await;
    let mut unpinned = bench.access();
    unpinned.options.id = None;
    let mut elsewhere = bench.access_to(Arc::new(MemoryStore::new()));
    elsewhere.options.id = bench.options.id;
    let mut other = bench.access();
    other.options.id = Some(RepositoryId::from_bytes([9; 16]));
    let mut stranger = bench.access();
    stranger.cluster = "other".parse().unwrap();
    let mut domainless = bench.access();
    domainless.domain = "other".parse().unwrap();
    for (what, access) in [
        ("no id is pinned", &unpinned),
        ("an empty store", &elsewhere),
        ("another repository", &other),
        ("a cluster that is not known", &stranger),
        ("a domain that is not known", &domainless),
    ] {
        let outcome = fetch_as(access, &bench, MISSING, Some(SYSTEM)).await;
        assert!(outcome.is_err(), "{what}: {outcome:?}");
    }
    let access = bench.access();
    let error = fetch_as(&access, &bench, MISSING, Some(SYSTEM + 1)).await.unwrap_err();
    assert!(error.to_string().contains("NOT PROVEN"), "{error}");
    let error = fetch_as(&access, &bench, MISSING, None).await.unwrap_err();
    assert!(error.to_string().contains("NOT PROVEN"), "{error}");
    for name in ["RECOVERYXLOG", "", "../x", "0000000100000000000000aa"] {
        let error = fetch_as(&access, &bench, name, Some(SYSTEM)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
    }
    assert_eq!(bench.left_beside(), [""; 0]);
}

/// Each request of a fetch that misses fails in turn, until one needs no more requests than that.
#[tokio::test]
async fn no_failed_request_looks_like_absence() {
    let bench = filled().await;
    let kinds = [StoreErrorKind::Unavailable, StoreErrorKind::Denied, StoreErrorKind::NotFound];
    for kind in kinds {
        let mut nth = 1;
        loop {
            let failing =
                FailNth::over(bench.store.clone(), Calls::all(), nth, Lasting::Once, kind);
            let access = bench.access_to(failing.clone());
            let outcome = fetch_as(&access, &bench, MISSING, Some(SYSTEM)).await;
            if !failing.hook().has_failed() {
                assert_eq!(outcome.unwrap(), FetchOutcome::ProvenAbsent);
                break;
            }
            let named_absent = kind == StoreErrorKind::NotFound && nth <= 2;
            assert!(
                outcome.is_err() || named_absent,
                "request {nth} failed with {kind:?}, and absence was told"
            );
            nth += 1;
        }
        let all = "the object, the settlement, the root, the identity, what was kept, and no more";
        assert_eq!(nth, 6, "{all}");
    }
}

#[tokio::test]
async fn damage_is_never_absence() {
    let bench = filled().await;
    let access = bench.access();
    let key = object(&access, FIRST);
    let whole = bench.store.get(&key, 64 << 20).await.unwrap();
    let mut cases: Vec<Vec<u8>> =
        [0, 1, 30, whole.len() / 2, whole.len() - 1].map(|len| whole[..len].to_vec()).into();
    for at in (0..whole.len()).step_by(whole.len() / 37) {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 0x10;
        cases.push(flipped);
    }
    cases.push([&whole[..], b"x"].concat());
    let (mut seen, total) = (0, cases.len());
    for damaged in cases {
        let store = Arc::new(MemoryStore::new());
        copy_all(&bench, store.clone(), &key).await;
        put(&*store, &key, damaged).await;
        let access = bench.access_to(store);
        match fetch_as(&access, &bench, FIRST, Some(SYSTEM)).await {
            // The damage is in the trailer, which a fetch does not look at.
            Ok(FetchOutcome::Fetched { .. }) => {
                assert!(std::fs::read(bench.destination()).unwrap() == segment(SYSTEM, 1, 0));
                std::fs::remove_file(bench.destination()).unwrap();
            }
            Ok(FetchOutcome::ProvenAbsent) => panic!("damage passed for absence"),
            Err(error) => {
                seen += 1;
                let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported];
                assert!(kinds.contains(&error.kind()), "{error}");
            }
        }
        assert_eq!(bench.left_beside(), [""; 0]);
    }
    assert!(seen > 20, "most damage is in the body: {seen} of {total}");
    // Sound bytes under another name.
    let moved = object(&access, MISSING);
    put(&*bench.store, &moved, whole.to_vec()).await;
    let error = fetch_as(&access, &bench, MISSING, Some(SYSTEM)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn history_and_backup_files_come_back_and_odd_ones_are_refused() {
    let bench = filled().await;
    let access = bench.access();
    let history = History::without_ancestors(TimelineId(1))
        .fork(TimelineId(2), Lsn(0x30_0000), "no recovery target specified")
        .unwrap()
        .compose(Major::V17);
    let label = "000000010000000000000001.00000028.backup";
    for (name, bytes) in [("00000002.history", history.as_bytes()), (label, b"START WAL")] {
        push(&access, &bench.file(name, bytes)).await.unwrap();
        fetch_as(&access, &bench, name, Some(SYSTEM)).await.unwrap();
        assert_eq!(std::fs::read(bench.destination()).unwrap(), bytes, "{name}");
    }
    for (name, bytes) in [
        ("00000003.history", vec![0_u8; 80]),
        ("00000003.history", vec![b'1'; 2 << 20]),
        ("00000003.txt", b"x".to_vec()),
    ] {
        assert!(push(&access, &bench.file(name, &bytes)).await.is_err(), "{name}");
    }
}

async fn copy_all(bench: &Bench, to: Arc<MemoryStore>, but: &pgrecall_store::Key) {
    use futures::TryStreamExt as _;
    let listed: Vec<_> =
        bench.store.list(&pgrecall_store::Prefix::root()).try_collect().await.unwrap();
    assert!(listed.iter().any(|object| object.key == names::root()));
    for object in listed.into_iter().filter(|object| object.key != *but) {
        let bytes = bench.store.get(&object.key, 64 << 20).await.unwrap();
        put(&*to, &object.key, bytes.to_vec()).await;
    }
}

async fn put(store: &dyn Store, key: &pgrecall_store::Key, bytes: Vec<u8>) {
    let put = store.put_if_absent(key, bytes.into()).await;
    assert!(matches!(put, pgrecall_store::Put::Created), "{key}: {put:?}");
}
