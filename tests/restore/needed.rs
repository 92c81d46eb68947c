//! The objects of a repository that one plan needs, and a copy that holds nothing else: a restore
//! from there shows that a manifest reaches all that it is made of.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt as _;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::details::BackupDetails;
use pgrecall_engine::error::EngineError;
use pgrecall_pgformat::{SegmentName, SegmentNumber, SegmentSize, TimelineId};
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::map::FileMap;
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::format::table::{Entry, PieceMap};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::index::{Index, Purpose};
use pgrecall_repo::keys::{KeyFile, Unlock};
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{OpenOptions, Repository};
use pgrecall_repo::{chunks, manifests};
use pgrecall_store::{DirectoryStore, Listed, Prefix, Put, RootPolicy, Store};
use serde_json::Value;

/// Copies what a plan (`pgrecall plan --json`) needs into an empty store.
pub(crate) async fn copy_needed(
    from: Arc<dyn Store>,
    to: &dyn Store,
    key_file: &Path,
    plan: &Value,
) {
    let (cluster, manifest) = find(Arc::clone(&from), key_file, plan).await;
    let details = BackupDetails::of(&manifest).expect("its details");
    let needed = Needed {
        wal: wal_files(plan, details.wal_segment_size),
        packs: packs(&cluster, &manifest).await,
        backup: manifest.backup.to_string(),
        domain: cluster.domain().to_string(),
        cluster: cluster.at.cluster.to_string(),
        lineage: cluster.at.lineage.clone(),
    };
    let listed: Vec<Listed> = from.list(&Prefix::root()).try_collect().await.expect("a listing");
    let mut copied = BTreeSet::new();
    for object in listed.into_iter().filter(|object| needed.holds(object.key.as_str())) {
        let bytes = from.get(&object.key, object.size).await.expect("the object");
        let put = to.put_if_absent(&object.key, bytes).await;
        assert!(matches!(put, Put::Created), "{}: {put:?}", object.key.as_str());
        copied.insert(object.key.file_name().to_owned());
    }
    let named = needed.wal.iter().chain(&needed.packs).chain([&needed.backup]);
    let missing: Vec<&String> = named.filter(|name| !copied.contains(*name)).collect();
    assert!(missing.is_empty(), "planned, and not there: {missing:?}");
}

/// As [`copy_needed`], from a folder into another, which is made.
#[allow(dead_code, reason = "not every repository is a folder")]
pub(crate) fn copy_folder(from: &Path, to: &Path, key_file: &Path, plan: &Value) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let from = DirectoryStore::open(from, RootPolicy::MustExist).await.expect("a store");
        let to = DirectoryStore::open(to, RootPolicy::Create).await.expect("a store");
        copy_needed(Arc::new(from), &to, key_file, plan).await;
    });
}

/// What somebody writes on another host: where the copy is, what pins it and how it is opened. Of
/// the old configuration only the pins, the way to an S3 server and the cluster's name are left.
pub(crate) fn configuration(old: &Path, url: &str, key_file: &Path, cache: &Path) -> String {
    let text = std::fs::read_to_string(old).expect("a configuration");
    let old: toml::Table = text.parse().expect("TOML");
    let first = |section: &str| old[section][0].as_table().expect("a section").clone();
    let mut repository = toml::Table::new();
    for (name, path) in [("key_file", key_file), ("cache_dir", cache)] {
        repository.insert(name.to_owned(), path.display().to_string().into());
    }
    repository.insert("url".to_owned(), url.into());
    let pins = first("repository");
    repository.extend(
        pins.into_iter().filter(|(name, _)| ["id", "key_fingerprint", "s3"].contains(&&**name)),
    );
    let mut cluster = first("cluster");
    cluster.retain(|name, _| name == "name");
    let section = |table: toml::Table| toml::Value::Array(vec![table.into()]);
    let sections = [("repository", section(repository)), ("cluster", section(cluster))];
    let new: toml::Table =
        sections.into_iter().map(|(name, section)| (name.to_owned(), section)).collect();
    new.to_string()
}

/// What the plan names.
struct Needed {
    wal: HashSet<String>,
    packs: HashSet<String>,
    backup: String,
    domain: String,
    cluster: String,
    lineage: String,
}

impl Needed {
    fn holds(&self, object: &str) -> bool {
        let parts: Vec<&str> = object.split('/').collect();
        let file = parts.last().copied().unwrap_or_default();
        match parts.as_slice() {
            ["domains", domain, ..] if *domain != self.domain => false,
            ["domains", _, "packs", ..] => self.packs.contains(file),
            ["domains", _, "backups", ..] => file == self.backup,
            // Entries for packs that are not there do no harm.
            ["domains", _, "index" | "keys", ..] => true,
            ["domains", ..] => false,
            ["clusters", cluster, lineage, ..]
                if (*cluster, *lineage) != (&self.cluster, &self.lineage) =>
            {
                false
            }
            ["clusters", _, _, "wal", ..] => self.wal.contains(file),
            ["clusters", ..] | ["keys", ..] | ["store", ..] | ["pgrecall.json"] => true,
            other => panic!("nobody has said whether a restore needs {other:?}"),
        }
    }
}

fn wal_files(plan: &Value, size: SegmentSize) -> HashSet<String> {
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
async fn packs(cluster: &ClusterStore, manifest: &Manifest) -> HashSet<String> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let index = Index::open(sealed, domain, Purpose::Read).await.expect("an index");
    let wanted = chunks_of(cluster, &index, manifest).await;
    let located = chunks::locate_all(sealed, &index, &wanted).await;
    let located = located.expect("every chunk is in the index");
    located.iter().map(|(_, location)| location.pack.id.to_string()).collect()
}

/// The plan's backup, and the lineage that it is of.
async fn find(store: Arc<dyn Store>, key_file: &Path, plan: &Value) -> (ClusterStore, Manifest) {
    let backup = plan["backup"]["id"].as_str().expect("an id");
    let key = std::fs::read_to_string(key_file).expect("the key file");
    let options = OpenOptions {
        id: None,
        suite: RootSuite::Aes256Gcm,
        fingerprint: None,
        unlock: Unlock::KeyFile(KeyFile::parse(&key).expect("a key")),
        random: SharedRandom::system(),
        cache: None,
        restore_keys: Vec::new(),
    };
    let repository = Repository::open(store, options).await.expect("it opens");
    for name in ClusterStore::clusters(&repository).await.expect("clusters") {
        for lineage in ClusterStore::lineages(&repository, &name).await.expect("lineages") {
            let found = ClusterStore::find(&repository, &name, &name, lineage).await;
            let cluster = found.expect("the cluster");
            let listed = manifests::list(&cluster.sealed, cluster.domain()).await;
            let mut valid =
                listed.expect("manifests").valid.into_iter().map(|found| found.manifest);
            let manifest = valid.find(|manifest| {
                let (own, at) = (manifest, &cluster.at);
                own.backup.to_string() == backup
                    && (own.cluster == at.cluster.as_str() && own.lineage == at.lineage)
            });
            if let Some(manifest) = manifest {
                return (cluster, manifest);
            }
        }
    }
    panic!("no lineage has backup {backup}");
}

async fn chunks_of(cluster: &ClusterStore, index: &Index, manifest: &Manifest) -> HashSet<ChunkId> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let mut wanted: HashSet<ChunkId> = manifest.tables.iter().map(|table| table.id).collect();
    let mut maps: Vec<FileMap> = Vec::new();
    let mut map_chunks = HashSet::new();
    manifests::each_table(sealed, domain, index, &manifest.tables, |entries| {
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
