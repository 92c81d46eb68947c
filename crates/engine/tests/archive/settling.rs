//! Two contents under one name: refused, shown, settled.

use futures::StreamExt as _;
use pgrecall_engine::ErrorKind;
use pgrecall_engine::archive::holder::Holders;
use pgrecall_engine::archive::push::PushResult;
use pgrecall_engine::archive::resolve::{Choice, Local, contents, resolve, short};
use pgrecall_repo::keys::Rotation;
use pgrecall_repo::repository::Repository;
use pgrecall_store::{ErrorKind as Refusal, Key};
use pgrecall_testkit::stores::{CallKind, Calls, FailNth, Lasting};

use crate::bench::{Bench, FIRST, SYSTEM, fetch, fetch_as, object, push, request, segment};

fn choice(digest: &str) -> Choice {
    Choice { digest: digest.into(), reason: "db2 was fenced".into(), by: "me".into() }
}

#[tokio::test]
async fn either_content_can_be_chosen_and_both_may_be_pushed_afterwards() {
    for local_wins in [false, true] {
        let bench = Bench::new().await;
        let access = bench.access();
        let (ours, theirs) = (segment(SYSTEM, 1, 0), segment(SYSTEM, 1, 0x55));
        let stored = bench.file(&format!("a/{FIRST}"), &ours);
        let local = bench.file(&format!("b/{FIRST}"), &theirs);
        push(&access, &stored).await.unwrap();
        // Whoever archives may not delete: object lock, or credentials without that right.
        let deletes = Calls::of(&[CallKind::Delete]);
        let store =
            FailNth::over(bench.store.clone(), deletes, 1, Lasting::ForEver, Refusal::Denied);
        let access = bench.access_to(store);
        let error = push(&access, &local).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");

        let shown = contents(&access, FIRST, &request(&local), Local::File).await.unwrap();
        let digests: Vec<String> =
            shown.all.iter().map(|content| content.digest.to_string()).collect();
        assert_eq!(digests.len(), 2);
        for digest in &digests {
            assert!(error.to_string().contains(&digest[..16]), "{digest} in {error}");
        }
        let chosen = &digests[usize::from(local_wins)];
        let settled = resolve(&access, FIRST, &request(&local), Local::File, &choice(&chosen[..6]))
            .await
            .unwrap();
        assert_eq!(settled.all.len(), 2, "both contents are kept");
        assert!(settled.all[0].holds);
        assert_eq!(settled.all[0].digest.to_string(), *chosen);
        let expected = if local_wins { &theirs } else { &ours };
        fetch(&access, &bench).await.unwrap();
        assert!(std::fs::read(bench.destination()).unwrap() == *expected);

        let results = [
            push(&access, &stored).await.unwrap().result,
            push(&access, &local).await.unwrap().result,
        ];
        let (winner, loser) = (usize::from(local_wins), usize::from(!local_wins));
        assert_eq!(results[winner], PushResult::AlreadyThere);
        assert_eq!(results[loser], PushResult::Lost);
        let shown = contents(&access, FIRST, &request(&local), Local::None).await.unwrap();
        assert!(shown.all.len() == 2 && shown.all[0].holds && !shown.all[1].holds);
        assert_eq!(shown.all[0].digest.to_string(), *chosen);
        // With nothing under the name itself, the settlement leads to the content.
        bench.store.delete(&object(&access, FIRST)).await.unwrap();
        fetch(&access, &bench).await.unwrap();
        assert!(std::fs::read(bench.destination()).unwrap() == *expected);
        // And with the settlement gone, too, recovery must not end: the contents are there.
        let settlement = format!("{}.resolved", object(&access, FIRST));
        bench.store.delete(&Key::parse(&settlement).unwrap()).await.unwrap();
        let error = fetch_as(&access, &bench, FIRST, Some(SYSTEM)).await.unwrap_err();
        assert!(error.to_string().contains("NOT PROVEN"), "{error}");
    }
}

