//! Makes the golden repositories: tiny ones that hold every kind of object that version 2 knows.
//!
//! The same seed gives the same ids, keys and salts, so a repository can be made again; what is
//! committed under `tests/fixtures/repo/` is never made again, since its point is to be old.

use std::path::Path;
use std::sync::{Arc, Mutex};

use pgrecall_repo::backup::{self, BackupNote, BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::damaged_wal::{Say, WalNotes};
use pgrecall_repo::error::RepoError;
use pgrecall_repo::format::document::{
    DamagedChunk, Expired, Identity, Manifest, Promise, Resolution, RetireVerdict, Shredded,
    ShreddedLineage, StoreRecord, TableChunk,
};
use pgrecall_repo::format::header::{KeyClass, Kind};
use pgrecall_repo::format::map::{Extent, FileMap, HashChunk, HashSource, MapChunk, Source};
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::format::table::{self, Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::gc;
use pgrecall_repo::id::{BackupId, ChunkId, PackId};
use pgrecall_repo::index;
use pgrecall_repo::keys::{KeyFile, Unlock};
use pgrecall_repo::names::{self, ClusterRef, RoundPart};
use pgrecall_repo::object::{self, Payload};
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::random::{Random, SharedRandom};
use pgrecall_repo::repository::{Created, KeyNote, OpenOptions, Repository};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{DirectoryStore, RootPolicy, Store};
use serde_json::Value;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The passphrase of the encrypted repositories' second key.
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// The cluster in them.
pub(crate) const LINEAGE: &str = "7123456789012345678";

const PAGE: usize = 8192;
const NOW: &str = "2026-11-22T14:03:07Z";

/// Which repository to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Everything sealed.
    Encrypted,
    /// Nothing sealed, everything checksummed.
    Clear,
}

/// Files by name, with their bytes.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// What a repository holds, for those who compare.
#[derive(Debug)]
pub(crate) struct Made {
    /// The key file's text; empty in the clear.
    pub(crate) key: String,
    /// The backups that exist, in the order in which they were made, with their files.
    pub(crate) backups: Vec<(BackupId, Files)>,
    /// Archived files.
    pub(crate) archived: Files,
}

/// Numbers that look random and are the same each time (splitmix64): never for keys that matter.
struct Seeded(Mutex<u64>);

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock().unwrap();
        for part in buffer.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = *state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            part.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..part.len()]);
        }
    }
}

fn seeded(sort: Sort) -> SharedRandom {
    SharedRandom::new(Seeded(Mutex::new(if sort == Sort::Clear { 1 } else { 2 })))
}

fn at() -> ClusterRef {
    ClusterRef {
        domain: "main".parse().unwrap(),
        cluster: "shop".parse().unwrap(),
        lineage: LINEAGE.into(),
    }
}

/// How a repository of this sort is opened.
pub(crate) fn options(sort: Sort, unlock: Unlock, random: SharedRandom) -> OpenOptions {
    let suite = match sort {
        Sort::Encrypted => RootSuite::Aes256Gcm,
        Sort::Clear => RootSuite::None,
    };
    OpenOptions {
        id: None,
        suite,
        fingerprint: None,
        unlock,
        random,
        cache: None,
        restore_keys: Vec::new(),
    }
}

/// A store over a directory.
pub(crate) async fn directory(path: &Path, root: RootPolicy) -> Arc<dyn Store> {
    Arc::new(DirectoryStore::open(path, root).await.unwrap())
}

