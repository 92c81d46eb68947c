//! Notes of damage that do not read, and what may be done until all has been read again.

use pgrecall_repo::damaged_wal::WalNotes;
use pgrecall_repo::gc::{live_chunks, usage};
use pgrecall_repo::manifests;
use pgrecall_repo::repair::{carry_out, look};
use pgrecall_testkit::stores::{BadSector, CallKind, Meanwhile};

use super::*;

async fn due(cluster: &ClusterStore) -> Option<u64> {
    WalNotes::read(&cluster.sealed, &cluster.at).await.unwrap().due
}

async fn repair(cluster: &ClusterStore) {
    let planned = look(&cluster.sealed, cluster.domain()).await.unwrap();
    assert_eq!(planned.quarantined.len(), 1, "{planned:?}");
    carry_out(&cluster.sealed, cluster.domain(), &planned).await.unwrap();
}

/// Whether a collection may go by the notes.
async fn collects(cluster: &ClusterStore) -> Result<(), pgrecall_repo::RepoError> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let live = live_chunks(sealed, domain).await.unwrap();
    usage(sealed, domain, &live).await.map(drop)
}

/// A chunk that a verification has found bad, and noted.
async fn made_with_a_noted_chunk() -> Made {
    let made = made().await;
    let pack = made.names("domains/main/packs/data/").await.remove(0);
    made.flip(&pack, 120).await;
    check(&made, Depth::ReadData).await;
    made
}

/// The note rots, and is moved out of the way.
async fn lose_the_note(made: &Made) {
    let note = made.names("domains/main/damaged/").await.remove(0);
    made.flip_from_end(&note, 40).await;
    repair(&made.cluster).await;
}

async fn noted_chunks(made: &Made) -> usize {
    let (sealed, domain) = (&made.cluster.sealed, made.cluster.domain());
    index::read_damage(sealed, domain, Purpose::Refer).await.unwrap().len()
}

fn with_puts_denied(made: &mut Made, naming: &'static str) {
    let puts = Calls::of(&[CallKind::PutIfAbsent, CallKind::PutOnce]).naming(naming);
    let denied = pgrecall_store::ErrorKind::Denied;
    made.read_through(FailNth::over(made.store.clone(), puts, 1, Lasting::ForEver, denied));
}

#[tokio::test]
async fn what_is_not_known_any_more_is_due_until_all_was_read() {
    let mut made = made().await;
    let cluster = made.cluster.clone();
    made.flip(&segment_object(&cluster), 5000).await;
    check(&made, Depth::ReadData).await;
    made.flip(&segment_object(&cluster), 5000).await;
    let entry = names::damaged_wal(&cluster.at).unwrap().entry(0);
    made.flip_from_end(&entry, 40).await;
    assert_damaged(&check(&made, Depth::Structure).await, "a note of what was found damaged");
    repair(&cluster).await;
    assert!(due(&cluster).await.is_some());
    assert_damaged(&check(&made, Depth::Structure).await, "this one has read a part of it");
    assert!(due(&cluster).await.is_some());
    let store = made.store.clone();
    made.read_through(BadSector::over(store.clone(), SEGMENT, 1));
    assert_damaged(&check(&made, Depth::ReadData).await, "something could not be read");
    assert!(due(&cluster).await.is_some(), "a disk has not read it");
    made.read_through(store.clone());

    // A chunk that is bad cannot be noted: all else can be written.
    let pack = made.names("domains/main/packs/data/").await.remove(0);
    made.flip(&pack, 120).await;
    with_puts_denied(&mut made, "domains/main/damaged/");
    assert_damaged(&check(&made, Depth::ReadData).await, "which chunks are bad could not be");
    assert!(due(&cluster).await.is_some(), "the chunk is not noted");
    made.read_through(store);
    made.flip(&pack, 120).await;

    assert!(check(&made, Depth::ReadData).await.sound);
    assert_eq!(due(&cluster).await, None);
}

