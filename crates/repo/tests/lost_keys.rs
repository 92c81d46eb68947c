//! Keys of a domain that are lost are not made anew: what they sealed would be lost with them.

use pgrecall_repo::ErrorKind;
use pgrecall_repo::keys::Rotation;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::repair::look;
use pgrecall_store::{Key, Put};
use pgrecall_testkit::chunked_backups::{at, backup};
use pgrecall_testkit::repositories::InMemory;

fn main_domain() -> Name {
    at().domain
}

/// Takes an object away, and gives what puts it back.
async fn take(made: &InMemory, name: &Key) -> bytes::Bytes {
    let bytes = made.store.get(name, 1 << 20).await.unwrap();
    made.store.delete(name).await.unwrap();
    bytes
}

async fn put_back(made: &InMemory, name: &Key, bytes: bytes::Bytes) {
    assert!(matches!(made.store.put_if_absent(name, bytes).await, Put::Created));
}

#[tokio::test]
async fn a_domain_whose_keys_are_gone_is_not_taken_for_a_new_one() {
    let made = InMemory::create().await;
    let sealed = made.repository.domain(&main_domain()).await.unwrap();
    backup(&sealed, 0..20).await;
    let name = names::domain_keys(&main_domain()).entry(0);
    let keys = take(&made, &name).await;
    for error in [
        made.repository.domain(&main_domain()).await.unwrap_err(),
        made.repository.rotate(&main_domain(), Rotation::Sealing, None).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("domains/main/keys"), "{error}");
    }
    assert!(made.store.head(&name).await.is_err(), "no keys were made");
    put_back(&made, &name, keys).await;
    let sealed = made.repository.domain(&main_domain()).await.unwrap();
    assert_eq!(look(&sealed, &main_domain()).await.unwrap(), Default::default());
}

#[tokio::test]
async fn the_number_of_lost_keys_is_not_used_again() {
    for rotation in [Rotation::Sealing, Rotation::Ids] {
        let made = InMemory::create().await;
        made.repository.domain(&main_domain()).await.unwrap();
        assert_eq!(made.repository.rotate(&main_domain(), rotation, None).await.unwrap(), 1);
        let sealed = made.repository.domain(&main_domain()).await.unwrap();
        backup(&sealed, 0..20).await;
        let name = names::domain_keys(&main_domain()).entry(1);
        let keys = take(&made, &name).await;
        let refused = made.repository.rotate(&main_domain(), rotation, None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
        assert!(refused.to_string().contains(name.as_str()), "{refused}");
        put_back(&made, &name, keys).await;
        assert_eq!(made.repository.rotate(&main_domain(), rotation, None).await.unwrap(), 2);
    }
}

/// Where other keys have taken a number, as an earlier version of the program let them.
#[tokio::test]
async fn repair_gives_nothing_up_while_nothing_of_the_same_epoch_reads() {
    let made = InMemory::create().await;
    let sealed = made.repository.domain(&main_domain()).await.unwrap();
    backup(&sealed, 0..20).await;
    made.repository.rotate(&main_domain(), Rotation::Sealing, None).await.unwrap();
    let name = names::domain_keys(&main_domain()).entry(1);
    // The same number, other keys.
    let lost = take(&made, &name).await;
    made.repository.rotate(&main_domain(), Rotation::Sealing, None).await.unwrap();
    let others = take(&made, &name).await;
    put_back(&made, &name, lost).await;
    let sealed = made.repository.domain(&main_domain()).await.unwrap();
    let backup = backup(&sealed, 10..30).await;
    made.store.delete(&name).await.unwrap();
    put_back(&made, &name, others).await;
    let sealed = made.repository.domain(&main_domain()).await.unwrap();
    let plan = look(&sealed, &main_domain()).await.unwrap();
    assert_eq!(plan.quarantined, [], "neither the backup, nor its index and packs");
    let manifest = names::manifest(&at(), backup);
    let left = plan.left.iter().find(|left| left.name == manifest).unwrap();
    assert!(left.reason.contains("nothing of its epoch reads"), "{left:?}");
}
