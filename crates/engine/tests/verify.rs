//! A repository with one backup and one real WAL segment, damaged in every way that storage can
//! damage it: verification says what is wrong, and what that means for recovery.

#[path = "verify/given_up.rs"]
mod given_up;
#[path = "verify/identity.rs"]
mod identity;
#[path = "verify/index.rs"]
mod index_lost;
#[path = "verify/lost_notes.rs"]
mod lost_notes;
#[path = "verify/missing_backup.rs"]
mod missing_backup;
#[path = "verify/wal.rs"]
mod wal;

use std::path::Path;
use std::sync::Arc;

use pgrecall_engine::archive::trailer::{self, Trailer};
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::{ClusterFacts, ClusterStore};
use pgrecall_engine::progress::Progress;
use pgrecall_engine::verify::finding::{Nature, Severity, VerifyReport};
use pgrecall_engine::verify::touched::BlockRange;
use pgrecall_engine::verify::{Depth, Notes, VerifyOptions, Which, verify};
use pgrecall_engine::{catalog, wal_place};
use pgrecall_pgformat::control::ControlFile;
use pgrecall_pgformat::relation::Fork;
use pgrecall_pgformat::segment::ArchiveNameKind;
use pgrecall_pgformat::segment_digest::digest_segment;
use pgrecall_pgformat::segment_summary::{HeadExtent, SegmentHead, SegmentSummary};
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, TimelineId};
use pgrecall_repo::backup::Claim;
use pgrecall_repo::codec::Level;
use pgrecall_repo::damaged_chunks::ChunkNotes;
use pgrecall_repo::format::document::{Manifest, TableChunk};
use pgrecall_repo::format::header::{KeyClass, Kind};
use pgrecall_repo::format::map::{Extent, FileMap, HashChunk, HashSource, MapChunk, Source};
use pgrecall_repo::format::table::{self, Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::id::{BackupId, ChunkId};
use pgrecall_repo::object::{self, Payload};
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{archive, names};
use pgrecall_store::{ErrorKind, Key, Put, Store};
use pgrecall_testkit::repositories::{InMemory, begin, begin_as};
use pgrecall_testkit::stores::{Calls, FailNth, Lasting};

const SEGMENT: &str = "000000010000000000000008";
const PAGE: usize = 8192;

struct Made {
    store: Arc<dyn Store>,
    repository: Arc<Repository>,
    cluster: ClusterStore,
    backup: BackupId,
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pg/17");
    std::fs::read(folder.join(name)).unwrap()
}

/// A repository in memory with a cluster, its segment and one backup.
async fn made() -> Made {
    let InMemory { store, repository, .. } = InMemory::create().await;
    let control = ControlFile::decode(&fixture("pg_control")).unwrap();
    let (domain, name) = ("main".parse().unwrap(), "main".parse().unwrap());
    let facts = ClusterFacts::of(&control);
    let cluster = ClusterStore::register(&repository, &domain, &name, facts).await.unwrap();
    push_segment(&cluster).await;
    let backup = push_backup(&cluster).await;
    Made { store, repository: Arc::new(repository), cluster, backup }
}

fn segment_name() -> SegmentName {
    let size = pgrecall_pgformat::SegmentSize::from_bytes(1 << 20).unwrap();
    SegmentName::parse(SEGMENT, size).unwrap()
}

fn segment_object(cluster: &ClusterStore) -> Key {
    let name = ArchiveName::Segment(segment_name());
    wal_place::object(&cluster.at, name, cluster.facts.wal_segment_size).unwrap()
}

async fn push_segment(cluster: &ClusterStore) {
    let mut bytes = fixture(&format!("{SEGMENT}.head"));
    bytes.resize(1 << 20, 0);
    let summary = digest_segment(segment_name(), cluster.facts.wal_segment_size, &bytes);
    assert!(summary.is_complete());
    let trailer = Trailer {
        version: trailer::VERSION,
        kind: ArchiveNameKind::Segment,
        name: SEGMENT.into(),
        plain_bytes: 1 << 20,
        summary: Some(summary),
        host: "db1".into(),
        pushed: "2026-11-22T00:00:00Z".into(),
    };
    push(cluster, &segment_object(cluster), &bytes, &trailer.encode()).await;
}

async fn push(cluster: &ClusterStore, name: &Key, bytes: &[u8], trailer: &[u8]) {
    let sealed = &cluster.sealed;
    let digest = sealed.keys().digest(bytes);
    let body: Vec<_> =
        object::frames_of(bytes).map(|part| Payload::compress(part, Level::default())).collect();
    let object = object::seal_archive(
        sealed.keys(),
        KeyClass::Data,
        name,
        digest,
        &body,
        trailer,
        sealed.random(),
    )
    .unwrap();
    archive::push(sealed, name, object).await.unwrap();
}

fn details(cluster: &ClusterStore) -> serde_json::Value {
    serde_json::json!({
        "began": "2026-11-22T00:00:00Z", "ended": "2026-11-22T00:01:00Z", "host": "db1",
        "major": cluster.facts.major, "server_version": 170011, "catalog_version": 202406281,
        "from": "primary",
        "start": {"timeline": TimelineId(1), "lsn": "0/800028"},
        "checkpoint_lsn": "0/800060",
        "stop": {"timeline": TimelineId(1), "lsn": "0/820000"},
        "backup_label": "", "tablespace_map": "", "tablespaces": [], "pg_wal_link": null,
        "page_size_bytes": PAGE, "wal_segment_size": cluster.facts.wal_segment_size,
        "relation_segment_pages": 131072,
        "data_checksums": pgrecall_pgformat::control::DataChecksums::Off,
        "chunk_bytes": 262144, "method": "full", "reference": null, "damage": [],
        "stats": {}, "saw_backups": [],
    })
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    let path = RelativePath::new(path.as_bytes()).unwrap();
    Entry { path, mode: 0o600, uid: 0, gid: 0, mtime_us: 0, kind }
}

/// The pages of the backup's one relation, all different.
fn relation() -> Vec<u8> {
    (0..64 * PAGE).map(|at| (at / PAGE * 7 + at % 251) as u8).collect()
}

async fn push_backup(cluster: &ClusterStore) -> BackupId {
    let session = begin(&cluster.sealed, &cluster.at).await;
    let keys = cluster.sealed.keys().clone();
    let builder = |kind| PackBuilder::new(&cluster.sealed, cluster.domain(), kind).unwrap();
    let (mut data, mut meta) = (builder(Kind::DataPack), builder(Kind::MetaPack));
    let add = |pack: &mut PackBuilder, plain: &[u8]| -> ChunkId {
        let id = keys.chunk_id(plain);
        assert_eq!(session.claim(&id), Claim::Store);
        pack.add(id, plain, Level::default()).unwrap();
        id
    };
    let bytes = relation();
    let hashes: Vec<u8> =
        bytes.chunks(PAGE).flat_map(|page| keys.page_hash(page).to_le_bytes()).collect();
    let hash_chunk = HashChunk { id: add(&mut meta, &hashes), plain_len: hashes.len() as u32 };
    let mut map = FileMap { page_size: PAGE as u32, ..FileMap::default() };
    map.hash_chunks.push(hash_chunk);
    for (number, part) in bytes.chunks(32 * PAGE).enumerate() {
        let hashes = HashSource::Shared { chunk: 0, first: number as u32 * 32 };
        let id = add(&mut data, part);
        map.chunks.push(MapChunk { id, plain_len: part.len() as u32, hashes });
        let source = Source::Chunk { chunk: number as u32, offset: 0 };
        map.extents.push(Extent { len: part.len() as u64, source });
    }
    let encoded = map.encode();
    let id = add(&mut meta, &encoded);
    let map_piece = PieceMap::Chunk { id, plain_len: encoded.len() as u32 };
    let pieces = vec![Piece { len: bytes.len() as u64, map: map_piece }];
    let entries =
        [entry("base", EntryKind::Directory), entry("base/5/16384", EntryKind::File(pieces))];
    let plain = table::encode(&entries);
    let tables = vec![TableChunk {
        first: "base".into(),
        entries: 2,
        id: add(&mut meta, &plain),
        plain_len: plain.len() as u32,
    }];
    for pack in [data, meta] {
        session.put_pack(pack.finish().unwrap()).await.unwrap();
    }
    let manifest = Manifest {
        backup: session.id(),
        cluster: "main".into(),
        lineage: cluster.at.lineage.clone(),
        tables,
        entries: 2,
        bytes: bytes.len() as u64,
        details: details(cluster),
    };
    session.commit(&manifest).await.unwrap();
    session.id()
}

async fn check(made: &Made, depth: Depth) -> VerifyReport {
    let options = VerifyOptions {
        notes: Notes::Written,
        depth,
        which: Which::All,
        missing: Vec::new(),
        clock: Clock::system(),
        host: "db1".into(),
        progress: Progress::silent(),
        cancel: Cancel::new(),
    };
    verify(&made.cluster, &options).await.unwrap()
}

impl Made {
    async fn names(&self, prefix: &str) -> Vec<Key> {
        let prefix = pgrecall_store::Prefix::parse(prefix).unwrap();
        let listed = self.cluster.sealed.list(&prefix).await.unwrap();
        assert!(!listed.is_empty(), "nothing below {prefix:?}");
        listed.into_iter().map(|object| object.key).collect()
    }

    /// From now on its cluster is read through another store.
    fn read_through(&mut self, store: Arc<dyn Store>) {
        let sealed = self.cluster.sealed.clone();
        self.cluster.sealed =
            SealedStore::new(store, sealed.keys().clone(), sealed.random().clone());
    }

    async fn replace(&self, name: &Key, change: impl Fn(&mut Vec<u8>)) {
        let mut bytes = self.store.get(name, 64 << 20).await.unwrap().to_vec();
        change(&mut bytes);
        self.store.delete(name).await.unwrap();
        assert!(matches!(self.store.put_if_absent(name, bytes.into()).await, Put::Created));
    }

    async fn flip(&self, name: &Key, at: usize) {
        self.replace(name, |bytes| bytes[at] ^= 1).await;
    }

    async fn flip_from_end(&self, name: &Key, at: usize) {
        self.replace(name, |bytes| {
            let at = bytes.len() - at;
            bytes[at] ^= 1;
        })
        .await;
    }
}

/// What the findings say, for assertions.
fn said(report: &VerifyReport) -> String {
    report
        .findings
        .iter()
        .map(|f| format!("{:?} {}: {} => {}\n", f.severity, f.object, f.what, f.consequence))
        .collect()
}

fn assert_damaged(report: &VerifyReport, words: &str) {
    let said = said(report);
    assert!(!report.sound, "{said}");
    assert!(said.contains(words), "no {words:?} in:\n{said}");
}

#[tokio::test]
async fn a_sound_repository_is_sound_and_what_was_read_is_counted() {
    let made = made().await;
    let report = check(&made, Depth::Structure).await;
    assert!(report.sound && report.findings.is_empty(), "{}", said(&report));
    assert_eq!(report.checked.read_bytes, 0);
    // Two data chunks, one of hashes, a map and a table.
    assert_eq!((report.checked.chunks, report.checked.packs), (5, 2));
    assert_eq!((report.checked.backups, report.checked.entries), (1, 2));
    assert_eq!(report.checked.wal_segments, 1);
    let verdict = &report.backups[0];
    assert!(verdict.restorable && verdict.backup == made.backup);
    assert_eq!(verdict.reach[0].until_lsn.to_string(), "0/900000");
    assert!(verdict.reach[0].until_time.as_deref().is_some_and(|time| time.starts_with("20")));
    let report = check(&made, Depth::ReadData).await;
    assert!(report.sound && report.findings.is_empty(), "{}", said(&report));
    assert!(report.checked.read_bytes > (1 << 20) + 64 * PAGE as u64);
}

#[tokio::test]
async fn a_pack_that_is_gone_is_found_by_looking_and_names_the_files() {
    let made = made().await;
    for pack in made.names("domains/main/packs/data/").await {
        made.store.delete(&pack).await.unwrap();
    }
    let report = check(&made, Depth::Structure).await;
    assert_damaged(&report, "1 files cannot be had whole: base/5/16384: blocks 0 to ");
    assert_damaged(&report, "the pack is not there");
    assert!(!report.backups[0].restorable);
    assert_eq!(report.backups[0].bad_files, 1);
    let [file] = report.backups[0].touched.as_slice() else { panic!("{:#?}", report.backups) };
    let relation = file.relation.as_ref().unwrap();
    assert_eq!((relation.filenode, relation.fork), (16384, Fork::Main));
    let blocks = |range: &BlockRange| range.last + 1 - range.first;
    let lost: u64 = relation.blocks.iter().map(blocks).sum();
    assert_eq!(file.lost_bytes, lost * PAGE as u64, "{file:#?}");
    assert!(file.text().starts_with("base/5/16384: blocks 0 to "), "{}", file.text());
}

#[tokio::test]
async fn a_pack_whose_directory_rots_is_told_of_and_is_sound_enough() {
    for (from_end, at) in [(true, 40), (false, 10)] {
        let made = made().await;
        for pack in made.names("domains/main/packs/data/").await {
            match from_end {
                true => made.flip_from_end(&pack, at).await,
                false => made.flip(&pack, at).await,
            }
        }
        let report = check(&made, Depth::ReadData).await;
        let said = said(&report);
        assert!(said.contains("its header or its directory does not read"), "{said}");
        assert!(report.sound && report.backups[0].restorable, "{said}");
    }
}

#[tokio::test]
async fn a_cut_pack_counts_as_gone() {
    let made = made().await;
    let pack = made.names("domains/main/packs/data/").await.remove(0);
    made.replace(&pack, |bytes| bytes.truncate(bytes.len() - 1)).await;
    let report = check(&made, Depth::Structure).await;
    assert_damaged(&report, "the index says");
    assert!(!report.backups[0].restorable);
}

#[tokio::test]
async fn a_reader_who_may_not_put_is_told_all_the_same() {
    let mut made = made().await;
    let pack = made.names("domains/main/packs/data/").await.remove(0);
    made.flip(&pack, 120).await;
    let denied = ErrorKind::Denied;
    let store = FailNth::over(made.store.clone(), Calls::puts(), 1, Lasting::ForEver, denied);
    let (keys, random) = (made.cluster.sealed.keys().clone(), made.cluster.sealed.random().clone());
    made.cluster.sealed = SealedStore::new(store, keys, random);
    let report = check(&made, Depth::ReadData).await;
    assert_damaged(&report, ": every stored copy of chunk");
    assert_damaged(&report, "which chunks are bad could not be written down");
    assert!(!report.backups[0].restorable && report.checked.wal_segments == 1);
}

#[tokio::test]
async fn a_rotten_chunk_is_found_by_reading_noted_and_stored_again() {
    let made = made().await;
    let pack = made.names("domains/main/packs/data/").await.remove(0);
    made.flip(&pack, 120).await;
    let report = check(&made, Depth::Structure).await;
    assert!(report.sound, "only reading can tell: {}", said(&report));
    let report = check(&made, Depth::ReadData).await;
    assert_damaged(&report, ": every stored copy of chunk");
    assert!(!report.backups[0].restorable);
    let noted = ChunkNotes::read(&made.cluster.sealed, made.cluster.domain()).await.unwrap();
    assert_eq!(noted.chunks.len(), 1);
    // From now on looking is enough, and the next backup has to store it again.
    assert_damaged(&check(&made, Depth::Structure).await, "every stored copy");
    let session = begin(&made.cluster.sealed, &made.cluster.at).await;
    let bytes = relation();
    let keys = made.cluster.sealed.keys();
    let mut pack =
        PackBuilder::new(&made.cluster.sealed, made.cluster.domain(), Kind::DataPack).unwrap();
    let mut stored = 0;
    for part in bytes.chunks(32 * PAGE) {
        let id = keys.chunk_id(part);
        if session.claim(&id) == Claim::Store {
            pack.add(id, part, Level::default()).unwrap();
            stored += 1;
        }
    }
    assert_eq!(stored, 1);
    session.put_pack(pack.finish().unwrap()).await.unwrap();
    session.abandon().await.unwrap();
    // The good copy heals the old backup, too.
    for depth in [Depth::Structure, Depth::ReadData] {
        let report = check(&made, depth).await;
        assert!(report.sound && report.backups[0].restorable, "{}", said(&report));
    }
}

#[tokio::test]
async fn metadata_that_rots_is_found_by_looking() {
    let made = made().await;
    let pack = made.names("domains/main/packs/meta/").await.remove(0);
    let size = made.store.head(&pack).await.unwrap().size;
    let mut found = [0; 3];
    // Hashes, map and table lie one after the other.
    for at in (100..usize::try_from(size).unwrap() - 100).step_by(20) {
        made.flip(&pack, at).await;
        let report = check(&made, Depth::Structure).await;
        let said = said(&report);
        found[0] += usize::from(said.contains("file table does not read"));
        found[1] += usize::from(said.contains(": its map"));
        found[2] += usize::from(report.sound);
        made.flip(&pack, at).await;
    }
    assert!(found.iter().all(|count| *count > 0), "{found:?}");
    for pack in made.names("domains/main/packs/meta/").await {
        made.store.delete(&pack).await.unwrap();
    }
    assert_damaged(&check(&made, Depth::Structure).await, "file table does not read");
}

/// Says that the next version of the program wrote it.
fn newer(bytes: &mut [u8]) {
    bytes[8] += 1;
    seal_header(bytes);
}

/// Takes that back.
fn older(bytes: &mut [u8]) {
    bytes[8] -= 1;
    seal_header(bytes);
}

fn seal_header(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[..88]);
    bytes[88..92].copy_from_slice(&crc.to_le_bytes());
}

