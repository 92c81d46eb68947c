//! Stores that fail, refuse or slow down while a backup runs.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pgrecall_repo::backup::{self, BackupNote, BackupSession};
use pgrecall_repo::codec::Level;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::index::{self, Index, Purpose};
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::random::{Random, SharedRandom};
use pgrecall_repo::sealed_store::{DOCUMENT_BYTES_MAX, SealedStore};
use pgrecall_repo::{ErrorKind, RepoError, chunks, gc, manifests, names};
use pgrecall_store::{ErrorKind as StoreErrorKind, Key, Put, Store, StoreError};
use pgrecall_testkit::stores::{Call, CallKind, Calls, FailNth, Hook, Hooked, Lasting, Record};

use super::{at, begin, key_file, made, manifest, memory, plains, store_chunks};

/// The domain of a repository in `inner`, seen through another store.
async fn through(inner: &Arc<dyn Store>, outer: Arc<dyn Store>) -> SealedStore {
    let repository = made(inner, &key_file()).await;
    let sealed = repository.domain(&at().domain).await.unwrap();
    SealedStore::new(outer, sealed.keys().clone(), SharedRandom::new(NoPauses))
}

/// The system's random bytes, but the four of a pause are zero.
struct NoPauses;

impl Random for NoPauses {
    fn fill(&self, buffer: &mut [u8]) {
        match buffer.len() {
            4 => buffer.fill(0),
            _ => SharedRandom::system().fill(buffer),
        }
    }
}

#[tokio::test]
async fn credentials_that_may_not_delete_make_whole_backups() {
    let inner = memory();
    let deletes = Calls::of(&[CallKind::Delete]);
    let denied = FailNth::over(inner.clone(), deletes, 1, Lasting::ForEver, StoreErrorKind::Denied);
    let sealed = through(&inner, denied).await;
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    session.commit(&manifest(session.id())).await.unwrap();
    let dead = begin(&sealed).await;
    dead.abandon().await.unwrap();
    assert!(!backup::end_dead(&sealed, &at(), dead.id(), "gone".into()).await.unwrap());
    assert_eq!(manifests::list(&sealed, &at().domain).await.unwrap().valid.len(), 1);
}

#[tokio::test]
async fn a_backup_that_cannot_begin_leaves_no_intent() {
    let inner = memory();
    let lists = Calls::of(&[CallKind::List]).naming("packs/");
    let failing =
        FailNth::over(inner.clone(), lists, 1, Lasting::Once, StoreErrorKind::Unavailable);
    let sealed = through(&inner, failing).await;
    let note = BackupNote {
        host: "db1".into(),
        process: 1,
        incarnation: String::new(),
        began: "now".into(),
    };
    BackupSession::begin(sealed.clone(), at(), &note).await.unwrap_err();
    assert_eq!(sealed.list(&names::intents(&at())).await.unwrap(), []);
}

