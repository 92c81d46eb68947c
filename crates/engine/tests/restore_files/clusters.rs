//! Two clusters of one repository: each comes back as it was, and neither is taken for the other.

use std::path::Path;

use pgrecall_engine::catalog;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::error::ErrorKind;
use pgrecall_engine::restore::target_dir::Existing;
use pgrecall_repo::backup::Claim;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::table::EntryKind;
use pgrecall_repo::repository::Repository;
use tempfile::TempDir;

use crate::shop::{
    FOLDERS, Maker, PAGE, SYSTEM, Shop, control, entry, options, run, session, table_file,
};

/// The files of a cluster: one that all have, and its own.
fn files_of(cluster: &ClusterStore, seed: u8) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("PG_VERSION", b"17\n".to_vec()),
        ("base/1/1249", table_file(3)),
        ("base/1/16384", table_file(seed)),
        ("global/pg_control", control(cluster.facts.system_identifier)),
    ]
}

async fn back_up(cluster: &ClusterStore, seed: u8) -> Manifest {
    let session = session(cluster).await;
    let mut maker = Maker::new(&session);
    let mut entries = FOLDERS.map(|path| entry(path, 0o700, EntryKind::Directory)).to_vec();
    for (path, content) in files_of(cluster, seed) {
        let pages = path.starts_with("base");
        let kind = if pages { maker.pages(&content) } else { maker.small(&content) };
        entries.push(entry(path, 0o600, kind));
    }
    maker.finish(entries).await
}

async fn assert_comes_back(cluster: &ClusterStore, manifest: &Manifest, seed: u8, dir: &Path) {
    run(cluster, manifest, &options(dir)).await.unwrap();
    for (path, content) in files_of(cluster, seed) {
        assert!(std::fs::read(dir.join(path)).unwrap() == content, "{path} differs");
    }
}

/// Whether a new backup of a cluster would refer to a chunk that is there.
async fn knows(cluster: &ClusterStore, plain: &[u8]) -> bool {
    let session = session(cluster).await;
    let known = session.claim(&cluster.sealed.keys().chunk_id(plain)) == Claim::Known;
    session.abandon().await.unwrap();
    known
}

#[tokio::test]
async fn two_clusters_of_one_repository_are_backed_up_and_come_back() {
    for domains in [["left", "right"], ["shared", "shared"]] {
        let shop = Shop::new().await;
        let of = |at: usize, name, system| {
            shop.cluster_of(shop.store.clone(), domains[at], name, system)
        };
        let left = of(0, "left", SYSTEM).await.unwrap();
        let right = of(1, "right", SYSTEM + 1).await.unwrap();
        let first = back_up(&left, 5).await;
        // What the first one has stored is there for the other in the same domain, and only there.
        let (common, own) = (table_file(3), table_file(5));
        let shared = domains[0] == domains[1];
        assert_eq!(knows(&right, &common[..4 * PAGE]).await, shared);
        assert_eq!(knows(&right, &own[..4 * PAGE]).await, shared);
        let second = back_up(&right, 9).await;
        for (cluster, backup) in [(&left, first.backup), (&right, second.backup)] {
            let (known, unreadable) = catalog::backups(cluster).await.unwrap();
            // These have no details of a server.
            let ids: Vec<_> = unreadable.iter().map(|row| row.id).collect();
            assert_eq!((known.len(), ids), (0, vec![backup]));
        }
        let scratch = TempDir::new().unwrap();
        let (one, two) = (scratch.path().join("left"), scratch.path().join("right"));
        assert_comes_back(&left, &first, 5, &one).await;
        assert_comes_back(&right, &second, 9, &two).await;

        // Each name has its own lineages.
        let repository = Repository::open(shop.store.clone(), shop.options.clone()).await.unwrap();
        let (domain, name) = (right.at.domain.clone(), right.at.cluster.clone());
        let error = ClusterStore::open(&repository, &domain, &name, SYSTEM).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        // And one's files are not written over the other's.
        let mut options = options(&two);
        options.existing = Existing::Delta;
        let error = run(&left, &first, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let control = std::fs::read(two.join("global/pg_control")).unwrap();
        assert!(control == self::control(SYSTEM + 1), "nothing was touched");
    }
}
