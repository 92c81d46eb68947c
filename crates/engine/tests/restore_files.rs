//! Files come back byte for byte and nowhere else: hand-made backups in a store in memory, written
//! out, interrupted, gone on with, and aimed at places they must not reach.

#[allow(dead_code, reason = "each test file uses its part of it")]
mod made_up;

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use made_up::{at, tli};
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::{ClusterFacts, ClusterStore};
use pgrecall_engine::error::{EngineError, ErrorKind};
use pgrecall_engine::progress::Progress;
use pgrecall_engine::restore::execute::{Around, RestoreOptions, Restored, prepare, restore};
use pgrecall_engine::restore::layout::{Locations, Places};
use pgrecall_engine::restore::plan::{BackupRow, Estimate, RestorePlan, Stop};
use pgrecall_engine::restore::recovery_settings::{Role, ServerSettings};
use pgrecall_engine::restore::repo_wal::RepoWal;
use pgrecall_engine::restore::target::{Action, Bound, Target};
use pgrecall_engine::restore::target_dir::{Existing, MARKER};
use pgrecall_pgformat::{Lsn, Major, SegmentSize};
use pgrecall_repo::backup::{BackupNote, BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::format::document::{Manifest, TableChunk};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::map::{Extent, FileMap, HashSource, MapChunk, Source};
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::format::table::{self, Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::keys::{KeyFile, Unlock};
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{Created, KeyNote, OpenOptions, Repository};
use pgrecall_store::{MemoryStore, Store};
use pgrecall_testkit::stores::{Calls, FailNth, Lasting};
use tempfile::TempDir;

const PAGE: usize = 8192;
const SYSTEM: u64 = 7_123_456_789_012_345_678;

/// A repository with one cluster.
struct Shop {
    store: Arc<dyn Store>,
    options: OpenOptions,
}

fn facts() -> ClusterFacts {
    ClusterFacts {
        system_identifier: SYSTEM,
        major: Major::V17,
        page_size_bytes: 8192,
        wal_segment_size: SegmentSize::DEFAULT,
    }
}

impl Shop {
    async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let random = SharedRandom::system();
        let options = OpenOptions {
            id: None,
            suite: RootSuite::Aes256Gcm,
            fingerprint: None,
            unlock: Unlock::KeyFile(KeyFile::random(&random)),
            random,
            cache: None,
        };
        let note = KeyNote { label: "db1".into(), now: "2026-11-22T00:00:00Z".into() };
        let made = Repository::create(store.clone(), options.clone(), &note).await.unwrap();
        assert!(matches!(made, Created::New(_)));
        Self { store, options }
    }

    async fn cluster(&self, store: Arc<dyn Store>) -> Result<ClusterStore, EngineError> {
        let repository = Repository::open(store, self.options.clone()).await?;
        let name = "main".parse().unwrap();
        ClusterStore::register(&repository, &name, &name, facts()).await
    }
}

fn entry(path: &str, mode: u32, kind: EntryKind) -> Entry {
    let path = RelativePath::new(path.as_bytes()).unwrap();
    Entry { path, mode, uid: 0, gid: 0, mtime_us: 0, kind }
}

/// Writes a backup the way the format says, with nothing of the backup engine's.
struct Maker<'a> {
    session: &'a BackupSession,
    data: PackBuilder,
    meta: PackBuilder,
}

impl<'a> Maker<'a> {
    fn new(session: &'a BackupSession) -> Self {
        let domain = &session.at().domain;
        let builder = |kind| PackBuilder::new(session.sealed(), domain, kind).unwrap();
        Self { session, data: builder(Kind::DataPack), meta: builder(Kind::MetaPack) }
    }

    fn chunk(&mut self, kind: Kind, plain: &[u8]) -> ChunkId {
        let id = self.session.sealed().keys().chunk_id(plain);
        if self.session.claim(&id) == Claim::Store {
            let builder = if kind == Kind::DataPack { &mut self.data } else { &mut self.meta };
            builder.add(id, plain, Level::default()).unwrap();
        }
        id
    }

