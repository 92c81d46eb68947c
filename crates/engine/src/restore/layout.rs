//! Where each file of a backup goes: the data directory, tablespaces, `pg_wal`, and files that
//! lived elsewhere. Nothing is written outside of the data directory but where the user said.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::table::{Entry, EntryKind, PieceMap};
use pgrecall_repo::index::Index;
use pgrecall_repo::manifests;

use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::meanwhile::or_changed;

/// Where what lay outside of the data directory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locations {
    /// Where the other options say.
    AsTold,
    /// Where it was.
    Original,
}

/// The user's word on places.
#[derive(Debug, Clone)]
pub struct Places {
    /// Tablespaces: from where to where.
    pub tablespaces: Vec<(PathBuf, PathBuf)>,
    /// `pg_wal`, when it is to be a link.
    pub waldir: Option<PathBuf>,
    /// All else.
    pub locations: Locations,
}

/// What of a backup needs a decision before anything is written.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Links, with their targets.
    pub links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Files outside of the data directory, with where they were.
    pub outside: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes that are not zero, of the data directory (by an empty name) and of what is behind each
    /// link.
    pub bytes: BTreeMap<Vec<u8>, u64>,
    /// Folders.
    pub folders: Vec<Vec<u8>>,
    /// Folders with files or links in them that lay in the data directory.
    pub holding: BTreeSet<Vec<u8>>,
    /// Who owned `PG_VERSION`.
    pub owner: Option<(u32, u32)>,
    /// The mode of `PG_VERSION`.
    pub mode: u32,
}

/// The backup's own files that a restore never takes over: they belong to a server that ran, or
/// would decide what the new one does.
const LEFT_OUT: [&str; 6] = [
    "postmaster.pid",
    "postmaster.opts",
    "recovery.signal",
    "standby.signal",
    "backup_label",
    "tablespace_map",
];

/// Whether an entry is not restored.
#[must_use]
pub fn is_left_out(path: &[u8]) -> bool {
    LEFT_OUT.iter().any(|name| name.as_bytes() == path)
        || path == b"recovery.conf"
        || path.starts_with(pgrecall_pgformat::data_directory::OWN_PREFIX.as_bytes())
}

/// Reads the file table through, without keeping it.
///
/// # Errors
/// When it cannot be read, or names a file behind a link that must not have any.
pub async fn survey(
    cluster: &ClusterStore,
    index: &Index,
    manifest: &Manifest,
) -> Result<Survey, EngineError> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let mut survey = Survey::default();
    let read = manifests::each_table(sealed, domain, index, &manifest.tables, |entries| {
        entries.iter().try_for_each(|entry| survey.add(entry))
    });
    match read.await {
        Ok(()) => Ok(survey),
        Err(error) => Err(or_changed(cluster, manifest, error).await),
    }
}

impl Survey {
    fn add(&mut self, entry: &Entry) -> Result<(), EngineError> {
        let path = entry.path.as_bytes();
        let behind = self.links.keys().find(|link| is_below(path, link)).cloned();
        if let Some(link) = behind.as_ref().filter(|link| !is_root_link(link)) {
            let message = format!(
                "the backup's file table names {}, behind the link {}: a file there would be \
                 written out of the directory",
                entry.path,
                String::from_utf8_lossy(link)
            );
            return Err(EngineError::refused(ErrorKind::Corrupt, message));
        }
        if path == b"PG_VERSION" {
            self.owner = Some((entry.uid, entry.gid));
            self.mode = entry.mode;
        }
        if matches!(entry.kind, EntryKind::Link(_) | EntryKind::File(_))
            && let Some(folder) = folders_above(path).last()
            && !self.holding.contains(folder)
        {
            self.holding.insert(folder.to_vec());
        }
        match &entry.kind {
            EntryKind::Link(target) => {
                self.links.insert(path.to_vec(), target.clone());
            }
            EntryKind::Outside(original, _) => {
                self.outside.insert(path.to_vec(), original.clone());
            }
            EntryKind::Directory => self.folders.push(path.to_vec()),
            EntryKind::File(_) => {}
        }
        let pieces = entry.pieces().iter().filter(|piece| piece.map != PieceMap::Zeros);
        let bytes: u64 = pieces.fold(0, |sum, piece| sum.saturating_add(piece.len));
        let total = self.bytes.entry(behind.unwrap_or_default()).or_default();
        *total = total.saturating_add(bytes);
        Ok(())
    }
}