#[tokio::test]
async fn what_another_version_wrote_is_no_damage_and_hides_none() {
    let made = made().await;
    let index = made.names("domains/main/index/").await.remove(0);
    let data = made.names("domains/main/packs/data/").await;
    // A second index object, of a newer version.
    let other = renamed(&index);
    let bytes = made.store.get(&index, 64 << 20).await.unwrap();
    assert!(matches!(made.store.put_if_absent(&other, bytes).await, Put::Created));
    made.replace(&other, |bytes| newer(bytes)).await;
    let report = check(&made, Depth::ReadData).await;
    assert!(report.sound && report.backups[0].restorable, "{}", said(&report));
    let own = report.findings.iter().find(|finding| finding.object == other.as_str()).unwrap();
    assert_eq!((own.severity, own.nature), (Severity::Warning, Nature::OtherVersion));
    // What only it may name is found in the packs, and nobody can judge what they do not say either.
    let first = made.store.get(&index, 64 << 20).await.unwrap();
    made.store.delete(&index).await.unwrap();
    let report = check(&made, Depth::ReadData).await;
    assert!(report.sound && report.backups[0].restorable, "{}", said(&report));
    for pack in &data {
        made.replace(pack, |bytes| newer(bytes)).await;
    }
    let report = check(&made, Depth::Structure).await;
    assert_eq!(report.gravest(), Some(Nature::OtherVersion), "{}", said(&report));
    assert!(matches!(made.store.put_if_absent(&index, first).await, Put::Created));
    // What a pack held that is lost is lost.
    for pack in &data {
        made.store.delete(pack).await.unwrap();
    }
    for depth in [Depth::Structure, Depth::ReadData] {
        let report = check(&made, depth).await;
        assert_eq!(report.gravest(), Some(Nature::Wrong), "{}", said(&report));
    }
}

