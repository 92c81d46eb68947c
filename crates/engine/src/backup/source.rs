//! The data directory as a backup reads it: a listing, then files by ranges. Behind a trait, so
//! that tests can yield torn reads, and so that a server can be read without an agent beside it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use pgrecall_pgformat::Major;
use pgrecall_pgformat::control::ControlFile;
use pgrecall_pgformat::data_directory::{self, EntryKind as NodeKind, InitFork, Judgement};
use pgrecall_pgformat::relation::{Fork, RelationFile};

use rustix::fs::Advice;

use crate::error::EngineError;

/// What a listing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    /// The path below the data directory, in bytes with `/` between its parts.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was last written, microseconds since 1970.
    pub mtime_us: i64,
    /// What it is.
    pub kind: SourceKind,
    /// Where it is read, when that is not at its path.
    pub read_at: Option<PathBuf>,
}

/// What an entry of the source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A folder.
    Directory,
    /// A file of so many bytes when it was listed.
    File {
        /// Its length.
        len: u64,
    },
    /// A link that is kept as one: a tablespace's or `pg_wal`'s.
    Link {
        /// Where it leads.
        target: Vec<u8>,
    },
    /// A file that lives outside of the data directory.
    Outside {
        /// Its absolute path.
        original: PathBuf,
        /// Its length.
        len: u64,
    },
}

/// A file being read.
pub trait SourceFile: Send {
    /// Reads into the buffer from `offset` until it is full or the file ends.
    ///
    /// # Errors
    /// As the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Says that these bytes are read next: only speed depends on it.
    fn will_read(&self, _offset: u64, _len: usize) {}
}

/// A data directory.
pub trait Source: Send + Sync {
    /// Lists everything that belongs into a backup, in byte order of the paths.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    fn list(&self) -> Result<Listing, EngineError>;

    /// Opens a file; nothing when it is gone (it was dropped since it was listed, and WAL replay
    /// will drop it too).
    ///
    /// # Errors
    /// When it is there and cannot be opened.
    fn open(&self, entry: &SourceEntry) -> Result<Option<Box<dyn SourceFile>>, EngineError>;

    /// The whole of `global/pg_control`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn control_file(&self) -> Result<Vec<u8>, EngineError>;
}

/// What a data directory holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// Everything that belongs into the backup, but `global/pg_control`.
    pub entries: Vec<SourceEntry>,
    /// Where `pg_wal` leads, if it is a link.
    pub pg_wal_link: Option<PathBuf>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A data directory on this host.
#[derive(Debug)]
pub struct LocalSource {
    root: PathBuf,
    major: Major,
    /// `PG_<major>_<catalog version>`, the directory within each tablespace.
    version_directory: String,
    /// Configuration files outside of the data directory, as the server names them.
    outside: Vec<OutsideFile>,
}

/// A configuration file outside of the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideFile {
    /// Where it is.
    pub original: PathBuf,
    /// Its path within a data directory that takes it in.
    pub within: PathBuf,
}

impl LocalSource {
    /// A source over `root`, as its control file describes it.
    #[must_use]
    pub fn new(root: &Path, control: &ControlFile, outside: Vec<OutsideFile>) -> Self {
        let (major, catalog) = (control.major, control.catalog_version);
        Self {
            root: root.to_owned(),
            major,
            version_directory: format!("PG_{}_{catalog}", major.number()),
            outside,
        }
    }

    /// The directory within each tablespace that is this cluster's.
    #[must_use]
    pub fn version_directory(&self) -> &str {
        &self.version_directory
    }

    fn path_of(&self, entry: &SourceEntry) -> PathBuf {
        match (&entry.read_at, &entry.kind) {
            (Some(path), _) => path.clone(),
            (None, SourceKind::Outside { original, .. }) => original.clone(),
            (None, _) => self.root.join(std::ffi::OsStr::from_bytes(&entry.path)),
        }
    }

