//! Two contents under one name: refused, shown, settled.

use pgrecall_engine::ErrorKind;
use pgrecall_engine::archive::push::PushResult;
use pgrecall_engine::archive::resolve::{Choice, Local, contents, resolve, short};

use crate::bench::{Bench, FIRST, SYSTEM, fetch, object, push, request, segment};

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
        assert_eq!(results[loser], PushResult::Settled);
        // With nothing under the name itself, the settlement leads to the content.
        bench.store.delete(&object(&access, FIRST)).await.unwrap();
        fetch(&access, &bench).await.unwrap();
        assert!(std::fs::read(bench.destination()).unwrap() == *expected);
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
