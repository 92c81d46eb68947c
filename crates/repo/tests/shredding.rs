//! A domain whose keys are deleted on purpose: nobody opens it again, whenever that broke off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pgrecall_repo::format::document::Shredded;
use pgrecall_repo::id::RepositoryId;
use pgrecall_repo::keys::Rotation;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::repository::{Cache, Repository};
use pgrecall_repo::{ErrorKind, RepoError};
use pgrecall_store::Put;
use pgrecall_testkit::chunked_backups::{at, backup};
use pgrecall_testkit::repositories::InMemory;

fn main_domain() -> Name {
    at().domain
}

fn mark() -> Shredded {
    let (at, host) = ("2026-11-27T06:00:00Z".to_owned(), "db1".to_owned());
    Shredded { domain: "main".to_owned(), at, host, lineages: Vec::new() }
}

fn is_shredded<T>(result: Result<T, RepoError>) -> bool {
    matches!(result, Err(RepoError::Shredded { .. }))
}

async fn nobody_opens(repository: &Repository) {
    assert!(is_shredded(repository.existing_domain(&main_domain()).await));
    assert!(is_shredded(repository.domain(&main_domain()).await));
    assert!(is_shredded(repository.rotate(&main_domain(), Rotation::Ids, None).await));
}

#[tokio::test]
async fn a_shredded_domain_opens_for_nobody_and_gets_no_new_keys() {
    let made = InMemory::create().await;
    let sealed = made.repository.domain(&main_domain()).await.unwrap();
    backup(&sealed, 0..20).await;
    made.repository.rotate(&main_domain(), Rotation::Sealing, None).await.unwrap();
    let other: Name = "other".parse().unwrap();
    made.repository.domain(&other).await.unwrap();
    assert_eq!(made.repository.shred(&main_domain(), &mark()).await.unwrap(), 2);
    nobody_opens(&made.repository).await;
    assert_eq!(made.repository.count_epochs(&main_domain()).await.unwrap(), 0);
    assert_eq!(made.repository.shredded(&main_domain()).await.unwrap(), Some(mark()));
    let error = made.repository.existing_domain(&main_domain()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("2026-11-27T06:00:00Z"), "{error}");
    made.repository.existing_domain(&other).await.unwrap();
}

/// Every moment between the mark and the last key: what is left opens for nobody, and the next
/// call ends it. The first mark stays.
#[tokio::test]
async fn one_that_broke_off_is_over_all_the_same_and_is_ended_by_the_next_call() {
    for gone in 0..=3 {
        let made = InMemory::create().await;
        let sealed = made.repository.domain(&main_domain()).await.unwrap();
        backup(&sealed, 0..20).await;
        for _ in 0..2 {
            made.repository.rotate(&main_domain(), Rotation::Ids, None).await.unwrap();
        }
        let keys = names::domain_keys(&main_domain());
        let mut kept = Vec::new();
        for number in 0..3 {
            let entry = keys.entry(number);
            kept.push((entry.clone(), made.store.get(&entry, 1 << 20).await.unwrap()));
        }
        made.repository.shred(&main_domain(), &mark()).await.unwrap();
        for (entry, bytes) in kept.into_iter().skip(gone) {
            assert!(matches!(made.store.put_if_absent(&entry, bytes).await, Put::Created));
        }
        nobody_opens(&made.repository).await;
        let later = Shredded { at: "2030-01-01T00:00:00Z".to_owned(), ..mark() };
        let deleted = made.repository.shred(&main_domain(), &later).await.unwrap();
        assert_eq!(deleted, 3 - gone as u64);
        assert_eq!(made.repository.shredded(&main_domain()).await.unwrap(), Some(mark()));
    }
}

/// A host's copies of wrapped keys, in memory.
#[derive(Debug, Default)]
struct Copies(Mutex<BTreeMap<String, Vec<u8>>>);

impl Cache for Copies {
    fn get(&self, _: RepositoryId, name: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(name).cloned()
    }

    fn put(&self, _: RepositoryId, name: &str, object: &[u8]) {
        self.0.lock().unwrap().insert(name.to_owned(), object.to_vec());
    }

    fn forget(&self, _: RepositoryId, name: &str) -> bool {
        self.0.lock().unwrap().remove(name).is_some()
    }
}

#[tokio::test]
async fn copies_of_the_keys_go_too_here_at_once_and_elsewhere_when_keys_are_read_anew() {
    let made = InMemory::create().await;
    made.repository.domain(&main_domain()).await.unwrap();
    made.repository.rotate(&main_domain(), Rotation::Sealing, None).await.unwrap();
    let (here, there) = (Arc::new(Copies::default()), Arc::new(Copies::default()));
    let mut hosts = Vec::new();
    for copies in [&here, &there] {
        let mut options = made.options.clone();
        options.cache = Some(copies.clone() as Arc<dyn Cache>);
        let host = Repository::open(made.store.clone(), options).await.unwrap();
        host.existing_domain(&main_domain()).await.unwrap();
        hosts.push(host);
    }
    let keys = |copies: &Copies| {
        copies.0.lock().unwrap().keys().filter(|name| name.starts_with("domains/")).count()
    };
    assert_eq!((keys(&here), keys(&there)), (2, 2));
    hosts[0].shred(&main_domain(), &mark()).await.unwrap();
    assert_eq!(keys(&here), 0);
    assert!(is_shredded(hosts[0].existing_domain(&main_domain()).await));
    // The other host goes by its copies until it reads everything anew.
    hosts[1].existing_domain(&main_domain()).await.unwrap();
    assert!(is_shredded(hosts[1].rotate(&main_domain(), Rotation::Sealing, None).await));
    assert_eq!(keys(&there), 0);
    assert!(is_shredded(hosts[1].existing_domain(&main_domain()).await));
}