/// Makes a repository in an empty directory.
pub(crate) async fn make(path: &Path, sort: Sort) -> Made {
    let random = seeded(sort);
    let store = directory(path, RootPolicy::Create).await;
    let file = KeyFile::random(&random);
    let (unlock, key) = match sort {
        Sort::Encrypted => (Unlock::KeyFile(file.clone()), file.to_text().to_string()),
        Sort::Clear => (Unlock::Nothing, String::new()),
    };
    let note = KeyNote { label: "db1 \"quoted\" ü".into(), now: NOW.into() };
    let created = Repository::create(store, options(sort, unlock, random), &note).await.unwrap();
    let Created::New(repository) = created else { panic!("{} is not empty", path.display()) };
    let record = StoreRecord { put_if_absent: Promise::Kept, note: "probed".into() };
    let entry = names::store_log().entry(0);
    repository.sealed().put(Kind::StoreRecord, &entry, &record).await.unwrap();
    if sort == Sort::Encrypted {
        let person = Unlock::Passphrase(Zeroizing::new(PASSPHRASE.into()));
        let note = KeyNote { label: "the safe".into(), now: NOW.into() };
        repository.add_key(&person, &note).await.unwrap();
    }
    let sealed = repository.domain(&at().domain).await.unwrap();
    put_identity(&sealed).await;
    let (first, contents) = first_backup(&sealed).await;
    let archived = archive(&sealed).await;
    // The second backup is in a later epoch, and refers to chunks of the first.
    repository.rotate(&at().domain, pgrecall_repo::keys::Rotation::Sealing, None).await.unwrap();
    let sealed = repository.existing_domain(&at().domain).await.unwrap();
    let (second, later) = second_backup(&sealed, &contents).await;
    debris(&sealed, first).await;
    shred(&repository).await;
    Made { key, backups: vec![(first, contents.files), (second, later)], archived }
}

async fn put_identity(sealed: &SealedStore) {
    let identity = Identity {
        cluster: "shop".into(),
        lineage: LINEAGE.into(),
        domain: "main".into(),
        details: serde_json::json!({
            "system_identifier": LINEAGE.parse::<u64>().unwrap(), "major": 17,
            "page_size_bytes": PAGE, "wal_segment_size": 16 << 20,
        }),
    };
    let name = names::cluster_object(&at(), "identity").unwrap();
    sealed.put(Kind::Identity, &name, &identity).await.unwrap();
}

/// Pages that compress, but for every third.
fn pages(count: usize, seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    (0..count * PAGE)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if (at / PAGE) % 3 == 2 { (state >> 56) as u8 } else { (at / 64) as u8 ^ seed }
        })
        .collect()
}

/// Chunks on their way into packs.
struct Writer<'a> {
    session: &'a BackupSession,
    data: PackBuilder,
    meta: PackBuilder,
}

impl<'a> Writer<'a> {
    fn new(session: &'a BackupSession) -> Self {
        let builder = |kind| PackBuilder::new(session.sealed(), &at().domain, kind).unwrap();
        Self { session, data: builder(Kind::DataPack), meta: builder(Kind::MetaPack) }
    }

    fn add(&mut self, kind: Kind, plain: &[u8]) -> ChunkId {
        let id = self.session.sealed().keys().chunk_id(plain);
        if self.session.claim(&id) == Claim::Store {
            let pack = if kind == Kind::DataPack { &mut self.data } else { &mut self.meta };
            pack.add(id, plain, Level::default()).unwrap();
        }
        id
    }

    fn hashes(&self, plain: &[u8]) -> Vec<u64> {
        let keys = self.session.sealed().keys();
        plain.chunks(PAGE).map(|page| keys.page_hash(page)).collect()
    }

    async fn finish(self) -> Result<(), RepoError> {
        for pack in [self.data, self.meta] {
            if !pack.is_empty() {
                self.session.put_pack(pack.finish()?).await?;
            }
        }
        Ok(())
    }

