//! What rots in a repository: a restore reads what can be read, and a backup stores again what
//! cannot.

use std::collections::HashSet;
use std::sync::Arc;

use pgrecall_repo::archive::{self, Pushed};
use pgrecall_repo::backup::{self, BackupNote, BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::damaged_chunks::ChunkNotes;
use pgrecall_repo::format::document::{DamagedChunk, Expired};
use pgrecall_repo::format::header::{KeyClass, Kind};
use pgrecall_repo::id::{ChunkId, DamageId};
use pgrecall_repo::index::{self, Index, Purpose};
use pgrecall_repo::names;
use pgrecall_repo::object::{self, Payload};
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{ErrorKind, chunks, gc, manifests};
use pgrecall_store::{Key, Put, Store};
use pgrecall_testkit::stores::{Calls, Record};

use super::{at, begin, key_file, made, manifest, memory, plains, store_chunks};

/// Changes one byte of an object.
async fn rot(store: &Arc<dyn Store>, name: &Key, byte: usize) {
    let mut bytes = store.get(name, 1 << 30).await.unwrap().to_vec();
    bytes[byte] ^= 1;
    store.delete(name).await.unwrap();
    assert!(matches!(store.put_if_absent(name, bytes.into()).await, Put::Created));
}

async fn opened() -> (Arc<dyn Store>, SealedStore) {
    let store = memory();
    let repository = made(&store, &key_file()).await;
    let sealed = repository.domain(&at().domain).await.unwrap();
    (store, sealed)
}

/// A committed backup of the plaintexts.
async fn committed(sealed: &SealedStore) -> Vec<ChunkId> {
    let session = begin(sealed).await;
    let (ids, _) = store_chunks(&session, &plains()).await;
    session.commit(&manifest(session.id())).await.unwrap();
    ids
}

async fn read_all(sealed: &SealedStore, ids: &[ChunkId]) -> Result<(), pgrecall_repo::RepoError> {
    let index = Index::open(sealed, &at().domain, Purpose::Read).await?;
    let wanted: HashSet<_> = ids.iter().copied().collect();
    let read = chunks::read_many(sealed, &at().domain, &index, &wanted).await?;
    for (id, plain) in ids.iter().zip(plains()) {
        assert_eq!(read[id], plain);
    }
    Ok(())
}

async fn only(sealed: &SealedStore, prefix: &pgrecall_store::Prefix) -> Key {
    let mut listed = sealed.list(prefix).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    listed.remove(0).key
}

#[tokio::test]
async fn a_metadata_chunk_found_bad_is_stored_again() {
    let (store, sealed) = opened().await;
    let session = begin(&sealed).await;
    let plain = b"a file map".repeat(20);
    let id = sealed.keys().chunk_id(&plain);
    assert_eq!(session.claim(&id), Claim::Store);
    let pack = |session: &backup::BackupSession| {
        let mut builder = PackBuilder::new(session.sealed(), &at().domain, Kind::MetaPack).unwrap();
        builder.add(id, &plain, Level::default()).unwrap();
        builder.finish().unwrap()
    };
    session.put_pack(pack(&session)).await.unwrap();
    session.commit(&manifest(session.id())).await.unwrap();
    rot(&store, &only(&sealed, &names::packs(&at().domain)).await, 110).await;

    let session = begin(&sealed).await;
    assert_eq!(session.read_meta(&id).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(!session.refer(&id), "it is bad");
    assert_eq!(session.claim(&id), Claim::Store);
    assert_eq!(session.claim(&id), Claim::Known, "and is stored once");
    session.put_pack(pack(&session)).await.unwrap();
    session.commit(&manifest(session.id())).await.unwrap();
    let noted = ChunkNotes::read(&sealed, &at().domain).await.unwrap().chunks;
    assert_eq!(noted.len(), 1, "whoever comes next does not refer to it either");

    // Of the two copies the good one is read, noted or not.
    let index = Index::open(&sealed, &at().domain, Purpose::Read).await.unwrap();
    let read = chunks::read_many(&sealed, &at().domain, &index, &HashSet::from([id])).await;
    assert_eq!(read.unwrap()[&id], plain);
    store.delete(&only(&sealed, &names::all_damaged(&at().domain)).await).await.unwrap();
    let index = Index::open(&sealed, &at().domain, Purpose::Read).await.unwrap();
    assert_eq!(index.copies(&sealed, &id).await.unwrap().len(), 2);
    assert_eq!(chunks::read_any(&sealed, &at().domain, &index, &id).await.unwrap(), plain);
}

#[tokio::test]
async fn a_good_copy_is_found_that_no_index_object_names() {
    let (store, sealed) = opened().await;
    let ids = committed(&sealed).await;
    let pack = only(&sealed, &names::packs(&at().domain)).await;
    rot(&store, &pack, 110).await;
    let indexes: HashSet<Key> = keys_of(&sealed, &names::indexes(&at().domain)).await;
    // Others that hold the chunks, under a name of their own each time.
    let session = begin(&sealed).await;
    let again: Vec<DamagedChunk> = {
        let pack = names::pack_of(&at().domain, &pack).unwrap().1;
        ids.iter().map(|chunk| DamagedChunk { pack, chunk: *chunk }).collect()
    };
    backup::report_damage(&sealed, &at(), again, "it rots".into()).await.unwrap();
    session.abandon().await.unwrap();
    assert_eq!(committed(&sealed).await, ids);
    for index in keys_of(&sealed, &names::indexes(&at().domain)).await.difference(&indexes) {
        store.delete(index).await.unwrap();
    }
    read_all(&sealed, &ids).await.unwrap();
    // Where there is none either, what is wrong with the one that is named is told.
    for other in keys_of(&sealed, &names::packs(&at().domain)).await {
        if other != pack {
            store.delete(&other).await.unwrap();
        }
    }
    assert_eq!(read_all(&sealed, &ids).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

async fn keys_of(sealed: &SealedStore, prefix: &pgrecall_store::Prefix) -> HashSet<Key> {
    sealed.list(prefix).await.unwrap().into_iter().map(|object| object.key).collect()
}

#[tokio::test]
async fn a_chunk_noted_as_bad_that_is_good_is_read() {
    let (_, sealed) = opened().await;
    let ids = committed(&sealed).await;
    let pack = only(&sealed, &names::packs(&at().domain)).await;
    let pack = names::pack_of(&at().domain, &pack).unwrap().1;
    let noted = ids.iter().map(|chunk| DamagedChunk { pack, chunk: *chunk }).collect();
    backup::report_damage(&sealed, &at(), noted, "a flaky cable".into()).await.unwrap();
    read_all(&sealed, &ids).await.unwrap();
    // A backup does not take the risk.
    assert!(!begin(&sealed).await.refer(&ids[0]));
}

#[tokio::test]
async fn what_is_not_needed_and_rots_ends_no_restore() {
    let (store, sealed) = opened().await;
    let ids = committed(&sealed).await;
    let log = names::expired(&at().domain);
    for number in [0, 1] {
        let entry = Expired { backups: vec![], ..Expired::default() };
        sealed.put(Kind::Expired, &log.entry(number), &entry).await.unwrap();
    }
    rot(&store, &log.entry(1), 120).await;
    let name = names::damaged(&at().domain, DamageId::random(&SharedRandom::system()));
    assert!(matches!(store.put_once(&name, "rot".into()).await, Put::Created));
    let backups = manifests::list(&sealed, &at().domain).await.unwrap();
    assert_eq!(backups.valid.len(), 1);
    assert_eq!(backups.log_error.unwrap().kind(), ErrorKind::Corrupt, "who deletes must know");
    read_all(&sealed, &ids).await.unwrap();
    // Nor a backup; who deletes must know.
    assert!(begin(&sealed).await.refer(&ids[0]));
    let error = ChunkNotes::read(&sealed, &at().domain).await.unwrap().all().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn without_the_index_the_packs_tell_what_they_hold() {
    let (store, sealed) = opened().await;
    let ids = committed(&sealed).await;
    let index = only(&sealed, &names::indexes(&at().domain)).await;
    rot(&store, &index, 300).await;
    read_all(&sealed, &ids).await.unwrap();
    store.delete(&index).await.unwrap();
    read_all(&sealed, &ids).await.unwrap();
    // A backup stores what it cannot refer to.
    assert_eq!(store_chunks(&begin(&sealed).await, &plains()).await.1, 20);
}

#[tokio::test]
async fn one_byte_does_not_make_a_backup_vanish() {
    let (store, sealed) = opened().await;
    let session = begin(&sealed).await;
    session.commit(&manifest(session.id())).await.unwrap();
    let name = names::manifest(&at(), session.id());
    // The header's kind, and its checksum, which anybody can make.
    let mut bytes = store.get(&name, 1 << 20).await.unwrap().to_vec();
    assert_eq!(bytes[10], Kind::Manifest.byte());
    bytes[10] = Kind::Tombstone.byte();
    let sum = crc32c::crc32c(&bytes[..88]);
    bytes[88..92].copy_from_slice(&sum.to_le_bytes());
    store.delete(&name).await.unwrap();
    assert!(matches!(store.put_if_absent(&name, bytes.into()).await, Put::Created));
    let backups = manifests::list(&sealed, &at().domain).await.unwrap();
    assert_eq!((backups.valid.len(), backups.unreadable.len()), (0, 1));
    assert_eq!(backups.unreadable[0].error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_bad_sample_has_its_whole_pack_looked_at() {
    let (store, sealed) = opened().await;
    let ids = committed(&sealed).await;
    let name = only(&sealed, &names::packs(&at().domain)).await;
    let index = Index::open(&sealed, &at().domain, Purpose::Read).await.unwrap();
    for id in [&ids[3], &ids[11], &ids[19]] {
        let offset = index.copies(&sealed, id).await.unwrap()[0].offset;
        rot(&store, &name, usize::try_from(offset).unwrap() + 8).await;
    }
    // Eight of twenty are read back: some backup soon meets one of the three, the last included.
    for _ in 0..50 {
        let session = begin(&sealed).await;
        store_chunks(&session, &plains()).await;
        if session.commit(&manifest(session.id())).await.is_err() {
            let session = begin(&sealed).await;
            assert_eq!(store_chunks(&session, &plains()).await.1, 3, "all three are noted");
            session.commit(&manifest(session.id())).await.unwrap();
            read_all(&sealed, &ids).await.unwrap();
            return;
        }
    }
    panic!("no sample met a bad chunk");
}

#[tokio::test]
async fn an_archived_file_that_was_cut_short_is_not_taken_for_the_whole() {
    let (store, sealed) = opened().await;
    let name = names::cluster_object(&at(), "wal/one").unwrap();
    let plain = b"a segment".repeat(1000);
    let digest = sealed.keys().digest(&plain);
    let body: Vec<_> =
        object::frames_of(&plain).map(|part| Payload::compress(part, Level::default())).collect();
    let seal = || {
        let random = SharedRandom::system();
        object::seal_archive(
            sealed.keys(),
            KeyClass::Data,
            &name,
            digest,
            &body,
            b"trailer",
            &random,
        )
        .unwrap()
    };
    let push = || archive::push(&sealed, &name, seal());
    assert!(matches!(push().await.unwrap(), Pushed::Created));
    assert!(matches!(push().await.unwrap(), Pushed::Taken { stored, .. } if stored == digest));
    let whole = store.get(&name, 1 << 20).await.unwrap();
    store.delete(&name).await.unwrap();
    let cut = whole.slice(..whole.len() - 1);
    assert!(matches!(store.put_if_absent(&name, cut).await, Put::Created));
    let Pushed::Taken { stored, damage: Some(damage), .. } = push().await.unwrap() else {
        panic!("it is there, and its end is not")
    };
    assert_eq!((stored, damage.kind()), (digest, ErrorKind::Corrupt));
}

#[tokio::test]
async fn a_backup_under_way_whose_intent_rots_is_still_seen_and_can_be_ended() {
    let (store, sealed) = opened().await;
    let session = begin(&sealed).await;
    session.put_start("1".into(), "0/2000028".into()).await.unwrap();
    let intent = names::intent(&at(), session.id());
    for name in [&intent, &names::start(&at(), session.id())] {
        rot(&store, name, 120).await;
    }
    let live = backup::live_intents(&sealed, &at()).await.unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!((live[0].intent.backup, live[0].intent.host.as_str()), (session.id(), "?"));
    assert!(live[0].start.is_none());
    backup::end_dead(&sealed, &at(), session.id(), "a person says so".into()).await.unwrap();
    assert!(backup::live_intents(&sealed, &at()).await.unwrap().is_empty());
}

/// It names packs that are about to go: a backup that cannot read which could refer to them.
#[tokio::test]
async fn a_marker_that_cannot_be_read_stops_backups_and_nobody_else() {
    let (store, sealed) = opened().await;
    let domain = at().domain;
    let ids = committed(&sealed).await;
    let packs: Vec<_> = index::list_packs(&sealed, &domain).await.unwrap().into_keys().collect();
    let round = gc::retire(&sealed, &domain, packs).await.unwrap();
    let marker = names::round(&domain, round, names::RoundPart::Marker);
    let whole = store.get(&marker, 1 << 20).await.unwrap();
    rot(&store, &marker, whole.len() - 1).await;
    let note = BackupNote {
        host: "db1".into(),
        process: 1,
        incarnation: String::new(),
        began: "now".into(),
    };
    let puts = Record::over(store.clone());
    let (keys, random) = (sealed.keys().clone(), sealed.random().clone());
    let watched = SealedStore::new(puts.clone(), keys, random);
    let error = BackupSession::begin(watched, at(), &note).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(marker.as_str()), "{error}");
    // It has put its intent, and taken it away.
    assert_eq!(puts.hook().count(&Calls::puts()), 1);
    assert_eq!(sealed.list(&names::all_intents(&domain)).await.unwrap(), []);
    read_all(&sealed, &ids).await.unwrap();
    // Once it can be read, it is heeded again.
    store.delete(&marker).await.unwrap();
    assert!(matches!(store.put_if_absent(&marker, whole).await, Put::Created));
    assert_eq!(store_chunks(&begin(&sealed).await, &plains()).await.1, plains().len());
}