/// Another name that an object of this kind could have.
fn renamed(name: &Key) -> Key {
    let (rest, last) = name.as_str().split_at(name.as_str().len() - 1);
    Key::parse(&format!("{rest}{}", if last == "a" { "e" } else { "a" })).unwrap()
}

#[tokio::test]
async fn a_directory_of_another_version_is_told_as_that() {
    let made = made().await;
    for pack in made.names("domains/main/packs/data/").await {
        made.replace(&pack, |bytes| newer(bytes)).await;
    }
    let report = check(&made, Depth::ReadData).await;
    assert!(report.sound && report.backups[0].restorable, "{}", said(&report));
    let natures: Vec<_> = report.findings.iter().map(|f| (f.severity, f.nature)).collect();
    assert_eq!(natures, [(Severity::Warning, Nature::OtherVersion)], "{}", said(&report));
}

#[tokio::test]
async fn a_manifest_that_does_not_read_is_damage() {
    let made = made().await;
    let object = names::manifest(&made.cluster.at, made.backup);
    made.replace(&object, |bytes| bytes.truncate(bytes.len() / 2)).await;
    let report = check(&made, Depth::Structure).await;
    assert_damaged(&report, "its manifest does not read");
    assert!(report.backups.is_empty());
}

#[tokio::test]
async fn the_catalog_tells_backups_reach_wal_and_what_is_under_way() {
    let made = made().await;
    begin_as(&made.cluster.sealed, &made.cluster.at, 4_000_000).await;
    let read = catalog::read(&made.cluster, &Clock::system(), "db1").await.unwrap();
    let row = &read.backups[0];
    assert!(row.wal_complete && row.id == made.backup && row.bytes == 64 * PAGE as u64);
    assert_eq!(row.reach[0].until_lsn.to_string(), "0/900000");
    assert_eq!(row.reach[0].next_segment, "000000010000000000000009");
    assert_eq!(read.under_way.len(), 1);
    assert!(read.under_way[0].looks_dead.as_deref().is_some_and(|why| why.contains("4000000")));
    let json = serde_json::to_value(&read).unwrap();
    assert_eq!(json["timelines"][0]["ranges"][0]["first"], SEGMENT);
    assert_eq!(json["backups"][0]["start"]["lsn"], "0/800028");
    assert_eq!(json["system_identifier"], made.cluster.at.lineage);
    // Seen from elsewhere nobody can tell whether the process lives.
    let read = catalog::read(&made.cluster, &Clock::system(), "db2").await.unwrap();
    assert!(read.under_way[0].looks_dead.is_none() || read.under_way[0].age_s > Some(86_400));
}
