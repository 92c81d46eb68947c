//! What is written: contents, modes, owners, settings.

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::error::ErrorKind;
use pgrecall_engine::restore::target_dir::{Existing, MARKER};
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::table::{Entry, EntryKind};
use tempfile::TempDir;

use crate::shop::{
    FOLDERS, Maker, PAGE, Shop, assert_restored, entry, files, options, run, session, simple_backup,
};

#[tokio::test]
async fn files_come_back_as_they_were() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("deep/er/data");
    let done = run(&cluster, &manifest, &options(&dir)).await.unwrap();
    assert_restored(&dir);
    assert!(done.copied.written_bytes < done.copied.bytes, "zeros are not written");
    let hole = std::fs::metadata(dir.join("base/1/2663")).unwrap();
    assert_eq!((hole.len(), hole.blocks()), (20 * PAGE as u64, 0));
}

#[tokio::test]
async fn a_tiny_memory_budget_only_makes_more_batches() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(&scratch.path().join("data"));
    options.memory_budget_bytes = 1;
    run(&cluster, &manifest, &options).await.unwrap();
    assert_restored(&options.dir);
}

/// A backup of a cluster with group access and a tablespace, whose files were user 4242's.
async fn group_backup(cluster: &ClusterStore) -> Manifest {
    let session = session(cluster).await;
    let mut maker = Maker::new(&session);
    let theirs = |path: &str, mode, kind| Entry { uid: 4242, gid: 4243, ..entry(path, mode, kind) };
    let mut entries = vec![
        theirs("pg_tblspc/16384", 0o777, EntryKind::Link(b"/mnt/fast".to_vec())),
        theirs("pg_tblspc/16384/PG_17_202406281", 0o750, EntryKind::Directory),
    ];
    for folder in FOLDERS {
        entries.push(theirs(folder, 0o750, EntryKind::Directory));
    }
    for (path, content) in files() {
        let kind = maker.small(&content);
        entries.push(theirs(path, 0o640, kind));
    }
    let kind = maker.small(b"a row");
    entries.push(theirs("pg_tblspc/16384/PG_17_202406281/16390", 0o640, kind));
    maker.finish(entries).await
}

/// Everything below a folder, itself included; links are not followed.
fn assert_owned(folder: &Path, owner: (u32, u32)) {
    let meta = std::fs::symlink_metadata(folder).unwrap();
    let shown = folder.display();
    assert_eq!((meta.uid(), meta.gid()), owner, "{shown}");
    if meta.is_dir() {
        assert_eq!(meta.permissions().mode() & 0o7777, 0o750, "{shown}");
        for entry in std::fs::read_dir(folder).unwrap() {
            assert_owned(&entry.unwrap().path(), owner);
        }
    } else if meta.is_file() {
        assert_eq!(meta.permissions().mode() & 0o7777, 0o640, "{shown}");
    }
}

/// Only root can give files away: by another user the half is tested that he can do.
#[tokio::test]
async fn files_belong_to_the_owner_of_the_place_and_modes_let_the_group_read() {
    let is_root = rustix::process::geteuid().is_root();
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = group_backup(&cluster).await;
    let scratch = TempDir::new().unwrap();
    let around = scratch.path().join("around");
    std::fs::create_dir(&around).unwrap();
    let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let nobody = if is_root { (65534, 65533) } else { ours };
    std::os::unix::fs::chown(&around, Some(nobody.0), Some(nobody.1)).unwrap();
    let with_space = |dir: &Path, space: &Path| {
        let mut options = options(dir);
        options.places.tablespaces = vec![("/mnt/fast".into(), space.to_owned())];
        options
    };
    let space = around.join("space");
    let mut options = with_space(&around.join("data"), &space);
    run(&cluster, &manifest, &options).await.unwrap();
    for place in [&options.dir, &space] {
        assert_owned(place, nobody);
    }
    assert!(options.dir.join("global/pg_control").exists());
    // What root had left there is handed over by a delta as well, with its modes.
    let table = options.dir.join("base/1/1249");
    std::os::unix::fs::chown(&table, Some(ours.0), Some(ours.1)).unwrap();
    std::fs::set_permissions(&table, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(options.dir.join("base/1/2662")).unwrap();
    options.existing = Existing::Delta;
    run(&cluster, &manifest, &options).await.unwrap();
    for place in [&options.dir, &space] {
        assert_owned(place, nobody);
    }
    if !is_root {
        return;
    }
    // Root himself is passed over: then whose the files were counts.
    let (rootly, space) = (scratch.path().join("data"), scratch.path().join("space"));
    let options = with_space(&rootly, &space);
    run(&cluster, &manifest, &options).await.unwrap();
    for place in [&rootly, &space] {
        assert_owned(place, (4242, 4243));
    }
}

/// Bytes that differ from what the backup was made of are found before they count.
#[tokio::test]
async fn a_damaged_pack_stops_the_restore_and_names_the_chunk() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let packs = cluster.sealed.list(&pgrecall_repo::names::packs(cluster.domain())).await.unwrap();
    let data = packs.iter().find(|pack| pack.key.as_str().contains("/data/")).unwrap();
    let mut bytes = shop.store.get(&data.key, 1 << 30).await.unwrap().to_vec();
    bytes[200] ^= 1;
    shop.store.delete(&data.key).await.unwrap();
    let put = shop.store.put_if_absent(&data.key, bytes.into()).await;
    assert!(matches!(put, pgrecall_store::Put::Created));
    let scratch = TempDir::new().unwrap();
    let options = options(&scratch.path().join("data"));
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(!options.dir.join("global/pg_control").exists());
}

#[tokio::test]
async fn files_only_writes_no_recovery_settings() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(&scratch.path().join("data"));
    options.server = None;
    run(&cluster, &manifest, &options).await.unwrap();
    let by_name: HashMap<_, _> = files().into_iter().collect();
    let auto = std::fs::read(options.dir.join("postgresql.auto.conf")).unwrap();
    assert_eq!(auto, by_name["postgresql.auto.conf"]);
    for none in ["recovery.signal", "standby.signal", MARKER] {
        assert!(!options.dir.join(none).exists(), "{none}");
    }
    assert!(options.dir.join("backup_label").exists());
    assert!(options.dir.join("global/pg_control").exists());
}
