//! Objects as files below one directory, on a local or a network file system.
//!
//! A put writes a file in `.tmp/`, syncs it, and gives it its final name by a hard link, which
//! fails when the name is taken: so an object is whole or absent, and never overwritten. Nothing is
//! acknowledged before file and folder are synced. Only regular files are objects; a symbolic link
//! is never followed below the root.

mod disk;
mod fault;
mod file;
mod put;
mod walk;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::error::{Act, ErrorKind, StoreError, object_name};
use crate::key::{Key, Prefix};
use crate::store::{ByteRange, Listed, ObjectMeta, Put, RangeRead, Store};

use disk::{Disk, Unwitnessed};
use walk::Walk;

/// What to do when the root directory is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RootPolicy {
    /// Refuse: an unmounted directory is not a repository.
    #[default]
    MustExist,
    /// Make it, and the folders above it, for `init`.
    Create,
}

/// A directory that holds objects as files. A clone shares the open root.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    root: Arc<Root>,
}

/// The root directory, opened once: what is mounted over it later is not written to.
#[derive(Debug)]
struct Root {
    folder: OwnedFd,
    url: String,
    disk: Disk,
    /// Whether the temporary files of dead writers have been removed, which the first put does.
    cleaned: AtomicBool,
}

/// How a folder is opened: never through a symbolic link in its last component.
const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Listed objects that travel together from the walking thread.
const LIST_BATCH: usize = 256;

impl DirectoryStore {
    /// Opens the root directory. The root itself may be a symbolic link.
    ///
    /// # Errors
    /// `Unavailable` when it is not there, `Invalid` when it is no directory or the path is not
    /// absolute, `Denied` when this user may not enter it.
    pub async fn open(path: impl Into<PathBuf>, policy: RootPolicy) -> Result<Self, StoreError> {
        Self::open_on(Disk(Box::new(Unwitnessed)), path.into(), policy).await
    }

    async fn open_on(disk: Disk, path: PathBuf, policy: RootPolicy) -> Result<Self, StoreError> {
        let url = format!("file://{}", path.display());
        let name = url.clone();
        let root = blocking(Act::Open, name, move || open_root(disk, &path, url, policy)).await?;
        Ok(Self { root: Arc::new(root) })
    }

    async fn run<T, F>(&self, act: Act, key: &Key, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Root, &Key) -> Result<T, StoreError> + Send + 'static,
    {
        let (root, key) = (Arc::clone(&self.root), key.clone());
        blocking(act, object_name(&root.url, &key), move || work(&root, &key)).await
    }
}

/// One hop to a thread that may block, and back.
async fn blocking<T, F>(act: Act, object: String, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(StoreError::new(ErrorKind::Internal, act, object, "the task died").caused_by(error))
        }
    }
}

fn open_root(disk: Disk, path: &Path, url: String, policy: RootPolicy) -> Result<Root, StoreError> {
    if !path.is_absolute() {
        let what = "the path of a directory store must be absolute";
        return Err(StoreError::new(ErrorKind::Invalid, Act::Open, url, what));
    }
    if policy == RootPolicy::Create {
        create_root(&disk, path, &url)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(folder) => Ok(Root { folder, url, disk, cleaned: AtomicBool::new(false) }),
        Err(Errno::NOENT) => {
            let what = "the directory does not exist";
            Err(StoreError::new(ErrorKind::Unavailable, Act::Open, url, what)
                .with_hint("Mount it if it lies on another disk; only `init` makes it."))
        }
        Err(Errno::NOTDIR) => {
            let what = "the path is not a directory";
            Err(StoreError::new(ErrorKind::Invalid, Act::Open, url, what))
        }
        Err(errno) => Err(fault::from_errno(Act::Open, url, "open", errno)),
    }
}

/// Makes the root and what is missing above it, each made durable in its parent.
fn create_root(disk: &Disk, path: &Path, url: &str) -> Result<(), StoreError> {
    let fail = |doing, errno| fault::from_errno(Act::Open, url, doing, errno);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    // It may be a folder that this user can pass through, and not read.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = match rustix::fs::open(parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            create_root(disk, parent, url)?;
            rustix::fs::open(parent, flags, Mode::empty())
        }
        opened => opened,
    };
    let folder = folder.map_err(|errno| fail("open the folder above", errno))?;
    match disk.make_folder(&folder, name) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(fail("make", errno)),
    }
    rustix::fs::openat(&folder, ".", FOLDER, Mode::empty())
        .and_then(|folder| disk.sync_folder(&folder))
        .map_err(|errno| fail("sync the folder above", errno))
}

impl Root {
    fn fault(&self, act: Act, key: &Key, doing: &str, errno: Errno) -> StoreError {
        fault::from_errno(act, object_name(&self.url, key), doing, errno)
    }

    /// What "no such file" means: the object is absent, unless the root itself has been removed.
    fn absent(&self, act: Act, key: &Key) -> StoreError {
        match rustix::fs::fstat(&self.folder) {
            Ok(stat) if stat.st_nlink > 0 => StoreError::not_found(act, &self.url, key),
            _ => fault::root_removed(act, &self.url),
        }
    }

    /// Opens the folder of a key, component by component, so that no symbolic link is followed.
    fn parent_of(&self, key: &Key) -> Result<OwnedFd, Errno> {
        let mut folder = rustix::io::fcntl_dupfd_cloexec(&self.folder, 0)?;
        for component in key.parent().as_str().split_terminator('/') {
            folder = rustix::fs::openat(&folder, component, FOLDER, Mode::empty())?;
        }
        Ok(folder)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let (file, size) = self.open_object(Act::Get, key)?;
        if size > limit_bytes {
            return Err(StoreError::too_large(Act::Get, &self.url, key, size, limit_bytes));
        }
        self.read(Act::Get, key, &file, 0, size)
    }

    fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        let act = Act::GetRange;
        let (file, object_size) = self.open_object(act, key)?;
        let Some((offset, len)) = range.within(object_size) else {
            let what = format!("{range:?} ends beyond 2^64");
            let object = object_name(&self.url, key);
            return Err(StoreError::new(ErrorKind::Invalid, act, object, what));
        };
        let bytes = self.read(act, key, &file, offset, len)?;
        Ok(RangeRead { bytes, object_size })
    }

    fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let (_, size) = self.open_object(Act::Head, key)?;
        Ok(ObjectMeta { size })
    }

    /// The open file of an object and its size; anything but a regular file is refused.
    fn open_object(&self, act: Act, key: &Key) -> Result<(OwnedFd, u64), StoreError> {
        let opened = self.parent_of(key).and_then(|folder| file::open(&folder, key.file_name()));
        match opened {
            Ok(opened) => Ok(opened),
            Err(Errno::NOENT) => Err(self.absent(act, key)),
            Err(errno) => Err(self.fault(act, key, "open", errno)),
        }
    }

    fn read(
        &self,
        act: Act,
        key: &Key,
        file: &OwnedFd,
        offset: u64,
        len: u64,
    ) -> Result<Bytes, StoreError> {
        let bytes =
            file::read(file, offset, len).map_err(|errno| self.fault(act, key, "read", errno))?;
        if bytes.len() as u64 == len {
            return Ok(bytes);
        }
        let what = format!("cut short while it was read: {} of {len} bytes", bytes.len());
        Err(StoreError::new(ErrorKind::Corrupt, act, object_name(&self.url, key), what))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let folder = match self.parent_of(key) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return self.absent_is_fine(key),
            Err(errno) => return Err(self.fault(Act::Delete, key, "open the folder", errno)),
        };
        match self.disk.remove(&folder, key.file_name()) {
            Ok(()) => {}
            // Whoever removed it may not have come so far as to sync.
            Err(Errno::NOENT) => self.absent_is_fine(key)?,
            Err(errno) => return Err(self.fault(Act::Delete, key, "remove", errno)),
        }
        // Gone must stay gone: a pack that rises after its marker went could be referred to again.
        self.disk
            .sync_folder(&folder)
            .map_err(|errno| self.fault(Act::Delete, key, "sync the folder", errno))
    }

    fn absent_is_fine(&self, key: &Key) -> Result<(), StoreError> {
        match self.absent(Act::Delete, key) {
            error if error.kind() == ErrorKind::NotFound => Ok(()),
            error => Err(error),
        }
    }

    /// Walks below `prefix` and sends what it finds, until done, failed, or nobody listens.
    fn walk(&self, prefix: &Prefix, into: &mpsc::Sender<Result<Vec<Listed>, StoreError>>) {
        let mut batch = Vec::with_capacity(LIST_BATCH);
        let mut walk = match Walk::start(self, prefix) {
            Ok(walk) => walk,
            Err(error) => return drop(into.blocking_send(Err(error))),
        };
        loop {
            match walk.step() {
                Ok(Some(listed)) => batch.push(listed),
                Ok(None) => return drop(into.blocking_send(Ok(batch))),
                Err(error) => {
                    let _ = into.blocking_send(Ok(batch));
                    return drop(into.blocking_send(Err(error)));
                }
            }
            if batch.len() == LIST_BATCH {
                let full = std::mem::replace(&mut batch, Vec::with_capacity(LIST_BATCH));
                if into.blocking_send(Ok(full)).is_err() {
                    return;
                }
            }
        }
    }
}

#[async_trait]
impl Store for DirectoryStore {
    /// A local failure does not go away by trying again at once, and after a failed sync the kernel
    /// may have dropped the data: so one try, and the caller decides.
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put {
        self.put_once(key, body).await
    }

    async fn put_once(&self, key: &Key, body: Bytes) -> Put {
        let put = self.run(Act::Put, key, move |root, key| put::put(root, key, &body)).await;
        put.unwrap_or_else(Put::Unknown)
    }

    async fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.run(Act::Put, key, put::make_durable).await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.run(Act::Get, key, move |root, key| root.get(key, limit_bytes)).await
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        self.run(Act::GetRange, key, move |root, key| root.get_range(key, range)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.run(Act::Head, key, Root::head).await
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        let prefix = prefix.clone();
        let batches = stream::once(async move {
            let (send, receive) = mpsc::channel(2);
            let root = Arc::clone(&self.root);
            tokio::task::spawn_blocking(move || root.walk(&prefix, &send));
            stream::unfold(
                receive,
                |mut receive| async move { Some((receive.recv().await?, receive)) },
            )
        });
        batches
            .flatten()
            .flat_map(|batch| match batch {
                Ok(batch) => stream::iter(batch).map(Ok).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            })
            .boxed()
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
        let (root, prefix) = (Arc::clone(&self.root), prefix.clone());
        let object = object_name(&root.url, &prefix);
        blocking(Act::List, object, move || Ok(Walk::start(&root, &prefix)?.folders())).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.run(Act::Delete, key, Root::delete).await
    }

    fn url(&self) -> String {
        self.root.url.clone()
    }
}

#[cfg(test)]
mod tests;
