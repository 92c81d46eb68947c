//! What a push and a fetch cost, and what they make of answers that are lost or late.

use std::sync::Arc;
use std::time::Duration;

use pgrecall_engine::ErrorKind;
use pgrecall_engine::archive::cache::HostCache;
use pgrecall_engine::archive::patience::Patience;
use pgrecall_engine::archive::push::PushResult;
use pgrecall_repo::names;
use pgrecall_repo::repository::{Cache as _, Repository};
use pgrecall_store::Store;
use pgrecall_testkit::stores::{CallKind, Calls, Delay, LoseAnswer, Record};

use crate::bench::{Bench, FIRST, SYSTEM, fetch, object, push, segment};

#[tokio::test]
async fn a_push_costs_three_requests_and_a_fetch_two() {
    let bench = Bench::new().await;
    let record = Record::over(bench.store.clone());
    let access = bench.access_to(record.clone());
    let first = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    assert_eq!(push(&access, &first).await.unwrap().result, PushResult::Created);
    let second = bench.file("000000010000000000000002", &segment(SYSTEM, 2, 0));
    record.hook().clear();
    assert_eq!(push(&access, &second).await.unwrap().result, PushResult::Created);
    let made: Vec<(CallKind, String)> =
        record.hook().calls().into_iter().map(|call| (call.kind, call.name)).collect();
    let object_name = object(&access, "000000010000000000000002").to_string();
    let keys = names::domain_keys(&access.domain).entry(0).to_string();
    let expected = vec![
        (CallKind::Get, "pgrecall.json".to_owned()),
        (CallKind::Get, keys),
        (CallKind::PutIfAbsent, object_name),
    ];
    assert_eq!(made, expected);
    record.hook().clear();
    fetch(&access, &bench).await.unwrap();
    // Side by side: the file, and whether a settlement says that another object holds.
    let mut made: Vec<(CallKind, String)> =
        record.hook().calls().into_iter().map(|call| (call.kind, call.name)).collect();
    made.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    let file = object(&access, FIRST).to_string();
    let settlement = format!("{file}.resolved");
    assert_eq!(made, [(CallKind::Get, file), (CallKind::Get, settlement)]);
    assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(SYSTEM, 1, 0));
}

#[tokio::test]
async fn a_cache_that_fails_or_lies_fails_no_push() {
    let bench = Bench::new().await;
    let path = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    let mut access = bench.access();
    access.cache = Some(HostCache::new(path.join("no/folder")));
    assert_eq!(push(&access, &path).await.unwrap().result, PushResult::Created);
    access.cache = None;
    assert_eq!(push(&access, &path).await.unwrap().result, PushResult::AlreadyThere);
    let access = bench.access();
    assert_eq!(push(&access, &path).await.unwrap().result, PushResult::AlreadyThere);
    // Every copy but the root turns into another one's.
    let folder = bench.folder.path().join("cache").join(access.options.id.unwrap().to_string());
    let mut folders = vec![folder];
    let mut spoilt = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap() != "pgrecall.json" {
                let mut bytes = std::fs::read(&path).unwrap();
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                spoilt += 1;
            }
        }
    }
    assert!(spoilt >= 3, "the wrap, the domain's keys, the mark");
    let second = bench.file("000000010000000000000002", &segment(SYSTEM, 2, 0));
    assert_eq!(push(&access, &second).await.unwrap().result, PushResult::Created);
    fetch(&access, &bench).await.unwrap();
}

#[tokio::test]
async fn a_new_epoch_of_keys_is_found_by_hosts_with_old_copies() {
    let bench = Bench::new().await;
    let path = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    let second = bench.file("000000010000000000000002", &segment(SYSTEM, 2, 0));
    let (old, mut other) = (bench.access(), bench.access());
    other.cache = None;
    push(&old, &second).await.unwrap();
    let repository = Repository::open(bench.store.clone(), bench.options.clone()).await.unwrap();
    repository.rotate(&old.domain, pgrecall_repo::keys::Rotation::Sealing, None).await.unwrap();
    push(&other, &path).await.unwrap();
    fetch(&old, &bench).await.unwrap();
}

