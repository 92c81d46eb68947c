//! Repositories in memory, and backups begun in them, for tests that need no server.

use std::sync::Arc;

use pgrecall_repo::backup::{BackupNote, BackupSession};
use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::keys::{KeyFile, Unlock};
use pgrecall_repo::names::ClusterRef;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{Created, KeyNote, OpenOptions, Repository};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{MemoryStore, Store};

/// When everything here was made, for people.
pub const MADE: &str = "2026-11-22T00:00:00Z";

/// A new repository, encrypted, in memory.
#[derive(Debug)]
pub struct InMemory {
    /// Where it lies.
    pub store: Arc<dyn Store>,
    /// What opens it.
    pub options: OpenOptions,
    /// Itself, as its maker has it.
    pub repository: Repository,
}

impl InMemory {
    /// Makes one, by a key file of its own.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn create() -> Self {
        Self::create_with(SharedRandom::system()).await
    }

    /// The same by chance of one's own, so that it can be had again.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn create_with(random: SharedRandom) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let options = OpenOptions {
            id: None,
            suite: RootSuite::Aes256Gcm,
            fingerprint: None,
            unlock: Unlock::KeyFile(KeyFile::random(&random)),
            random,
            cache: None,
            restore_keys: Vec::new(),
        };
        let note = KeyNote { label: "db1".into(), now: MADE.into() };
        let made = Repository::create(store.clone(), options.clone(), &note).await;
        let Ok(Created::New(repository)) = made else { panic!("no new repository: {made:?}") };
        Self { store, options, repository: *repository }
    }
}

/// Begins a backup, as process 1 of the host db1.
///
/// # Panics
/// When it cannot begin.
pub async fn begin(sealed: &SealedStore, at: &ClusterRef) -> BackupSession {
    begin_as(sealed, at, 1).await
}

/// Begins a backup, as another process of that host.
///
/// # Panics
/// When it cannot begin.
pub async fn begin_as(sealed: &SealedStore, at: &ClusterRef, process: u32) -> BackupSession {
    let note =
        BackupNote { host: "db1".into(), process, incarnation: String::new(), began: MADE.into() };
    BackupSession::begin(sealed.clone(), at.clone(), &note).await.expect("the backup begins")
}