    /// Stores a table in two chunks, and the manifest.
    async fn commit(mut self, entries: &[Entry]) {
        let mut tables = Vec::new();
        for part in entries.chunks(entries.len().div_ceil(2)) {
            let plain = table::encode(part);
            tables.push(TableChunk {
                first: part[0].path.to_string(),
                entries: part.len() as u64,
                id: self.add(Kind::MetaPack, &plain),
                plain_len: plain.len() as u32,
            });
        }
        let session = self.session;
        self.finish().await.unwrap();
        let manifest = Manifest {
            backup: session.id(),
            cluster: "shop".into(),
            lineage: LINEAGE.into(),
            tables,
            entries: entries.len() as u64,
            bytes: entries.iter().map(Entry::len).sum(),
            details: serde_json::json!({"host": "db1", "began": NOW}),
        };
        session.commit(&manifest).await.unwrap();
    }
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    let path = RelativePath::new(path.as_bytes()).unwrap();
    let mtime_us = 1_795_356_187_000_000;
    Entry { path, mode: 0o600, uid: 26, gid: 26, mtime_us, kind }
}

fn inline(map: &FileMap) -> Vec<Piece> {
    vec![Piece { len: map.len(), map: PieceMap::Inline(map.encode()) }]
}

fn whole(id: ChunkId, len: usize) -> FileMap {
    FileMap {
        chunks: vec![MapChunk { id, plain_len: len as u32, hashes: HashSource::None }],
        extents: vec![Extent { len: len as u64, source: Source::Chunk { chunk: 0, offset: 0 } }],
        ..FileMap::default()
    }
}

async fn begin(sealed: &SealedStore) -> BackupSession {
    let note = BackupNote {
        host: "db1".into(),
        process: 4711,
        incarnation: String::new(),
        began: NOW.into(),
    };
    let session = BackupSession::begin(sealed.clone(), at(), &note).await.unwrap();
    session.put_start("1".into(), "0/2000028".into()).await.unwrap();
    session
}

/// What the first backup leaves for the second.
struct Contents {
    files: Vec<(String, Vec<u8>)>,
    entries: Vec<Entry>,
    table_map: FileMap,
    table: Vec<u8>,
}

async fn first_backup(sealed: &SealedStore) -> (BackupId, Contents) {
    let session = begin(sealed).await;
    let mut writer = Writer::new(&session);
    // A table of 12 pages in two chunks, its hashes in a chunk of their own, and a map in a third.
    let relation = pages(12, 7);
    let (front, back) = relation.split_at(8 * PAGE);
    let hashes: Vec<u8> =
        writer.hashes(&relation).iter().flat_map(|hash| hash.to_le_bytes()).collect();
    let hash_chunk = writer.add(Kind::MetaPack, &hashes);
    let mut chunk = |plain: &[u8], first| MapChunk {
        id: writer.add(Kind::DataPack, plain),
        plain_len: plain.len() as u32,
        hashes: HashSource::Shared { chunk: 0, first },
    };
    let map = FileMap {
        page_size: PAGE as u32,
        hash_chunks: vec![HashChunk { id: hash_chunk, plain_len: hashes.len() as u32 }],
        chunks: vec![chunk(front, 0), chunk(back, 8)],
        extents: vec![
            Extent { len: 8 * PAGE as u64, source: Source::Chunk { chunk: 0, offset: 0 } },
            Extent { len: 4 * PAGE as u64, source: Source::Chunk { chunk: 1, offset: 0 } },
        ],
    };
    let encoded = map.encode();
    let map_chunk = writer.add(Kind::MetaPack, &encoded);
    let map_piece = PieceMap::Chunk { id: map_chunk, plain_len: encoded.len() as u32 };
    let table_pieces = vec![
        Piece { len: relation.len() as u64, map: map_piece },
        Piece { len: 2 * PAGE as u64, map: PieceMap::Zeros },
    ];
    let mut small = |plain: &[u8]| whole(writer.add(Kind::DataPack, plain), plain.len());
    let (version, configuration) = (b"17\n".to_vec(), b"port = 5432\n".to_vec());
    let (version_map, configuration_map) = (small(&version), small(&configuration));
    let entries = vec![
        entry("PG_VERSION", EntryKind::File(inline(&version_map))),
        entry("base", EntryKind::Directory),
        entry("base/5", EntryKind::Directory),
        entry("base/5/16384", EntryKind::File(table_pieces)),
        entry("base/5/16385", EntryKind::File(vec![])),
        entry("pg_tblspc/16400", EntryKind::Link(b"/srv/fast".to_vec())),
        entry(
            "postgresql.conf",
            EntryKind::Outside(b"/etc/postgresql/shop.conf".to_vec(), inline(&configuration_map)),
        ),
    ];
    let mut table = relation;
    table.resize(14 * PAGE, 0);
    let files = vec![
        ("PG_VERSION".to_owned(), version),
        ("base/5/16384".to_owned(), table.clone()),
        ("base/5/16385".to_owned(), Vec::new()),
        ("postgresql.conf".to_owned(), configuration),
    ];
    writer.commit(&entries).await;
    (session.id(), Contents { files, entries, table_map: map, table })
}

