//! A domain whose keys are deleted on purpose: nobody opens it again, whenever that broke off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pgrecall_repo::format::document::{Manifest, Shredded};
use pgrecall_repo::id::RepositoryId;
use pgrecall_repo::keys::Rotation;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::repository::{Cache, Repository};
use pgrecall_repo::{ErrorKind, RepoError};
use pgrecall_store::Put;
use pgrecall_testkit::chunked_backups::{at, backup};
use pgrecall_testkit::repositories::{InMemory, begin};

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

/// It has the keys in memory, and nobody after it could read what it stores.
#[tokio::test]
async fn a_backup_under_way_does_not_commit_what_nobody_reads() {
    let made = InMemory::create().await;
    let sealed = made.repository.domain(&main_domain()).await.unwrap();
    let session = begin(&sealed, &at()).await;
    made.repository.shred(&main_domain(), &mark()).await.unwrap();
    let manifest = Manifest {
        backup: session.id(),
        cluster: at().cluster.to_string(),
        lineage: at().lineage,
        tables: Vec::new(),
        entries: 0,
        bytes: 0,
        details: serde_json::Value::Null,
    };
    let refused = session.commit(&manifest).await.unwrap_err();
    assert!(matches!(refused, RepoError::Fenced { .. }), "{refused}");
    assert!(refused.to_string().contains("key shred"), "{refused}");
}

/// Whoever may only put objects must not take keys from hosts, nor make anybody believe that they
/// are gone on purpose.
#[tokio::test]
async fn a_mark_that_does_not_open_is_damage_and_takes_no_copies() {
    let made = InMemory::create().await;
    made.repository.domain(&main_domain()).await.unwrap();
    let other: Name = "other".parse().unwrap();
    made.repository.shred(&other, &Shredded { domain: "other".into(), ..mark() }).await.unwrap();
    let of_another = made.store.get(&names::shredded(&other), 1 << 20).await.unwrap();
    for forged in [bytes::Bytes::from_static(b"all your keys"), of_another] {
        let name = names::shredded(&main_domain());
        assert!(matches!(made.store.put_if_absent(&name, forged).await, Put::Created));
        let copies = Arc::new(Copies::default());
        let mut options = made.options.clone();
        options.cache = Some(copies.clone() as Arc<dyn Cache>);
        let keys = names::domain_keys(&main_domain()).entry(0);
        copies.put(made.repository.root().id, keys.as_str(), b"a copy");
        let host = Repository::open(made.store.clone(), options).await.unwrap();
        let error = host.rotate(&main_domain(), Rotation::Sealing, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("keys/shredded"), "{error}");
        assert!(copies.get(made.repository.root().id, keys.as_str()).is_some());
        let error = host.shred(&main_domain(), &mark()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(host.count_epochs(&main_domain()).await.unwrap(), 1, "the keys are there");
        made.store.delete(&name).await.unwrap();
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
