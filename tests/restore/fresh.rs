//! A repository copied to a fresh place, with only what one plan needs: a restore from there shows
//! that a manifest reaches all that it is made of, and that nothing on the first host helps.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::error::EngineError;
use pgrecall_pgformat::{SegmentName, SegmentNumber, SegmentSize, TimelineId};
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::map::FileMap;
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::format::table::{Entry, PieceMap};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::index::{Index, Purpose};
use pgrecall_repo::keys::{KeyFile, Unlock};
use pgrecall_repo::names::Name;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{OpenOptions, Repository};
use pgrecall_repo::{chunks, manifests};
use pgrecall_store::{DirectoryStore, RootPolicy, Store};
use serde_json::Value;

use crate::site::Site;

/// The site over a copy that holds what the plan for this target needs, and nothing else.
pub(crate) fn fresh_copy(site: &Site, target: &[&str]) -> Site {
    let mut words = vec!["plan", "--json"];
    words.extend_from_slice(target);
    let output = site.pgrecall(Path::new("/"), &words).output().expect("pgrecall runs");
    let plan: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let reached = reached(site, &plan);
    site.over_copy(|to| {
        for object in &reached {
            let target = to.join(object);
            std::fs::create_dir_all(target.parent().expect("a folder")).expect("folders");
            std::fs::copy(site.repository().join(object), target).expect("a copy");
        }
    })
}

/// The names of the objects that a plan needs.
fn reached(site: &Site, plan: &Value) -> BTreeSet<String> {
    let wal = wal_files(plan);
    let backup = plan["backup"]["id"].as_str().expect("an id");
    let packs = packs(site, backup);
    let mut kept = BTreeSet::new();
    for object in all_objects(site.repository(), site.repository()) {
        let parts: Vec<&str> = object.split('/').collect();
        let file = parts.last().copied().unwrap_or_default();
        let needed = match parts.as_slice() {
            ["domains", _, "packs", ..] => packs.contains(file),
            ["domains", _, "backups", ..] => file == backup,
            // Entries for packs that are not there do no harm.
            ["domains", _, "index" | "keys", ..] => true,
            ["domains", ..] => false,
            ["clusters", _, _, "wal", ..] => wal.contains(file),
            ["clusters", ..] | ["keys", ..] | ["store", ..] | ["pgrecall.json"] => true,
            other => panic!("nobody has said whether a restore needs {other:?}"),
        };
        if needed {
            kept.insert(object);
        }
    }
    kept
}

fn all_objects(root: &Path, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(all_objects(root, &path));
        } else {
            let below = path.strip_prefix(root).expect("below the root");
            found.push(below.to_str().expect("UTF-8").to_owned());
        }
    }
    found
}

fn wal_files(plan: &Value) -> HashSet<String> {
    let size = SegmentSize::DEFAULT;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut files = HashSet::new();
    for range in plan["segments"].as_array().expect("segments") {
        let parse = |value: &Value| SegmentName::parse(&text(value), size).expect("a segment");
        let (first, last) = (parse(&range["first"]), parse(&range["last"]));
        for number in first.number.0..=last.number.0 {
            let number = SegmentNumber(number);
            let timeline = TimelineId(first.timeline.0);
            files.insert(SegmentName { timeline, number }.file_name(size));
        }
    }
    for seed in plan["placed_in_pg_wal"].as_array().expect("seeds") {
        files.remove(&text(&seed["wanted"]));
        files.insert(text(&seed["stored"]));
    }
    files
}

/// The names of the packs that hold what the manifest reaches.
fn packs(site: &Site, backup: &str) -> HashSet<String> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let cluster = open(site).await;
        let (sealed, domain) = (&cluster.sealed, cluster.domain());
        let index = Index::open(sealed, domain, Purpose::Read).await.expect("an index");
        let listed = manifests::list(sealed, domain).await.expect("manifests");
        let mut valid = listed.valid.into_iter().map(|backup| backup.manifest);
        let manifest = valid.find(|manifest| manifest.backup.to_string() == backup);
        let manifest = manifest.expect("the plan's backup");
        let wanted = chunks_of(&cluster, &index, &manifest).await;
        let located = chunks::locate_all(sealed, domain, &index, &wanted).await;
        let located = located.expect("every chunk is in the index");
        located.iter().map(|(_, location)| location.pack.id.to_string()).collect()
    })
}

async fn open(site: &Site) -> ClusterStore {
    let store = DirectoryStore::open(site.repository(), RootPolicy::MustExist).await;
    let store: Arc<dyn Store> = Arc::new(store.expect("the repository"));
    let key = std::fs::read_to_string(site.key_file()).expect("the key file");
    let options = OpenOptions {
        id: None,
        suite: RootSuite::Aes256Gcm,
        fingerprint: None,
        unlock: Unlock::KeyFile(KeyFile::parse(&key).expect("a key")),
        random: SharedRandom::system(),
        cache: None,
    };
    let repository = Repository::open(store, options).await.expect("it opens");
    let main: Name = "main".parse().expect("a name");
    let lineages = ClusterStore::lineages(&repository, &main).await.expect("lineages");
    let [lineage] = lineages.as_slice() else { panic!("{lineages:?}") };
    ClusterStore::open(&repository, &main, &main, *lineage).await.expect("the cluster")
}

async fn chunks_of(cluster: &ClusterStore, index: &Index, manifest: &Manifest) -> HashSet<ChunkId> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let mut wanted: HashSet<ChunkId> = manifest.tables.iter().map(|table| table.id).collect();
    let mut maps: Vec<FileMap> = Vec::new();
    let mut map_chunks = HashSet::new();
    manifests::each_table(sealed, domain, index, manifest, |entries| {
        for piece in entries.iter().flat_map(Entry::pieces) {
            match &piece.map {
                PieceMap::Zeros => {}
                PieceMap::Inline(bytes) => maps.push(FileMap::decode(bytes).expect("a map")),
                PieceMap::Chunk { id, .. } => {
                    map_chunks.insert(*id);
                }
            }
        }
        Ok::<(), EngineError>(())
    })
    .await
    .expect("the file table reads");
    let read = chunks::read_many(sealed, domain, index, &map_chunks).await.expect("maps");
    maps.extend(read.values().map(|bytes| FileMap::decode(bytes).expect("a map")));
    wanted.extend(map_chunks);
    for map in &maps {
        wanted.extend(map.chunks.iter().map(|chunk| chunk.id));
        wanted.extend(map.hash_chunks.iter().map(|chunk| chunk.id));
    }
    wanted
}