#[tokio::test]
async fn the_intent_stays_where_the_manifest_may_come_late() {
    let inner = memory();
    let manifests = Calls::puts().naming("/backups/");
    let failing =
        FailNth::over(inner.clone(), manifests, 1, Lasting::ForEver, StoreErrorKind::Unavailable);
    let sealed = through(&inner, failing).await;
    let session = begin(&sealed).await;
    let error = session.commit(&manifest(session.id())).await.unwrap_err();
    assert!(matches!(error, RepoError::Unknown { .. }), "{error}");
    session.abandon().await.unwrap();
    assert_eq!(backup::live_intents(&sealed, &at()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_fails_before_the_manifest_is_told_as_it_is_and_the_intent_goes() {
    let inner = memory();
    let indexes = Calls::puts().naming("/index/");
    let failing =
        FailNth::over(inner.clone(), indexes, 1, Lasting::Once, StoreErrorKind::Unavailable);
    let sealed = through(&inner, failing).await;
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    let error = session.commit(&manifest(session.id())).await.unwrap_err();
    assert!(error.to_string().contains("/index/"), "{error}");
    session.abandon().await.unwrap();
    assert_eq!(sealed.list(&names::intents(&at())).await.unwrap(), []);
    // What was stored serves the next try all the same.
    assert_eq!(store_chunks(&begin(&sealed).await, &plains()).await.1, 0);
}

#[tokio::test]
async fn a_store_that_asks_to_slow_down_gets_the_pack_in_the_end() {
    let inner = memory();
    let failing = Hooked::new(inner.clone(), SlowDown { left: AtomicU64::new(12) });
    let sealed = through(&inner, failing).await;
    let session = begin(&sealed).await;
    assert_eq!(store_chunks(&session, &plains()).await.1, 20);
    session.commit(&manifest(session.id())).await.unwrap();
    assert_eq!(sealed.list(&names::packs(&at().domain)).await.unwrap().len(), 1);
}

/// Refuses the first puts of packs.
#[derive(Debug)]
struct SlowDown {
    left: AtomicU64,
}

#[async_trait]
impl Hook for SlowDown {
    async fn before(&self, call: &Call) -> Result<(), StoreError> {
        let asked = call.kind == CallKind::PutOnce
            && self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        if asked {
            return Err(call.error(StoreErrorKind::Unavailable, "503 SlowDown"));
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_pack_whose_sync_failed_is_put_anew() {
    let inner = memory();
    let failing = Hooked::new(inner.clone(), SyncFails { left: AtomicU64::new(1) });
    let sealed = through(&inner, failing).await;
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    session.commit(&manifest(session.id())).await.unwrap();
    // The first can be read, and may be gone after a power cut: nobody refers to it.
    let packs = sealed.list(&names::packs(&at().domain)).await.unwrap();
    assert_eq!(packs.len(), 2);
}

/// The first packs are there, but their folder could not be synced.
#[derive(Debug)]
struct SyncFails {
    left: AtomicU64,
}

#[async_trait]
impl Hook for SyncFails {
    async fn after(&self, call: &Call, _: u64) -> Result<(), StoreError> {
        let asked = call.kind == CallKind::PutOnce
            && self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        if asked {
            let error = call.error(StoreErrorKind::Unavailable, "sync the folder");
            return Err(error.caused_by(std::io::Error::from_raw_os_error(5)));
        }
        Ok(())
    }
}

#[tokio::test]
async fn names_that_are_always_taken_end_a_pack() {
    let inner = memory();
    let sealed = through(&inner, Hooked::new(inner.clone(), Taken { inner: inner.clone() })).await;
    let session = begin(&sealed).await;
    let mut builder = PackBuilder::new(&sealed, &at().domain, Kind::DataPack).unwrap();
    builder.add(sealed.keys().chunk_id(b"x"), b"x", Level::default()).unwrap();
    let error = session.put_pack(builder.finish().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

/// Somebody is always faster.
#[derive(Debug)]
struct Taken {
    inner: Arc<dyn Store>,
}

#[async_trait]
impl Hook for Taken {
    async fn before(&self, call: &Call) -> Result<(), StoreError> {
        if call.kind == CallKind::PutOnce {
            let name = Key::parse(&call.name)?;
            assert!(matches!(self.inner.put_once(&name, "other".into()).await, Put::Created));
        }
        Ok(())
    }
}

#[tokio::test]
async fn no_document_is_written_that_no_reader_takes() {
    let inner = memory();
    let sealed = through(&inner, inner.clone()).await;
    let session = begin(&sealed).await;
    let details = serde_json::Value::String("x".repeat(DOCUMENT_BYTES_MAX));
    let large = Manifest { details, ..manifest(session.id()) };
    let error = session.commit(&large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn the_index_is_read_once_and_only_when_something_is_looked_for() {
    let inner = memory();
    let record = Record::over(inner.clone());
    let sealed = through(&inner, record.clone()).await;
    let mut ids = Vec::new();
    for part in plains().chunks(5) {
        let session = begin(&sealed).await;
        ids.extend(store_chunks(&session, part).await.0);
        session.commit(&manifest(session.id())).await.unwrap();
    }
    record.hook().clear();
    let index = Index::open(&sealed, &at().domain, Purpose::Read).await.unwrap();
    assert!(index.locate(&sealed, &HashSet::new()).await.unwrap().is_empty());
    let reads = Calls::reads().naming("/index/");
    assert_eq!(record.hook().count(&reads), 0);
    for id in &ids {
        assert_eq!(index.locate(&sealed, &HashSet::from([*id])).await.unwrap().len(), 1);
    }
    assert_eq!(record.hook().count(&reads), 4, "one for each index object");
}

/// What S3 answers when two writes of one name meet (HTTP 409): nobody has won yet.
#[derive(Debug)]
struct Conflicts {
    naming: &'static str,
    left: AtomicU64,
    names: Mutex<Vec<String>>,
}

impl Conflicts {
    fn over(inner: Arc<dyn Store>, naming: &'static str, times: u64) -> Arc<Hooked<Self>> {
        let left = AtomicU64::new(times);
        Hooked::new(inner, Self { naming, left, names: Mutex::default() })
    }
}

#[async_trait]
impl Hook for Conflicts {
    async fn before(&self, call: &Call) -> Result<(), StoreError> {
        if !Calls::puts().naming(self.naming).matches(call.kind, &call.name) {
            return Ok(());
        }
        self.names.lock().unwrap().push(call.name.clone());
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match left {
            Ok(_) => Err(call.error(StoreErrorKind::Conflict, "409 ConditionalRequestConflict")),
            Err(_) => Ok(()),
        }
    }
}

/// The names that puts went to, of which none may be used twice.
fn used_once(names: &Mutex<Vec<String>>) -> usize {
    let names = names.lock().unwrap();
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
    names.len()
}

#[tokio::test]
async fn a_conflict_on_a_pack_ends_its_name_and_not_the_backup() {
    let inner = memory();
    let conflicts = Conflicts::over(inner.clone(), "/packs/", 3);
    let sealed = through(&inner, conflicts.clone()).await;
    let session = begin(&sealed).await;
    let (ids, _) = store_chunks(&session, &plains()).await;
    session.commit(&manifest(session.id())).await.unwrap();
    assert_eq!(used_once(&conflicts.hook().names), 4);
    assert_eq!(sealed.list(&names::packs(&at().domain)).await.unwrap().len(), 1);
    let index = Index::open(&sealed, &at().domain, Purpose::Read).await.unwrap();
    let wanted: HashSet<_> = ids.iter().copied().collect();
    let read = chunks::read_many(&sealed, &at().domain, &index, &wanted).await.unwrap();
    assert!(ids.iter().zip(plains()).all(|(id, plain)| read[id] == plain));
}

#[tokio::test]
async fn a_conflict_on_a_marker_ends_its_name_and_conflicts_without_end_retire_nothing() {
    for (times, tried) in [(3, 4), (u64::MAX, 4)] {
        let inner = memory();
        let conflicts = Conflicts::over(inner.clone(), "/retired/", times);
        let sealed = through(&inner, conflicts.clone()).await;
        store_chunks(&begin(&sealed).await, &plains()).await;
        let packs: Vec<_> =
            index::list_packs(&sealed, &at().domain).await.unwrap().into_keys().collect();
        let retired = gc::retire(&sealed, &at().domain, packs.clone()).await;
        let rounds = gc::rounds(&sealed, &at().domain).await.unwrap();
        if times == u64::MAX {
            assert!(matches!(retired, Err(RepoError::Unknown { .. })), "{retired:?}");
            assert_eq!(rounds, []);
            assert_eq!(used_once(&conflicts.hook().names), tried);
            continue;
        }
        assert_eq!(rounds, [gc::Round { id: retired.unwrap(), marker: true }]);
        // Four markers, and the list.
        assert_eq!(used_once(&conflicts.hook().names), tried + 1);
        let read = index::read_markers(&sealed, &at().domain).await.unwrap();
        assert_eq!(read, packs.into_iter().collect());
    }
}

/// The store has sent it again until it gave up: nobody knows whether the intent is there.
#[tokio::test]
async fn a_conflict_on_an_intent_ends_the_backup_before_it_has_begun() {
    let inner = memory();
    let conflicts = Conflicts::over(inner.clone(), "/intents/", 1);
    let sealed = through(&inner, conflicts.clone()).await;
    let note = BackupNote {
        host: "db1".into(),
        process: 1,
        incarnation: String::new(),
        began: "now".into(),
    };
    let error = BackupSession::begin(sealed.clone(), at(), &note).await.unwrap_err();
    assert!(matches!(error, RepoError::Unknown { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    session.commit(&manifest(session.id())).await.unwrap();
    assert_eq!(used_once(&conflicts.hook().names), 2);
}
