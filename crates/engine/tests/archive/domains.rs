//! A cluster whose domain is not called like it, and one whose domain is named wrongly.

use pgrecall_engine::ErrorKind;
use pgrecall_engine::archive::access::DomainIs;
use pgrecall_engine::archive::fetch::FetchOutcome;
use pgrecall_repo::repository::Repository;
use pgrecall_testkit::stores::Record;

use crate::bench::{Bench, FIRST, SYSTEM, fetch, fetch_as, push, segment};

async fn domains(bench: &Bench) -> Vec<String> {
    let repository = Repository::open(bench.store.clone(), bench.options.clone()).await.unwrap();
    let listed = repository.sealed().list(&pgrecall_repo::names::domains()).await.unwrap();
    listed.iter().map(|object| object.key.to_string()).collect()
}

/// On a new host nobody may know which domain the cluster is in; recovery must go on all the same.
#[tokio::test]
async fn a_fetch_finds_the_domain_that_nobody_has_named() {
    let bench = Bench::new().await;
    let mut there = bench.access();
    there.domain = "shared".parse().unwrap();
    push(&there, &bench.file(FIRST, &segment(SYSTEM, 1, 0))).await.unwrap();
    std::fs::remove_dir_all(bench.folder.path().join("cache")).unwrap();
    let record = Record::over(bench.store.clone());
    let mut access = bench.access_to(record.clone());
    access.domain_is = DomainIs::Assumed;
    fetch(&access, &bench).await.unwrap();
    record.hook().clear();
    fetch(&access, &bench).await.unwrap();
    assert_eq!(record.hook().calls().len(), 2, "it is known from now on");
    let absent = fetch_as(&access, &bench, "000000010000000000000009", Some(SYSTEM)).await.unwrap();
    assert_eq!(absent, FetchOutcome::ProvenAbsent);
    // Who names a domain is taken at his word, and told that it is another one.
    access.domain_is = DomainIs::Told;
    access.cache = None;
    fetch(&access, &bench).await.unwrap_err();
}

/// Copies of keys on this host must not let a push be sealed under the keys of a domain that the
/// cluster is not in: nothing could read it back.
#[tokio::test]
async fn a_wrong_domain_is_refused_and_leaves_nothing() {
    let bench = Bench::new().await;
    let mut access = bench.access();
    push(&access, &bench.file(FIRST, &segment(SYSTEM, 1, 0))).await.unwrap();
    let before = domains(&bench).await;
    access.domain = "other".parse().unwrap();
    let second = bench.file("000000010000000000000002", &segment(SYSTEM, 2, 0));
    let error = push(&access, &second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("in the domain main, not in other"), "{error}");
    assert_eq!(domains(&bench).await, before, "no keys are made for it");
    // Nor when the other domain is there, with keys whose copies this host has.
    let mut neighbour = bench.access();
    neighbour.cluster = "neighbour".parse().unwrap();
    neighbour.domain = "other".parse().unwrap();
    push(&neighbour, &second).await.unwrap();
    let error = push(&access, &second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}
