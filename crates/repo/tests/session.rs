//! A repository over a store in memory: made, opened, joined, written and read; what is moved,
//! flipped, cut or taken away is noticed.

#[path = "session/damaged.rs"]
mod damaged;
#[path = "session/failing.rs"]
mod failing;
#[path = "session/first_key.rs"]
mod first_key;

use std::collections::HashSet;
use std::sync::Arc;

use pgrecall_repo::archive::{self, Pushed};
use pgrecall_repo::backup::{self, BackupNote, BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::{Expired, Manifest};
use pgrecall_repo::format::header::{KeyClass, Kind};
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::id::{BackupId, ChunkId};
use pgrecall_repo::index::{Index, Purpose};
use pgrecall_repo::keys::{KeyFile, Rotation, Unlock};
use pgrecall_repo::names::{self, ClusterRef};
use pgrecall_repo::object::Proof;
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{Created, KeyNote, OpenOptions, Repository};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{ErrorKind, RepoError, chunks, manifests, object};
use pgrecall_store::{MemoryStore, Put, Store};

fn options(unlock: Unlock) -> OpenOptions {
    let suite = match unlock {
        Unlock::Nothing => RootSuite::None,
        _ => RootSuite::Aes256Gcm,
    };
    OpenOptions {
        id: None,
        suite,
        fingerprint: None,
        unlock,
        random: SharedRandom::system(),
        cache: None,
        restore_keys: Vec::new(),
    }
}

fn note(label: &str) -> KeyNote {
    KeyNote { label: label.into(), now: "2026-11-22T00:00:00Z".into() }
}

fn key_file() -> Unlock {
    Unlock::KeyFile(KeyFile::random(&SharedRandom::system()))
}

async fn made(store: &Arc<dyn Store>, unlock: &Unlock) -> Repository {
    match Repository::create(store.clone(), options(unlock.clone()), &note("db1")).await.unwrap() {
        Created::New(repository) => *repository,
        Created::Taken(root) => panic!("{root:?} stands there already"),
    }
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn at() -> ClusterRef {
    ClusterRef {
        domain: "main".parse().unwrap(),
        cluster: "main".parse().unwrap(),
        lineage: "7123456789012345678".into(),
    }
}

async fn begin(sealed: &SealedStore) -> BackupSession {
    let note = BackupNote {
        host: "db1".into(),
        process: 1,
        incarnation: String::new(),
        began: "now".into(),
    };
    BackupSession::begin(sealed.clone(), at(), &note).await.unwrap()
}

/// Stores these plaintexts as chunks and gives how many had to be.
async fn store_chunks(session: &BackupSession, plains: &[Vec<u8>]) -> (Vec<ChunkId>, usize) {
    let mut builder = PackBuilder::new(session.sealed(), &at().domain, Kind::DataPack).unwrap();
    let (mut ids, mut stored) = (Vec::new(), 0);
    for plain in plains {
        let id = session.sealed().keys().chunk_id(plain);
        if session.claim(&id) == Claim::Store {
            builder.add(id, plain, Level::default()).unwrap();
            stored += 1;
        }
        ids.push(id);
    }
    if !builder.is_empty() {
        session.put_pack(builder.finish().unwrap()).await.unwrap();
    }
    (ids, stored)
}

fn manifest(id: BackupId) -> Manifest {
    Manifest {
        backup: id,
        cluster: "main".into(),
        lineage: at().lineage,
        tables: vec![],
        entries: 0,
        bytes: 0,
        details: serde_json::json!({"start": "0/2000028"}),
    }
}

fn plains() -> Vec<Vec<u8>> {
    (0..20_u8).map(|n| vec![n; 1000 + usize::from(n)]).collect()
}

#[tokio::test]
async fn a_backup_is_written_committed_and_read() {
    for unlock in [Unlock::Nothing, key_file()] {
        let store = memory();
        let repository = made(&store, &unlock).await;
        let sealed = repository.domain(&at().domain).await.unwrap();
        let session = begin(&sealed).await;
        session.put_start("1".into(), "0/2000028".into()).await.unwrap();
        assert_eq!(backup::live_intents(&sealed, &at()).await.unwrap().len(), 1);
        let (ids, stored) = store_chunks(&session, &plains()).await;
        assert_eq!(stored, 20);
        session.commit(&manifest(session.id())).await.unwrap();
        assert!(backup::live_intents(&sealed, &at()).await.unwrap().is_empty());

        // Another host, with nothing but the key.
        let repository = Repository::open(store.clone(), options(unlock)).await.unwrap();
        let sealed = repository.existing_domain(&at().domain).await.unwrap();
        let backups = manifests::list(&sealed, &at().domain).await.unwrap();
        assert_eq!(backups.valid.len(), 1);
        let index = Index::open(&sealed, &at().domain, Purpose::Read).await.unwrap();
        let wanted: HashSet<_> = ids.iter().copied().collect();
        let read = chunks::read_many(&sealed, &at().domain, &index, &wanted).await.unwrap();
        for (id, plain) in ids.iter().zip(plains()) {
            assert_eq!(read[id], plain);
        }

        // The next backup stores nothing that is there.
        let session = begin(&sealed).await;
        let (_, stored) = store_chunks(&session, &plains()).await;
        assert_eq!(stored, 0);
        session.commit(&manifest(session.id())).await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_key_another_repository_and_a_clear_one_are_refused() {
    let store = memory();
    let unlock = key_file();
    let id = made(&store, &unlock).await.root().id;
    let error = Repository::open(store.clone(), options(key_file())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let error = Repository::open(store.clone(), options(Unlock::Nothing)).await.unwrap_err();
    assert!(matches!(error, RepoError::OtherSuite { .. }), "{error}");
    let mut pinned = options(unlock.clone());
    pinned.id = Some(id);
    Repository::open(store.clone(), pinned.clone()).await.unwrap();
    let other = memory();
    made(&other, &unlock).await;
    let error = Repository::open(other, pinned).await.unwrap_err();
    assert!(matches!(error, RepoError::OtherRepository { .. }), "{error}");
    let error = Repository::open(memory(), options(unlock)).await.unwrap_err();
    assert!(matches!(error, RepoError::NoRepository { .. }), "{error}");
}

/// The id of a repository can be copied; its key cannot.
#[tokio::test]
async fn another_repository_key_than_the_pinned_one_is_refused() {
    for unlock in [Unlock::Nothing, key_file()] {
        let store = memory();
        let repository = made(&store, &unlock).await;
        let found = repository.fingerprint();
        let other = made(&memory(), &unlock).await.fingerprint();
        assert_ne!(found, other);
        let pinned = |fingerprint: &str| OpenOptions {
            fingerprint: Some(fingerprint.into()),
            ..options(unlock.clone())
        };
        Repository::open(store.clone(), pinned(&found)).await.unwrap();
        let error = Repository::open(store.clone(), pinned(&other)).await.unwrap_err();
        assert!(
            matches!(&error, RepoError::OtherKey { expected, found: told }
                if *expected == other && *told == found),
            "{error}"
        );
        // By a root that is known already, as a push opens it.
        let (root, bytes) = Repository::read_root(&store, &pinned(&other)).await.unwrap();
        let opened = Repository::open_with_root(store.clone(), pinned(&other), root, bytes).await;
        assert!(matches!(opened.unwrap_err(), RepoError::OtherKey { .. }));
    }
}

#[tokio::test]
async fn the_loser_of_two_inits_can_join_and_keys_come_and_go() {
    let store = memory();
    let first = key_file();
    let repository = made(&store, &first).await;
    let second = key_file();
    let lost = Repository::create(store.clone(), options(second.clone()), &note("db2")).await;
    assert!(matches!(lost.unwrap(), Created::Taken(root) if root.id == repository.root().id));
    assert!(Repository::open(store.clone(), options(second.clone())).await.is_err());

    let second_id = repository.add_key(&second, &note("db2")).await.unwrap();
    let joined = Repository::open(store.clone(), options(second.clone())).await.unwrap();
    assert_eq!(joined.fingerprint(), repository.fingerprint());
    assert_eq!(joined.key_log().await.unwrap().1.living.len(), 2);

    // The key in use cannot be the one that goes; the other can.
    assert!(joined.remove_key(second_id, &second).await.is_err());
    let first_id = repository.opened_by().unwrap();
    joined.remove_key(first_id, &second).await.unwrap();
    let error = Repository::open(store.clone(), options(first.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    // The delete of its wrap may come late: a key that was removed does not come back.
    assert_eq!(joined.add_key(&first, &note("db1")).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(joined.add_key(&second, &note("db2")).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(joined.remove_key(second_id, &second).await.is_err(), "the last key stays");
}

#[tokio::test]
async fn a_new_epoch_leaves_old_objects_readable() {
    let store = memory();
    let unlock = key_file();
    let repository = made(&store, &unlock).await;
    let sealed = repository.domain(&at().domain).await.unwrap();
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    session.commit(&manifest(session.id())).await.unwrap();
    assert_eq!(repository.rotate(&at().domain, Rotation::Sealing, None).await.unwrap(), 1);
    let sealed = repository.existing_domain(&at().domain).await.unwrap();
    assert_eq!(sealed.keys().epoch(), 1);
    let session = begin(&sealed).await;
    let mut more = plains();
    more.push(b"new in the second epoch".to_vec());
    let (ids, stored) = store_chunks(&session, &more).await;
    assert_eq!(stored, 1, "ids outlive epochs");
    session.commit(&manifest(session.id())).await.unwrap();
    let index = Index::open(&sealed, &at().domain, Purpose::Read).await.unwrap();
    let wanted: HashSet<_> = ids.iter().copied().collect();
    let read = chunks::read_many(&sealed, &at().domain, &index, &wanted).await.unwrap();
    assert_eq!(read.len(), 21);
}

/// Otherwise everything stored before the rotation were lost to its readers.
#[tokio::test]
async fn a_new_id_key_stores_everything_anew_and_leaves_old_objects_readable() {
    let store = memory();
    let unlock = key_file();
    let repository = made(&store, &unlock).await;
    let sealed = repository.domain(&at().domain).await.unwrap();
    let session = begin(&sealed).await;
    let (old, _) = store_chunks(&session, &plains()).await;
    let first = manifest(session.id());
    session.commit(&first).await.unwrap();
    let name = names::cluster_object(&at(), "wal/one").unwrap();
    assert!(matches!(push_archived(&sealed, &name, b"a segment").await, Pushed::Created));

    assert_eq!(repository.rotate(&at().domain, Rotation::Ids, None).await.unwrap(), 1);
    let sealed = repository.existing_domain(&at().domain).await.unwrap();
    assert_eq!((sealed.keys().epoch(), sealed.keys().id_generation()), (1, 1));
    let session = begin(&sealed).await;
    let (new, stored) = store_chunks(&session, &plains()).await;
    assert_eq!(stored, plains().len(), "no chunk is known by its old id");
    session.commit(&manifest(session.id())).await.unwrap();

    let index = Index::open(&sealed, &at().domain, Purpose::Read).await.unwrap();
    let wanted: HashSet<_> = old.iter().chain(&new).copied().collect();
    let read = chunks::read_many(&sealed, &at().domain, &index, &wanted).await.unwrap();
    assert_eq!(read.len(), 2 * plains().len());
    assert_eq!(read[&old[3]], read[&new[3]]);
    let backups = manifests::list(&sealed, &at().domain).await.unwrap();
    assert_eq!((backups.valid.len(), backups.unreadable.len()), (2, 0));

    // A segment that is offered again is the same segment, and another one is not.
    let Pushed::Taken { stored, generation, .. } =
        push_archived(&sealed, &name, b"a segment").await
    else {
        panic!("it was stored twice");
    };
    let digest = |plain| archive::digest_by(sealed.keys(), generation, &name, plain).unwrap();
    assert_eq!((generation, digest(b"a segment")), (0, stored));
    assert_ne!(digest(b"another"), stored);
    let mut plain = Vec::new();
    archive::fetch(&sealed, &name, 1 << 20, Proof::Hash, |part| plain.extend_from_slice(part))
        .await
        .unwrap();
    assert_eq!(plain, b"a segment");
}

async fn push_archived(sealed: &SealedStore, name: &pgrecall_store::Key, plain: &[u8]) -> Pushed {
    let (keys, random) = (sealed.keys(), sealed.random());
    let digest = keys.digest(plain);
    let body = [object::Payload::compress(plain, Level::default())];
    let object =
        object::seal_archive(keys, KeyClass::Data, name, digest, &body, b"trailer", random)
            .unwrap();
    archive::push(sealed, name, object).await.unwrap()
}

#[tokio::test]
async fn a_pack_that_goes_missing_voids_the_backup_that_refers_to_it() {
    let store = memory();
    let repository = made(&store, &Unlock::Nothing).await;
    let sealed = repository.domain(&at().domain).await.unwrap();
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    session.commit(&manifest(session.id())).await.unwrap();
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    for pack in sealed.list(&names::packs(&at().domain)).await.unwrap() {
        store.delete(&pack.key).await.unwrap();
    }
    let error = session.commit(&manifest(session.id())).await.unwrap_err();
    assert!(matches!(error, RepoError::PacksMissing { .. }), "{error}");
    assert_eq!(manifests::list(&sealed, &at().domain).await.unwrap().valid.len(), 1);
    // The next try does not trust the index entry of a pack that is gone.
    let session = begin(&sealed).await;
    assert_eq!(store_chunks(&session, &plains()).await.1, 20);
    session.commit(&manifest(session.id())).await.unwrap();
}

#[tokio::test]
async fn a_chunk_that_rots_is_found_by_the_sample_and_stored_again() {
    let store = memory();
    let repository = made(&store, &key_file()).await;
    let sealed = repository.domain(&at().domain).await.unwrap();
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    session.commit(&manifest(session.id())).await.unwrap();
    let pack = sealed.list(&names::packs(&at().domain)).await.unwrap().remove(0);
    let mut bytes = store.get(&pack.key, 1 << 20).await.unwrap().to_vec();
    bytes[110] ^= 1;
    store.delete(&pack.key).await.unwrap();
    assert!(matches!(store.put_if_absent(&pack.key, bytes.into()).await, Put::Created));
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    // The sample is small: it may take more than one backup to meet the bad chunk.
    let mut found = false;
    for _ in 0..50 {
        let session = begin(&sealed).await;
        let (_, stored) = store_chunks(&session, &plains()).await;
        if stored > 0 {
            assert_eq!(stored, 1);
            session.commit(&manifest(session.id())).await.unwrap();
            found = true;
            break;
        }
        if let Err(error) = session.commit(&manifest(session.id())).await {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    }
    assert!(found, "the bad chunk was never stored again");
}

#[tokio::test]
async fn a_backup_sentenced_to_death_cannot_commit() {
    let store = memory();
    let repository = made(&store, &Unlock::Nothing).await;
    let sealed = repository.domain(&at().domain).await.unwrap();
    let session = begin(&sealed).await;
    store_chunks(&session, &plains()).await;
    let stands = backup::end_dead(&sealed, &at(), session.id(), "its host is gone".into()).await;
    assert!(!stands.unwrap());
    let error = session.commit(&manifest(session.id())).await.unwrap_err();
    assert!(matches!(error, RepoError::Fenced { .. }), "{error}");
    assert!(manifests::list(&sealed, &at().domain).await.unwrap().valid.is_empty());
    // One that was committed stands.
    let session = begin(&sealed).await;
    session.commit(&manifest(session.id())).await.unwrap();
    assert!(backup::end_dead(&sealed, &at(), session.id(), "late".into()).await.unwrap());
}

#[tokio::test]
async fn a_backup_whose_keys_are_too_old_to_know_whether_it_counts_says_so() {
    let store = memory();
    let repository = made(&store, &key_file()).await;
    let sealed = repository.domain(&at().domain).await.unwrap();
    let (session, other) = (begin(&sealed).await, begin(&sealed).await);
    repository.rotate(&at().domain, Rotation::Sealing, None).await.unwrap();
    let newer = repository.existing_domain(&at().domain).await.unwrap();
    // Another host ends another backup, and writes that down under the new keys.
    let log = ExpiredLog::read(&newer, &at().domain).await.unwrap();
    let more = Expired { backups: vec![other.id()], ..Expired::default() };
    log.append(&newer, &at().domain, more).await.unwrap();
    for session in [&session, &other] {
        let error = session.commit(&manifest(session.id())).await.unwrap_err();
        assert!(matches!(error, RepoError::Unsettled { .. }), "{error}");
        session.abandon().await.unwrap();
    }
    let valid = manifests::list(&newer, &at().domain).await.unwrap().valid;
    assert_eq!(valid.iter().map(|b| b.manifest.backup).collect::<Vec<_>>(), [session.id()]);
}

#[tokio::test]
async fn objects_under_each_others_names_do_not_open() {
    let store = memory();
    let repository = made(&store, &key_file()).await;
    let sealed = repository.domain(&at().domain).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let session = begin(&sealed).await;
        session.commit(&manifest(session.id())).await.unwrap();
        ids.push(session.id());
    }
    let (a, b) = (names::manifest(&at(), ids[0]), names::manifest(&at(), ids[1]));
    let moved = store.get(&a, 1 << 20).await.unwrap();
    store.delete(&b).await.unwrap();
    assert!(matches!(store.put_if_absent(&b, moved).await, Put::Created));
    let backups = manifests::list(&sealed, &at().domain).await.unwrap();
    assert_eq!((backups.valid.len(), backups.unreadable.len()), (1, 1));
    assert_eq!(backups.unreadable[0].error.kind(), ErrorKind::Corrupt);
}
