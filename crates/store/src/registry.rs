//! From a URL to a store.

use std::sync::Arc;

use crate::directory::{DirectoryStore, RootPolicy};
use crate::error::{Act, ErrorKind, StoreError};
use crate::memory::MemoryStore;
use crate::store::Store;

/// How stores are opened.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Whether a missing root directory is made.
    pub root: RootPolicy,
}

/// Opens the store that a URL names.
///
/// `file:///absolute/path` (the path as it is, without percent-encoding), `memory:` (a fresh one each time).
///
/// # Errors
/// `Invalid` for an unknown or malformed URL; else what the backend says.
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    if url == "memory:" {
        return Ok(Arc::new(MemoryStore::new()));
    }
    if let Some(path) = url.strip_prefix("file://") {
        return Ok(Arc::new(DirectoryStore::open(path, options.root).await?));
    }
    let what = "no store is known by this URL; known are file:///absolute/path";
    Err(StoreError::new(ErrorKind::Invalid, Act::Open, url, what))
}
