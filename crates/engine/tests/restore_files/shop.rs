//! Backups made by hand in a repository in memory, and their restore.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::{ClusterFacts, ClusterStore};
use pgrecall_engine::error::EngineError;
use pgrecall_engine::progress::Progress;
use pgrecall_engine::restore::execute::{Around, RestoreOptions, Restored, prepare, restore};
use pgrecall_engine::restore::layout::{Locations, Places};
use pgrecall_engine::restore::lost::OnLoss;
use pgrecall_engine::restore::plan::{BackupRow, Estimate, RestorePlan, Stop};
use pgrecall_engine::restore::recovery_settings::{Role, ServerSettings};
use pgrecall_engine::restore::repo_wal::RepoWal;
use pgrecall_engine::restore::target::{Action, Bound, Target};
use pgrecall_engine::restore::target_dir::{Existing, MARKER};
use pgrecall_pgformat::{Lsn, Major, SegmentSize};
use pgrecall_repo::backup::{BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::format::document::{Manifest, TableChunk};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::map::{Extent, FileMap, HashSource, MapChunk, Source};
use pgrecall_repo::format::table::{self, Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::repository::{OpenOptions, Repository};
use pgrecall_store::Store;
use pgrecall_testkit::repositories::{self, InMemory};

use crate::made_up::{self, at, tli};

pub(crate) const PAGE: usize = 8192;

pub(crate) const SYSTEM: u64 = 7_123_456_789_012_345_678;

/// A repository with one cluster.
pub(crate) struct Shop {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: OpenOptions,
}

pub(crate) fn facts() -> ClusterFacts {
    ClusterFacts {
        system_identifier: SYSTEM,
        major: Major::V17,
        page_size_bytes: 8192,
        wal_segment_size: SegmentSize::DEFAULT,
    }
}

impl Shop {
    pub(crate) async fn new() -> Self {
        let InMemory { store, options, .. } = InMemory::create().await;
        Self { store, options }
    }

    pub(crate) async fn cluster(&self, store: Arc<dyn Store>) -> Result<ClusterStore, EngineError> {
        self.cluster_of(store, "main", "main", SYSTEM).await
    }

    pub(crate) async fn cluster_of(
        &self,
        store: Arc<dyn Store>,
        domain: &str,
        name: &str,
        system_identifier: u64,
    ) -> Result<ClusterStore, EngineError> {
        let repository = Repository::open(store, self.options.clone()).await?;
        let (domain, name) = (domain.parse().unwrap(), name.parse().unwrap());
        let facts = ClusterFacts { system_identifier, ..facts() };
        ClusterStore::register(&repository, &domain, &name, facts).await
    }
}

pub(crate) fn entry(path: &str, mode: u32, kind: EntryKind) -> Entry {
    let path = RelativePath::new(path.as_bytes()).unwrap();
    Entry { path, mode, uid: 0, gid: 0, mtime_us: 0, kind }
}

/// Writes a backup the way the format says, with nothing of the backup engine's.
pub(crate) struct Maker<'a> {
    pub(crate) session: &'a BackupSession,
    pub(crate) data: PackBuilder,
    pub(crate) meta: PackBuilder,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(session: &'a BackupSession) -> Self {
        let domain = &session.at().domain;
        let builder = |kind| PackBuilder::new(session.sealed(), domain, kind).unwrap();
        Self { session, data: builder(Kind::DataPack), meta: builder(Kind::MetaPack) }
    }

    pub(crate) fn chunk(&mut self, kind: Kind, plain: &[u8]) -> ChunkId {
        let id = self.session.sealed().keys().chunk_id(plain);
        if self.session.claim(&id) == Claim::Store {
            let builder = if kind == Kind::DataPack { &mut self.data } else { &mut self.meta };
            builder.add(id, plain, Level::default()).unwrap();
        }
        id
    }

    /// A relation file: chunks of four pages, hashes, empty pages left out.
    pub(crate) fn pages(&mut self, content: &[u8]) -> EntryKind {
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

    pub(crate) fn small_pieces(&mut self, content: &[u8]) -> Vec<Piece> {
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

    pub(crate) fn small(&mut self, content: &[u8]) -> EntryKind {
        EntryKind::File(self.small_pieces(content))
    }

    pub(crate) async fn finish(self, entries: Vec<Entry>) -> Manifest {
        self.finish_with(entries, |plain| plain).await
    }

    /// The same with parts of the file table that `spoil` has changed.
    pub(crate) async fn finish_with(
        mut self,
        mut entries: Vec<Entry>,
        spoil: impl Fn(Vec<u8>) -> Vec<u8>,
    ) -> Manifest {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut tables = Vec::new();
        for part in entries.chunks(5) {
            let plain = spoil(table::encode(part));
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
            cluster: self.session.at().cluster.to_string(),
            lineage: self.session.at().lineage.clone(),
            tables,
            entries: entries.len() as u64,
            bytes: entries.iter().map(Entry::len).sum(),
            details: serde_json::json!({}),
        };
        self.session.commit(&manifest).await.unwrap();
        manifest
    }
}

pub(crate) async fn session(cluster: &ClusterStore) -> BackupSession {
    repositories::begin(&cluster.sealed, &cluster.at).await
}

pub(crate) fn table_file(seed: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..40 * PAGE)
        .map(|n| (n as u8).wrapping_mul(seed).wrapping_add((n / PAGE) as u8))
        .collect();
    // A hole of eight pages, and an odd end.
    bytes[8 * PAGE..16 * PAGE].fill(0);
    bytes.truncate(39 * PAGE + 100);
    bytes
}

pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
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
pub(crate) fn control(system: u64) -> Vec<u8> {
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
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

pub(crate) fn walk(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    entries
        .flatten()
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}

pub(crate) const FOLDERS: [&str; 6] =
    ["base", "base/1", "global", "pg_tblspc", "pg_wal", "pg_wal/archive_status"];

pub(crate) async fn simple_backup(cluster: &ClusterStore, extra: Vec<Entry>) -> Manifest {
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

pub(crate) fn plan_of(manifest: &Manifest) -> RestorePlan {
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

pub(crate) fn options(dir: &Path) -> RestoreOptions {
    RestoreOptions {
        dir: dir.to_owned(),
        places: Places { tablespaces: vec![], waldir: None, locations: Locations::AsTold },
        existing: Existing::Refuse,
        on_loss: OnLoss::Refuse,
        server: Some(ServerSettings {
            role: Role::Copy,
            action: Action::Pause,
            restore_command: "/bin/pgrecall wal fetch %f \"%p\"".into(),
        }),
        threads: 2,
        memory_budget_bytes: 64 << 20,
    }
}

pub(crate) async fn run(
    cluster: &ClusterStore,
    manifest: &Manifest,
    options: &RestoreOptions,
) -> Result<Restored, EngineError> {
    let prepared = prepare(cluster, manifest, options).await?;
    let wal = RepoWal::open(cluster, cluster.facts.wal_segment_size).await?;
    let around =
        Around { clock: Clock::system(), progress: Progress::silent(), cancel: Cancel::new() };
    restore(cluster, &wal, &plan_of(manifest), manifest, prepared, options, around).await
}

pub(crate) fn assert_restored(dir: &Path) {
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
