//! What is copied comes back byte for byte: whole, patched, torn, grown, cut, damaged.

mod torn;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::Mutex;

use pgrecall_repo::backup::BackupNote;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::map::{FileMap, Source as MapSource};
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::format::table::{Entry, EntryKind, RelativePath};
use pgrecall_repo::index::{Index, Purpose};
use pgrecall_repo::keys::Unlock;
use pgrecall_repo::names::ClusterRef;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{Created, KeyNote, OpenOptions, Repository};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{chunks, manifests};
use pgrecall_store::MemoryStore;

use super::*;
use crate::backup::assemble;
use crate::backup::map_builder::MapBuilder;
use crate::backup::page_scan::PageContext;
use crate::backup::piece::{PieceCopy, PieceOptions};
use crate::backup::proof::read_control;
use crate::backup::reference::{OldPage, OldPiece};
use crate::backup::source::{Listing, SourceFile};
use crate::backup::table_writer;
use crate::details::tests::details;
use crate::details::{BackupDetails, DamagedFile};

const PAGE: usize = 8192;

/// How a file misbehaves while it is read.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Calm,
    /// The first read of each offset gives the second half of every page as it was before.
    TornOnce,
    /// Every read finds some pages in the middle of a write, another one each time.
    TornAlways,
}

/// Whether a page is torn by [`Mood::TornAlways`].
const fn is_torn(block: usize) -> bool {
    block % 7 == 3
}

struct FakeSource {
    files: BTreeMap<String, Vec<u8>>,
    mood: Mood,
    /// What one read after the other of the control file gives; none is copied without them.
    controls: Mutex<VecDeque<Vec<u8>>>,
}

struct FakeFile {
    bytes: Vec<u8>,
    mood: Mood,
    seen: Mutex<HashSet<u64>>,
    reads: AtomicUsize,
}

impl FakeFile {
    fn new(bytes: Vec<u8>, mood: Mood) -> Self {
        Self { bytes, mood, seen: Mutex::default(), reads: AtomicUsize::new(0) }
    }
}

impl SourceFile for FakeFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap().min(self.bytes.len());
        let len = buffer.len().min(self.bytes.len() - start);
        buffer[..len].copy_from_slice(&self.bytes[start..start + len]);
        let first = self.seen.lock().unwrap().insert(offset);
        if self.mood == Mood::TornAlways {
            let reads = self.reads.fetch_add(1, Ordering::Relaxed) as u8;
            let start = usize::try_from(offset).unwrap() / PAGE;
            for (number, page) in buffer[..len].chunks_exact_mut(PAGE).enumerate() {
                if is_torn(start + number) {
                    page[PAGE / 2..].fill(0x80 | reads);
                }
            }
        }
        if self.mood == Mood::TornOnce && first && len > PAGE {
            for page in buffer[..len].chunks_exact_mut(PAGE) {
                page[PAGE / 2..].fill(0xee);
            }
        }
        Ok(len)
    }
}

impl Source for FakeSource {
    fn list(&self) -> Result<Listing, EngineError> {
        let entries = self
            .files
            .iter()
            .map(|(path, bytes)| SourceEntry {
                path: path.clone().into_bytes(),
                mode: 0o600,
                uid: 1,
                gid: 1,
                mtime_us: 0,
                kind: SourceKind::File { len: bytes.len() as u64 },
                read_at: None,
            })
            .collect();
        Ok(Listing { entries, ..Listing::default() })
    }

    fn open(&self, entry: &SourceEntry) -> Result<Option<Box<dyn SourceFile>>, EngineError> {
        let path = String::from_utf8(entry.path.clone()).unwrap();
        Ok(self
            .files
            .get(&path)
            .map(|bytes| Box::new(FakeFile::new(bytes.clone(), self.mood)) as Box<dyn SourceFile>))
    }

    fn control_file(&self) -> Result<Vec<u8>, EngineError> {
        Ok(self.controls.lock().unwrap().pop_front().expect("no more reads are foreseen"))
    }
}

fn at() -> ClusterRef {
    ClusterRef {
        domain: "main".parse().unwrap(),
        cluster: "main".parse().unwrap(),
        lineage: "7".into(),
    }
}

