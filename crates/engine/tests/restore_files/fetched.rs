//! What a delta fetches of a backup's data: the chunks of pages that differ.

use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::restore::target_dir::Existing;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::table::{Entry, EntryKind};
use pgrecall_testkit::stores::{Calls, Record};
use tempfile::TempDir;

use crate::shop::{FOLDERS, Maker, PAGE, Shop, entry, files, options, run, session};

const TABLE: &str = "base/1/5000";
const PAGES: usize = 1600;
/// Pages that one chunk holds.
const CHUNK_PAGES: usize = 4;

/// Pages that do not compress.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(PAGES * PAGE);
    while bytes.len() < PAGES * PAGE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

async fn backup(cluster: &ClusterStore) -> Manifest {
    let session = session(cluster).await;
    let mut maker = Maker::new(&session);
    let folder = |folder: &&str| entry(folder, 0o700, EntryKind::Directory);
    let mut entries: Vec<Entry> = FOLDERS.iter().map(folder).collect();
    for (path, content) in files() {
        let kind = maker.small(&content);
        entries.push(entry(path, 0o600, kind));
    }
    let kind = maker.pages(&noise());
    entries.push(entry(TABLE, 0o600, kind));
    maker.finish(entries).await
}

#[tokio::test]
async fn where_one_page_in_a_hundred_differs_only_their_chunks_are_fetched() {
    let shop = Shop::new().await;
    let store = Record::over(shop.store.clone());
    let cluster = shop.cluster(store.clone()).await.unwrap();
    let manifest = backup(&cluster).await;
    let data = Calls::reads().naming("/packs/data/");
    let scratch = TempDir::new().unwrap();
    let mut options = options(&scratch.path().join("data"));
    store.hook().clear();
    run(&cluster, &manifest, &options).await.unwrap();
    let whole = store.hook().received_bytes(&data);
    assert!(whole >= (PAGES * PAGE) as u64, "{whole}");

    let table = options.dir.join(TABLE);
    let mut bytes = std::fs::read(&table).unwrap();
    let differing: Vec<usize> = (50..PAGES).step_by(100).collect();
    for page in &differing {
        bytes[page * PAGE + 100] ^= 1;
    }
    std::fs::write(&table, &bytes).unwrap();
    options.existing = Existing::Delta;
    store.hook().clear();
    let done = run(&cluster, &manifest, &options).await.unwrap();
    assert!(std::fs::read(&table).unwrap() == noise(), "it comes back");

    // And what is written anew each time: the control file and the settings.
    let small: usize = files()
        .iter()
        .filter(|(path, _)| matches!(*path, "global/pg_control" | "postgresql.auto.conf"))
        .map(|(_, content)| content.len())
        .sum();
    assert_eq!(done.copied.written_bytes, (differing.len() * PAGE + small) as u64);
    let reads = store.hook().count(&data);
    assert!(reads <= differing.len() + 2, "{reads} reads");
    let fetched = store.hook().received_bytes(&data);
    // A frame has some bytes of its own.
    let allowed = differing.len() * (CHUNK_PAGES * PAGE + 128) + small + 128;
    assert!(fetched <= allowed as u64, "{fetched} bytes of {whole}, and not {allowed}");
}
