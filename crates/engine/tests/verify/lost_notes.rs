//! Notes of damage that do not read: nothing is deleted until everything has been read again.

use pgrecall_repo::damaged_wal::WalNotes;
use pgrecall_repo::format::document::{Damage, DamagedChunk};
use pgrecall_repo::gc::{live_chunks, usage};
use pgrecall_repo::keys::{RestoreKey, Rotation};
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repair::{carry_out, look};
use pgrecall_repo::{backup, manifests};
use pgrecall_testkit::stores::{BadSector, CallKind, Meanwhile};

use super::*;

/// Whether a collection may go by the notes.
async fn collects(made: &Made) -> bool {
    let (sealed, domain) = (&made.cluster.sealed, made.cluster.domain());
    let live = live_chunks(sealed, domain).await.unwrap();
    match usage(sealed, domain, &live).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), pgrecall_repo::ErrorKind::Corrupt, "{error}");
            false
        }
    }
}

/// A chunk that a verification has found bad, and noted.
async fn made_with_a_noted_chunk() -> Made {
    let made = made().await;
    let pack = made.names("domains/main/packs/data/").await.remove(0);
    made.flip(&pack, 120).await;
    check(&made, Depth::ReadData).await;
    assert_eq!(noted(&made).await.len(), 1);
    made
}

async fn lose_the_note(made: &Made) {
    let note = made.names("domains/main/damaged/").await.remove(0);
    made.flip_from_end(&note, 40).await;
}

async fn noted(made: &Made) -> Vec<DamagedChunk> {
    let notes = ChunkNotes::read(&made.cluster.sealed, made.cluster.domain()).await.unwrap();
    notes.chunks.into_iter().collect()
}

fn with_puts_denied(made: &mut Made, naming: &'static str) {
    let puts = Calls::of(&[CallKind::PutIfAbsent, CallKind::PutOnce]).naming(naming);
    let denied = pgrecall_store::ErrorKind::Denied;
    made.read_through(FailNth::over(made.store.clone(), puts, 1, Lasting::ForEver, denied));
}

#[tokio::test]
async fn a_lost_note_of_chunks_stops_collections_until_every_copy_was_read_again() {
    let mut made = made_with_a_noted_chunk().await;
    let before = noted(&made).await;
    assert!(collects(&made).await);
    lose_the_note(&made).await;
    assert!(!collects(&made).await);
    let planned = look(&made.cluster.sealed, made.cluster.domain()).await.unwrap();
    assert!(planned.is_empty() && planned.left.len() == 1, "{planned:?}");
    for (depth, why) in
        [(Depth::Structure, "has read everything again"), (Depth::ReadData, "that may put")]
    {
        with_puts_denied(&mut made, "domains/main/damaged/");
        let report = check(&made, depth).await;
        let found: Vec<_> =
            report.findings.iter().filter(|found| found.what.contains("a note of")).collect();
        assert!(found.len() == 1 && found[0].severity == Severity::Damage, "{}", said(&report));
        assert!(found[0].consequence.contains(why), "{}", said(&report));
        made.read_through(made.store.clone());
        assert!(!collects(&made).await);
    }
    let report = check(&made, Depth::ReadData).await;
    let told = said(&report);
    assert!(told.contains("another note stands for it"), "{told}");
    assert_eq!(noted(&made).await, before);
    assert!(collects(&made).await);
    // From now on the lost one is only in the way.
    let told = said(&check(&made, Depth::Structure).await);
    assert!(!told.contains("a note of chunks"), "{told}");
    let planned = look(&made.cluster.sealed, made.cluster.domain()).await.unwrap();
    assert_eq!(planned.quarantined.len(), 1, "{planned:?}");
    carry_out(&made.cluster.sealed, made.cluster.domain(), &planned).await.unwrap();
    assert_eq!((noted(&made).await, made.names("domains/main/damaged/").await.len()), (before, 1));
}