    /// Adds what is outside. It is what is in force, so it gets its name even where the data
    /// directory has a file of that name, which nobody reads: that one steps aside.
    fn list_outside(&self, listing: &mut Listing) -> Result<(), EngineError> {
        for OutsideFile { original, within } in &self.outside {
            let meta = match fs::metadata(original) {
                Ok(meta) if meta.is_file() => meta,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    listing.notes.push(format!(
                        "{} is not kept: the server names it, and it is not on this host",
                        original.display()
                    ));
                    continue;
                }
                Err(source) => return Err(EngineError::file("read", original, source)),
            };
            let path = within.as_os_str().as_bytes().to_vec();
            self.step_aside(&path, listing);
            for folder in folders_of(&path) {
                if !listing.entries.iter().any(|entry| entry.path == folder) {
                    let parent = original.parent().unwrap_or(original);
                    let meta = fs::metadata(parent)
                        .map_err(|source| EngineError::file("read", parent, source))?;
                    listing.entries.push(entry_of(folder, &meta, SourceKind::Directory));
                }
            }
            let original = original.clone();
            let kind = SourceKind::Outside { original, len: meta.len() };
            listing.entries.push(entry_of(path, &meta, kind));
        }
        Ok(())
    }

    fn step_aside(&self, path: &[u8], listing: &mut Listing) {
        let Some(entry) = listing.entries.iter_mut().find(|entry| entry.path == path) else {
            return;
        };
        entry.read_at = Some(self.root.join(std::ffi::OsStr::from_bytes(path)));
        entry.path.extend_from_slice(b".not-in-force");
        listing.notes.push(format!(
            "the data directory has a {} that is not the one in force: it is kept as {}",
            String::from_utf8_lossy(path),
            String::from_utf8_lossy(&entry.path)
        ));
    }
}

/// The folders above a path, the outermost first.
fn folders_of(path: &[u8]) -> Vec<Vec<u8>> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| path.get(..at).unwrap_or_default().to_vec()).collect()
}

impl Listing {
    /// Tablespaces (their oids) without a link and the directory of this version below it: their
    /// files are not in the listing. `within` is that directory's name.
    #[must_use]
    pub fn lacking_tablespaces(&self, oids: &[u32], within: &str) -> Vec<u32> {
        let has = |path: String| {
            let path = path.into_bytes();
            self.entries.binary_search_by(|entry| entry.path.cmp(&path)).is_ok()
        };
        let lacks = |oid: &u32| !has(format!("pg_tblspc/{oid}/{within}"));
        oids.iter().copied().filter(lacks).collect()
    }
}

impl Source for LocalSource {
    fn list(&self) -> Result<Listing, EngineError> {
        let mut walk = Walk { source: self, listing: Listing::default() };
        walk.folder(&self.root, b"")?;
        let mut listing = walk.listing;
        self.list_outside(&mut listing)?;
        listing.entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listing)
    }

    fn open(&self, entry: &SourceEntry) -> Result<Option<Box<dyn SourceFile>>, EngineError> {
        let path = self.path_of(entry);
        match File::open(&path) {
            Ok(file) => {
                let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
                Ok(Some(Box::new(LocalFile(file))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EngineError::file("open", path, error)),
        }
    }

    fn control_file(&self) -> Result<Vec<u8>, EngineError> {
        control_file(&self.root)
    }
}

/// The bytes of a data directory's `global/pg_control`.
///
/// # Errors
/// When it cannot be read.
pub fn control_file(root: &Path) -> Result<Vec<u8>, EngineError> {
    let path = root.join("global/pg_control");
    fs::read(&path).map_err(|source| EngineError::file("read", path, source))
}

struct LocalFile(File);

impl SourceFile for LocalFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn will_read(&self, offset: u64, len: usize) {
        let len = std::num::NonZeroU64::new(len as u64);
        let _ = rustix::fs::fadvise(&self.0, offset, len, Advice::WillNeed);
    }
}

fn entry_of(path: Vec<u8>, meta: &fs::Metadata, kind: SourceKind) -> SourceEntry {
    SourceEntry {
        path,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime_us: meta.mtime() * 1_000_000 + meta.mtime_nsec() / 1000,
        kind,
        read_at: None,
    }
}

/// A walk over a data directory.
struct Walk<'a> {
    source: &'a LocalSource,
    listing: Listing,
}

