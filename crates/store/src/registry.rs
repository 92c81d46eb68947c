//! From a URL to a store.

use std::sync::Arc;

use crate::directory::{DirectoryStore, RootPolicy};
use crate::error::{Act, ErrorKind, StoreError};
use crate::memory::MemoryStore;
use crate::retry::RetryOptions;
#[cfg(feature = "s3")]
use crate::s3::{S3AsOf, S3Store};
use crate::s3_options::S3Options;
use crate::store::Store;

/// How stores are opened.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Whether a missing root directory is made.
    pub root: RootPolicy,
    /// How often and how long requests over a network are sent again.
    pub retry: RetryOptions,
    /// How an S3 store is reached.
    pub s3: S3Options,
}

/// Opens the store that a URL names: `file:///absolute/path` (the path as it is, without
/// percent-encoding), `s3://bucket/folder`, or `memory:` (a fresh one each time).
///
/// # Errors
/// `Invalid` for an unknown or malformed URL; else what the backend says.
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let invalid = |what: &str| StoreError::new(ErrorKind::Invalid, Act::Open, url, what);
    match url.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::new())),
        Some(("file", path)) => {
            let path = path.strip_prefix("//").filter(|path| path.starts_with('/'));
            let path = path.ok_or_else(|| invalid("a directory is file:///absolute/path"))?;
            Ok(Arc::new(DirectoryStore::open(path, options.root).await?))
        }
        #[cfg(feature = "s3")]
        Some(("s3", _)) => {
            let store = S3Store::open(url, &options.s3, &options.retry).await?;
            match options.s3.as_of {
                None => Ok(Arc::new(store)),
                Some(moment) => Ok(Arc::new(S3AsOf::open(store, moment).await?)),
            }
        }
        _ => Err(invalid("no store goes by this URL")
            .with_hint("Known are file:///absolute/path and s3://bucket/folder.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unknown_urls_are_told_the_known_ones() {
        for url in ["ftp://x/y", "/backup", "", "memory", "s3:/x", "file:relative", "file://x/y"] {
            let error = open(url, &StoreOptions::default()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {error}");
        }
        let error = open("gs://x", &StoreOptions::default()).await.unwrap_err();
        assert!(error.hint().unwrap().contains("s3://"));
        assert_eq!(open("memory:", &StoreOptions::default()).await.unwrap().url(), "memory:");
    }
}
