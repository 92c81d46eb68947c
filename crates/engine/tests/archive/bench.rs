//! A repository over a store of the test's choice, and segments made by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgrecall_engine::archive::access::{Access, DomainIs};
use pgrecall_engine::archive::cache::HostCache;
use pgrecall_engine::archive::data_directory::DataDirectory;
use pgrecall_engine::archive::fetch::{self, FetchOutcome, FetchRequest};
use pgrecall_engine::archive::pack::Compression;
use pgrecall_engine::archive::patience::Patience;
use pgrecall_engine::archive::push::{self, PushOutcome, PushRequest};
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::ClusterFacts;
use pgrecall_engine::{EngineError, wal_place};
use pgrecall_pgformat::{ArchiveName, Major, SegmentSize};
use pgrecall_repo::codec::Level;
use pgrecall_repo::repository::OpenOptions;
use pgrecall_store::{Key, Store};
use pgrecall_testkit::repositories::InMemory;

pub(crate) const SYSTEM: u64 = 7_123_456_789_012_345_678;
pub(crate) const FIRST: &str = "000000010000000000000001";

/// A repository, a key to it, and a folder of files.
pub(crate) struct Bench {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: OpenOptions,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn facts(system_identifier: u64) -> ClusterFacts {
    ClusterFacts {
        system_identifier,
        major: Major::V17,
        page_size_bytes: 8192,
        wal_segment_size: size(),
    }
}

/// The smallest there is.
pub(crate) fn size() -> SegmentSize {
    SegmentSize::from_bytes(1 << 20).unwrap()
}

/// A segment's first page and noise behind it.
pub(crate) fn segment(system: u64, number: u64, seed: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..size().bytes()).map(|at| (at % 251) as u8 ^ (at >> 12) as u8 ^ seed).collect();
    bytes[..40].fill(0);
    bytes[..2].copy_from_slice(&Major::V17.wal_magic().to_le_bytes());
    bytes[2] = 2;
    bytes[4] = 1;
    bytes[8..16].copy_from_slice(&(number << 20).to_le_bytes());
    bytes[24..32].copy_from_slice(&system.to_le_bytes());
    bytes[32..36].copy_from_slice(&size().bytes().to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    bytes
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let InMemory { store, mut options, repository } = InMemory::create().await;
        options.id = Some(repository.root().id);
        options.fingerprint = Some(repository.fingerprint());
        Self { store, options, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn access(&self) -> Access {
        self.access_to(self.store.clone())
    }

    /// With a cache in the folder.
    pub(crate) fn access_to(&self, store: Arc<dyn Store>) -> Access {
        Access {
            store,
            options: self.options.clone(),
            cache: Some(HostCache::new(self.folder.path().join("cache"))),
            cluster: "main".parse().unwrap(),
            domain: "main".parse().unwrap(),
            domain_is: DomainIs::Told,
            patience: Patience {
                progress: Duration::from_secs(20),
                total: Duration::from_secs(20),
            },
        }
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn destination(&self) -> PathBuf {
        self.folder.path().join("RECOVERYXLOG")
    }

    /// Names of files beside the destination, the pushed ones and the cache apart.
    pub(crate) fn left_beside(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("RECOVERYXLOG")).collect()
    }
}

pub(crate) fn request(path: &Path) -> PushRequest {
    PushRequest {
        path: path.to_owned(),
        facts: facts(SYSTEM),
        host: "db1".into(),
        compression: Compression { level: Level(1), threads: 2 },
        clock: Clock::system(),
    }
}

pub(crate) async fn push(access: &Access, path: &Path) -> Result<PushOutcome, EngineError> {
    push::push(access, request(path)).await
}

/// On behalf of a data directory of that cluster.
pub(crate) async fn fetch_as(
    access: &Access,
    bench: &Bench,
    name: &str,
    system: Option<u64>,
) -> Result<FetchOutcome, EngineError> {
    let asking = system.map(|system| DataDirectory { path: "/data".into(), facts: facts(system) });
    let request = FetchRequest {
        name: name.into(),
        destination: bench.destination(),
        asking,
        clock: Clock::system(),
    };
    fetch::fetch(access, &request).await
}

pub(crate) async fn fetch(access: &Access, bench: &Bench) -> Result<FetchOutcome, EngineError> {
    fetch_as(access, bench, FIRST, Some(SYSTEM)).await
}

/// The object of a file.
pub(crate) fn object(access: &Access, name: &str) -> Key {
    let name = ArchiveName::parse(name, size()).unwrap();
    wal_place::object(&access.at(SYSTEM), name, size()).unwrap()
}
