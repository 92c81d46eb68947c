//! Seeds out of the golden repositories: their objects as they lie in the store, and what is inside
//! of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrecall_repo::archive;
use pgrecall_repo::chunks;
use pgrecall_repo::codec::{self, Level};
use pgrecall_repo::format::document::{
    Document, RetireVerdict, Retired, RetiredIntents, Shredded, ShreddedLineage,
};
use pgrecall_repo::format::frame::Codec;
use pgrecall_repo::format::header::{Header, Kind};
use pgrecall_repo::format::map::FileMap;
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::format::table::{self, PieceMap};
use pgrecall_repo::format::{bytes::Reader, index::IndexHead};
use pgrecall_repo::id::{BackupId, PackId};
use pgrecall_repo::index::{Index, Purpose};
use pgrecall_repo::keys::{RestoreKey, Unlock};
use pgrecall_repo::names::{self, ClusterRef, Name};
use pgrecall_repo::object::Proof;
use pgrecall_repo::object::{self, TrailerRead};
use pgrecall_repo::random::{Random, SharedRandom};
use pgrecall_repo::repository::{OpenOptions, Repository};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{DirectoryStore, Key, RootPolicy};

use crate::corpus::{Corpus, fixtures};

/// Bytes that are the same each time.
struct Sevens;

impl Random for Sevens {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/repo/v2")
}

pub(crate) async fn write(corpus: &Corpus) {
    for (name, bytes) in fixtures("repo/v2/encrypted/repository/keys") {
        corpus.add("key_wrap", &bytes);
        corpus.add("object_name", format!("keys/{name}").as_bytes());
    }
    let key = fs::read(folder().join("encrypted/key")).expect("the golden key is read");
    corpus.add("key_file", &key);
    let restore_key = RestoreKey::random(&SharedRandom::new(Sevens));
    corpus.add("key_file", restore_key.to_text().as_bytes());
    for sort in ["clear", "encrypted"] {
        let root = folder().join(sort).join("repository/pgrecall.json");
        corpus.add("root_object", &fs::read(root).expect("the golden root is read"));
    }
    write_clear(corpus).await;
    write_rounds(corpus);
    write_frames(corpus);
}

/// No golden repository is in the middle of a collection.
fn write_rounds(corpus: &Corpus) {
    let packs = vec![PackId::from_bytes([1; 16])];
    let at = ClusterRef {
        domain: "main".parse().expect("a name"),
        cluster: "main".parse().expect("a name"),
        lineage: "7".into(),
    };
    let intents = vec![names::intent(&at, BackupId::from_bytes([2; 16])).to_string()];
    corpus.add("document", &Retired { packs: packs.clone() }.encode());
    corpus.add("document", &RetiredIntents { intents }.encode());
    corpus.add("document", &RetireVerdict { packs }.encode());
    let (cluster, lineage, identity) = ("main".into(), "1".into(), "00".repeat(32));
    let of = ShreddedLineage { cluster, lineage, backups: 3, identity };
    let (domain, at) = ("main".into(), "2026-11-27T00:00:00Z".into());
    let mark = Shredded { domain, at, host: "db1".into(), lineages: vec![of] };
    corpus.add("document", &mark.encode());
}

/// The repository in the clear can be opened without a key; inside both are alike.
async fn write_clear(corpus: &Corpus) {
    let path = folder().join("clear/repository");
    let store = DirectoryStore::open(&path, RootPolicy::MustExist).await.expect("it opens");
    let options = OpenOptions {
        id: None,
        suite: RootSuite::None,
        fingerprint: None,
        unlock: Unlock::Nothing,
        random: SharedRandom::system(),
        cache: None,
        restore_keys: Vec::new(),
    };
    let repository = Repository::open(Arc::new(store), options).await.expect("it opens");
    let domain: Name = "main".parse().expect("a name");
    let sealed = repository.existing_domain(&domain).await.expect("it has a domain");
    for (name, object) in objects(&path) {
        corpus.add("object_name", name.as_bytes());
        let Ok(header) = Header::decode(&mut Reader::new(&object)) else { continue };
        let front = usize::try_from(header.encoded_len()).expect("a short header");
        corpus.add("object_header", &object[..front]);
        let keys = if name.starts_with("domains/main/keys/")
            || !name.contains("/main/") && !name.starts_with("clusters/")
        {
            repository.sealed()
        } else {
            &sealed
        };
        write_inside(corpus, keys, &Key::parse(&name).expect("a name"), &header, &object);
    }
    write_tables(corpus, &sealed, &domain).await;
    write_archived(corpus, &sealed).await;
}

