//! Copies of small objects that never change, kept on this host as they are stored: wrapped or
//! sealed. They save `wal push` and `wal fetch` their requests; a lost or odd copy costs one.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use pgrecall_repo::id::RepositoryId;
use pgrecall_repo::repository::Cache;

/// Objects in files of one folder for each repository.
#[derive(Debug)]
pub(crate) struct FolderCache {
    folder: PathBuf,
}

impl FolderCache {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, repository: RepositoryId, name: &str) -> PathBuf {
        self.folder.join(repository.to_string()).join(name.replace('/', "%"))
    }
}

impl Cache for FolderCache {
    fn get(&self, repository: RepositoryId, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(repository, name)).ok()
    }

    fn put(&self, repository: RepositoryId, name: &str, object: &[u8]) {
        let path = self.path(repository, name);
        if let Err(error) = keep(&path, object) {
            tracing::debug!("not cached in {}: {error}", path.display());
        }
    }
}

/// Writes beside the name and renames, so that no reader sees half an object.
fn keep(path: &std::path::Path, object: &[u8]) -> std::io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(object)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_only_for_its_repository() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = FolderCache::new(folder.path().join("made"));
        let (a, b) = (RepositoryId::from_bytes([1; 16]), RepositoryId::from_bytes([2; 16]));
        assert_eq!(cache.get(a, "keys/x"), None);
        cache.put(a, "keys/x", b"sealed");
        assert_eq!(cache.get(a, "keys/x").as_deref(), Some(b"sealed".as_slice()));
        assert_eq!(cache.get(b, "keys/x"), None);
        assert_eq!(cache.get(a, "keys/y"), None);
    }
}