impl Survey {
    /// The folders in which there is nothing but these files from outside.
    fn only_for(&self, outside: &BTreeMap<Vec<u8>, PathBuf>) -> BTreeSet<Vec<u8>> {
        let above: BTreeSet<Vec<u8>> =
            outside.keys().flat_map(|path| folders_above(path)).map(<[u8]>::to_vec).collect();
        let is_within = |path: &[u8], folder: &[u8]| path == folder || is_below(path, folder);
        let is_empty = |folder: &Vec<u8>| {
            let mut others = self.folders.iter().filter(|other| is_below(other, folder));
            !self.holding.iter().any(|holding| is_within(holding, folder))
                && others.all(|other| above.contains(other))
        };
        above.iter().filter(|folder| is_empty(folder)).cloned().collect()
    }
}

/// The folders above a path, the outermost first.
fn folders_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.filter_map(|(at, _)| path.get(..at))
}

/// Whether `path` lies below `folder`.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// A tablespace's link, or that of `pg_wal`: the only ones with files behind them.
fn is_root_link(link: &[u8]) -> bool {
    link == b"pg_wal" || tablespace_oid(link).is_some()
}

fn tablespace_oid(link: &[u8]) -> Option<u32> {
    std::str::from_utf8(link.strip_prefix(b"pg_tblspc/")?).ok()?.parse().ok()
}

/// From bytes to a path.
#[must_use]
pub fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// The settled places.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The data directory.
    pub dir: PathBuf,
    /// What is behind the links: the link's path, its directory, the tablespace's OID.
    pub roots: Vec<Root>,
    /// Other links, as they were.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Files that go to where they were, outside.
    pub outside: BTreeMap<Vec<u8>, PathBuf>,
    /// Folders that the backup made for such files alone: they stay away.
    pub left_behind: BTreeSet<Vec<u8>>,
    /// Files that were outside and go into the data directory.
    pub taken_in: Vec<Vec<u8>>,
}

/// A directory behind a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The link, below the data directory.
    pub link: Vec<u8>,
    /// Where it leads.
    pub to: PathBuf,
    /// The tablespace; none for `pg_wal`.
    pub tablespace: Option<u32>,
}

impl Layout {
    /// Settles every place, or says what to add.
    ///
    /// # Errors
    /// `Invalid`, with a hint for each flag that is missing.
    pub fn settle(dir: &Path, survey: &Survey, places: &Places) -> Result<Self, EngineError> {
        let mut layout = Self {
            dir: dir.to_owned(),
            roots: Vec::new(),
            links: Vec::new(),
            outside: BTreeMap::new(),
            left_behind: BTreeSet::new(),
            taken_in: Vec::new(),
        };
        let mut add: Vec<String> = Vec::new();
        let mut used = vec![false; places.tablespaces.len()];
        for (link, target) in &survey.links {
            layout.settle_link(link, target, places, &mut used, &mut add);
        }
        if let Some(waldir) = &places.waldir
            && !survey.links.contains_key(b"pg_wal".as_slice())
        {
            let (link, to) = (b"pg_wal".to_vec(), waldir.clone());
            layout.roots.push(Root { link, to, tablespace: None });
        }
        if let Some(at) = used.iter().position(|used| !used)
            && let Some((old, _)) = places.tablespaces.get(at)
        {
            add.push(format!("No tablespace was at {}; leave its map out.", old.display()));
        }
        for (path, original) in &survey.outside {
            match places.locations {
                Locations::Original => {
                    layout.outside.insert(path.clone(), path_of(original));
                }
                Locations::AsTold => layout.taken_in.push(path.clone()),
            }
        }
        layout.left_behind = survey.only_for(&layout.outside);
        if add.is_empty() {
            layout.check_apart()?;
            return Ok(layout);
        }
        let message = "the backup has files outside of its data directory, and nobody has said \
                       where they go";
        let error = EngineError::refused(ErrorKind::Invalid, message);
        add.push("--locations original puts everything where it was.".into());
        Err(add.into_iter().fold(error, EngineError::hint))
    }