/// What the lost note said may be of a chunk that no backup needs now: one that is under way may.
#[tokio::test]
async fn copies_that_nobody_needs_are_read_too() {
    let made = made().await;
    let data = made.names("domains/main/packs/data/").await;
    let session = begin(&made.cluster.sealed, &made.cluster.at).await;
    let (sealed, domain) = (&made.cluster.sealed, made.cluster.domain());
    for (number, indexed) in [(1_u8, true), (2, false)] {
        let mut pack = PackBuilder::new(sealed, domain, Kind::DataPack).unwrap();
        let plain = vec![number; 9000];
        let id = sealed.keys().chunk_id(&plain);
        assert_eq!(session.claim(&id), Claim::Store);
        pack.add(id, &plain, Level::default()).unwrap();
        session.put_pack(pack.finish().unwrap()).await.unwrap();
        if indexed {
            session.flush_index().await.unwrap();
        }
    }
    let now = made.names("domains/main/packs/data/").await;
    let unneeded: Vec<_> = now.into_iter().filter(|name| !data.contains(name)).collect();
    assert_eq!(unneeded.len(), 2);
    for pack in &unneeded {
        made.flip(pack, 110).await;
    }
    assert!(check(&made, Depth::ReadData).await.sound, "no backup needs them");
    assert_eq!(noted(&made).await, []);
    let chunk = DamagedChunk {
        pack: names::pack_of(domain, &data[0]).unwrap().1,
        chunk: sealed.keys().chunk_id(b"of another pack"),
    };
    backup::report_damage(sealed, &made.cluster.at, vec![chunk], "a test".into()).await.unwrap();
    lose_the_note(&made).await;
    check(&made, Depth::ReadData).await;
    let bad: Vec<_> = noted(&made).await.into_iter().map(|chunk| chunk.pack).collect();
    for pack in &unneeded {
        assert!(bad.contains(&names::pack_of(domain, pack).unwrap().1), "{pack} in {bad:?}");
    }
    assert!(bad.len() == 2 && collects(&made).await);
    session.abandon().await.unwrap();
}

/// A disk that does not read a copy says nothing of it.
#[tokio::test]
async fn what_does_not_read_is_not_taken_for_read() {
    let mut made = made_with_a_noted_chunk().await;
    lose_the_note(&made).await;
    made.read_through(BadSector::over(made.store.clone(), "/packs/data/", 300));
    let report = check(&made, Depth::ReadData).await;
    assert_damaged(&report, "copy the repository to a disk that reads");
    made.read_through(made.store.clone());
    assert!(!collects(&made).await);
}

/// What a pack holds that does not say so itself may be named by an index object that another
/// version reads: the note may have spoken of it.
#[tokio::test]
async fn what_may_be_named_elsewhere_is_not_taken_for_read() {
    let made = made_with_a_noted_chunk().await;
    lose_the_note(&made).await;
    let index = made.names("domains/main/index/").await;
    for name in &index {
        made.replace(name, |bytes| newer(bytes)).await;
    }
    let pack = made.names("domains/main/packs/data/").await.remove(0);
    made.flip_from_end(&pack, 40).await;
    let report = check(&made, Depth::ReadData).await;
    assert_damaged(&report, "nothing expires and nothing is collected");
    let notes = ChunkNotes::read(&made.cluster.sealed, made.cluster.domain()).await.unwrap();
    assert_eq!(notes.unread.len(), 1, "none stands for it");
    // Named by one that reads, it is read.
    for name in &index {
        made.replace(name, |bytes| older(bytes)).await;
    }
    check(&made, Depth::ReadData).await;
    let notes = ChunkNotes::read(&made.cluster.sealed, made.cluster.domain()).await.unwrap();
    assert!(notes.unread.is_empty() && notes.chunks.len() == 1, "{notes:?}");
}