    /// A relation file: chunks of four pages, hashes, empty pages left out.
    fn pages(&mut self, content: &[u8]) -> EntryKind {
        let mut map = FileMap { page_size: 8192, ..FileMap::default() };
        for part in content.chunks(4 * PAGE) {
            if part.iter().all(|byte| *byte == 0) {
                map.extents.push(Extent { len: part.len() as u64, source: Source::Zeros });
                continue;
            }
            let id = self.chunk(Kind::DataPack, part);
            let keys = self.session.sealed().keys();
            let hashes = part.chunks(PAGE).map(|page| keys.page_hash(page)).collect();
            let chunk = map.chunks.len() as u32;
            map.chunks.push(MapChunk {
                id,
                plain_len: part.len() as u32,
                hashes: HashSource::Inline(hashes),
            });
            let source = Source::Chunk { chunk, offset: 0 };
            map.extents.push(Extent { len: part.len() as u64, source });
        }
        let bytes = map.encode();
        let id = self.chunk(Kind::MetaPack, &bytes);
        let map = PieceMap::Chunk { id, plain_len: bytes.len() as u32 };
        EntryKind::File(vec![Piece { len: content.len() as u64, map }])
    }

    fn small_pieces(&mut self, content: &[u8]) -> Vec<Piece> {
        if content.is_empty() {
            return vec![];
        }
        let id = self.chunk(Kind::DataPack, content);
        let len = content.len() as u64;
        let map = FileMap {
            chunks: vec![MapChunk { id, plain_len: len as u32, hashes: HashSource::None }],
            extents: vec![Extent { len, source: Source::Chunk { chunk: 0, offset: 0 } }],
            ..FileMap::default()
        };
        vec![Piece { len, map: PieceMap::Inline(map.encode()) }]
    }

    fn small(&mut self, content: &[u8]) -> EntryKind {
        EntryKind::File(self.small_pieces(content))
    }

    async fn finish(mut self, mut entries: Vec<Entry>) -> Manifest {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut tables = Vec::new();
        for part in entries.chunks(5) {
            let plain = table::encode(part);
            let id = self.chunk(Kind::MetaPack, &plain);
            tables.push(TableChunk {
                first: part[0].path.to_string(),
                entries: part.len() as u64,
                id,
                plain_len: plain.len() as u32,
            });
        }
        for builder in [self.data, self.meta] {
            if !builder.is_empty() {
                self.session.put_pack(builder.finish().unwrap()).await.unwrap();
            }
        }
        let manifest = Manifest {
            backup: self.session.id(),
            cluster: "main".into(),
            lineage: SYSTEM.to_string(),
            tables,
            entries: entries.len() as u64,
            bytes: entries.iter().map(Entry::len).sum(),
            details: serde_json::json!({}),
        };
        self.session.commit(&manifest).await.unwrap();
        manifest
    }
}

async fn session(cluster: &ClusterStore) -> BackupSession {
    let note = BackupNote {
        host: "db1".into(),
        process: 1,
        incarnation: String::new(),
        began: "now".into(),
    };
    BackupSession::begin(cluster.sealed.clone(), cluster.at.clone(), &note).await.unwrap()
}

fn table_file(seed: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..40 * PAGE)
        .map(|n| (n as u8).wrapping_mul(seed).wrapping_add((n / PAGE) as u8))
        .collect();
    // A hole of eight pages, and an odd end.
    bytes[8 * PAGE..16 * PAGE].fill(0);
    bytes.truncate(39 * PAGE + 100);
    bytes
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("PG_VERSION", b"17\n".to_vec()),
        ("base/1/1249", table_file(3)),
        ("base/1/2662", table_file(3)),
        ("base/1/2663", vec![0; 20 * PAGE]),
        ("base/1/2700", vec![]),
        ("global/1262", table_file(7)),
        ("global/pg_control", control(SYSTEM)),
        ("postgresql.auto.conf", b"work_mem = '1MB'\nrecovery_target_xid = '5'\n".to_vec()),
        ("postgresql.conf", b"port = 5432\n".to_vec()),
        ("standby.signal", vec![]),
    ]
}

/// A control file of 17 with the fields that are read, and its checksum.
fn control(system: u64) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/pg");
    let mut found: Vec<PathBuf> = walk(Path::new(path));
    found.retain(|path| path.to_string_lossy().contains("17") && path.ends_with("pg_control"));
    let mut bytes = std::fs::read(found.first().expect("a control file of 17")).unwrap();
    bytes[..8].copy_from_slice(&system.to_le_bytes());
    // The checksum of `ControlFileData`, which ends with it (offset by major in pg_control.h).
    let at = (280..300)
        .step_by(4)
        .find(|at| {
            let original = std::fs::read(&found[0]).unwrap();
            crc(&original[..*at]).to_le_bytes() == original[*at..*at + 4]
        })
        .expect("the place of the checksum");
    let sum = crc(&bytes[..at]).to_le_bytes();
    bytes[at..at + 4].copy_from_slice(&sum);
    bytes
}

