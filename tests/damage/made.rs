//! A cluster that never ran: two backups, one real WAL segment, notes of all sorts, made in a
//! directory once and copied for each cell of the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrecall_engine::archive::trailer::{self, Trailer};
use pgrecall_engine::cluster::{ClusterFacts, ClusterStore};
use pgrecall_engine::wal_place;
use pgrecall_pgformat::control::ControlFile;
use pgrecall_pgformat::segment::ArchiveNameKind;
use pgrecall_pgformat::segment_digest::digest_segment;
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_pgformat::{ArchiveName, SegmentName, SegmentNumber, TimelineId};
use pgrecall_repo::backup::{self, BackupNote, BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::format::document::{
    Damage, DamagedChunk, DamagedWal, Expired, Manifest, Promise, Resolution, RetireVerdict,
    StoreRecord, TableChunk,
};
use pgrecall_repo::format::header::{KeyClass, Kind};
use pgrecall_repo::format::map::{Extent, FileMap, HashSource, MapChunk, Source};
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::format::table::{self, Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::gc;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::index;
use pgrecall_repo::keys::{KeyFile, Rotation, Unlock};
use pgrecall_repo::names::{self, RoundPart};
use pgrecall_repo::object::{self, Payload};
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{Created, KeyNote, OpenOptions, Repository};
use pgrecall_store::{DirectoryStore, RootPolicy, Store};

/// The segment that is stored and fetched.
pub(crate) const SEGMENT: &str = "000000010000000000000008";
/// A segment of which two contents are stored, and which of them holds.
pub(crate) const SETTLED: &str = "000000010000000000000007";
/// A history file that is not stored yet.
pub(crate) const NEW_FILE: &str = "00000007.history";
const NOW: &str = "2026-11-22T00:00:00Z";
const PAGE: usize = 8192;

/// The repository and what is known of it.
pub(crate) struct Made {
    folder: tempfile::TempDir,
    /// The files of each backup, older first.
    pub(crate) backups: Vec<(BackupId, BTreeMap<String, Vec<u8>>)>,
    pub(crate) segment: Vec<u8>,
    /// The key that opens it.
    pub(crate) key_id: String,
    /// The ids of what the newer backup alone has, by spaces.
    pub(crate) newer: String,
    /// The ids of backups that were ended.
    pub(crate) tombstones: BTreeSet<String>,
    /// Lines of the configuration that say which repository is meant.
    pinned: String,
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pg/17");
    fs::read(folder.join(name)).expect("the fixture is read")
}

impl Made {
    pub(crate) async fn new(suite: RootSuite) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let random = SharedRandom::system();
        let key = KeyFile::random(&random);
        let key_file = folder.path().join("main.key");
        fs::write(&key_file, key.to_text().as_bytes()).expect("the key file");
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("chmod");
        let key_id = key.id.to_string();
        let path = folder.path().join("repository");
        let repository = create(&path, suite, Unlock::KeyFile(key)).await;
        let control = ControlFile::decode(&fixture("pg_control")).expect("a control file");
        let (domain, name) = ("main".parse().expect("a name"), "main".parse().expect("a name"));
        let facts = ClusterFacts::of(&control);
        let cluster = ClusterStore::register(&repository, &domain, &name, facts.clone())
            .await
            .expect("it is new");
        let other = "other".parse().expect("a name");
        let other_facts = ClusterFacts { system_identifier: 99, ..facts };
        ClusterStore::register(&repository, &domain, &other, other_facts).await.expect("so is it");
        let mut segment = fixture(&format!("{SEGMENT}.head"));
        segment.resize(1 << 20, 0);
        let summary = archive_all(&cluster, &segment).await;
        let mut backups = vec![back_up(&cluster, &summary, 1, Vec::new()).await];
        let saw = backups.iter().map(|(id, _)| *id).collect();
        repository.rotate(&domain, Rotation::Sealing, None).await.expect("a second epoch");
        let sealed = repository.existing_domain(&domain).await.expect("with its keys");
        let cluster = ClusterStore { sealed, ..cluster };
        let before = ids(&path);
        backups.push(back_up(&cluster, &summary, 2, saw).await);
        let newer: Vec<_> = ids(&path).difference(&before).cloned().collect();
        notes(&cluster, &repository).await;
        notes_of_wal(&cluster).await;
        let tombstones = rounds(&cluster).await;
        let encryption = match suite {
            RootSuite::Aes256Gcm => "aes-256-gcm",
            RootSuite::None => "none",
        };
        pgdata(&folder.path().join("pgdata"), &segment);
        let mut pinned = format!("id = \"{}\"\n", repository.root().id);
        if suite == RootSuite::Aes256Gcm {
            let key_file = key_file.display();
            pinned += &format!(
                "key_fingerprint = \"{}\"\nkey_file = \"{key_file}\"\n",
                repository.fingerprint()
            );
        }
        pinned += &format!("encryption = \"{encryption}\"\n");
        let newer = newer.join(" ");
        Self { folder, backups, segment, key_id, newer, tombstones, pinned }
    }

    /// The bytes of its root object.
    pub(crate) fn root(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("repository/pgrecall.json")).expect("the root is read")
    }

    /// A copy of the repository in a folder of its own.
    pub(crate) fn copy(&self) -> Copy<'_> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy_tree(&self.folder.path().join("repository"), &folder.path().join("repository"));
        let config = format!(
            "[[repository]]\nurl = \"file://{0}/repository\"\n{1}cache_dir = \"{0}/cache\"\n\n\
             [[cluster]]\nname = \"main\"\npgdata = \"{2}/pgdata\"\n\n\
             [wal]\nfetch_timeout = \"10s\"\n",
            folder.path().display(),
            self.pinned,
            self.folder.path().display(),
        );
        fs::write(folder.path().join("pgrecall.toml"), config).expect("the configuration");
        Copy { made: self, folder }
    }
}