/// Pages 2 and 9 of the table have changed.
async fn second_backup(
    sealed: &SealedStore,
    before: &Contents,
) -> (BackupId, Vec<(String, Vec<u8>)>) {
    let session = begin(sealed).await;
    let mut writer = Writer::new(&session);
    let patch = pages(2, 99);
    let hashes = HashSource::Inline(writer.hashes(&patch));
    let id = writer.add(Kind::DataPack, &patch);
    let mut map = before.table_map.clone();
    for chunk in &map.chunks {
        assert!(session.refer(&chunk.id), "the first backup's chunks are there");
    }
    map.chunks.push(MapChunk { id, plain_len: patch.len() as u32, hashes });
    let extent = |pages: usize, chunk, page: usize| Extent {
        len: (pages * PAGE) as u64,
        source: Source::Chunk { chunk, offset: (page * PAGE) as u32 },
    };
    map.extents = vec![
        extent(2, 0, 0),
        extent(1, 2, 0),
        extent(5, 0, 3),
        extent(1, 1, 0),
        extent(1, 2, 1),
        extent(2, 1, 2),
        Extent { len: 2 * PAGE as u64, source: Source::Zeros },
    ];
    let mut table = before.table.clone();
    table[2 * PAGE..3 * PAGE].copy_from_slice(&patch[..PAGE]);
    table[9 * PAGE..10 * PAGE].copy_from_slice(&patch[PAGE..]);
    let mut entries = before.entries.clone();
    entries[3].kind = EntryKind::File(inline(&map));
    let mut files = before.files.clone();
    files[1].1 = table;
    writer.commit(&entries).await;
    (session.id(), files)
}

/// A segment of two frames, a history file, and a segment with two contents.
async fn archive(sealed: &SealedStore) -> Vec<(String, Vec<u8>)> {
    let segment: Vec<u8> = (0..(1 << 20) + 5000_u32).map(|at| (at >> 12) as u8).collect();
    let history = b"1\t0/3000000\tno recovery target specified\n".to_vec();
    let files = [
        ("wal/16MiB/00000001/00000000", "000000010000000000000002", segment),
        ("timelines", "00000002.history", history),
    ];
    let mut archived = Vec::new();
    for (folder, file, plain) in files {
        put_archived(sealed, (folder, file), "", &plain).await;
        archived.push((file.to_owned(), plain));
    }
    archived.push(settled(sealed).await);
    archived
}

/// Puts a file under its name, or under that and what stands behind it.
async fn put_archived(
    sealed: &SealedStore,
    (folder, file): (&str, &str),
    behind: &str,
    plain: &[u8],
) -> String {
    let name = names::cluster_object(&at(), &format!("{folder}/{file}{behind}")).unwrap();
    let body: Vec<_> =
        object::frames_of(plain).map(|part| Payload::compress(part, Level::default())).collect();
    let (keys, digest) = (sealed.keys(), sealed.keys().digest(plain));
    let trailer = serde_json::json!({
        "version": 1, "kind": if folder == "timelines" { "history" } else { "segment" },
        "name": file, "plain_bytes": plain.len(), "summary": null,
        "host": "db1", "pushed": NOW,
    });
    let trailer = trailer.to_string().into_bytes();
    let object =
        object::seal_archive(keys, KeyClass::Data, &name, digest, &body, &trailer, sealed.random())
            .unwrap();
    pgrecall_repo::archive::push(sealed, &name, object).await.unwrap();
    name.to_string()
}

