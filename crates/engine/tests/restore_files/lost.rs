//! What is left of a backup whose chunks are lost in part: it comes back, with zeros for the rest,
//! where somebody has asked for that, and not otherwise.

use std::ops::Range;
use std::path::Path;

use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::error::ErrorKind;
use pgrecall_engine::restore::execute::RestoreOptions;
use pgrecall_engine::restore::lost::{LIST, OnLoss};
use pgrecall_engine::restore::target_dir::{Existing, MARKER};
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::table::{EntryKind, PieceMap};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::index::{Index, Purpose};
use pgrecall_repo::names;
use pgrecall_repo::pack::PackBuilder;
use pgrecall_store::{ErrorKind as StoreErrorKind, Key, Put};
use pgrecall_testkit::stores::{Calls, FailNth, Lasting};
use tempfile::TempDir;

use crate::shop::{
    FOLDERS, Maker, PAGE, Shop, assert_restored, entry, files, options, run, session, table_file,
};

/// A backup, and what it is made of.
struct Made {
    shop: Shop,
    cluster: ClusterStore,
    manifest: Manifest,
    /// The map of `global/1262`.
    map: ChunkId,
}

async fn made() -> Made {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let session = session(&cluster).await;
    let mut maker = Maker::new(&session);
    let mut entries: Vec<_> =
        FOLDERS.into_iter().map(|path| entry(path, 0o700, EntryKind::Directory)).collect();
    let mut map = None;
    let is_relation = |path: &str| path.starts_with("base") || path == "global/1262";
    for (path, content) in files().into_iter().filter(|(path, _)| is_relation(path)) {
        let kind = maker.pages(&content);
        if let ("global/1262", EntryKind::File(pieces)) = (path, &kind) {
            let PieceMap::Chunk { id, .. } = pieces[0].map else { panic!("{pieces:?}") };
            map = Some(id);
        }
        entries.push(entry(path, 0o600, kind));
    }
    let next = PackBuilder::new(session.sealed(), &session.at().domain, Kind::DataPack).unwrap();
    let relations = std::mem::replace(&mut maker.data, next);
    session.put_pack(relations.finish().unwrap()).await.unwrap();
    for (path, content) in files().into_iter().filter(|(path, _)| !is_relation(path)) {
        let kind = maker.small(&content);
        entries.push(entry(path, 0o600, kind));
    }
    let manifest = maker.finish(entries).await;
    Made { shop, cluster, manifest, map: map.unwrap() }
}

impl Made {
    /// The pack of a chunk, and where it lies in it.
    async fn find(&self, chunk: &ChunkId) -> (Key, usize) {
        let (sealed, domain) = (&self.cluster.sealed, self.cluster.domain());
        let index = Index::open(sealed, domain, Purpose::Read).await.unwrap();
        let location = index.copies(sealed, chunk).await.unwrap().remove(0);
        let pack = names::pack(domain, location.pack.kind, location.pack.id);
        (pack, usize::try_from(location.offset).unwrap())
    }

    fn chunk(&self, plain: &[u8]) -> ChunkId {
        self.cluster.sealed.keys().chunk_id(plain)
    }

    async fn rot(&self, chunk: &ChunkId) {
        let (pack, offset) = self.find(chunk).await;
        let store = &self.shop.store;
        let mut bytes = store.get(&pack, 64 << 20).await.unwrap().to_vec();
        bytes[offset + 20] ^= 1;
        store.delete(&pack).await.unwrap();
        assert!(matches!(store.put_if_absent(&pack, bytes.into()).await, Put::Created));
    }

    /// Without and with salvage: what is lost, in words.
    async fn salvage(&self, dir: &Path, refused_as: ErrorKind) -> Vec<String> {
        let refused = run(&self.cluster, &self.manifest, &options(dir)).await.unwrap_err();
        assert_eq!(refused.kind(), refused_as, "{refused}");
        assert!(!dir.join("global/pg_control").exists());
        std::fs::remove_dir_all(dir).unwrap();
        self.told(dir).await
    }

    async fn told(&self, dir: &Path) -> Vec<String> {
        let done = run(&self.cluster, &self.manifest, &salvaging(dir)).await.unwrap();
        assert!(!dir.join(MARKER).exists());
        let told = done.lost.iter().map(|file| file.text()).collect::<Vec<_>>();
        let list = std::fs::read_to_string(dir.join(LIST)).unwrap();
        for line in &told {
            assert!(list.contains(line), "no {line} in {list}");
        }
        told
    }
}

fn salvaging(dir: &Path) -> RestoreOptions {
    RestoreOptions { on_loss: OnLoss::Zeros, ..options(dir) }
}

/// Every file is as it was but for these bytes, which are zeros.
fn assert_zeros(dir: &Path, zeros: &[(&str, Range<usize>)]) {
    for (path, mut content) in files() {
        if matches!(path, "standby.signal" | "postgresql.auto.conf") {
            continue;
        }
        for (_, range) in zeros.iter().filter(|(of, _)| *of == path) {
            content[range.clone()].fill(0);
        }
        assert!(std::fs::read(dir.join(path)).unwrap() == content, "{path} differs");
    }
}