fn objects(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(folder).expect("below it").to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.starts_with('.') {
                found.insert(name, fs::read(&path).expect("an object"));
            }
        }
    }
    found
}

fn write_inside(corpus: &Corpus, sealed: &SealedStore, name: &Key, header: &Header, object: &[u8]) {
    let keys = sealed.keys();
    match header.kind {
        Kind::DataPack | Kind::MetaPack | Kind::Archive => {
            let read = object::open_trailer(keys, header, name, object).expect("it opens");
            let TrailerRead::Trailer(plain) = read else { panic!("all of it is here") };
            let target = match header.kind {
                Kind::Archive => "wal_trailer",
                _ => "pack_directory",
            };
            corpus.add(target, &plain);
            let end = object.len().saturating_sub(plain.len() + 64);
            corpus.add("object_tail", &object[end..]);
        }
        Kind::Index => {
            let mut frames = Vec::new();
            object::open_frames(keys, Kind::Index, name, object, |frame| {
                frames.push(frame.to_vec());
                Ok(())
            })
            .expect("it opens");
            let head = IndexHead::decode(&frames[0]).expect("a head");
            corpus.add("index_head", &frames[0]);
            let packs = u8::try_from(head.packs.len()).expect("few packs");
            for block in &frames[1..] {
                corpus.add("index_block", &[&[packs], block.as_slice()].concat());
            }
        }
        kind => {
            let plain = object::open_blob(keys, kind, name, object, 1 << 20).expect("it opens");
            corpus.add("document", &plain);
        }
    }
}

async fn write_tables(corpus: &Corpus, sealed: &SealedStore, domain: &Name) {
    let index = Index::open(sealed, domain, Purpose::Read).await.expect("it has an index");
    let backups = pgrecall_repo::manifests::list(sealed, domain).await.expect("it has backups");
    for backup in backups.valid {
        let ids = backup.manifest.tables.iter().map(|table| table.id).collect();
        let tables = chunks::read_many(sealed, domain, &index, &ids).await.expect("tables");
        for plain in tables.values() {
            corpus.add("file_table", plain);
            for entry in table::decode(plain).expect("a table") {
                for piece in entry.pieces() {
                    let map = match &piece.map {
                        PieceMap::Zeros => continue,
                        PieceMap::Inline(map) => map.clone(),
                        PieceMap::Chunk { id, .. } => {
                            let ids = [*id].into();
                            let mut read =
                                chunks::read_many(sealed, domain, &index, &ids).await.expect("map");
                            read.remove(id).expect("the map")
                        }
                    };
                    FileMap::decode(&map).expect("a map");
                    corpus.add("file_map", &map);
                }
            }
        }
    }
}

async fn write_archived(corpus: &Corpus, sealed: &SealedStore) {
    for object in sealed.list(&names::clusters()).await.expect("a list") {
        if !object.key.as_str().ends_with(".history") {
            continue;
        }
        let mut plain = Vec::new();
        archive::fetch(sealed, &object.key, 1 << 20, Proof::Hash, |part| {
            plain.extend_from_slice(part);
        })
        .await
        .expect("it opens");
        corpus.add("timeline_history", &plain);
        let trailer = archive::read_trailer(sealed, &object.key).await.expect("it opens").plain;
        corpus.add("archived_file", &[&[1], plain.as_slice(), &[0], &trailer].concat());
    }
}

/// A byte for the codec, the plain length, and the payload.
fn write_frames(corpus: &Corpus) {
    let plain: Vec<u8> = (0..20_000_u32).map(|at| (at >> 8) as u8).collect();
    for len in [0, 100, plain.len()] {
        let plain = &plain[..len];
        let mut packed = Vec::new();
        let codec = codec::compress(plain, Level::default(), &mut packed);
        let length = u32::try_from(len).expect("short").to_le_bytes();
        let payload = if codec == Codec::Zstd { packed.as_slice() } else { plain };
        let byte = u8::from(codec == Codec::Zstd);
        corpus.add("frame", &[&[byte], length.as_slice(), payload].concat());
    }
}