/// One copy, to be damaged.
pub(crate) struct Copy<'a> {
    pub(crate) made: &'a Made,
    folder: tempfile::TempDir,
}

impl Copy<'_> {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub(crate) fn pgdata(&self) -> PathBuf {
        self.made.folder.path().join("pgdata")
    }

    /// The names of the objects below a folder, in order.
    pub(crate) fn objects(&self, below: &str) -> Vec<String> {
        let below = self.repository().join(below);
        let short = |path: PathBuf| {
            let name = path.strip_prefix(self.repository()).expect("below it");
            name.to_str().expect("UTF-8").to_owned()
        };
        files_below(&below).into_iter().map(short).collect()
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { &mut folders } else { &mut found }.push(path);
        }
    }
    found.sort();
    found
}

/// The last parts of all objects' names.
fn ids(repository: &Path) -> BTreeSet<String> {
    let name =
        |path: PathBuf| path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    files_below(repository).into_iter().map(name).collect()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = entry.path();
        if path.is_dir() {
            copy_tree(&path, &to.join(entry.file_name()));
        } else {
            fs::copy(&path, to.join(entry.file_name())).expect("a copy");
        }
    }
}

/// A data directory as far as WAL commands look at it.
fn pgdata(folder: &Path, segment: &[u8]) {
    for name in ["global", "pg_wal"] {
        fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    fs::write(folder.join("PG_VERSION"), "17\n").expect("PG_VERSION");
    fs::write(folder.join("global/pg_control"), fixture("pg_control")).expect("pg_control");
    fs::write(folder.join("pg_wal").join(SEGMENT), segment).expect("the segment");
    let history = "1\t0/900000\tmade up\n";
    fs::write(folder.join("pg_wal").join(NEW_FILE), history).expect("the history");
}

async fn create(path: &Path, suite: RootSuite, unlock: Unlock) -> Repository {
    let store: Arc<dyn Store> =
        Arc::new(DirectoryStore::open(path, RootPolicy::Create).await.expect("a directory"));
    let random = SharedRandom::system();
    let options = OpenOptions {
        id: None,
        suite,
        fingerprint: None,
        unlock,
        random,
        cache: None,
        restore_keys: Vec::new(),
    };
    let note = |label: &str| KeyNote { label: label.into(), now: NOW.into() };
    let created = Repository::create(store, options, &note("db1")).await.expect("it is empty");
    let Created::New(repository) = created else { panic!("it is empty") };
    if suite == RootSuite::Aes256Gcm {
        let second = Unlock::KeyFile(KeyFile::random(&SharedRandom::system()));
        repository.add_key(&second, &note("db2")).await.expect("a second key");
    }
    *repository
}

/// The segment, what else a server archives, and settled collisions.
async fn archive_all(cluster: &ClusterStore, segment: &[u8]) -> SegmentSummary {
    let size = cluster.facts.wal_segment_size;
    let name = SegmentName::parse(SEGMENT, size).expect("a segment's name");
    let summary = digest_segment(name, size, segment);
    assert!(summary.is_complete());
    let segment_name = ArchiveName::Segment(name);
    push(cluster, segment_name, "", segment, Some(summary.clone())).await;
    for number in [9, 10] {
        let later = SegmentName { number: SegmentNumber(number), ..name };
        push(cluster, ArchiveName::Partial(later), "", segment, None).await;
        let note = ArchiveName::BackupHistory { segment: later, offset_bytes: 40 };
        push(cluster, note, "", b"START WAL LOCATION: 0/900028\n", None).await;
    }
    let history = "1\t0/900000\tmade up\n".to_owned();
    for (timeline, history) in
        [(2, history.clone()), (3, format!("{history}\n2\t0/900000\tmade up\n"))]
    {
        let name = ArchiveName::History(TimelineId(timeline));
        push(cluster, name, "", history.as_bytes(), None).await;
    }
    // The segment before, for which two contents are stored.
    for (log, digest) in [(7, "0123456789abcdef"), (6, "fedcba9876543210")] {
        let earlier = SegmentName { number: SegmentNumber(log), ..name };
        let earlier = ArchiveName::Segment(earlier);
        push(cluster, earlier, &format!(".{digest}"), segment, None).await;
        let plain = wal_place::object(&cluster.at, earlier, size).expect("a name");
        let resolution = Resolution {
            object: format!("{plain}.{digest}"),
            reason: "the other one came from a test copy".into(),
            by: "a person".into(),
            heals: false,
        };
        let name = pgrecall_store::Key::parse(&format!("{plain}.resolved")).expect("a name");
        cluster.sealed.put(Kind::Resolution, &name, &resolution).await.expect("a resolution");
    }
    summary
}

async fn push(
    cluster: &ClusterStore,
    file: ArchiveName,
    suffix: &str,
    bytes: &[u8],
    summary: Option<SegmentSummary>,
) {
    let size = cluster.facts.wal_segment_size;
    let name = wal_place::object(&cluster.at, file, size).expect("a name");
    let name = pgrecall_store::Key::parse(&format!("{name}{suffix}")).expect("a name");
    let trailer = Trailer {
        version: trailer::VERSION,
        kind: ArchiveName::kind_of(&file.file_name(size)).unwrap_or(ArchiveNameKind::Segment),
        name: file.file_name(size),
        plain_bytes: bytes.len() as u64,
        summary,
        host: "db1".into(),
        pushed: NOW.into(),
    };
    let sealed = &cluster.sealed;
    let digest = sealed.keys().digest(bytes);
    let body: Vec<_> =
        object::frames_of(bytes).map(|part| Payload::compress(part, Level::default())).collect();
    let object = object::seal_archive(
        sealed.keys(),
        KeyClass::Data,
        &name,
        digest,
        &body,
        &trailer.encode(),
        sealed.random(),
    );
    let object = object.expect("it is sealed");
    pgrecall_repo::archive::push(sealed, &name, object).await.expect("it is stored");
}

/// The files of a backup; the number makes them different.
fn files(number: u8) -> BTreeMap<String, Vec<u8>> {
    let relation: Vec<u8> =
        (0..16 * PAGE).map(|at| (at / PAGE * 7 + at % 251) as u8 ^ number).collect();
    BTreeMap::from([
        ("PG_VERSION".to_owned(), b"17\n".to_vec()),
        ("base/5/16384".to_owned(), relation),
        ("global/pg_control".to_owned(), fixture("pg_control")),
        ("postgresql.conf".to_owned(), format!("port = {number}\n").into_bytes()),
    ])
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    let mode = if matches!(kind, EntryKind::Directory) { 0o700 } else { 0o600 };
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let path = RelativePath::new(path.as_bytes()).expect("a path");
    Entry { path, mode, uid, gid, mtime_us: 0, kind }
}

fn note(host: &str) -> BackupNote {
    BackupNote { host: host.into(), process: 4711, incarnation: String::new(), began: NOW.into() }
}

async fn back_up(
    cluster: &ClusterStore,
    summary: &SegmentSummary,
    number: u8,
    saw: Vec<BackupId>,
) -> (BackupId, BTreeMap<String, Vec<u8>>) {
    let note = note("db1");
    let session = BackupSession::begin(cluster.sealed.clone(), cluster.at.clone(), &note).await;
    let session = session.expect("a backup begins");
    let keys = cluster.sealed.keys().clone();
    let builder = |kind| PackBuilder::new(&cluster.sealed, cluster.domain(), kind);
    let mut data = builder(Kind::DataPack).expect("a pack");
    let mut meta = builder(Kind::MetaPack).expect("a pack");
    let files = files(number);
    let mut entries: Vec<_> =
        ["base", "base/5", "global"].map(|path| entry(path, EntryKind::Directory)).into();
    for (path, bytes) in &files {
        let id = keys.chunk_id(bytes);
        // What both have in common is in the first backup's pack.
        if session.claim(&id) == Claim::Store {
            data.add(id, bytes, Level::default()).expect("a chunk");
        }
        let plain_len = bytes.len() as u32;
        let map = FileMap {
            chunks: vec![MapChunk { id, plain_len, hashes: HashSource::None }],
            extents: vec![Extent {
                len: bytes.len() as u64,
                source: Source::Chunk { chunk: 0, offset: 0 },
            }],
            ..FileMap::default()
        };
        let map = PieceMap::Inline(map.encode());
        entries.push(entry(path, EntryKind::File(vec![Piece { len: bytes.len() as u64, map }])));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let plain = table::encode(&entries);
    let id = keys.chunk_id(&plain);
    assert_eq!(session.claim(&id), Claim::Store);
    meta.add(id, &plain, Level::default()).expect("a chunk");
    for pack in [data, meta] {
        session.put_pack(pack.finish().expect("a pack")).await.expect("it is stored");
    }
    session.flush_index().await.expect("an index");
    let mut details = details(cluster, summary, number);
    details["saw_backups"] = serde_json::json!(saw);
    let manifest = Manifest {
        backup: session.id(),
        cluster: "main".into(),
        lineage: cluster.at.lineage.clone(),
        tables: vec![TableChunk {
            first: "PG_VERSION".into(),
            entries: entries.len() as u64,
            id,
            plain_len: plain.len() as u32,
        }],
        entries: entries.len() as u64,
        bytes: files.values().map(|bytes| bytes.len() as u64).sum(),
        details,
    };
    session.commit(&manifest).await.expect("it is committed");
    (session.id(), files)
}

fn details(cluster: &ClusterStore, summary: &SegmentSummary, number: u8) -> serde_json::Value {
    let checkpoint = summary.checkpoints.items.first().expect("the segment has a checkpoint");
    let start = checkpoint.checkpoint.redo;
    let point = summary.restore_points.items.first().map(|point| point.lsn);
    let stop = if number == 1 { point } else { summary.last_record };
    serde_json::json!({
        "began": format!("2026-11-22T00:0{number}:00Z"),
        "ended": format!("2026-11-22T00:0{number}:30Z"),
        "host": "db1", "major": cluster.facts.major, "server_version": 170011,
        "catalog_version": 202406281, "from": "primary",
        "start": {"timeline": TimelineId(1), "lsn": start},
        "checkpoint_lsn": checkpoint.lsn,
        "stop": {"timeline": TimelineId(1), "lsn": stop},
        "backup_label": "made up\n", "tablespace_map": "", "tablespaces": [],
        "pg_wal_link": null, "page_size_bytes": PAGE,
        "wal_segment_size": cluster.facts.wal_segment_size, "relation_segment_pages": 131072,
        "data_checksums": pgrecall_pgformat::control::DataChecksums::Off,
        "chunk_bytes": 262144, "method": "full", "reference": null, "damage": [],
        "stats": {}, "saw_backups": [],
    })
}

/// Backups that were ended, and rounds of a collection: one waits, two have their verdict.
async fn rounds(cluster: &ClusterStore) -> BTreeSet<String> {
    let mut tombstones = BTreeSet::new();
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    for number in 0..3 {
        let at = cluster.at.clone();
        let dead = BackupSession::begin(sealed.clone(), at, &note("db8")).await.expect("it begins");
        let mut pack = PackBuilder::new(sealed, domain, Kind::DataPack).expect("a pack");
        let bytes = format!("what nobody needs {number}");
        let chunk = sealed.keys().chunk_id(bytes.as_bytes());
        assert_eq!(dead.claim(&chunk), Claim::Store);
        pack.add(chunk, bytes.as_bytes(), Level::default()).expect("a chunk");
        let before = index::list_packs(sealed, domain).await.expect("a list");
        dead.put_pack(pack.finish().expect("a pack")).await.expect("it is stored");
        let after = index::list_packs(sealed, domain).await.expect("a list");
        let packs: Vec<_> = after.into_keys().filter(|pack| !before.contains_key(pack)).collect();
        dead.flush_index().await.expect("an index");
        let ended = backup::end_dead(sealed, &cluster.at, dead.id(), "made up".into()).await;
        assert!(!ended.expect("it is ended"), "it stands");
        tombstones.insert(dead.id().to_string());
        let round = gc::retire(sealed, domain, packs.clone()).await.expect("a round");
        if number > 0 {
            let name = names::round(domain, round, RoundPart::Verdict);
            let verdict = RetireVerdict { packs };
            sealed.put(Kind::RetireVerdict, &name, &verdict).await.expect("a verdict");
        }
    }
    tombstones
}

/// What else a repository holds, two of each.
async fn notes(cluster: &ClusterStore, repository: &Repository) {
    let sealed = &cluster.sealed;
    let domain = cluster.domain();
    for number in 0..2 {
        let at = cluster.at.clone();
        let dead = BackupSession::begin(sealed.clone(), at, &note("db9")).await;
        dead.expect("it begins").put_start("1".into(), "0/800028".into()).await.expect("a start");
        let name = names::expired(domain).entry(number);
        let expired =
            Expired { backups: vec![BackupId::random(sealed.random())], ..Expired::default() };
        sealed.put(Kind::Expired, &name, &expired).await.expect("a log entry");
        // In packs that are there, of which one is left whatever is damaged: so it counts for those
        // that look.
        let packs = index::list_packs(sealed, domain).await.expect("packs");
        let pack = if number == 0 { packs.into_keys().min() } else { packs.into_keys().max() };
        let chunk = DamagedChunk {
            pack: pack.expect("a pack"),
            chunk: sealed.keys().chunk_id(b"a chunk that rotted"),
        };
        backup::report_damage(sealed, &cluster.at, vec![chunk], "made up".into())
            .await
            .expect("a note");
        let record = StoreRecord { put_if_absent: Promise::Kept, note: "probed".into() };
        let name = names::store_log().entry(number);
        repository.sealed().put(Kind::StoreRecord, &name, &record).await.expect("a record");
    }
}

/// Says of a segment that no backup needs that it is damaged, in the second entry of the log; the
/// first one says nothing, as when all had been found sound.
async fn notes_of_wal(cluster: &ClusterStore) {
    let size = cluster.facts.wal_segment_size;
    let settled = SegmentName::parse(SETTLED, size).expect("a segment's name");
    let plain =
        wal_place::object(&cluster.at, ArchiveName::Segment(settled), size).expect("a name");
    let wal = DamagedWal {
        object: format!("{plain}.0123456789abcdef"),
        after: None,
        from: settled.number.start(size).to_string(),
    };
    for (number, wal) in [(0, Vec::new()), (1, vec![wal])] {
        let name = names::damaged_wal(&cluster.at).expect("a log").entry(number);
        let note =
            Damage { chunks: Vec::new(), wal, found: "made up".into(), replaces: Vec::new() };
        cluster.sealed.put(Kind::Damage, &name, &note).await.expect("a log entry");
    }
}