/// CRC-32C, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    entries
        .flatten()
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}

const FOLDERS: [&str; 6] =
    ["base", "base/1", "global", "pg_tblspc", "pg_wal", "pg_wal/archive_status"];

async fn simple_backup(cluster: &ClusterStore, extra: Vec<Entry>) -> Manifest {
    let session = session(cluster).await;
    let mut maker = Maker::new(&session);
    let mut entries = extra;
    for folder in FOLDERS {
        if !entries.iter().any(|entry| entry.path.as_bytes() == folder.as_bytes()) {
            entries.push(entry(folder, 0o700, EntryKind::Directory));
        }
    }
    for (path, content) in files() {
        let pages = path.starts_with("base") || path == "global/1262";
        let kind = if pages { maker.pages(&content) } else { maker.small(&content) };
        entries.push(entry(path, 0o600, kind));
    }
    maker.finish(entries).await
}

fn plan_of(manifest: &Manifest) -> RestorePlan {
    let mut row = made_up::backup(1, 1, Lsn(0x200_0028), Lsn(0x200_0100), 0);
    row.id = manifest.backup;
    row.details.backup_label = "START WAL LOCATION: 0/2000028\n".into();
    let backup = BackupRow { bytes: manifest.bytes, ..row };
    RestorePlan {
        backup,
        target: Target::Time(at(5)),
        stop: Stop::Lsn { lsn: Lsn(0x300_0000), bound: Bound::Exclusive },
        timeline: tli(1),
        path: vec![],
        segments: vec![],
        segment_count: 1,
        seeds: vec![],
        last_kept: None,
        first_left_out: None,
        estimate: Estimate { file_bytes: 0, wal_bytes: 0, requests: 0 },
        notes: vec![],
    }
}

fn options(dir: &Path) -> RestoreOptions {
    RestoreOptions {
        dir: dir.to_owned(),
        places: Places { tablespaces: vec![], waldir: None, locations: Locations::AsTold },
        existing: Existing::Refuse,
        server: Some(ServerSettings {
            role: Role::Copy,
            action: Action::Pause,
            restore_command: "/bin/pgrecall wal fetch %f \"%p\"".into(),
        }),
        threads: 2,
        memory_budget_bytes: 64 << 20,
    }
}

async fn run(
    cluster: &ClusterStore,
    manifest: &Manifest,
    options: &RestoreOptions,
) -> Result<Restored, EngineError> {
    let prepared = prepare(cluster, manifest, options).await?;
    let wal = RepoWal::open(cluster).await?;
    let around =
        Around { clock: Clock::system(), progress: Progress::silent(), cancel: Cancel::new() };
    restore(cluster, &wal, &plan_of(manifest), manifest, prepared, options, around).await
}

