//! The data directory as a backup reads it: a listing, then files by ranges. Behind a trait, so
//! that tests can yield torn reads, and so that a server can be read without an agent beside it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use pgrecall_pgformat::Major;
use pgrecall_pgformat::data_directory::{self, EntryKind as NodeKind, InitFork, Judgement};
use pgrecall_pgformat::relation::{Fork, RelationFile};

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
    /// Configuration files outside of the data directory, as the server names them.
    outside: Vec<PathBuf>,
}

impl LocalSource {
    /// A source over `root`.
    #[must_use]
    pub fn new(root: &Path, major: Major, outside: Vec<PathBuf>) -> Self {
        Self { root: root.to_owned(), major, outside }
    }

    fn path_of(&self, entry: &SourceEntry) -> PathBuf {
        match &entry.kind {
            SourceKind::Outside { original, .. } => original.clone(),
            _ => self.root.join(std::ffi::OsStr::from_bytes(&entry.path)),
        }
    }

    fn list_outside(&self, listing: &mut Listing) -> Result<(), EngineError> {
        for original in &self.outside {
            let Some(name) = original.file_name() else { continue };
            let path = name.as_bytes().to_vec();
            if listing.entries.iter().any(|entry| entry.path == path) {
                let text = format!(
                    "{} is not kept: the data directory has a file of that name, which is",
                    original.display()
                );
                listing.notes.push(text);
                continue;
            }
            let meta = fs::metadata(original)
                .map_err(|source| EngineError::file("read", original, source))?;
            let original = original.clone();
            let kind = SourceKind::Outside { original, len: meta.len() };
            listing.entries.push(entry_of(path, &meta, kind));
        }
        Ok(())
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
            Ok(file) => Ok(Some(Box::new(LocalFile(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EngineError::file("open", path, error)),
        }
    }

    fn control_file(&self) -> Result<Vec<u8>, EngineError> {
        let path = self.root.join("global/pg_control");
        fs::read(&path).map_err(|source| EngineError::file("read", path, source))
    }
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
}

fn entry_of(path: Vec<u8>, meta: &fs::Metadata, kind: SourceKind) -> SourceEntry {
    SourceEntry {
        path,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime_us: meta.mtime() * 1_000_000 + meta.mtime_nsec() / 1000,
        kind,
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
        if path == b"pg_wal" {
            self.listing.pg_wal_link = found.link;
        }
        for name in within {
            let inner = joined(&path, name.as_bytes());
            self.listing.entries.push(entry_of(inner, &found.meta, SourceKind::Directory));
        }
        self.listing.entries.push(entry_of(path, &found.meta, SourceKind::Directory));
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
        let wanted = format!("PG_{}_", self.source.major.number());
        for inner in read_folder(&found.path)? {
            let ours = inner.name.starts_with(wanted.as_bytes()) && inner.meta.is_dir();
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