#[tokio::test]
async fn a_settlement_holds_and_needs_two_contents_and_a_clear_choice() {
    let bench = Bench::new().await;
    let access = bench.access();
    let stored = bench.file(&format!("a/{FIRST}"), &segment(SYSTEM, 1, 0));
    let local = bench.file(&format!("b/{FIRST}"), &segment(SYSTEM, 1, 0x55));
    let error = contents(&access, FIRST, &request(&stored), Local::None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    push(&access, &stored).await.unwrap();
    for (path, digest) in [(&stored, ""), (&local, ""), (&local, "zz")] {
        let tried = resolve(&access, FIRST, &request(path), Local::File, &choice(digest)).await;
        assert_eq!(tried.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let shown = contents(&access, FIRST, &request(&local), Local::File).await.unwrap();
    let (first, second) = (short(&shown.all[0].digest), short(&shown.all[1].digest));
    for _ in 0..2 {
        resolve(&access, FIRST, &request(&local), Local::File, &choice(&first)).await.unwrap();
    }
    let error =
        resolve(&access, FIRST, &request(&local), Local::File, &choice(&second)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("db2 was fenced"), "{error}");
    // A third content is a collision as before.
    let third = bench.file(&format!("c/{FIRST}"), &segment(SYSTEM, 1, 0x77));
    assert_eq!(push(&access, &third).await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// Digests of one content differ by the id key of their day.
#[tokio::test]
async fn a_content_is_one_content_before_and_after_new_id_keys() {
    let bench = Bench::new().await;
    let access = bench.access();
    let (ours, theirs) = (segment(SYSTEM, 1, 0), segment(SYSTEM, 1, 0x55));
    let stored = bench.file(&format!("a/{FIRST}"), &ours);
    let local = bench.file(&format!("b/{FIRST}"), &theirs);
    push(&access, &stored).await.unwrap();
    let rotate = async || {
        let opened = Repository::open(bench.store.clone(), bench.options.clone()).await.unwrap();
        opened.rotate(&access.domain, Rotation::Ids, None).await.unwrap();
    };
    rotate().await;
    let again = contents(&access, FIRST, &request(&stored), Local::File).await.unwrap();
    assert_eq!(again.all.len(), 1, "the file here is what is stored");
    let shown = contents(&access, FIRST, &request(&local), Local::File).await.unwrap();
    let keep = choice(&short(&shown.all[1].digest));
    let settled = resolve(&access, FIRST, &request(&local), Local::File, &keep).await.unwrap();
    assert_eq!(settled.all.len(), 2, "kept by the new key, stored by the old one");
    rotate().await;
    let shown = contents(&access, FIRST, &request(&stored), Local::File).await.unwrap();
    assert_eq!(shown.all.len(), 2);
    let objects = async || bench.store.list(&object(&access, FIRST).parent()).count().await;
    let before = objects().await;
    let same = choice(&short(&shown.all[0].digest));
    resolve(&access, FIRST, &request(&local), Local::File, &same).await.unwrap();
    assert_eq!(objects().await, before, "what is kept is not kept once more");
    assert_eq!(push(&access, &stored).await.unwrap().result, PushResult::Lost);
    assert_eq!(push(&access, &local).await.unwrap().result, PushResult::AlreadyThere);
    fetch(&access, &bench).await.unwrap();
    assert!(std::fs::read(bench.destination()).unwrap() == theirs);
}

/// A settlement that died half-way must not serve the content that it was to reject, nor lose one.
#[tokio::test]
async fn a_settlement_that_is_interrupted_has_happened_or_not() {
    let (ours, theirs) = (segment(SYSTEM, 1, 0), segment(SYSTEM, 1, 0x55));
    for nth in 1.. {
        let bench = Bench::new().await;
        let stored = bench.file(&format!("a/{FIRST}"), &ours);
        let local = bench.file(&format!("b/{FIRST}"), &theirs);
        push(&bench.access(), &stored).await.unwrap();
        let shown = contents(&bench.access(), FIRST, &request(&local), Local::File).await.unwrap();
        let keep = choice(&short(&shown.all[1].digest));
        let changes = Calls::of(&[CallKind::PutIfAbsent, CallKind::PutOnce, CallKind::Delete])
            .naming("/wal/");
        let dying =
            FailNth::over(bench.store.clone(), changes, nth, Lasting::ForEver, Refusal::Denied);
        let access = bench.access_to(dying.clone());
        let settled = resolve(&access, FIRST, &request(&local), Local::File, &keep).await;
        assert_eq!(settled.is_err(), dying.hook().has_failed(), "at call {nth}");
        fetch(&bench.access(), &bench).await.unwrap();
        let served = std::fs::read(bench.destination()).unwrap();
        assert!(served == *if settled.is_ok() { &theirs } else { &ours }, "at call {nth}");
        if settled.is_ok() {
            assert_eq!(nth, 4, "both contents, then the settlement");
            return;
        }
        // Once more, by somebody whose puts arrive.
        resolve(&bench.access(), FIRST, &request(&local), Local::File, &keep).await.unwrap();
        fetch(&bench.access(), &bench).await.unwrap();
        assert!(std::fs::read(bench.destination()).unwrap() == theirs, "at call {nth}");
    }
}

#[tokio::test]
async fn a_listing_tells_which_objects_hold() {
    let bench = Bench::new().await;
    let access = bench.access();
    let stored = bench.file(&format!("a/{FIRST}"), &segment(SYSTEM, 1, 0));
    let local = bench.file(&format!("b/{FIRST}"), &segment(SYSTEM, 1, 0x55));
    let second = bench.file("000000010000000000000002", &segment(SYSTEM, 2, 0));
    push(&access, &stored).await.unwrap();
    push(&access, &second).await.unwrap();
    let shown = contents(&access, FIRST, &request(&local), Local::File).await.unwrap();
    let keep = choice(&short(&shown.all[1].digest));
    let shown = resolve(&access, FIRST, &request(&local), Local::File, &keep).await.unwrap();
    let repository = Repository::open(bench.store.clone(), bench.options.clone()).await.unwrap();
    let sealed = repository.existing_domain(&access.domain).await.unwrap();
    let (first, second) = (object(&access, FIRST), object(&access, "000000010000000000000002"));
    let listed = sealed.list(&first.parent()).await.unwrap();
    let holders = Holders::of(&sealed, &listed).await.unwrap();
    assert_eq!(Some(holders.object(&first)), shown.all[0].object.as_ref());
    assert_ne!(*holders.object(&first), first);
    assert_eq!(*holders.object(&second), second);
    // A settlement that does not read leaves open which content holds: never simply the plain one.
    let (settlement, other) = (format!("{first}.resolved"), format!("{second}.resolved"));
    let bytes = bench.store.get(&settlement.parse().unwrap(), 1 << 20).await.unwrap();
    let _ = bench.store.put_if_absent(&other.parse().unwrap(), bytes).await;
    let listed = sealed.list(&first.parent()).await.unwrap();
    let holders = Holders::of(&sealed, &listed).await.unwrap();
    let unreadable: Vec<_> = holders.unreadable.iter().map(|(file, _)| file).collect();
    assert_eq!(unreadable, [&second]);
    let error = fetch_as(&access, &bench, "000000010000000000000002", Some(SYSTEM)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt);
}