#[tokio::test]
async fn a_push_with_old_copies_knows_what_was_pushed_under_newer_keys() {
    let bench = Bench::new().await;
    let path = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    let second = bench.file("000000010000000000000002", &segment(SYSTEM, 2, 0));
    let (old, mut other) = (bench.access(), bench.access());
    other.cache = None;
    push(&old, &second).await.unwrap();
    let repository = Repository::open(bench.store.clone(), bench.options.clone()).await.unwrap();
    repository.rotate(&old.domain, pgrecall_repo::keys::Rotation::Ids, None).await.unwrap();
    push(&other, &path).await.unwrap();
    assert_eq!(push(&old, &path).await.unwrap().result, PushResult::AlreadyThere);
    // And the other way round: what an older id key has digested is the same, or is not.
    assert_eq!(push(&other, &second).await.unwrap().result, PushResult::AlreadyThere);
    let another = bench.file("000000010000000000000002", &segment(SYSTEM, 2, 1));
    assert_eq!(push(&other, &another).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn keys_that_the_store_has_no_more_seal_nothing() {
    let bench = Bench::new().await;
    let access = bench.access();
    let mut stranger = bench.access();
    stranger.cache = None;
    let repository = Repository::open(bench.store.clone(), bench.options.clone()).await.unwrap();
    let rotate = async || {
        repository.rotate(&access.domain, pgrecall_repo::keys::Rotation::Ids, None).await.unwrap()
    };
    let newest = names::domain_keys(&access.domain).entry(1);
    let push_first = async |number: u64| {
        let path =
            bench.file(&format!("0000000100000000{number:08X}"), &segment(SYSTEM, number, 0));
        assert_eq!(push(&access, &path).await.unwrap().result, PushResult::Created);
        // Another host can read it.
        assert_eq!(push(&stranger, &path).await.unwrap().result, PushResult::AlreadyThere);
    };
    push_first(1).await;
    rotate().await;
    let cache = access.cache.clone().unwrap();
    cache.forget(access.options.id.unwrap(), "pgrecall.json");
    push_first(2).await;
    // The repository is put back to a state from before the rotation …
    bench.store.delete(&newest).await.unwrap();
    bench.store.delete(&object(&access, "000000010000000000000002")).await.unwrap();
    push_first(3).await;
    // … and keys with the same number begin there, while this host has a copy of the others.
    rotate().await;
    cache.forget(access.options.id.unwrap(), "pgrecall.json");
    push_first(4).await;
    bench.store.delete(&newest).await.unwrap();
    bench.store.delete(&object(&access, "000000010000000000000004")).await.unwrap();
    rotate().await;
    push_first(5).await;
}

#[tokio::test]
async fn a_lost_answer_after_the_put_is_no_failure() {
    let bench = Bench::new().await;
    let path = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    let puts = Calls::puts().naming("/wal/");
    let lossy = LoseAnswer::over(bench.store.clone(), puts.clone(), 1);
    let access = bench.access_to(lossy.clone());
    assert_eq!(push(&access, &path).await.unwrap().result, PushResult::AlreadyThere);
    assert_eq!(lossy.hook().lost(), 1);
    // When every answer gets lost, nothing is acknowledged, though it is there.
    let deaf = LoseAnswer::over(bench.store.clone(), puts, 100);
    let second = bench.file("000000010000000000000002", &segment(SYSTEM, 2, 0));
    let error = push(&bench.access_to(deaf), &second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(push(&bench.access(), &second).await.unwrap().result, PushResult::AlreadyThere);
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up() {
    let bench = Bench::new().await;
    let path = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    let slow: Arc<dyn Store> =
        Delay::over(bench.store.clone(), Calls::puts(), Duration::from_secs(3600));
    let mut access = bench.access_to(slow);
    let short = Duration::from_millis(300);
    access.patience = Patience { progress: short, total: short };
    let error = push(&access, &path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("given up after 0.3 s in all"), "{error}");
}

#[tokio::test]
async fn a_removed_key_pushes_nothing_once_its_copies_are_old() {
    let bench = Bench::new().await;
    let path = bench.file(FIRST, &segment(SYSTEM, 1, 0));
    let access = bench.access();
    push(&access, &path).await.unwrap();
    let repository = Repository::open(bench.store.clone(), bench.options.clone()).await.unwrap();
    let person = pgrecall_repo::keys::Unlock::KeyFile(pgrecall_repo::keys::KeyFile::random(
        &bench.options.random,
    ));
    let note = pgrecall_repo::repository::KeyNote { label: "me".into(), now: "now".into() };
    repository.add_key(&person, &note).await.unwrap();
    let host = repository.opened_by().unwrap();
    let mut by_person = bench.options.clone();
    by_person.unlock = person.clone();
    let repository = Repository::open(bench.store.clone(), by_person).await.unwrap();
    repository.remove_key(host, &person).await.unwrap();
    std::fs::remove_dir_all(bench.folder.path().join("cache")).unwrap();
    let error = push(&access, &path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}