/// A segment of which a person has chosen the content that was not the first: gives that one.
async fn settled(sealed: &SealedStore) -> (String, Vec<u8>) {
    let at_name @ (folder, file) = ("wal/16MiB/00000001/00000000", "000000010000000000000001");
    let (first, chosen) = (vec![1; 5000], vec![2; 6000]);
    put_archived(sealed, at_name, "", &first).await;
    let mut holds = String::new();
    for plain in [&first, &chosen] {
        let digest = sealed.keys().digest(plain).to_string();
        holds = put_archived(sealed, at_name, &format!(".{}", &digest[..16]), plain).await;
    }
    let resolution = Resolution {
        object: holds,
        reason: "the other one came from a test copy".into(),
        by: "a person".into(),
        heals: false,
    };
    let name = names::cluster_object(&at(), &format!("{folder}/{file}.resolved")).unwrap();
    sealed.put(Kind::Resolution, &name, &resolution).await.unwrap();
    (file.to_owned(), chosen)
}

/// What is left of backups that died, and notes of all sorts.
async fn debris(sealed: &SealedStore, first: BackupId) {
    begin(sealed).await;
    let dead = begin(sealed).await;
    backup::end_dead(sealed, &at(), dead.id(), "its host is gone".into()).await.unwrap();
    let expired = Expired { backups: vec![dead.id()], ..Expired::default() };
    let entry = names::expired(&at().domain).entry(0);
    sealed.put(Kind::Expired, &entry, &expired).await.unwrap();
    let note = DamagedChunk {
        pack: PackId::random(sealed.random()),
        chunk: sealed.keys().chunk_id(b"a chunk that rotted"),
    };
    backup::report_damage(sealed, &at(), vec![note], format!("after {first}")).await.unwrap();
    // A collection that waits for the backup that began above.
    let gone = PackId::random(sealed.random());
    let round = gc::retire(sealed, &at().domain, vec![gone]).await.unwrap();
    let verdict = names::round(&at().domain, round, RoundPart::Verdict);
    let none = RetireVerdict { packs: vec![gone] };
    sealed.put(Kind::RetireVerdict, &verdict, &none).await.unwrap();
    let say = Say { found: "verify on db1".into(), ..Say::default() };
    WalNotes::default().put_next(sealed, &at(), say).await.unwrap();
    assert!(!index::list_packs(sealed, &at().domain).await.unwrap().is_empty());
}

/// A domain whose keys were deleted.
async fn shred(repository: &Repository) {
    let domain = "gone".parse().unwrap();
    let lineage = ShreddedLineage {
        cluster: "old".into(),
        lineage: "7000000000000000001".into(),
        backups: 2,
        identity: hex(b"its identity"),
    };
    let mark = Shredded {
        domain: "gone".into(),
        at: NOW.into(),
        host: "db1".into(),
        lineages: vec![lineage],
    };
    repository.shred(&domain, &mark).await.unwrap();
}

/// The SHA-256 of some bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a repository holds, as `contents.json` says it: files by the SHA-256 of their contents.
pub(crate) fn contents(made: &Made) -> Value {
    let sums = |files: &[(String, Vec<u8>)]| -> Value {
        files.iter().map(|(name, bytes)| (name.clone(), Value::from(hex(bytes)))).collect()
    };
    let backups: serde_json::Map<String, Value> =
        made.backups.iter().map(|(id, files)| (id.to_string(), sums(files))).collect();
    serde_json::json!({"backups": backups, "archived": sums(&made.archived)})
}
