//! Copies on this host of small objects that never change: the root, wrapped keys, the mark that a
//! cluster is registered. With them a push costs three requests, and a fetch two.
//!
//! They are kept as stored, wrapped or sealed, and are worth nothing without the key. What *can*
//! change is which objects there are: a new epoch of keys, a key removed. So copies are used for an
//! hour, and then everything is read again. A cache that cannot be used is no error.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pgrecall_repo::id::RepositoryId;
use pgrecall_repo::names;
use pgrecall_repo::repository::Cache;
use pgrecall_store::Key;

use crate::host_file;

/// How long copies are used before everything is read again.
pub const FRESH_FOR: Duration = Duration::from_secs(3600);

/// No copy is longer: wrapped keys and roots are a few hundred bytes.
const COPY_BYTES_MAX: u64 = 1 << 20;

/// Whether copies are used, or only written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// They are used.
    Copies,
    /// Everything is read from the repository; new copies are made.
    Anew,
}

/// A folder of copies, one folder below it for each repository.
#[derive(Debug, Clone)]
pub struct HostCache {
    folder: PathBuf,
    reading: Reading,
}

impl HostCache {
    /// The cache in this folder, which is made when it is first written to.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, reading: Reading::Copies }
    }

    /// The same cache, read or only written.
    #[must_use]
    pub fn reading(&self, reading: Reading) -> Self {
        Self { folder: self.folder.clone(), reading }
    }

    /// Whether everything was read from the repository within [`FRESH_FOR`].
    #[must_use]
    pub fn is_fresh(&self, repository: RepositoryId) -> bool {
        self.age(repository, names::root().as_str()).is_some_and(|age| age < FRESH_FOR)
    }

    /// How long ago this was written; nothing when it was not, or will be.
    #[must_use]
    pub fn age(&self, repository: RepositoryId, name: &str) -> Option<Duration> {
        fs::metadata(self.path(repository, name)?).ok()?.modified().ok()?.elapsed().ok()
    }

    fn path(&self, repository: RepositoryId, name: &str) -> Option<PathBuf> {
        // A name that parses has no `..`, no empty part, and no leading slash.
        Key::parse(name).ok()?;
        Some(self.folder.join(repository.to_string()).join(name))
    }
}

impl Cache for HostCache {
    fn get(&self, repository: RepositoryId, name: &str) -> Option<Vec<u8>> {
        if self.reading == Reading::Anew {
            return None;
        }
        let path = self.path(repository, name)?;
        let size = fs::metadata(&path).ok()?.len();
        if size > COPY_BYTES_MAX { None } else { fs::read(path).ok() }
    }

    fn put(&self, repository: RepositoryId, name: &str, object: &[u8]) {
        let Some(path) = self.path(repository, name) else { return };
        if let Err(error) = host_file::write(&path, object) {
            let path = path.display();
            tracing::debug!("the copy {path} was not kept: {error}");
        }
    }

    fn forget(&self, repository: RepositoryId, name: &str) -> bool {
        self.path(repository, name).is_some_and(|path| fs::remove_file(path).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    #[test]
    fn copies_are_private_whole_and_never_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let cache = HostCache::new(folder.path().join("a/b"));
        let id = RepositoryId::from_bytes([7; 16]);
        assert!(!cache.is_fresh(id));
        assert_eq!(cache.get(id, "keys/x"), None);
        cache.put(id, "keys/x", b"wrap");
        cache.put(id, "pgrecall.json", b"root");
        assert_eq!(cache.get(id, "keys/x").unwrap(), b"wrap");
        assert_eq!(cache.get(RepositoryId::from_bytes([8; 16]), "keys/x"), None);
        assert!(cache.is_fresh(id));
        assert_eq!(cache.reading(Reading::Anew).get(id, "keys/x"), None);
        cache.put(id, "keys/y", b"other");
        assert!(cache.forget(id, "keys/y") && !cache.forget(id, "keys/y"));
        assert_eq!(cache.get(id, "keys/y"), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let kept = folder.path().join("a/b").join(id.to_string()).join("keys/x");
        assert_eq!(mode(&kept), 0o600);
        assert_eq!(mode(kept.parent().unwrap()), 0o700);
        let names = fs::read_dir(kept.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1, "nothing is left beside the copy");
        for name in ["../x", "/x", "a//b", ""] {
            cache.put(id, name, b"x");
            assert_eq!(cache.get(id, name), None, "{name}");
        }
        let blocked = HostCache::new(kept);
        blocked.put(id, "keys/x", b"wrap");
        assert_eq!(blocked.get(id, "keys/x"), None);
    }
}