/// Of a chunk that was found bad a collection would keep the bad copy.
#[tokio::test]
async fn nothing_is_collected_while_notes_of_chunks_are_lost() {
    let made = made_with_a_noted_chunk().await;
    collects(&made.cluster).await.unwrap();
    lose_the_note(&made).await;
    let error = collects(&made.cluster).await.unwrap_err();
    assert!(matches!(error, pgrecall_repo::RepoError::NotesLost { .. }), "{error}");
    let at = &made.cluster.at;
    assert!(error.to_string().contains(&format!("cluster main ({})", at.lineage)), "{error}");
    check(&made, Depth::ReadData).await;
    assert_eq!(noted_chunks(&made).await, 1);
    collects(&made.cluster).await.unwrap();
}

/// Who heeds a note does not read what it speaks of: where it is lost after that, that has to be
/// read by the next.
#[tokio::test]
async fn a_note_that_is_lost_during_a_verification_is_due_still() {
    for due_before in [false, true] {
        for nth in 1.. {
            let mut made = made_with_a_noted_chunk().await;
            let cluster = made.cluster.clone();
            if due_before {
                // A note of WAL was lost before.
                let entry = names::damaged_wal(&cluster.at).unwrap().entry(0);
                cluster.sealed.put(Kind::Damage, &entry, &no_damage()).await.unwrap();
                made.flip_from_end(&entry, 40).await;
                repair(&cluster).await;
            }
            let other = Made {
                store: made.store.clone(),
                repository: made.repository.clone(),
                cluster: cluster.clone(),
                backup: made.backup,
            };
            let meanwhile = Meanwhile::over(made.store.clone(), nth, async move || {
                lose_the_note(&other).await;
            });
            made.read_through(meanwhile.clone());
            check(&made, Depth::ReadData).await;
            if !meanwhile.hook().has_happened() {
                assert!(nth > 10, "{nth}");
                break;
            }
            let known = noted_chunks(&made).await > 0 || due(&cluster).await.is_some();
            assert!(known, "before request {nth}: nobody knows what is damaged");
        }
    }
}

fn no_damage() -> pgrecall_repo::format::document::Damage {
    pgrecall_repo::format::document::Damage {
        chunks: Vec::new(),
        wal: Vec::new(),
        found: "a test".into(),
        due: None,
    }
}

/// A backup that is taken meanwhile was not read, and may refer to what was known to be bad.
#[tokio::test]
async fn a_backup_that_comes_during_a_verification_keeps_it_due() {
    let (mut kept, mut cleared) = (0, 0);
    for nth in 1.. {
        let mut made = made_with_a_noted_chunk().await;
        lose_the_note(&made).await;
        let cluster = made.cluster.clone();
        let (other, id) = (cluster.clone(), made.backup);
        let before = made.names("domains/main/backups/").await;
        let meanwhile = Meanwhile::over(made.store.clone(), nth, async move || {
            push_same_backup(&other, id).await;
        });
        made.read_through(meanwhile.clone());
        let report = check(&made, Depth::ReadData).await;
        if !meanwhile.hook().has_happened() {
            break;
        }
        let now = made.names("domains/main/backups/").await;
        assert_eq!(now.len(), before.len() + 1);
        match due(&cluster).await {
            Some(_) => kept += 1,
            None => {
                // It was read, or came when all had been written down.
                let read = report.backups.len() == now.len();
                assert!(read || report.backups.len() == before.len(), "before request {nth}");
                cleared += 1;
            }
        }
    }
    assert!(kept > 10 && cleared > 0, "{kept} {cleared}");
}

/// A backup of the same files: it refers to what is there.
async fn push_same_backup(cluster: &ClusterStore, id: BackupId) {
    let read = manifests::read(&cluster.sealed, &cluster.at, id).await.unwrap();
    let session = begin(&cluster.sealed, &cluster.at).await;
    let manifest = Manifest { backup: session.id(), ..read.expect("it is there") };
    session.commit(&manifest).await.unwrap();
}