/// Who heeds a note does not read what it speaks of: where it is lost after that, the next reads it.
#[tokio::test]
async fn a_note_that_is_lost_during_a_verification_is_not_forgotten() {
    for nth in 1.. {
        let mut made = made_with_a_noted_chunk().await;
        let before = noted(&made).await;
        // Another one is lost already, so that this one reads everything.
        let chunk = DamagedChunk { chunk: made.cluster.sealed.keys().chunk_id(b"x"), ..before[0] };
        let at = &made.cluster.at;
        backup::report_damage(&made.cluster.sealed, at, vec![chunk], "a test".into())
            .await
            .unwrap();
        let (mut lost, mut standing) = (None, None);
        for name in made.names("domains/main/damaged/").await {
            let note: Damage = made.cluster.sealed.get(Kind::Damage, &name).await.unwrap();
            *if note.chunks == before { &mut standing } else { &mut lost } = Some(name);
        }
        made.flip_from_end(&lost.unwrap(), 40).await;
        let other = Made {
            store: made.store.clone(),
            repository: made.repository.clone(),
            cluster: made.cluster.clone(),
            backup: made.backup,
        };
        let meanwhile = Meanwhile::over(made.store.clone(), nth, async move || {
            other.flip_from_end(&standing.unwrap(), 40).await;
        });
        made.read_through(meanwhile.clone());
        check(&made, Depth::ReadData).await;
        if !meanwhile.hook().has_happened() {
            assert!(nth > 10, "{nth}");
            break;
        }
        made.read_through(made.store.clone());
        let known = noted(&made).await.contains(&before[0]);
        assert!(known || !collects(&made).await, "before request {nth}: it is forgotten");
    }
}

#[tokio::test]
async fn a_lost_note_of_wal_is_replaced_by_who_has_read_all_of_it() {
    let mut made = made().await;
    let cluster = made.cluster.clone();
    let object = segment_object(&cluster);
    let read = async || WalNotes::read(&cluster.sealed, &cluster.at).await;
    made.flip(&object, 5000).await;
    check(&made, Depth::ReadData).await;
    let entry = names::damaged_wal(&cluster.at).unwrap().entry(0);
    made.flip_from_end(&entry, 40).await;
    let planned = look(&cluster.sealed, cluster.domain()).await.unwrap();
    assert!(planned.is_empty() && planned.left.len() == 1, "{planned:?}");
    assert_damaged(&check(&made, Depth::Structure).await, "this one has read a part of it");
    assert!(read().await.is_err() && collects(&made).await, "of chunks it says nothing");
    let store = made.store.clone();
    made.read_through(BadSector::over(store.clone(), SEGMENT, 1));
    assert_damaged(&check(&made, Depth::ReadData).await, "whether it is sound");
    assert!(read().await.is_err(), "a disk has not read it");
    made.read_through(store.clone());
    with_puts_denied(&mut made, "/damaged/");
    assert_damaged(&check(&made, Depth::ReadData).await, "it could not be written down");
    made.read_through(store);
    let told = said(&check(&made, Depth::ReadData).await);
    assert!(told.contains("another note stands for it"), "{told}");
    let noted: Vec<_> = read().await.unwrap().damaged.into_iter().map(|wal| wal.object).collect();
    assert_eq!(noted, [object.to_string()]);
    let told = said(&check(&made, Depth::ReadData).await);
    assert!(!told.contains("note of damaged WAL"), "{told}");
}

/// A number that was taken and tidied away is nobody's again.
#[tokio::test]
async fn who_wins_a_number_below_the_highest_has_said_nothing() {
    let made = made().await;
    let (sealed, at) = (&made.cluster.sealed, &made.cluster.at);
    let say = |found: &str| pgrecall_repo::damaged_wal::Say {
        damaged: std::collections::BTreeSet::new(),
        found: found.into(),
    };
    let old = WalNotes::read(sealed, at).await.unwrap();
    for found in ["one", "two"] {
        let now = WalNotes::read(sealed, at).await.unwrap();
        let put = now.put_next(sealed, at, say(found)).await.unwrap();
        assert_eq!(put, pgrecall_repo::sealed_store::Stored::Mine);
    }
    let put = old.put_next(sealed, at, say("late")).await.unwrap();
    assert_eq!(put, pgrecall_repo::sealed_store::Stored::Other);
    assert_eq!(WalNotes::read(sealed, at).await.unwrap().found, "two");
}

/// Backups go on meanwhile.
#[tokio::test]
async fn a_backup_is_taken_while_a_note_does_not_read() {
    let made = made_with_a_noted_chunk().await;
    lose_the_note(&made).await;
    let (sealed, at) = (&made.cluster.sealed, &made.cluster.at);
    let read = manifests::read(sealed, at, made.backup).await.unwrap();
    let session = begin(sealed, at).await;
    let manifest = Manifest { backup: session.id(), ..read.expect("it is there") };
    session.commit(&manifest).await.unwrap();
    let report = check(&made, Depth::ReadData).await;
    assert!(report.backups.iter().all(|verdict| !verdict.restorable), "it is found all the same");
}

