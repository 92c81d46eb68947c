//! Files whose stored copies have rotted, and servers that still have them.

use std::collections::BTreeSet;

use pgrecall_engine::ErrorKind;
use pgrecall_engine::archive::access::Access;
use pgrecall_engine::archive::push::PushResult;
use pgrecall_engine::archive::resolve::{Choice, Local, contents, resolve, short};
use pgrecall_repo::damaged_wal::{Say, WalNotes};
use pgrecall_repo::format::document::DamagedWal;
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::Stored;
use pgrecall_store::{ErrorKind as Refusal, Key, Put};
use pgrecall_testkit::stores::{BadSector, CallKind, Calls, FailNth, Lasting};

use crate::bench::{Bench, FIRST, SYSTEM, fetch, object, push, request, segment};

/// Changes what is stored as [`FIRST`].
async fn rot(bench: &Bench, change: impl FnOnce(&mut Vec<u8>)) {
    rot_object(bench, &object(&bench.access(), FIRST), change).await;
}

async fn rot_object(bench: &Bench, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = bench.store.get(key, 64 << 20).await.unwrap().to_vec();
    change(&mut bytes);
    bench.store.delete(key).await.unwrap();
    assert!(matches!(bench.store.put_if_absent(key, bytes.into()).await, Put::Created));
}

/// What a verification writes down.
async fn note(bench: &Bench, access: &Access, key: &Key) {
    let repository = Repository::open(bench.store.clone(), bench.options.clone()).await.unwrap();
    let (sealed, at) =
        (repository.existing_domain(&access.domain).await.unwrap(), access.at(SYSTEM));
    let wal = DamagedWal { object: key.to_string(), after: None, from: "0/100000".into() };
    let notes = WalNotes::read(&sealed, &at).await.unwrap();
    let damaged = BTreeSet::from([wal]);
    let say = Say { damaged, found: "verify on db2".into() };
    let put = notes.put_next(&sealed, &at, say).await.unwrap();
    assert_eq!(put, Stored::Mine);
}

const IN_THE_BODY: fn(&mut Vec<u8>) = |bytes| bytes[5000] ^= 1;
const AT_THE_END: fn(&mut Vec<u8>) = |bytes| {
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
};
const CUT: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() / 2);

#[tokio::test]
async fn a_push_of_what_has_rotted_stores_it_again_whenever_the_one_before_died() {
    for damage in [IN_THE_BODY, AT_THE_END, CUT] {
        for nth in 1.. {
            let bench = Bench::new().await;
            let content = segment(SYSTEM, 1, 0);
            let path = bench.file(FIRST, &content);
            push(&bench.access(), &path).await.unwrap();
            rot(&bench, damage).await;
            note(&bench, &bench.access(), &object(&bench.access(), FIRST)).await;
            let puts = Calls::of(&[CallKind::PutIfAbsent, CallKind::PutOnce]).naming("/wal/");
            let dying =
                FailNth::over(bench.store.clone(), puts, nth, Lasting::ForEver, Refusal::Denied);
            let pushed = push(&bench.access_to(dying.clone()), &path).await;
            let died = dying.hook().has_failed();
            assert_eq!(pushed.is_err(), died, "at put {nth}");
            if died {
                let again = push(&bench.access(), &path).await.unwrap();
                assert_eq!(again.result, PushResult::Healed);
            } else {
                assert_eq!(pushed.unwrap().result, PushResult::Healed);
            }
            fetch(&bench.access(), &bench).await.unwrap();
            assert!(std::fs::read(bench.destination()).unwrap() == content);
            let again = push(&bench.access(), &path).await.unwrap();
            assert_eq!(again.result, PushResult::AlreadyThere);
            let shown =
                contents(&bench.access(), FIRST, &request(&path), Local::File).await.unwrap();
            assert!(shown.all.len() == 1 && shown.all[0].holds, "{shown:?}");
            if !died {
                assert_eq!(nth, 4, "the name that is taken, the copy, the settlement");
                break;
            }
        }
    }
}

