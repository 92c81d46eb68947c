//! What others do while a restore runs: a collection moves chunks, an expiry takes the backup, keys
//! are rotated.

use pgrecall_engine::error::ErrorKind;
use pgrecall_engine::restore::execute::RestoreOptions;
use pgrecall_engine::restore::lost::OnLoss;
use pgrecall_repo::expired::{self, ExpiredLog};
use pgrecall_repo::format::document::Expired;
use pgrecall_repo::keys::Rotation;
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_testkit::collections::replace_all_packs;
use pgrecall_testkit::stores::Meanwhile;
use tempfile::TempDir;

use crate::shop::{Shop, assert_restored, options, run, simple_backup};

#[tokio::test]
async fn a_collection_at_any_moment_of_a_restore_does_not_end_it() {
    for on_loss in [OnLoss::Refuse, OnLoss::Zeros] {
        collection_meanwhile(on_loss).await;
    }
}

async fn collection_meanwhile(on_loss: OnLoss) {
    for nth in 1.. {
        let shop = Shop::new().await;
        let mut cluster = shop.cluster(shop.store.clone()).await.unwrap();
        let manifest = simple_backup(&cluster, vec![]).await;
        let direct = cluster.clone();
        let store = Meanwhile::over(shop.store.clone(), nth, async move || {
            replace_all_packs(&direct.sealed, direct.domain()).await;
        });
        let (keys, random) = (cluster.sealed.keys().clone(), cluster.sealed.random().clone());
        cluster.sealed = SealedStore::new(store.clone(), keys, random);
        let scratch = TempDir::new().unwrap();
        let options = RestoreOptions { on_loss, ..options(&scratch.path().join("data")) };
        let done = run(&cluster, &manifest, &options).await;
        assert!(done.unwrap_or_else(|e| panic!("at {nth}: {e:?}")).lost.is_empty());
        assert_restored(&options.dir);
        if !store.hook().has_happened() {
            return assert!(nth > 10, "{nth}");
        }
    }
}

#[tokio::test]
async fn a_backup_that_expires_meanwhile_is_told_as_that_and_never_as_damage() {
    for on_loss in [OnLoss::Refuse, OnLoss::Zeros] {
        expiry_meanwhile(on_loss).await;
    }
}

async fn expiry_meanwhile(on_loss: OnLoss) {
    let mut told = 0;
    for nth in 1.. {
        let shop = Shop::new().await;
        let mut cluster = shop.cluster(shop.store.clone()).await.unwrap();
        let manifest = simple_backup(&cluster, vec![]).await;
        let (direct, id) = (cluster.clone(), manifest.backup);
        let store = Meanwhile::over(shop.store.clone(), nth, async move || {
            let (sealed, domain) = (&direct.sealed, direct.domain());
            let log = ExpiredLog::read(sealed, domain).await.unwrap();
            let more = Expired { backups: vec![id], ..Expired::default() };
            log.append(sealed, domain, more).await.unwrap();
            expired::remove_manifests(sealed, domain).await.unwrap();
            replace_all_packs(sealed, domain).await;
        });
        let (keys, random) = (cluster.sealed.keys().clone(), cluster.sealed.random().clone());
        cluster.sealed = SealedStore::new(store.clone(), keys, random);
        let scratch = TempDir::new().unwrap();
        let options = RestoreOptions { on_loss, ..options(&scratch.path().join("data")) };
        match run(&cluster, &manifest, &options).await {
            Ok(done) => {
                assert!(done.lost.is_empty(), "at {nth}: {:?}", done.lost);
                assert_restored(&options.dir);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "at {nth}: {error:?}");
                let said = format!("backup {id} has expired since this began");
                assert!(error.to_string().contains(&said), "at {nth}: {error}");
                assert!(!options.dir.join("global/pg_control").exists());
                told += 1;
            }
        }
        if !store.hook().has_happened() {
            return assert!(told > 5, "{told} of {nth}");
        }
    }
}

#[tokio::test]
async fn what_newer_keys_have_sealed_meanwhile_is_told_as_that_and_never_as_damage() {
    for on_loss in [OnLoss::Refuse, OnLoss::Zeros] {
        rotation_meanwhile(on_loss).await;
    }
}

async fn rotation_meanwhile(on_loss: OnLoss) {
    let mut told = 0;
    for nth in 1.. {
        let shop = Shop::new().await;
        let mut cluster = shop.cluster(shop.store.clone()).await.unwrap();
        let manifest = simple_backup(&cluster, vec![]).await;
        let (direct, options) = (shop.store.clone(), shop.options.clone());
        let domain = cluster.domain().clone();
        let store = Meanwhile::over(shop.store.clone(), nth, async move || {
            let repository = Repository::open(direct, options).await.unwrap();
            repository.rotate(&domain, Rotation::Sealing, None).await.unwrap();
            let sealed = repository.existing_domain(&domain).await.unwrap();
            replace_all_packs(&sealed, &domain).await;
        });
        let (keys, random) = (cluster.sealed.keys().clone(), cluster.sealed.random().clone());
        cluster.sealed = SealedStore::new(store.clone(), keys, random);
        let scratch = TempDir::new().unwrap();
        let dir = scratch.path().join("data");
        let restore = RestoreOptions { on_loss, ..crate::shop::options(&dir) };
        match run(&cluster, &manifest, &restore).await {
            Ok(done) => {
                assert!(done.lost.is_empty(), "at {nth}: {:?}", done.lost);
                assert_restored(&restore.dir);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "at {nth}: {error:?}");
                assert!(error.to_string().contains("were rotated since this began"), "{error}");
                assert!(!restore.dir.join("global/pg_control").exists());
                told += 1;
            }
        }
        if !store.hook().has_happened() {
            return assert!(told > 5, "{told} of {nth}");
        }
    }
}
