//! `gc` of two domains in turn: what a host remembers of backups under way in one is not forgotten
//! when it collects in the other.

use std::path::Path;
use std::sync::Arc;

use pgrecall_engine::cluster::{ClusterFacts, ClusterStore};
use pgrecall_pgformat::{Major, SegmentSize};
use pgrecall_repo::backup::BackupSession;
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::keys::Unlock;
use pgrecall_repo::names::Name;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{Created, KeyNote, OpenOptions, Repository};
use pgrecall_store::{DirectoryStore, RootPolicy, Store};
use pgrecall_testkit::repositories::begin;
use serde_json::{Value, json};

use crate::program::Place;

/// A repository in the clear.
async fn made(folder: &Path) -> Repository {
    let store = DirectoryStore::open(folder, RootPolicy::Create).await.expect("a store");
    let store: Arc<dyn Store> = Arc::new(store);
    let options = OpenOptions {
        id: None,
        suite: RootSuite::None,
        fingerprint: None,
        unlock: Unlock::Nothing,
        random: SharedRandom::system(),
        cache: None,
        restore_keys: Vec::new(),
    };
    let note = KeyNote { label: "test".into(), now: "2026-11-22T00:00:00Z".into() };
    match Repository::create(store, options, &note).await.expect("a repository") {
        Created::New(repository) => *repository,
        Created::Taken(root) => panic!("{root:?} stands there already"),
    }
}

/// A backup under way on another host, of a cluster in a domain of its own.
async fn under_way(repository: &Repository, name: &str, system: u64) -> BackupSession {
    let name: Name = name.parse().expect("a name");
    let facts = ClusterFacts {
        system_identifier: system,
        major: Major::V17,
        page_size_bytes: 8192,
        wal_segment_size: SegmentSize::DEFAULT,
    };
    let cluster = ClusterStore::register(repository, &name, &name, facts).await.expect("a cluster");
    begin(&cluster.sealed, &cluster.at).await
}

#[tokio::test]
async fn each_domain_has_its_own_count_of_how_long_a_backup_is_under_way() {
    let place = Place::new("");
    let beside = |name: &str| place.config().with_file_name(name);
    let repository = made(&beside("repository")).await;
    let one = under_way(&repository, "one", 1).await.id().to_string();
    let two = under_way(&repository, "two", 2).await.id().to_string();
    let mut config = format!(
        "[[repository]]\nurl = \"file://{}\"\nid = \"{}\"\nencryption = \"none\"\n\
         cache_dir = \"{}\"\n",
        beside("repository").display(),
        repository.root().id,
        beside("cache").display(),
    );
    for name in ["one", "two"] {
        config.push_str(&format!(
            "\n[[cluster]]\nname = \"{name}\"\ndomain = \"{name}\"\n\
             collection = {{ dead_after = \"1ms\" }}\n"
        ));
    }
    std::fs::write(place.config(), config).expect("the configuration");
    let ended = |cluster: &str| {
        let run = place.run(&format!("gc --json --cluster {cluster}"));
        assert_eq!(run.code, 0, "{}", run.stderr);
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        report["done"]["ended"].clone()
    };
    assert_eq!(ended("one"), json!([]), "it was never seen before");
    assert_eq!(ended("two"), json!([]), "nor was this one");
    assert_eq!(ended("one"), json!([one]));
    assert_eq!(ended("two"), json!([two]));
    assert_eq!(ended("one"), json!([]));
}