/// What is sealed for a restore key that is not here was compared by a check alone, which somebody
/// made who may have sealed something wrong.
#[tokio::test]
async fn without_the_restore_key_not_everything_was_read() {
    let mut made = made_with_a_noted_chunk().await;
    let key = RestoreKey::random(&SharedRandom::system());
    let domain = made.cluster.domain().clone();
    made.repository.rotate(&domain, Rotation::Ids, Some(key.public())).await.unwrap();
    let sealed = made.repository.existing_domain(&domain).await.unwrap();
    made.cluster = ClusterStore { sealed, ..made.cluster };
    push_backup(&made.cluster).await;
    lose_the_note(&made).await;
    let report = check(&made, Depth::ReadData).await;
    let found = report.findings.iter().find(|found| found.what.contains("a note of")).unwrap();
    assert!(found.consequence.contains("where the restore key is"), "{}", said(&report));
    assert!(!collects(&made).await);
}

/// What was read before a note was lost says nothing of what it told.
#[tokio::test]
async fn a_note_that_comes_and_is_lost_while_it_is_looked_again_is_not_replaced() {
    let mut seen = false;
    for nth in 1.. {
        let mut made = made().await;
        let chunk = DamagedChunk {
            pack: names::pack_of(
                made.cluster.domain(),
                &made.names("domains/main/packs/data/").await[0],
            )
            .unwrap()
            .1,
            chunk: made.cluster.sealed.keys().chunk_id(b"x"),
        };
        let session = begin(&made.cluster.sealed, &made.cluster.at).await;
        let other = Made {
            store: made.store.clone(),
            repository: made.repository.clone(),
            cluster: made.cluster.clone(),
            backup: made.backup,
        };
        // A needed pack goes, so that it is looked again.
        let meanwhile = Meanwhile::over(made.store.clone(), nth, async move || {
            let at = &other.cluster.at;
            let sealed = &other.cluster.sealed;
            backup::report_damage(sealed, at, vec![chunk], "a test".into()).await.unwrap();
            lose_the_note(&other).await;
            let pack = other.names("domains/main/packs/data/").await.remove(0);
            other.store.delete(&pack).await.unwrap();
        });
        made.read_through(meanwhile.clone());
        let report = check(&made, Depth::ReadData).await;
        session.abandon().await.unwrap();
        if !meanwhile.hook().has_happened() {
            break;
        }
        seen |= said(&report).contains("it was lost while this one read");
        // Whoever stands for it has begun to read after it was lost.
        let replaced = said(&report).contains("another note stands for it");
        assert!(!replaced || nth < 10, "before request {nth}");
    }
    assert!(seen, "no run looked again");
}

/// A backup goes on meanwhile: what it puts is not there when packs are listed, and is sound.
#[tokio::test]
async fn packs_that_come_while_everything_is_read_are_no_damage() {
    for nth in 1.. {
        let mut made = made_with_a_noted_chunk().await;
        lose_the_note(&made).await;
        let session = begin(&made.cluster.sealed, &made.cluster.at).await;
        let other = made.cluster.clone();
        let meanwhile = Meanwhile::over(made.store.clone(), nth, async move || {
            let (sealed, domain) = (&other.sealed, other.domain());
            let mut pack = PackBuilder::new(sealed, domain, Kind::DataPack).unwrap();
            let plain = vec![7; 9000];
            let id = sealed.keys().chunk_id(&plain);
            pack.add(id, &plain, Level::default()).unwrap();
            let session = begin(sealed, &other.at).await;
            assert_eq!(session.claim(&id), Claim::Store);
            session.put_pack(pack.finish().unwrap()).await.unwrap();
            session.flush_index().await.unwrap();
            session.abandon().await.unwrap();
        });
        made.read_through(meanwhile.clone());
        check(&made, Depth::ReadData).await;
        session.abandon().await.unwrap();
        assert_eq!(noted(&made).await.len(), 1, "before request {nth}");
        if !meanwhile.hook().has_happened() {
            break;
        }
    }
}