/// One entry of a folder.
struct Found {
    name: Vec<u8>,
    path: PathBuf,
    meta: fs::Metadata,
    link: Option<PathBuf>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, prefix: &[u8]) -> Result<(), EngineError> {
        let found = read_folder(folder)?;
        let unlogged = unlogged_relations(prefix, &found);
        for found in found {
            let path = joined(prefix, &found.name);
            let text = String::from_utf8_lossy(&path).into_owned();
            if text == "global/pg_control" {
                continue;
            }
            let kind = if found.meta.is_dir() { NodeKind::Directory } else { NodeKind::File };
            let init = init_fork_of(&text, &unlogged);
            match data_directory::judge(&text, kind, self.source.major, init) {
                Judgement::LeaveOut(_) => {}
                Judgement::EmptyDirectory { within } => self.empty(path, found, within)?,
                Judgement::Keep => self.keep(path, found, &text)?,
            }
        }
        Ok(())
    }

    fn empty(&mut self, path: Vec<u8>, found: Found, within: &[&str]) -> Result<(), EngineError> {
        for name in within {
            let inner = joined(&path, name.as_bytes());
            self.listing.entries.push(entry_of(inner, &found.meta, SourceKind::Directory));
        }
        let kind = match found.link.filter(|_| path == b"pg_wal") {
            Some(target) => {
                self.listing.pg_wal_link = Some(target.clone());
                SourceKind::Link { target: target.into_os_string().into_vec() }
            }
            None => SourceKind::Directory,
        };
        self.listing.entries.push(entry_of(path, &found.meta, kind));
        Ok(())
    }

    fn keep(&mut self, path: Vec<u8>, found: Found, text: &str) -> Result<(), EngineError> {
        if found.meta.is_dir() {
            return match &found.link {
                Some(target) if is_tablespace(text) => self.tablespace(path, &found, target),
                Some(target) => {
                    self.listing.notes.push(format!(
                        "{text} is a symbolic link to {}: its content is kept as an ordinary \
                         folder",
                        target.display()
                    ));
                    self.descend(path, &found)
                }
                None => self.descend(path, &found),
            };
        }
        if !found.meta.is_file() {
            // Sockets and pipes hold nothing that could be backed up.
            self.listing.notes.push(format!("{text} is neither a file nor a folder: left out"));
            return Ok(());
        }
        let kind = SourceKind::File { len: found.meta.len() };
        self.listing.entries.push(entry_of(path, &found.meta, kind));
        Ok(())
    }

    fn descend(&mut self, path: Vec<u8>, found: &Found) -> Result<(), EngineError> {
        let entry = entry_of(path.clone(), &found.meta, SourceKind::Directory);
        self.listing.entries.push(entry);
        self.folder(&found.path, &path)
    }

    /// A tablespace: the link, and below it just the directory of this major and catalog version
    /// (several clusters may share the place).
    fn tablespace(
        &mut self,
        path: Vec<u8>,
        found: &Found,
        target: &Path,
    ) -> Result<(), EngineError> {
        let target = target.as_os_str().as_bytes().to_vec();
        let link = entry_of(path.clone(), &found.meta, SourceKind::Link { target });
        self.listing.entries.push(link);
        let wanted = self.source.version_directory.as_bytes();
        for inner in read_folder(&found.path)? {
            let ours = inner.name == wanted && inner.meta.is_dir();
            if ours {
                let inner_path = joined(&path, &inner.name);
                self.descend(inner_path, &inner)?;
            }
        }
        Ok(())
    }
}

fn is_tablespace(text: &str) -> bool {
    text.strip_prefix("pg_tblspc/")
        .is_some_and(|oid| !oid.is_empty() && oid.bytes().all(|b| b.is_ascii_digit()))
}

fn joined(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// The entries of a folder; those that vanish while they are looked at were dropped.
fn read_folder(folder: &Path) -> Result<Vec<Found>, EngineError> {
    let fail = |source| EngineError::file("list", folder, source);
    let mut all = Vec::new();
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        Err(error) => return Err(fail(error)),
    };
    for entry in listed {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        let name = entry.file_name().into_vec();
        let link = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => fs::read_link(&path).ok(),
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(EngineError::file("look at", path, error)),
        };
        match fs::metadata(&path) {
            Ok(meta) => all.push(Found { name, path, meta, link }),
            // A file that was dropped, or a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(EngineError::file("look at", path, error)),
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The relations of a folder that have an init fork: all their other forks stay out.
fn unlogged_relations(prefix: &[u8], found: &[Found]) -> HashSet<u32> {
    let prefix = String::from_utf8_lossy(prefix);
    found
        .iter()
        .filter_map(|found| {
            let name = std::str::from_utf8(&found.name).ok()?;
            let file = RelationFile::parse(&format!("{prefix}/{name}"))?;
            (file.fork == Fork::Init).then_some(file.locator.relation)
        })
        .collect()
}

fn init_fork_of(path: &str, unlogged: &HashSet<u32>) -> InitFork {
    if unlogged.is_empty() {
        return InitFork::Absent;
    }
    match RelationFile::parse(path) {
        Some(file) if unlogged.contains(&file.locator.relation) => InitFork::Present,
        _ => InitFork::Absent,
    }
}

#[cfg(test)]
mod tests;
