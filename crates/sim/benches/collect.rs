//! What a collection of a large domain costs: its requests, the processor's time, and the time that
//! it takes where requests are answered as an object store does. The store is simulated, and so is
//! that time: the clock stands still while anybody can go on.
//!
//! `PGRECALL_BENCH_PACKS` says how many packs there are. Ten backups have each stored a tenth of
//! them, and refer to a quarter of the chunks of the two before; the first five have expired. So of
//! ten packs three go, two are copied, and five stay.

#![expect(clippy::print_stdout, reason = "this is what it is run for")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use pgrecall_engine::backup::Host;
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::collection::carry_out::carry_out;
use pgrecall_engine::collection::dead::{DeadRule, Sightings};
use pgrecall_engine::collection::plan::{CollectRequest, plan};
use pgrecall_engine::collection::policy::Policy;
use pgrecall_engine::progress::Progress;
use pgrecall_repo::backup::{BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::expired::{ExpiredLog, remove_manifests};
use pgrecall_repo::format::document::{Expired, Manifest, TableChunk};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::map::{Extent, FileMap, HashSource, MapChunk, Source};
use pgrecall_repo::format::table::{self, Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{
    ByteRange, Key, Listed, ObjectMeta, Prefix, Put, RangeRead, Store, StoreError,
};
use pgrecall_testkit::chunked_backups::at;
use pgrecall_testkit::repositories::{InMemory, begin};

const BACKUPS: u64 = 10;
const EXPIRED: usize = 5;
const CHUNKS_OF_A_PACK: u64 = 4;
/// Chunks of a file's piece, as in backups: 64 MiB of 256 KiB each.
const CHUNKS_OF_A_MAP: usize = 256;
const MAPS_OF_A_TABLE: usize = 500;
const CHUNK_BYTES: u32 = 16;

/// How long an object store takes for a request.
const ANSWER: Duration = Duration::from_millis(30);
/// And to make an object durable.
const PUT: Duration = Duration::from_millis(80);
const PAGE: usize = 1000;

fn main() {
    let packs = std::env::var("PGRECALL_BENCH_PACKS")
        .map_or(10_000, |text| text.parse().expect("PGRECALL_BENCH_PACKS is a number"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(measure(packs));
}

async fn measure(packs: u64) {
    let made = InMemory::create().await;
    let sealed = made.repository.domain(&at().domain).await.expect("a new domain");
    let mut ids = Vec::new();
    let mut earlier: Vec<Vec<ChunkId>> = Vec::new();
    for number in 0..BACKUPS {
        let session = begin(&sealed, &at()).await;
        let own = store(&session, number, packs / BACKUPS).await;
        let mut wanted = own.clone();
        for before in earlier.iter().rev().take(2) {
            let quarter = before.iter().step_by(usize::try_from(CHUNKS_OF_A_PACK).expect("few"));
            wanted.extend(quarter.filter(|id| session.refer(id)));
        }
        commit(&session, &wanted).await;
        ids.push(session.id());
        earlier.push(own);
    }
    let log = ExpiredLog::read(&sealed, &at().domain).await.expect("the log");
    let more = Expired { backups: ids[..EXPIRED].to_vec(), ..Expired::default() };
    log.append(&sealed, &at().domain, more).await.expect("the log is written");
    remove_manifests(&sealed, &at().domain).await.expect("manifests go");

    let remote = Arc::new(Remote::over(made.store.clone()));
    let (keys, random) = (sealed.keys().clone(), sealed.random().clone());
    let sealed = SealedStore::new(remote.clone(), keys, random);
    println!("{packs} packs of {CHUNKS_OF_A_PACK} chunks");
    for run in ["first", "second"] {
        collect(&sealed, &remote, run).await;
    }
}

async fn collect(sealed: &SealedStore, remote: &Remote, run: &str) {
    let mut request = CollectRequest {
        policy: Policy::default(),
        dead: DeadRule {
            host: Host { name: "db2".into(), process: 2 },
            after: None,
            clock: Clock::system(),
        },
        sightings: Sightings::default(),
        progress: Progress::silent(),
        cancel: Cancel::new(),
    };
    let watch = Watch::start(remote);
    let planned = plan(sealed, &at().domain, &mut request).await.expect("a plan");
    watch.tell(&format!("{run} collection, the plan"));
    let watch = Watch::start(remote);
    let done = carry_out(sealed, planned, &request).await.expect("it is carried out");
    watch.tell(&format!("{run} collection, carried out"));
    println!(
        "  {} packs removed, {} chunks copied, {} index objects merged to {}",
        done.removed_packs, done.copied_chunks, done.merged_objects, done.index_objects
    );
}

/// Stores chunks, and gives their ids.
async fn store(session: &BackupSession, number: u64, packs: u64) -> Vec<ChunkId> {
    let mut ids = Vec::new();
    for pack in 0..packs {
        let plain = |chunk: u64| {
            let number = (number * packs + pack) * CHUNKS_OF_A_PACK + chunk;
            [number.to_le_bytes(), (!number).to_le_bytes()].concat()
        };
        let plains: Vec<Vec<u8>> = (0..CHUNKS_OF_A_PACK).map(plain).collect();
        ids.extend(put(session, Kind::DataPack, &plains).await);
    }
    ids
}

async fn put(session: &BackupSession, kind: Kind, plains: &[Vec<u8>]) -> Vec<ChunkId> {
    let mut pack = PackBuilder::new(session.sealed(), &at().domain, kind).expect("a pack");
    let mut ids = Vec::new();
    for plain in plains {
        let id = session.sealed().keys().chunk_id(plain);
        if session.claim(&id) == Claim::Store {
            pack.add(id, plain, Level::default()).expect("it fits");
        }
        ids.push(id);
    }
    if !pack.is_empty() {
        session.put_pack(pack.finish().expect("a pack")).await.expect("it is put");
    }
    ids
}

/// A backup of one file that has these chunks.
async fn commit(session: &BackupSession, chunks: &[ChunkId]) {
    let maps: Vec<Vec<u8>> = chunks.chunks(CHUNKS_OF_A_MAP).map(map_of).collect();
    let mut tables = Vec::new();
    for (number, part) in maps.chunks(MAPS_OF_A_TABLE).enumerate() {
        let ids = put(session, Kind::MetaPack, part).await;
        let pieces = part.iter().zip(ids).map(|(map, id)| Piece {
            len: FileMap::decode(map).expect("a map").len(),
            map: PieceMap::Chunk { id, plain_len: len32(map) },
        });
        let path = format!("file{number:06}");
        let entry = Entry {
            path: RelativePath::new(path.as_bytes()).expect("a path"),
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime_us: 0,
            kind: EntryKind::File(pieces.collect()),
        };
        let plain = table::encode(&[entry]);
        let id = put(session, Kind::MetaPack, std::slice::from_ref(&plain)).await[0];
        tables.push(TableChunk { first: path, entries: 1, id, plain_len: len32(&plain) });
    }
    let manifest = Manifest {
        backup: session.id(),
        cluster: at().cluster.to_string(),
        lineage: at().lineage,
        entries: tables.len() as u64,
        tables,
        bytes: 0,
        details: Default::default(),
    };
    session.commit(&manifest).await.expect("it commits");
}

fn map_of(chunks: &[ChunkId]) -> Vec<u8> {
    let mut map = FileMap::default();
    for (number, id) in (0..).zip(chunks) {
        map.chunks.push(MapChunk { id: *id, plain_len: CHUNK_BYTES, hashes: HashSource::None });
        let source = Source::Chunk { chunk: number, offset: 0 };
        map.extents.push(Extent { len: CHUNK_BYTES.into(), source });
    }
    map.encode()
}

fn len32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("it is short")
}

/// What happens between two moments.
struct Watch<'a> {
    remote: &'a Remote,
    before: [u64; 4],
    began: Instant,
    began_there: tokio::time::Instant,
}

impl<'a> Watch<'a> {
    fn start(remote: &'a Remote) -> Self {
        let (began, began_there) = (Instant::now(), tokio::time::Instant::now());
        Self { remote, before: remote.counts(), began, began_there }
    }

    fn tell(&self, what: &str) {
        let (after, before) = (self.remote.counts(), self.before);
        let [reads, lists, puts, deletes] = [0, 1, 2, 3].map(|kind| after[kind] - before[kind]);
        println!(
            "{what}: {reads} reads, {lists} pages of listings, {puts} puts, {deletes} deletes; \
             {:.1} s of work, {:.0} s of waiting for the store",
            self.began.elapsed().as_secs_f64(),
            self.began_there.elapsed().as_secs_f64()
        );
    }
}

/// An object store that is far away.
struct Remote {
    inner: Arc<dyn Store>,
    counts: [AtomicU64; 4],
}

#[derive(Clone, Copy)]
enum Asks {
    Read,
    List,
    Put,
    Delete,
}

impl Remote {
    fn over(inner: Arc<dyn Store>) -> Self {
        Self { inner, counts: Default::default() }
    }

    fn counts(&self) -> [u64; 4] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    async fn wait(&self, asks: Asks) {
        self.counts[asks as usize].fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(if matches!(asks, Asks::Put) { PUT } else { ANSWER }).await;
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

#[async_trait]
impl Store for Remote {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put {
        self.wait(Asks::Put).await;
        self.inner.put_if_absent(key, body).await
    }

    async fn put_once(&self, key: &Key, body: Bytes) -> Put {
        self.wait(Asks::Put).await;
        self.inner.put_once(key, body).await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.wait(Asks::Read).await;
        self.inner.get(key, limit_bytes).await
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        self.wait(Asks::Read).await;
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.wait(Asks::Read).await;
        self.inner.head(key).await
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        let pages = self.inner.list(prefix).try_chunks(PAGE).map_err(|failed| failed.1);
        let answered = pages.and_then(async move |page| {
            self.wait(Asks::List).await;
            Ok(futures::stream::iter(page.into_iter().map(Ok)))
        });
        answered.try_flatten().boxed()
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
        self.wait(Asks::List).await;
        self.inner.list_folders(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.wait(Asks::Delete).await;
        self.inner.delete(key).await
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}