/// On a standby that archives too every push is of what is stored.
#[tokio::test]
async fn what_nobody_has_noted_is_not_read_again_and_a_note_alone_changes_nothing() {
    let bench = Bench::new().await;
    let path = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    push(&bench.access(), &path).await.unwrap();
    let key = object(&bench.access(), FIRST);
    note(&bench, &bench.access(), &key).await;
    assert_eq!(push(&bench.access(), &path).await.unwrap().result, PushResult::AlreadyThere);
    let denied = Calls::of(&[CallKind::List]).naming("/damaged/");
    rot(&bench, IN_THE_BODY).await;
    let blind = FailNth::over(bench.store.clone(), denied, 1, Lasting::ForEver, Refusal::Denied);
    let access = bench.access_to(blind);
    assert_eq!(push(&access, &path).await.unwrap().result, PushResult::AlreadyThere);
    // Another content is a collision, rotten or not.
    let other = bench.file(&format!("b/{FIRST}"), &segment(SYSTEM, 1, 0x55));
    assert_eq!(push(&bench.access(), &other).await.unwrap_err().kind(), ErrorKind::Conflict);
    rot(&bench, AT_THE_END).await;
    assert_eq!(push(&bench.access(), &other).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(push(&bench.access(), &path).await.unwrap().result, PushResult::Healed);
}

/// Who has been told by a verification that a segment is damaged pushes it, whatever became of the
/// note meanwhile.
#[tokio::test]
async fn where_notes_do_not_read_a_push_reads_what_is_stored() {
    let bench = Bench::new().await;
    let path = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    push(&bench.access(), &path).await.unwrap();
    let (access, key) = (bench.access(), object(&bench.access(), FIRST));
    rot(&bench, IN_THE_BODY).await;
    assert_eq!(push(&access, &path).await.unwrap().result, PushResult::AlreadyThere);
    note(&bench, &access, &key).await;
    let entry = pgrecall_repo::names::damaged_wal(&access.at(SYSTEM)).unwrap().entry(0);
    rot_object(&bench, &entry, AT_THE_END).await;
    let whole = bench.store.get(&key, 64 << 20).await.unwrap().len() as u64;
    let bad = BadSector::over(bench.store.clone(), FIRST, whole);
    let pushed = push(&bench.access_to(bad), &path).await.unwrap();
    assert_eq!(pushed.result, PushResult::AlreadyThere, "archiving goes on");
    for result in [PushResult::Healed, PushResult::AlreadyThere] {
        assert_eq!(push(&bench.access(), &path).await.unwrap().result, result);
    }
}

#[tokio::test]
async fn what_does_not_say_what_it_was_is_settled_by_a_person() {
    let changes: [fn(&mut Vec<u8>); 2] = [Vec::clear, |bytes| bytes[20] ^= 1];
    for change in changes {
        let bench = Bench::new().await;
        let content = segment(SYSTEM, 1, 0);
        let path = bench.file(FIRST, &content);
        push(&bench.access(), &path).await.unwrap();
        rot(&bench, change).await;
        let error = push(&bench.access(), &path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.hints()[0].contains("pgrecall wal resolve"), "{:?}", error.hints());
        let access = bench.access();
        let shown = contents(&access, FIRST, &request(&path), Local::File).await.unwrap();
        assert_eq!((shown.all.len(), shown.unreadable.len()), (1, 1), "{shown:?}");
        let digest = short(&shown.all[0].digest);
        let choice = Choice { digest, reason: "the one there is".into(), by: "me".into() };
        let settled = resolve(&access, FIRST, &request(&path), Local::File, &choice).await.unwrap();
        assert!(settled.all[0].holds);
        fetch(&access, &bench).await.unwrap();
        assert!(std::fs::read(bench.destination()).unwrap() == content);
        assert_eq!(push(&access, &path).await.unwrap().result, PushResult::AlreadyThere);
    }
}

/// The object that recovery is served.
async fn served(bench: &Bench) -> Key {
    let path = bench.folder.path().join(FIRST);
    let shown = contents(&bench.access(), FIRST, &request(&path), Local::None).await.unwrap();
    Key::parse(&shown.settled.unwrap().object).unwrap()
}

#[tokio::test]
async fn a_copy_that_was_stored_again_and_rots_too_is_stored_once_more() {
    let empty: fn(&mut Vec<u8>) = Vec::clear;
    for damage in [IN_THE_BODY, AT_THE_END, CUT, empty] {
        let bench = Bench::new().await;
        let content = segment(SYSTEM, 1, 0);
        let path = bench.file(FIRST, &content);
        push(&bench.access(), &path).await.unwrap();
        rot(&bench, AT_THE_END).await;
        assert_eq!(push(&bench.access(), &path).await.unwrap().result, PushResult::Healed);
        let copy = served(&bench).await;
        rot_object(&bench, &copy, damage).await;
        note(&bench, &bench.access(), &copy).await;
        // Who may not delete says so, and acknowledges nothing.
        let deletes = Calls::of(&[CallKind::Delete]).naming("/wal/");
        let store =
            FailNth::over(bench.store.clone(), deletes, 1, Lasting::ForEver, Refusal::Denied);
        let error = push(&bench.access_to(store), &path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert_eq!(push(&bench.access(), &path).await.unwrap().result, PushResult::Healed);
        fetch(&bench.access(), &bench).await.unwrap();
        assert!(std::fs::read(bench.destination()).unwrap() == content);
        assert_eq!(push(&bench.access(), &path).await.unwrap().result, PushResult::AlreadyThere);
    }
}

/// A push says that a content is stored twice; which content holds, a person says.
#[tokio::test]
async fn a_person_may_settle_what_a_push_has_stored_again() {
    let bench = Bench::new().await;
    let (ours, theirs) = (segment(SYSTEM, 1, 0), segment(SYSTEM, 1, 0x55));
    let stored = bench.file(FIRST, &ours);
    let local = bench.file(&format!("b/{FIRST}"), &theirs);
    let access = bench.access();
    push(&access, &stored).await.unwrap();
    rot(&bench, IN_THE_BODY).await;
    note(&bench, &access, &object(&access, FIRST)).await;
    assert_eq!(push(&access, &stored).await.unwrap().result, PushResult::Healed);
    let shown = contents(&access, FIRST, &request(&local), Local::File).await.unwrap();
    let choose = |at: usize| Choice {
        digest: short(&shown.all[at].digest),
        reason: "db1 was fenced".into(),
        by: "me".into(),
    };
    assert!(shown.all.len() == 2 && shown.all[0].holds);
    resolve(&access, FIRST, &request(&local), Local::File, &choose(1)).await.unwrap();
    fetch(&access, &bench).await.unwrap();
    assert!(std::fs::read(bench.destination()).unwrap() == theirs);
    assert_eq!(push(&access, &stored).await.unwrap().result, PushResult::Lost);
    assert_eq!(push(&access, &local).await.unwrap().result, PushResult::AlreadyThere);
    let again = resolve(&access, FIRST, &request(&local), Local::File, &choose(0)).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict, "that one is not taken back");
}

#[tokio::test]
async fn a_loser_that_could_not_be_read_is_kept_when_it_comes_again() {
    let bench = Bench::new().await;
    let (ours, theirs) = (segment(SYSTEM, 1, 0), segment(SYSTEM, 1, 0x55));
    let stored = bench.file(FIRST, &ours);
    let local = bench.file(&format!("b/{FIRST}"), &theirs);
    let access = bench.access();
    push(&access, &stored).await.unwrap();
    rot(&bench, IN_THE_BODY).await;
    let shown = contents(&access, FIRST, &request(&local), Local::File).await.unwrap();
    let digest = short(&shown.all[1].digest);
    let choice = Choice { digest, reason: "db1 was fenced".into(), by: "me".into() };
    resolve(&access, FIRST, &request(&local), Local::File, &choice).await.unwrap();
    for _ in 0..2 {
        assert_eq!(push(&access, &stored).await.unwrap().result, PushResult::Lost);
    }
    fetch(&access, &bench).await.unwrap();
    assert!(std::fs::read(bench.destination()).unwrap() == theirs);
}

#[tokio::test]
async fn a_settlement_that_rots_is_made_anew_by_a_person() {
    let bench = Bench::new().await;
    let content = segment(SYSTEM, 1, 0);
    let path = bench.file(FIRST, &content);
    let access = bench.access();
    push(&access, &path).await.unwrap();
    rot(&bench, AT_THE_END).await;
    assert_eq!(push(&access, &path).await.unwrap().result, PushResult::Healed);
    let settlement = Key::parse(&format!("{}.resolved", object(&access, FIRST))).unwrap();
    rot_object(&bench, &settlement, AT_THE_END).await;
    assert!(fetch(&access, &bench).await.is_err());
    let error = push(&access, &path).await.unwrap_err();
    assert!(error.hints()[0].contains("pgrecall wal resolve"), "{:?}", error.hints());
    let shown = contents(&access, FIRST, &request(&path), Local::File).await.unwrap();
    assert!(shown.unreadable.iter().any(|(object, _)| *object == settlement), "{shown:?}");
    let digest = short(&shown.all[0].digest);
    let choice = Choice { digest, reason: "there is one only".into(), by: "me".into() };
    resolve(&access, FIRST, &request(&path), Local::File, &choice).await.unwrap();
    fetch(&access, &bench).await.unwrap();
    assert!(std::fs::read(bench.destination()).unwrap() == content);
    // A copy that is gone comes back by a push, and is no loser.
    bench.store.delete(&served(&bench).await).await.unwrap();
    assert!(fetch(&access, &bench).await.is_err());
    assert_eq!(push(&access, &path).await.unwrap().result, PushResult::Healed);
    fetch(&access, &bench).await.unwrap();
}