async fn domain() -> SealedStore {
    let options = OpenOptions {
        id: None,
        suite: RootSuite::None,
        fingerprint: None,
        unlock: Unlock::Nothing,
        random: SharedRandom::system(),
        cache: None,
        restore_keys: Vec::new(),
    };
    let note = KeyNote { label: "test".into(), now: "now".into() };
    let store = Arc::new(MemoryStore::new());
    match Repository::create(store, options, &note).await.unwrap() {
        Created::New(repository) => repository.domain(&at().domain).await.unwrap(),
        Created::Taken(_) => panic!("an empty store holds no repository"),
    }
}

/// A page with a right checksum and an old LSN.
fn page(block: u32, fill: u8) -> Vec<u8> {
    page_of(block, fill, Lsn(0))
}

fn page_of(block: u32, fill: u8, lsn: Lsn) -> Vec<u8> {
    let mut page = vec![0_u8; PAGE];
    page[..4].copy_from_slice(&((lsn.0 >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn.0 as u32).to_le_bytes());
    page[12..14].copy_from_slice(&24_u16.to_le_bytes()); // pd_lower
    page[14..16].copy_from_slice(&2048_u16.to_le_bytes()); // pd_upper
    page[16..18].copy_from_slice(&8192_u16.to_le_bytes()); // pd_special
    page[18..20].copy_from_slice(&0x2004_u16.to_le_bytes()); // size and version
    for (at, byte) in page[2048..].iter_mut().enumerate() {
        *byte = fill.wrapping_add((at % 7) as u8);
    }
    let checksum = pgrecall_pgformat::page_check::page_checksum(&page, block).unwrap();
    page[8..10].copy_from_slice(&checksum.to_le_bytes());
    page
}

fn relation(pages: u32, fill: u8) -> Vec<u8> {
    (0..pages).flat_map(|block| page(block, fill.wrapping_add(block as u8))).collect()
}

fn options() -> CopyOptions {
    CopyOptions {
        threads: 3,
        level: Level::default(),
        chunk_bytes: 256 << 10,
        page_size: 8192,
        relation_segment_pages: 131_072,
        checksums: PageChecksums::On,
        start_lsn: Lsn(1 << 40),
    }
}

struct Taken {
    manifest: Manifest,
    bad: Vec<(String, Vec<BadPage>)>,
    new_bytes: u64,
}

/// Backs the source up, with the backup before as the reference.
async fn back_up(sealed: &SealedStore, source: FakeSource, before: Option<&Manifest>) -> Taken {
    back_up_of(sealed, at(), options(), source, before).await
}

/// The same of another cluster, or a cluster of other settings.
async fn back_up_of(
    sealed: &SealedStore,
    at: ClusterRef,
    options: CopyOptions,
    source: FakeSource,
    before: Option<&Manifest>,
) -> Taken {
    let note = BackupNote {
        host: "h".into(),
        process: 1,
        incarnation: String::new(),
        began: "now".into(),
    };
    let session = BackupSession::begin(sealed.clone(), at.clone(), &note).await.unwrap();
    let session = Arc::new(session);
    let reference = match before {
        Some(manifest) => Some(Reference::read(&session, manifest).await.unwrap()),
        None => None,
    };
    let listing = source.list().unwrap();
    let source = Arc::new(source);
    let (copier, putting) = Copier::start(
        session.clone(),
        source.clone(),
        reference,
        options,
        Cancel::new(),
        Progress::silent(),
    );
    let control = control_entry(&source, &copier).await;
    let keys = sealed.keys().clone();
    let (tables, bad, new_bytes) = tokio::task::spawn_blocking(move || {
        let files = copier.copy(&listing.entries).unwrap();
        let names = listing.entries.iter().map(|e| String::from_utf8(e.path.clone()).unwrap());
        let bad = names
            .zip(&files)
            .filter(|(_, file)| !file.bad.is_empty())
            .map(|(name, file)| (name, file.bad.clone()))
            .collect::<Vec<_>>();
        let mut entries: Vec<Entry> = listing
            .entries
            .iter()
            .zip(files)
            .filter_map(|(entry, file)| {
                Some(Entry {
                    path: RelativePath::new(&entry.path).unwrap(),
                    mode: 0,
                    uid: 0,
                    gid: 0,
                    mtime_us: 0,
                    kind: EntryKind::File(file.pieces?),
                })
            })
            .collect();
        entries.extend(control);
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let new_bytes = copier.counters.new.load(Ordering::Relaxed);
        let tables = table_writer::write(&copier, &keys, &entries).unwrap();
        copier.flush_meta().unwrap();
        (tables, bad, new_bytes)
    })
    .await
    .unwrap();
    putting.await.unwrap().unwrap();
    let manifest = Manifest {
        backup: session.id(),
        cluster: at.cluster.to_string(),
        lineage: at.lineage,
        tables,
        entries: 0,
        bytes: 0,
        details: details_with(&bad).to_value(),
    };
    session.commit(&manifest).await.unwrap();
    Taken { manifest, bad, new_bytes }
}

/// The control file, read and stored as a backup does.
async fn control_entry(source: &FakeSource, copier: &Arc<Copier>) -> Option<Entry> {
    if source.controls.lock().unwrap().is_empty() {
        return None;
    }
    let (bytes, _) = read_control(|| source.control_file()).await.unwrap();
    let pgdata = tempfile::tempdir().unwrap();
    std::fs::create_dir(pgdata.path().join("global")).unwrap();
    std::fs::write(pgdata.path().join("global/pg_control"), &bytes).unwrap();
    Some(assemble::control_entry(pgdata.path(), copier, bytes).await.unwrap())
}

/// Details that name the bad pages as damage.
fn details_with(bad: &[(String, Vec<BadPage>)]) -> BackupDetails {
    let damage = bad.iter().map(|(path, pages)| DamagedFile {
        path: path.clone(),
        blocks: pages.iter().map(|page| page.block).collect(),
        count: pages.len() as u64,
    });
    BackupDetails { damage: damage.collect(), ..details() }
}

/// The map of a file of one piece.
async fn map_of(sealed: &SealedStore, manifest: &Manifest, path: &str) -> FileMap {
    let domain = &at().domain;
    let index = Index::open(sealed, domain, Purpose::Read).await.unwrap();
    let mut found = None;
    manifests::each_table::<EngineError>(sealed, domain, &index, &manifest.tables, |part| {
        found = found.take().or(part.into_iter().find(|entry| entry.path.to_string() == path));
        Ok(())
    })
    .await
    .unwrap();
    let entry = found.unwrap();
    match &entry.pieces()[0].map {
        PieceMap::Zeros => panic!("{path} is all zeros"),
        PieceMap::Inline(map) => FileMap::decode(map).unwrap(),
        PieceMap::Chunk { id, .. } => {
            let wanted = HashSet::from([*id]);
            let read = chunks::read_many(sealed, domain, &index, &wanted).await.unwrap();
            FileMap::decode(&read[id]).unwrap()
        }
    }
}

/// Every file of a backup, put together from its maps.
async fn restored(sealed: &SealedStore, manifest: &Manifest) -> BTreeMap<String, Vec<u8>> {
    let domain = &at().domain;
    let index = Index::open(sealed, domain, Purpose::Read).await.unwrap();
    let mut entries = Vec::new();
    manifests::each_table::<EngineError>(sealed, domain, &index, &manifest.tables, |part| {
        entries.extend(part);
        Ok(())
    })
    .await
    .unwrap();
    let mut files = BTreeMap::new();
    for entry in entries {
        let mut bytes = Vec::new();
        for piece in entry.pieces() {
            let map = match &piece.map {
                PieceMap::Zeros => {
                    bytes.resize(bytes.len() + usize::try_from(piece.len).unwrap(), 0);
                    continue;
                }
                PieceMap::Inline(map) => map.clone(),
                PieceMap::Chunk { id, .. } => {
                    let wanted = HashSet::from([*id]);
                    let mut read =
                        chunks::read_many(sealed, domain, &index, &wanted).await.unwrap();
                    read.remove(id).unwrap()
                }
            };
            let map = FileMap::decode(&map).unwrap();
            assert_eq!(map.len(), piece.len);
            let wanted = map.chunks.iter().map(|chunk| chunk.id).collect();
            let read = chunks::read_many(sealed, domain, &index, &wanted).await.unwrap();
            for extent in &map.extents {
                let len = usize::try_from(extent.len).unwrap();
                match extent.source {
                    MapSource::Zeros => bytes.resize(bytes.len() + len, 0),
                    MapSource::Chunk { chunk, offset } => {
                        let plain = &read[&map.chunks[chunk as usize].id];
                        bytes.extend_from_slice(&plain[offset as usize..offset as usize + len]);
                    }
                }
            }
        }
        files.insert(entry.path.to_string(), bytes);
    }
    files
}

fn calm(files: &BTreeMap<String, Vec<u8>>) -> FakeSource {
    FakeSource { files: files.clone(), mood: Mood::Calm, controls: Mutex::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_a_changing_directory_come_back_byte_for_byte() {
    let sealed = domain().await;
    let mut files = BTreeMap::from([
        ("PG_VERSION".to_owned(), b"17\n".to_vec()),
        ("base/5/16384".to_owned(), relation(9000, 1)),
        ("base/5/16385".to_owned(), relation(3, 2)),
        ("base/5/16386".to_owned(), Vec::new()),
        ("base/5/16387".to_owned(), vec![0; 100 * PAGE]),
        ("pg_xact/0000".to_owned(), vec![0x55; 300_000]),
    ]);
    let first = back_up(&sealed, calm(&files), None).await;
    assert_eq!(restored(&sealed, &first.manifest).await, files);
    let again = back_up(&sealed, calm(&files), Some(&first.manifest)).await;
    assert!(again.new_bytes < 10_000, "{} new bytes for nothing new", again.new_bytes);

    // Every kind of change: scattered pages, growth, a cut, zeros written over, a partial page.
    let big = files.get_mut("base/5/16384").unwrap();
    for block in (0..9000_u32).step_by(97) {
        let at = block as usize * PAGE;
        big[at..at + PAGE].copy_from_slice(&page(block, 200));
    }
    big.extend_from_slice(&page(9000, 3));
    big.extend_from_slice(&[1, 2, 3]);
    files.get_mut("base/5/16385").unwrap().truncate(PAGE);
    files.insert("base/5/16386".into(), relation(2, 9));
    files.get_mut("base/5/16387").unwrap()[50 * PAGE..51 * PAGE].copy_from_slice(&page(50, 1));
    files.remove("pg_xact/0000");
    let second = back_up(&sealed, calm(&files), Some(&again.manifest)).await;
    assert_eq!(restored(&sealed, &second.manifest).await, files);
    let changed = (9000 / 97 + 10) * PAGE as u64;
    assert!(second.new_bytes < changed * 2 + 200_000, "{} new bytes", second.new_bytes);

    // And back to what it was: the old backup's chunks are still there.
    let third = back_up(&sealed, calm(&files), Some(&first.manifest)).await;
    assert_eq!(restored(&sealed, &third.manifest).await, files);
    assert_eq!(restored(&sealed, &first.manifest).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_patches_end_in_a_piece_written_afresh() {
    let sealed = domain().await;
    let mut files = BTreeMap::from([("base/5/1".to_owned(), relation(512, 0))]);
    let mut last = back_up(&sealed, calm(&files), None).await.manifest;
    let mut fresh = 0;
    for round in 0..40_u32 {
        let file = files.get_mut("base/5/1").unwrap();
        for block in [round * 7 % 512, round * 13 % 512] {
            let at = block as usize * PAGE;
            file[at..at + PAGE].copy_from_slice(&page(block, round as u8 ^ 0x5a));
        }
        let taken = back_up(&sealed, calm(&files), Some(&last)).await;
        assert_eq!(restored(&sealed, &taken.manifest).await, files, "round {round}");
        fresh += u32::from(taken.new_bytes > 1 << 20);
        last = taken.manifest;
    }
    assert!(fresh > 0, "no piece was ever written afresh");
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_of_one_domain_store_what_they_share_once() {
    let sealed = domain().await;
    let one = BTreeMap::from([
        ("base/5/1".to_owned(), relation(500, 1)),
        ("base/5/2".to_owned(), relation(200, 2)),
    ]);
    let first = back_up(&sealed, calm(&one), None).await;
    let other = || ClusterRef { cluster: "other".parse().unwrap(), lineage: "8".into(), ..at() };
    // Under other names, with a file of its own and a page that differs.
    let mut two = BTreeMap::from([
        ("base/9/7".to_owned(), one["base/5/1"].clone()),
        ("base/9/8".to_owned(), one["base/5/2"].clone()),
        ("base/9/9".to_owned(), relation(32, 200)),
    ]);
    two.get_mut("base/9/8").unwrap()[50 * PAGE..51 * PAGE].copy_from_slice(&page(50, 77));
    let second = back_up_of(&sealed, other(), options(), calm(&two), None).await;
    let own = 2 * 32 * PAGE as u64;
    assert!(second.new_bytes < own + 60_000, "{} new bytes", second.new_bytes);
    assert!(first.new_bytes > 600 * PAGE as u64, "{} new bytes", first.new_bytes);
    assert_eq!(restored(&sealed, &first.manifest).await, one);
    assert_eq!(restored(&sealed, &second.manifest).await, two);
    // And the very same files are a manifest.
    let same = back_up_of(&sealed, other(), options(), calm(&one), None).await;
    assert_eq!((same.new_bytes, &same.manifest.tables), (0, &first.manifest.tables));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_by_file_and_block_and_kept_as_it_is() {
    let sealed = domain().await;
    let mut bytes = relation(64, 0);
    bytes[5 * PAGE + 4000] ^= 1;
    bytes[9 * PAGE + 4000] ^= 1;
    let files = BTreeMap::from([("base/5/7.1".to_owned(), Vec::new()), ("base/5/7".into(), bytes)]);
    let taken = back_up(&sealed, calm(&files), None).await;
    let bad = |block| BadPage { block, newer: None };
    assert_eq!(taken.bad, vec![("base/5/7".to_owned(), vec![bad(5), bad(9)])]);
    assert_eq!(restored(&sealed, &taken.manifest).await, files);
}

#[tokio::test(flavor = "multi_thread")]
async fn scattered_changes_of_a_piece_share_their_chunks() {
    let sealed = domain().await;
    let mut files = BTreeMap::from([("base/5/1".to_owned(), relation(4096, 1))]);
    let first = back_up(&sealed, calm(&files), None).await;
    // Two pages of each region of 32.
    let big = files.get_mut("base/5/1").unwrap();
    for block in (7..4096_u32).step_by(16) {
        let at = block as usize * PAGE;
        big[at..at + PAGE].copy_from_slice(&page(block, 200));
    }
    let second = back_up(&sealed, calm(&files), Some(&first.manifest)).await;
    assert_eq!(restored(&sealed, &second.manifest).await, files);
    let before = map_of(&sealed, &first.manifest, "base/5/1").await.chunks.len();
    let after = map_of(&sealed, &second.manifest, "base/5/1").await.chunks.len();
    assert_eq!((before, after), (128, 128 + 2), "256 pages are two chunks of 128");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_keeps_its_map_after_patches_too() {
    let sealed = domain().await;
    let mut files = BTreeMap::from([("base/5/1".to_owned(), relation(4096, 1))]);
    let first = back_up(&sealed, calm(&files), None).await;
    let big = files.get_mut("base/5/1").unwrap();
    for block in [3, 700, 701, 4000] {
        let at = block as usize * PAGE;
        big[at..at + PAGE].copy_from_slice(&page(block, 77));
    }
    let second = back_up(&sealed, calm(&files), Some(&first.manifest)).await;
    let third = back_up(&sealed, calm(&files), Some(&second.manifest)).await;
    assert_eq!(third.manifest.tables, second.manifest.tables);
    assert_eq!(third.new_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_patches_of_the_same_bytes_come_back() {
    let sealed = domain().await;
    let mut files = BTreeMap::from([("base/5/1".to_owned(), relation(512, 1))]);
    let mut last = back_up(&sealed, calm(&files), None).await.manifest;
    let same = page(5, 99);
    for block in [5, 300] {
        files.get_mut("base/5/1").unwrap()[block * PAGE..][..PAGE].copy_from_slice(&same);
        last = back_up(&sealed, calm(&files), Some(&last)).await.manifest;
        assert_eq!(restored(&sealed, &last).await, files);
    }
    let again = back_up(&sealed, calm(&files), Some(&last)).await;
    assert_eq!(restored(&sealed, &again.manifest).await, files);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_stays_is_named_again_and_sound_pages_are_judged_once() {
    let sealed = domain().await;
    let mut bytes = relation(64, 0);
    bytes[5 * PAGE + 4000] ^= 1;
    let files = BTreeMap::from([("base/5/7".to_owned(), bytes)]);
    let first = back_up(&sealed, calm(&files), None).await;
    let second = back_up(&sealed, calm(&files), Some(&first.manifest)).await;
    assert_eq!(second.bad, first.bad);
    assert_eq!(second.bad.len(), 1);
    // A reference that found nothing is believed: its bytes were the same.
    let details = details().to_value();
    let believed = Manifest { details, ..second.manifest };
    let third = back_up(&sealed, calm(&files), Some(&believed)).await;
    assert_eq!(third.bad, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_hash_wrongly_takes_for_unchanged_is_found_by_the_chunk_id() {
    let sealed = domain().await;
    let keys = sealed.keys();
    let mut region = relation(32, 1);
    // A reference whose hashes fit, over a chunk of other bytes.
    let hashes: Vec<u64> = region.chunks(PAGE).map(|page| keys.page_hash(page)).collect();
    let mut map = MapBuilder::new(PAGE as u32);
    let chunk = map.fresh_chunk(ChunkId::from_bytes([9; 32]), region.len() as u32, hashes.clone());
    map.part(chunk, 0, region.len() as u64);
    let at = |(page, hash): (usize, &u64)| OldPage::At {
        chunk: 0,
        offset: (page * PAGE) as u32,
        hash: *hash,
    };
    let pages: Vec<OldPage> = hashes.iter().enumerate().map(at).collect();
    let file = FakeFile::new(region.clone(), Mood::Calm);
    let mut stored_with = |one_in, seed| {
        let (piece, map) = (PieceMap::Zeros, map.clone().finish(None));
        let old = OldPiece { piece, map, pages: pages.clone() };
        let context = PageContext::of("base/5/1", 8192, 131_072, Lsn(1 << 40), PageChecksums::On);
        let options = PieceOptions {
            path: std::path::Path::new("base/5/1"),
            keys,
            chunk_bytes: 32 * PAGE,
            context,
            sound_before: None,
            recheck: Recheck::one_in(one_in, seed),
        };
        let mut stored = 0;
        let mut store = |_, (id, plain): (ChunkId, &[u8])| {
            assert_eq!(id, keys.chunk_id(plain));
            stored += plain.len();
            Ok(())
        };
        let mut copy = PieceCopy::new(options, Some(old));
        copy.add(&file, 0, 0, &mut region, &mut store).unwrap();
        copy.finish(32 * PAGE as u64, &mut store).unwrap();
        stored
    };
    assert_eq!(stored_with(64, 1), 0, "not picked this time");
    assert_eq!(stored_with(64, 64), 32 * PAGE);
}

#[test]
fn a_piece_cut_short_before_others_is_filled_with_zeros() {
    let piece = |len| {
        let map = Some((len, PieceMap::Zeros));
        Some(PieceResult { map, bad: vec![] })
    };
    let nothing = Some(PieceResult { map: None, bad: vec![] });
    let results = vec![piece(8192), nothing, piece(100)];
    let pieces = joined(results).pieces.unwrap();
    let lens: Vec<_> = pieces.iter().map(|piece| piece.len).collect();
    assert_eq!(lens.iter().sum::<u64>(), 2 * PIECE_BYTES + 100);
}