fn assert_restored(dir: &Path) {
    for (path, content) in files() {
        if matches!(path, "standby.signal" | "postgresql.auto.conf") {
            continue;
        }
        assert!(std::fs::read(dir.join(path)).unwrap() == content, "{path} differs");
        let mode = std::fs::metadata(dir.join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
    assert!(!dir.join("standby.signal").exists());
    assert!(!dir.join(MARKER).exists());
    assert!(dir.join("recovery.signal").exists());
    assert!(!dir.join("global/.pgrecall-pg_control").exists());
    assert_eq!(std::fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
    let label = std::fs::read_to_string(dir.join("backup_label")).unwrap();
    assert!(label.starts_with("START WAL LOCATION"));
    let auto = std::fs::read_to_string(dir.join("postgresql.auto.conf")).unwrap();
    let expected = "work_mem = '1MB'\n\
        restore_command = '/bin/pgrecall wal fetch %f \"%p\"'\n\
        recovery_target = ''\n\
        recovery_target_name = ''\n\
        recovery_target_time = ''\n\
        recovery_target_xid = ''\n\
        recovery_target_lsn = '0/3000000'\n\
        recovery_target_inclusive = 'false'\n\
        recovery_target_timeline = '1'\n\
        recovery_target_action = 'pause'\n\
        archive_mode = 'off'\n";
    assert_eq!(auto, expected);
}

#[tokio::test]
async fn files_come_back_as_they_were() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("deep/er/data");
    let done = run(&cluster, &manifest, &options(&dir)).await.unwrap();
    assert_restored(&dir);
    assert!(done.copied.written_bytes < done.copied.bytes, "zeros are not written");
    let hole = std::fs::metadata(dir.join("base/1/2663")).unwrap();
    assert_eq!((hole.len(), hole.blocks()), (20 * PAGE as u64, 0));
}

#[tokio::test]
async fn a_tiny_memory_budget_only_makes_more_batches() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(&scratch.path().join("data"));
    options.memory_budget_bytes = 1;
    run(&cluster, &manifest, &options).await.unwrap();
    assert_restored(&options.dir);
}

/// A backup of a cluster with group access and a tablespace, whose files were user 4242's.
async fn group_backup(cluster: &ClusterStore) -> Manifest {
    let session = session(cluster).await;
    let mut maker = Maker::new(&session);
    let theirs = |path: &str, mode, kind| Entry { uid: 4242, gid: 4243, ..entry(path, mode, kind) };
    let mut entries = vec![
        theirs("pg_tblspc/16384", 0o777, EntryKind::Link(b"/mnt/fast".to_vec())),
        theirs("pg_tblspc/16384/PG_17_202406281", 0o750, EntryKind::Directory),
    ];
    for folder in FOLDERS {
        entries.push(theirs(folder, 0o750, EntryKind::Directory));
    }
    for (path, content) in files() {
        let kind = maker.small(&content);
        entries.push(theirs(path, 0o640, kind));
    }
    let kind = maker.small(b"a row");
    entries.push(theirs("pg_tblspc/16384/PG_17_202406281/16390", 0o640, kind));
    maker.finish(entries).await
}

/// Everything below a folder, itself included; links are not followed.
fn assert_owned(folder: &Path, owner: (u32, u32)) {
    let meta = std::fs::symlink_metadata(folder).unwrap();
    let shown = folder.display();
    assert_eq!((meta.uid(), meta.gid()), owner, "{shown}");
    if meta.is_dir() {
        assert_eq!(meta.permissions().mode() & 0o7777, 0o750, "{shown}");
        for entry in std::fs::read_dir(folder).unwrap() {
            assert_owned(&entry.unwrap().path(), owner);
        }
    } else if meta.is_file() {
        assert_eq!(meta.permissions().mode() & 0o7777, 0o640, "{shown}");
    }
}

/// Only root can give files away: by another user the half is tested that he can do.
#[tokio::test]
async fn files_belong_to_the_owner_of_the_place_and_modes_let_the_group_read() {
    let is_root = rustix::process::geteuid().is_root();
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = group_backup(&cluster).await;
    let scratch = TempDir::new().unwrap();
    let around = scratch.path().join("around");
    std::fs::create_dir(&around).unwrap();
    let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let nobody = if is_root { (65534, 65533) } else { ours };
    std::os::unix::fs::chown(&around, Some(nobody.0), Some(nobody.1)).unwrap();
    let with_space = |dir: &Path, space: &Path| {
        let mut options = options(dir);
        options.places.tablespaces = vec![("/mnt/fast".into(), space.to_owned())];
        options
    };
    let space = around.join("space");
    let mut options = with_space(&around.join("data"), &space);
    run(&cluster, &manifest, &options).await.unwrap();
    for place in [&options.dir, &space] {
        assert_owned(place, nobody);
    }
    assert!(options.dir.join("global/pg_control").exists());
    // What root had left there is handed over by a delta as well, with its modes.
    let table = options.dir.join("base/1/1249");
    std::os::unix::fs::chown(&table, Some(ours.0), Some(ours.1)).unwrap();
    std::fs::set_permissions(&table, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(options.dir.join("base/1/2662")).unwrap();
    options.existing = Existing::Delta;
    run(&cluster, &manifest, &options).await.unwrap();
    for place in [&options.dir, &space] {
        assert_owned(place, nobody);
    }
    if !is_root {
        return;
    }
    // Root himself is passed over: then whose the files were counts.
    let (rootly, space) = (scratch.path().join("data"), scratch.path().join("space"));
    let options = with_space(&rootly, &space);
    run(&cluster, &manifest, &options).await.unwrap();
    for place in [&rootly, &space] {
        assert_owned(place, (4242, 4243));
    }
}

#[tokio::test]
async fn an_interrupted_restore_cannot_be_started_and_goes_on() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let calls = Calls::reads;
    let counting = FailNth::over(
        shop.store.clone(),
        calls(),
        0,
        Lasting::Once,
        pgrecall_store::ErrorKind::Denied,
    );
    let scratch = TempDir::new().unwrap();
    let whole = shop.cluster(counting.clone()).await.unwrap();
    run(&whole, &manifest, &options(&scratch.path().join("whole"))).await.unwrap();
    let total = counting.hook().seen();
    assert!(total > 5, "{total}");
    let mut interrupted = 0;
    for nth in 1..=total {
        let failing = FailNth::over(
            shop.store.clone(),
            calls(),
            nth,
            Lasting::ForEver,
            pgrecall_store::ErrorKind::Denied,
        );
        let dir = scratch.path().join(format!("n{nth}"));
        let Ok(broken) = shop.cluster(failing.clone()).await else { continue };
        assert!(run(&broken, &manifest, &options(&dir)).await.is_err(), "call {nth} failed unseen");
        assert!(!dir.join("global/pg_control").exists(), "call {nth}: it could be started");
        interrupted += u64::from(dir.join(MARKER).exists());
        run(&cluster, &manifest, &options(&dir)).await.unwrap();
        assert_restored(&dir);
    }
    assert!(interrupted >= 2, "too few interruptions in mid-restore: {interrupted}");
}

#[tokio::test]
async fn another_backup_does_not_go_on_with_an_interrupted_restore() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let first = simple_backup(&cluster, vec![]).await;
    let second = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(scratch.path());
    run(&cluster, &first, &options).await.unwrap();
    std::fs::remove_file(scratch.path().join("global/pg_control")).unwrap();
    let marker = serde_json::json!({
        "system_identifier": SYSTEM, "backup": first.backup, "began": "now"
    });
    std::fs::write(scratch.path().join(MARKER), marker.to_string()).unwrap();
    let error = run(&cluster, &second, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    options.existing = Existing::Delta;
    run(&cluster, &second, &options).await.unwrap();
    assert_restored(scratch.path());
}

#[tokio::test]
async fn a_delta_writes_what_differs_and_removes_what_is_not_in_the_backup() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let mut options = options(&dir);
    run(&cluster, &manifest, &options).await.unwrap();
    // What a server would have left.
    let table = dir.join("base/1/1249");
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[3 * PAGE + 5] ^= 1;
    bytes[9 * PAGE] = 1;
    bytes.extend_from_slice(&[7; PAGE]);
    std::fs::write(&table, &bytes).unwrap();
    std::fs::write(dir.join("base/1/2700"), b"no longer empty").unwrap();
    std::fs::write(dir.join("base/1/99999"), b"made later").unwrap();
    std::fs::create_dir(dir.join("base/5")).unwrap();
    std::fs::write(dir.join("base/5/112"), b"made later").unwrap();
    std::fs::write(dir.join("pg_wal/000000010000000000000009"), b"the last commits").unwrap();
    std::fs::write(dir.join("pg_wal/archive_status/000000010000000000000009.ready"), b"").unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(dir.join("global/pg_control").exists(), "a refusal leaves all as it was");
    options.existing = Existing::Delta;
    let done = run(&cluster, &manifest, &options).await.unwrap();
    assert_restored(&dir);
    let small: usize = files()
        .iter()
        .filter(|(path, _)| matches!(*path, "global/pg_control" | "postgresql.auto.conf"))
        .map(|(_, content)| content.len())
        .sum();
    assert_eq!(done.copied.written_bytes, (PAGE + small) as u64, "one page, and what has none");
    for gone in ["base/1/99999", "base/5"] {
        assert!(!dir.join(gone).exists(), "{gone}");
    }
    let old = done.old_wal.unwrap();
    assert_eq!(old.not_archived, ["000000010000000000000009"]);
    let kept = std::fs::read(old.at.join("000000010000000000000009")).unwrap();
    assert_eq!(kept, b"the last commits");
    assert!(dir.join("pg_wal/archive_status").is_dir());
}