#[tokio::test]
async fn a_chunk_that_rots_is_zeros_wherever_it_was() {
    let made = made().await;
    let first = made.chunk(&table_file(3)[4 * PAGE..8 * PAGE]);
    made.rot(&first).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let lost = made.salvage(&dir, ErrorKind::Corrupt).await;
    assert_eq!(lost, ["base/1/1249: blocks 4 to 7", "base/1/2662: blocks 4 to 7"]);
    let zeros = 4 * PAGE..8 * PAGE;
    assert_zeros(&dir, &[("base/1/1249", zeros.clone()), ("base/1/2662", zeros)]);
}

#[tokio::test]
async fn a_map_that_rots_takes_its_piece_of_the_file_with_it() {
    let made = made().await;
    made.rot(&made.map).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let lost = made.salvage(&dir, ErrorKind::Corrupt).await;
    assert_eq!(lost, ["global/1262: blocks 0 to 39"]);
    assert_zeros(&dir, &[("global/1262", 0..39 * PAGE + 100)]);
}

#[tokio::test]
async fn a_pack_that_is_gone_leaves_the_rest() {
    let made = made().await;
    let (pack, _) = made.find(&made.chunk(&table_file(3)[..4 * PAGE])).await;
    made.shop.store.delete(&pack).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let lost = made.salvage(&dir, ErrorKind::Incomplete).await;
    let of = |file: &str| format!("{file}: blocks 0 to 7, 16 to 39");
    assert_eq!(lost, [of("base/1/1249"), of("base/1/2662"), of("global/1262")]);
    let all = 0..39 * PAGE + 100;
    let of = |file| (file, all.clone());
    assert_zeros(&dir, &[of("base/1/1249"), of("base/1/2662"), of("global/1262")]);
}

#[tokio::test]
async fn nothing_is_written_where_all_is_well_or_no_server_could_start() {
    let made = made().await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let done = run(&made.cluster, &made.manifest, &salvaging(&dir)).await.unwrap();
    assert!(done.lost.is_empty() && !dir.join(LIST).exists());
    assert_restored(&dir);
    let control = files().into_iter().find(|(path, _)| *path == "global/pg_control").unwrap().1;
    made.rot(&made.chunk(&control)).await;
    let dir = scratch.path().join("other");
    let error = run(&made.cluster, &made.manifest, &salvaging(&dir)).await.unwrap_err();
    assert!(error.to_string().contains("global/pg_control itself is lost"), "{error}");
    assert!(!dir.join("global/pg_control").exists());
}

/// Files that are there may be the only copy of what the repository has lost.
#[tokio::test]
async fn zeros_are_not_written_over_a_data_directory() {
    let made = made().await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    run(&made.cluster, &made.manifest, &options(&dir)).await.unwrap();
    std::fs::remove_file(dir.join("recovery.signal")).unwrap();
    made.rot(&made.chunk(&table_file(3)[..4 * PAGE])).await;
    let delta = RestoreOptions { existing: Existing::Delta, ..salvaging(&dir) };
    let error = run(&made.cluster, &made.manifest, &delta).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_zeros(&dir, &[]);
    // Without it what is there is made use of: nothing is lost then.
    let delta = RestoreOptions { existing: Existing::Delta, ..options(&dir) };
    run(&made.cluster, &made.manifest, &delta).await.unwrap();
    assert_restored(&dir);
}

/// What an interrupted one has begun over may still be the only copy.
#[tokio::test]
async fn zeros_are_not_written_over_what_a_delta_restore_has_left_either() {
    let made = made().await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    run(&made.cluster, &made.manifest, &options(&dir)).await.unwrap();
    made.rot(&made.chunk(&table_file(7)[..4 * PAGE])).await;
    std::fs::write(dir.join("global/1262"), vec![7; 39 * PAGE + 100]).unwrap();
    let delta = RestoreOptions { existing: Existing::Delta, ..options(&dir) };
    let error = run(&made.cluster, &made.manifest, &delta).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    // Begun once more, it is still so.
    run(&made.cluster, &made.manifest, &options(&dir)).await.unwrap_err();
    let error = run(&made.cluster, &made.manifest, &salvaging(&dir)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let left = std::fs::read(dir.join("global/1262")).unwrap();
    assert!(left[..4 * PAGE].iter().all(|byte| *byte == 7), "the only copy");
}

#[tokio::test]
async fn a_store_that_fails_has_lost_nothing() {
    let made = made().await;
    let mut refused = 0;
    for nth in 1.. {
        let store = FailNth::over(
            made.shop.store.clone(),
            Calls::all(),
            nth,
            Lasting::ForEver,
            StoreErrorKind::Unavailable,
        );
        let cluster = match made.shop.cluster(store.clone()).await {
            Ok(cluster) => cluster,
            Err(_) => continue,
        };
        let scratch = TempDir::new().unwrap();
        let dir = scratch.path().join("data");
        match run(&cluster, &made.manifest, &salvaging(&dir)).await {
            Ok(done) => {
                assert!(done.lost.is_empty(), "at {nth}: {:?}", done.lost);
                return assert!(refused > 5, "{refused}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "at {nth}: {error}");
                refused += 1;
            }
        }
    }
}

#[tokio::test]
async fn an_interrupted_one_goes_on_and_tells_all_again() {
    let made = made().await;
    made.rot(&made.chunk(&table_file(7)[16 * PAGE..20 * PAGE])).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let refused = run(&made.cluster, &made.manifest, &options(&dir)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(dir.join(MARKER).exists());
    assert_eq!(made.told(&dir).await, ["global/1262: blocks 16 to 19"]);
    assert_zeros(&dir, &[("global/1262", 16 * PAGE..20 * PAGE)]);
}