    fn settle_link(
        &mut self,
        link: &[u8],
        target: &[u8],
        places: &Places,
        used: &mut [bool],
        add: &mut Vec<String>,
    ) {
        let was = path_of(target);
        let mapped = places.tablespaces.iter().position(|(old, _)| *old == was);
        if let Some(oid) = tablespace_oid(link) {
            let to = match (mapped, places.locations) {
                (Some(at), _) => {
                    if let Some(used) = used.get_mut(at) {
                        *used = true;
                    }
                    places.tablespaces.get(at).map(|(_, new)| new.clone())
                }
                (None, Locations::Original) => Some(was.clone()),
                (None, Locations::AsTold) => None,
            };
            match to {
                Some(to) => self.roots.push(Root { link: link.into(), to, tablespace: Some(oid) }),
                None => add.push(format!("Add --tablespace-map {}=NEW.", was.display())),
            }
        } else if link == b"pg_wal" {
            match (&places.waldir, places.locations) {
                (Some(to), _) => {
                    let to = to.clone();
                    self.roots.push(Root { link: link.into(), to, tablespace: None });
                }
                (None, Locations::Original) => {
                    self.roots.push(Root { link: link.into(), to: was, tablespace: None });
                }
                (None, Locations::AsTold) => {
                    add.push(format!("pg_wal was a link to {}: add --waldir DIR.", was.display()))
                }
            }
        } else if places.locations == Locations::Original {
            self.links.push((link.to_vec(), target.to_vec()));
        } else {
            add.push(format!("{} was a link to {}.", String::from_utf8_lossy(link), was.display()));
        }
    }

    /// No place within another: files of one would be taken for the other's.
    fn check_apart(&self) -> Result<(), EngineError> {
        let mut all: Vec<&Path> = vec![&self.dir];
        for root in &self.roots {
            let clash = all.iter().find(|other| {
                root.to.starts_with(other) || other.starts_with(&root.to) || !root.to.is_absolute()
            });
            if let Some(other) = clash {
                let message = format!(
                    "{} cannot be the place of {}: it must be an absolute path, apart from {}",
                    root.to.display(),
                    String::from_utf8_lossy(&root.link),
                    other.display()
                );
                return Err(EngineError::refused(ErrorKind::Invalid, message));
            }
            all.push(&root.to);
        }
        Ok(())
    }

    /// Where an entry goes.
    #[must_use]
    pub fn place(&self, path: &[u8]) -> PathBuf {
        if let Some(original) = self.outside.get(path) {
            return original.clone();
        }
        for root in &self.roots {
            if path == root.link {
                return root.to.clone();
            }
            if is_below(path, &root.link) {
                let rest = path.get(root.link.len() + 1..).unwrap_or_default();
                return root.to.join(OsStr::from_bytes(rest));
            }
        }
        self.dir.join(OsStr::from_bytes(path))
    }

    /// Where `pg_wal` is.
    #[must_use]
    pub fn pg_wal(&self) -> PathBuf {
        self.place(b"pg_wal")
    }

    /// All directories that files go into, the data directory first.
    #[must_use]
    pub fn folders(&self) -> Vec<&Path> {
        std::iter::once(self.dir.as_path())
            .chain(self.roots.iter().map(|root| root.to.as_path()))
            .collect()
    }
}