#[tokio::test]
async fn directories_in_use_or_of_others_are_refused() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(scratch.path());
    options.existing = Existing::Delta;
    std::fs::write(scratch.path().join("notes.txt"), b"mine").unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    std::fs::write(scratch.path().join("PG_VERSION"), b"17\n").unwrap();
    std::fs::create_dir(scratch.path().join("global")).unwrap();
    let path = scratch.path().join("global/pg_control");
    std::fs::write(&path, control(42)).unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    // Its own, with a server at work: this very process stands for it.
    std::fs::write(&path, control(SYSTEM)).unwrap();
    let mut child =
        std::process::Command::new("sleep").arg("60").current_dir(scratch.path()).spawn().unwrap();
    std::fs::write(scratch.path().join("postmaster.pid"), format!("{}\n", child.id())).unwrap();
    let refused = run(&cluster, &manifest, &options).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("running server"), "{error}");
    // One that names nobody here may be a server's in a container, or on another host.
    for text in ["1\n/data\n", "999999999\n", "", "no number"] {
        std::fs::write(scratch.path().join("postmaster.pid"), text).unwrap();
        let error = run(&cluster, &manifest, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{text:?}: {error}");
        assert!(error.hints().join(" ").contains("postmaster.pid"), "{error}");
    }
    assert!(path.exists(), "its control file is where it was");
    assert_eq!(std::fs::read(scratch.path().join("notes.txt")).unwrap(), b"mine");
}

