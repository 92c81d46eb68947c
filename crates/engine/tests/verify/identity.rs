//! A cluster whose identity does not read is where its backups are.

use super::*;
use pgrecall_engine::{EngineError, ErrorKind};
use pgrecall_repo::RepoError;
use pgrecall_repo::keys::Rotation;
use pgrecall_repo::repair::{carry_out, look};

fn identity(cluster: &ClusterStore) -> Key {
    names::cluster_object(&cluster.at, "identity").unwrap()
}

#[tokio::test]
async fn a_rotten_identity_is_told_by_the_backups_and_put_again_after_a_repair() {
    for from_end in [20, 60] {
        let made = made().await;
        let (at, facts) = (&made.cluster.at, &made.cluster.facts);
        let system = facts.system_identifier;
        made.flip_from_end(&identity(&made.cluster), from_end).await;
        let repository = &made.repository;
        let opened = ClusterStore::open(repository, &at.domain, &at.cluster, system).await.unwrap();
        assert_eq!(opened.facts, *facts);
        let other = "other".parse().unwrap();
        let found = ClusterStore::find(repository, &other, &at.cluster, system).await;
        assert_eq!(found.unwrap().at, *at);
        let refused = ClusterStore::open(repository, &other, &at.cluster, system).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
        // The server goes on archiving and taking backups.
        let registered =
            ClusterStore::register(repository, &at.domain, &at.cluster, facts.clone()).await;
        assert_eq!(registered.unwrap().at, *at);
        let refused = ClusterStore::register(repository, &other, &at.cluster, facts.clone()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);

        let plan = look(&made.cluster.sealed, &at.domain).await.unwrap();
        let moved: Vec<_> = plan.quarantined.iter().map(|object| object.name.clone()).collect();
        assert_eq!(moved, [identity(&made.cluster)]);
        carry_out(&made.cluster.sealed, &at.domain, &plan).await.unwrap();
        ClusterStore::register(repository, &at.domain, &at.cluster, facts.clone()).await.unwrap();
        let plan = look(&made.cluster.sealed, &at.domain).await.unwrap();
        assert!(plan.quarantined.is_empty() && plan.left.is_empty(), "{plan:?}");
        assert!(check(&made, Depth::ReadData).await.sound);
    }
}

#[tokio::test]
async fn without_a_backup_what_was_archived_says_whose_it_is() {
    let made = made().await;
    let (at, facts) = (&made.cluster.at, &made.cluster.facts);
    // As before the first backup.
    made.store.delete(&names::manifest(at, made.backup)).await.unwrap();
    for folder in ["packs/", "index/"] {
        for name in made.names(&format!("domains/main/{folder}")).await {
            made.store.delete(&name).await.unwrap();
        }
    }
    made.flip_from_end(&identity(&made.cluster), 60).await;
    let repository = &made.repository;
    let open = ClusterStore::open(repository, &at.domain, &at.cluster, facts.system_identifier);
    let refused = open.await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.hints()[0].contains("pgrecall repair"), "{:?}", refused.hints());
    // Another domain's repair leaves it alone: to that it looks the same when it is sound.
    let other = repository.domain(&"other".parse().unwrap()).await.unwrap();
    let plan = look(&other, &"other".parse().unwrap()).await.unwrap();
    assert!(plan.is_empty() && plan.left.is_empty(), "{plan:?}");
    let plan = look(&made.cluster.sealed, &at.domain).await.unwrap();
    assert_eq!(plan.quarantined.len(), 1, "{plan:?}");
    carry_out(&made.cluster.sealed, &at.domain, &plan).await.unwrap();
    ClusterStore::register(repository, &at.domain, &at.cluster, facts.clone()).await.unwrap();
}

#[tokio::test]
async fn a_sound_identity_is_left_alone_by_every_domain() {
    let made = made().await;
    let other = made.repository.domain(&"other".parse().unwrap()).await.unwrap();
    for (sealed, domain) in [(&made.cluster.sealed, "main"), (&other, "other")] {
        let plan = look(sealed, &domain.parse().unwrap()).await.unwrap();
        assert!(plan.is_empty() && plan.left.is_empty(), "{plan:?}");
    }
}

#[tokio::test]
async fn a_lost_identity_is_not_put_elsewhere_while_backups_do_not_say_whose_they_are() {
    let made = made().await;
    let (at, facts) = (&made.cluster.at, &made.cluster.facts);
    made.store.delete(&identity(&made.cluster)).await.unwrap();
    // The backup is sealed with keys of epoch 0, and those are gone.
    made.repository.rotate(&at.domain, Rotation::Sealing, None).await.unwrap();
    let keys = names::domain_keys(&at.domain).entry(0);
    let kept = made.store.get(&keys, 1 << 20).await.unwrap();
    made.store.delete(&keys).await.unwrap();
    let other = "other".parse().unwrap();
    let elsewhere = || ClusterStore::register(&made.repository, &other, &at.cluster, facts.clone());
    let refused = elsewhere().await.unwrap_err();
    assert!(
        matches!(&refused, EngineError::Repo(RepoError::KeysMissing { object, .. })
            if *object == names::manifest(at, made.backup).to_string()),
        "{refused}"
    );
    // With them, it is known whose it is.
    assert!(matches!(made.store.put_if_absent(&keys, kept).await, Put::Created));
    assert_eq!(elsewhere().await.unwrap_err().kind(), ErrorKind::Conflict);
    let opened = ClusterStore::register(&made.repository, &at.domain, &at.cluster, facts.clone());
    assert_eq!(opened.await.unwrap().at, *at);
}