/// A server that starts while the restore begins has its lock file there before it reads the
/// control file.
#[test]
fn a_server_that_starts_in_the_last_moment_keeps_its_control_file() {
    use pgrecall_engine::restore::target_dir::take_control;
    let scratch = TempDir::new().unwrap();
    std::fs::create_dir(scratch.path().join("global")).unwrap();
    let path = scratch.path().join("global/pg_control");
    std::fs::write(&path, control(SYSTEM)).unwrap();
    std::fs::write(scratch.path().join("postmaster.pid"), b"1\n").unwrap();
    assert_eq!(take_control(scratch.path()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(std::fs::read(&path).unwrap(), control(SYSTEM));
    std::fs::remove_file(scratch.path().join("postmaster.pid")).unwrap();
    take_control(scratch.path()).unwrap();
    assert_eq!(std::fs::read_dir(scratch.path().join("global")).unwrap().count(), 0);
}

#[test]
fn a_restore_that_ended_within_its_marker_can_be_run_again() {
    use pgrecall_engine::restore::target_dir::{Found, MARKER, inspect};
    let scratch = TempDir::new().unwrap();
    let backup = pgrecall_repo::id::BackupId::from_bytes([1; 16]);
    let look = || inspect(scratch.path(), SYSTEM, backup, Existing::Refuse);
    std::fs::write(scratch.path().join(MARKER), "").unwrap();
    assert_eq!(look().unwrap(), Found::Empty);
    // What stands beside it is not of that restore.
    std::fs::write(scratch.path().join("notes.txt"), "mine").unwrap();
    assert_eq!(look().unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn two_restores_of_one_directory_do_not_mix() {
    let scratch = TempDir::new().unwrap();
    use pgrecall_engine::restore::target_dir::{Marked, Marker};
    let marker = Marker {
        system_identifier: SYSTEM,
        backup: pgrecall_repo::id::BackupId::from_bytes([1; 16]),
        began: "now".into(),
    };
    let _first = Marked::put(scratch.path(), &marker).unwrap();
    let error = Marked::put(scratch.path(), &marker).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn tablespaces_and_pg_wal_go_where_the_user_says() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let links = |pg_wal: &str| {
        vec![
            entry("pg_tblspc/16384", 0o777, EntryKind::Link(b"/mnt/fast".to_vec())),
            entry("pg_tblspc/16384/PG_17_202406281", 0o700, EntryKind::Directory),
            entry("pg_wal", 0o777, EntryKind::Link(pg_wal.as_bytes().to_vec())),
        ]
    };
    let manifest = simple_backup(&cluster, links("/mnt/wal")).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(&scratch.path().join("data"));
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let hints = error.hints().join(" ");
    assert!(hints.contains("--tablespace-map /mnt/fast=NEW"), "{hints}");
    assert!(hints.contains("--waldir"), "{hints}");
    assert!(!options.dir.exists(), "nothing was written");
    let (space, wal) = (scratch.path().join("space"), scratch.path().join("wal"));
    options.places.tablespaces = vec![("/mnt/fast".into(), options.dir.join("inside"))];
    options.places.waldir = Some(wal.clone());
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "a tablespace within the data directory");
    options.places.tablespaces = vec![("/mnt/fast".into(), space.clone())];
    std::fs::create_dir(&space).unwrap();
    std::fs::write(space.join("precious"), b"another server's").unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    std::fs::remove_file(space.join("precious")).unwrap();
    run(&cluster, &manifest, &options).await.unwrap();
    let link = |path: &str| std::fs::read_link(options.dir.join(path)).unwrap();
    assert_eq!(link("pg_tblspc/16384"), space);
    assert_eq!(link("pg_wal"), wal);
    assert!(space.join("PG_17_202406281").is_dir() && wal.join("archive_status").is_dir());
    let map = std::fs::read_to_string(options.dir.join("tablespace_map")).unwrap();
    assert_eq!(map, format!("16384 {}\n", space.display()));
    // And once more over it, with another cluster's folder in the tablespace (as pg_upgrade leaves
    // them), and WAL behind the link.
    options.existing = Existing::Delta;
    std::fs::create_dir(space.join("PG_15_202209061")).unwrap();
    std::fs::write(space.join("PG_15_202209061/1"), b"another cluster's").unwrap();
    std::fs::write(space.join("PG_17_202406281/stale"), b"ours").unwrap();
    std::fs::write(wal.join("000000010000000000000009"), b"the last commits").unwrap();
    let done = run(&cluster, &manifest, &options).await.unwrap();
    assert_eq!(link("pg_tblspc/16384"), space);
    assert!(space.join("PG_15_202209061/1").exists());
    assert!(!space.join("PG_17_202406281/stale").exists());
    let old = done.old_wal.unwrap().at;
    assert_eq!(std::fs::read(old.join("000000010000000000000009")).unwrap(), b"the last commits");
    assert_eq!(link("pg_wal"), wal);
    assert!(wal.join("archive_status").is_dir());
}

#[tokio::test]
async fn original_places_are_made_and_never_written_over() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let original = scratch.path().join("etc/postgresql/17/main/pg_hba.conf");
    let wal = scratch.path().join("mnt/wal");
    let session = session(&cluster).await;
    let mut maker = Maker::new(&session);
    let pieces = maker.small_pieces(b"local all all trust\n");
    let control = maker.small(&control(SYSTEM));
    let version = maker.small(b"17\n");
    let bytes = |path: &Path| path.to_string_lossy().into_owned().into_bytes();
    let entries = vec![
        entry("PG_VERSION", 0o600, version),
        entry("global", 0o700, EntryKind::Directory),
        entry("global/pg_control", 0o600, control),
        entry("pg_hba.conf", 0o640, EntryKind::Outside(bytes(&original), pieces)),
        entry("pg_wal", 0o777, EntryKind::Link(bytes(&wal))),
        entry("pg_wal/archive_status", 0o700, EntryKind::Directory),
    ];
    let manifest = maker.finish(entries).await;
    let mut options = options(&scratch.path().join("data"));
    options.places.locations = Locations::Original;
    std::fs::create_dir_all(original.parent().unwrap()).unwrap();
    std::fs::write(&original, b"a live server's").unwrap();
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(error.to_string().contains("pg_hba.conf"), "{error}");
    assert_eq!(std::fs::read(&original).unwrap(), b"a live server's");
    std::fs::remove_dir_all(scratch.path().join("etc")).unwrap();
    run(&cluster, &manifest, &options).await.unwrap();
    assert_eq!(std::fs::read(&original).unwrap(), b"local all all trust\n");
    assert_eq!(std::fs::read_link(options.dir.join("pg_wal")).unwrap(), wal);
    assert!(wal.join("archive_status").is_dir());
}

#[tokio::test]
async fn a_link_in_the_way_is_refused_while_all_is_as_it_was() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let mut options = options(&dir);
    run(&cluster, &manifest, &options).await.unwrap();
    let elsewhere = scratch.path().join("elsewhere");
    std::fs::rename(dir.join("base/1"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, dir.join("base/1")).unwrap();
    options.existing = Existing::Delta;
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(dir.join("global/pg_control").exists() && !dir.join(MARKER).exists());
}

/// The segment that was being written has no `.ready` file.
#[test]
fn the_last_segment_counts_as_not_archived_and_recycled_ones_do_not() {
    use pgrecall_engine::restore::old_wal::not_archived;
    use pgrecall_engine::restore::wal_view::StoredWal;
    use pgrecall_pgformat::SegmentNumber;
    let scratch = TempDir::new().unwrap();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/pg/17/");
    let segment = std::fs::read(format!("{fixture}000000010000000000000008.head")).unwrap();
    let mut stored = StoredWal::empty(SegmentSize::from_bytes(1 << 20).unwrap());
    for (name, content) in [
        ("000000010000000000000008", segment.as_slice()),
        ("000000010000000000000009", segment.as_slice()),
        ("00000001000000000000000A", b"".as_slice()),
    ] {
        std::fs::write(scratch.path().join(name), content).unwrap();
    }
    assert_eq!(not_archived(scratch.path(), &stored), ["000000010000000000000008"]);
    stored.segments.entry(tli(1)).or_default().insert(SegmentNumber(8));
    assert!(not_archived(scratch.path(), &stored).is_empty());
    std::fs::create_dir(scratch.path().join("archive_status")).unwrap();
    std::fs::write(scratch.path().join("archive_status/00000002.history.ready"), b"").unwrap();
    assert_eq!(not_archived(scratch.path(), &stored), ["00000002.history"]);
}

#[tokio::test]
async fn files_from_outside_come_in_unless_the_original_places_are_asked_for() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let original = scratch.path().join("etc/pg_hba.conf");
    let session = session(&cluster).await;
    let mut maker = Maker::new(&session);
    let pieces = maker.small_pieces(b"local all all trust\n");
    let bytes = original.to_string_lossy().into_owned().into_bytes();
    let control = maker.small(&control(SYSTEM));
    let conf = format!("data_directory = '/old'\nhba_file = '{}'\n", original.display());
    let conf = maker.small_pieces(conf.as_bytes());
    let version = maker.small(b"17\n");
    let entries = vec![
        entry("PG_VERSION", 0o600, version),
        entry("global", 0o700, EntryKind::Directory),
        entry("global/pg_control", 0o600, control),
        entry("pg_hba.conf", 0o640, EntryKind::Outside(bytes, pieces)),
        entry("postgresql.conf", 0o644, EntryKind::Outside(b"/etc/postgresql.conf".to_vec(), conf)),
    ];
    let manifest = maker.finish(entries).await;
    let options = options(&scratch.path().join("data"));
    run(&cluster, &manifest, &options).await.unwrap();
    assert!(!original.exists());
    let hba = std::fs::read(options.dir.join("pg_hba.conf")).unwrap();
    assert_eq!(hba, b"local all all trust\n");
    let conf = std::fs::read_to_string(options.dir.join("postgresql.conf")).unwrap();
    let dir = options.dir.display();
    let end = format!("data_directory = '{dir}'\nhba_file = '{dir}/pg_hba.conf'\n");
    assert!(conf.ends_with(&end), "{conf}");
}

/// The table's own decoder refuses `..` and absolute paths; a link is the third way out.
#[tokio::test]
async fn nothing_is_written_through_a_link_out_of_the_directory() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let outside = scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let target = outside.to_string_lossy().into_owned().into_bytes();
    let mut link_only = vec![entry("base/9", 0o777, EntryKind::Link(target))];
    let manifest = simple_backup(&cluster, link_only.clone()).await;
    let options_of = |name: &str, locations| {
        let mut options = options(&scratch.path().join(name));
        options.places.locations = locations;
        options
    };
    let refused = run(&cluster, &manifest, &options_of("a", Locations::AsTold)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    let session = session(&cluster).await;
    let mut maker = Maker::new(&session);
    let file = maker.small(b"evil");
    link_only.push(entry("base", 0o700, EntryKind::Directory));
    link_only.push(entry("base/9/passwd", 0o600, file));
    let manifest = maker.finish(link_only).await;
    for locations in [Locations::AsTold, Locations::Original] {
        let refused = run(&cluster, &manifest, &options_of("b", locations)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

/// Bytes that differ from what the backup was made of are found before they count.
#[tokio::test]
async fn a_damaged_pack_stops_the_restore_and_names_the_chunk() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let packs = cluster.sealed.list(&pgrecall_repo::names::packs(cluster.domain())).await.unwrap();
    let data = packs.iter().find(|pack| pack.key.as_str().contains("/data/")).unwrap();
    let mut bytes = shop.store.get(&data.key, 1 << 30).await.unwrap().to_vec();
    bytes[200] ^= 1;
    shop.store.delete(&data.key).await.unwrap();
    let put = shop.store.put_if_absent(&data.key, bytes.into()).await;
    assert!(matches!(put, pgrecall_store::Put::Created));
    let scratch = TempDir::new().unwrap();
    let options = options(&scratch.path().join("data"));
    let error = run(&cluster, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(!options.dir.join("global/pg_control").exists());
}

#[tokio::test]
async fn files_only_writes_no_recovery_settings() {
    let shop = Shop::new().await;
    let cluster = shop.cluster(shop.store.clone()).await.unwrap();
    let manifest = simple_backup(&cluster, vec![]).await;
    let scratch = TempDir::new().unwrap();
    let mut options = options(&scratch.path().join("data"));
    options.server = None;
    run(&cluster, &manifest, &options).await.unwrap();
    let by_name: HashMap<_, _> = files().into_iter().collect();
    let auto = std::fs::read(options.dir.join("postgresql.auto.conf")).unwrap();
    assert_eq!(auto, by_name["postgresql.auto.conf"]);
    for none in ["recovery.signal", "standby.signal", MARKER] {
        assert!(!options.dir.join(none).exists(), "{none}");
    }
    assert!(options.dir.join("backup_label").exists());
    assert!(options.dir.join("global/pg_control").exists());
}
