//! A PostgreSQL cluster as far as backups see it: a few files whose contents change, and WAL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgrecall_engine::cluster::ClusterFacts;
use pgrecall_pgformat::{Lsn, Major, SegmentName, SegmentNumber, SegmentSize, TimelineId};

use crate::chance::Chance;

/// Bytes of a chunk's plaintext.
pub const CHUNK_BYTES: u32 = 320;

/// Contents that a chunk may have: few, so that what has gone comes back.
const CONTENTS: u64 = 14;

/// The first segment's number.
const FIRST_SEGMENT: u64 = 4;

/// The system identifier.
const SYSTEM: u64 = 7_123_456_789_012_345_678;

/// A cluster, shared by all who touch it.
#[derive(Debug, Clone)]
pub struct Database(Arc<Mutex<State>>);

/// The cluster at one moment.
#[derive(Debug, Clone)]
pub struct State {
    /// Files, each a list of contents by number.
    pub files: BTreeMap<String, Vec<u64>>,
    /// What they were at earlier backups.
    pub earlier: Vec<BTreeMap<String, Vec<u64>>>,
    /// Where WAL is being written.
    pub lsn: Lsn,
    /// Where a standby's last restartpoint lies: a backup of it begins there.
    pub standby_lsn: Lsn,
    /// The next segment that is to be archived.
    pub next_archived: SegmentNumber,
    /// Where the standby's replay stands still, if it does.
    pub replay_stands_at: Option<Lsn>,
}

impl Database {
    /// A cluster of a few files.
    #[must_use]
    pub fn new(chance: &mut Chance) -> Self {
        let mut files = BTreeMap::new();
        for name in ["base/1/1259", "base/1/16384", "global/1262"] {
            let chunks = 2 + chance.below(3);
            let contents = (0..chunks).map(|_| chance.below(CONTENTS)).collect();
            files.insert(name.to_owned(), contents);
        }
        let lsn = Lsn(SegmentNumber(FIRST_SEGMENT).start(size()).0 + 0x100);
        let next_archived = SegmentNumber(FIRST_SEGMENT);
        Self(Arc::new(Mutex::new(State {
            files,
            earlier: Vec::new(),
            lsn,
            standby_lsn: lsn,
            next_archived,
            replay_stands_at: None,
        })))
    }

    /// The cluster, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Somebody writes. Now and then everything is again as it was at an earlier backup: nothing is
    /// as dangerous as wanting what is about to go.
    pub fn write(&mut self, chance: &mut Chance) {
        if chance.happens(150) && !self.earlier.is_empty() {
            self.files = self.earlier[chance.place(self.earlier.len())].clone();
        }
        let file = chance.place(self.files.len());
        if let Some(contents) = self.files.values_mut().nth(file) {
            let place = chance.place(contents.len());
            if let Some(slot) = contents.get_mut(place) {
                *slot = chance.below(CONTENTS);
            }
        }
        let bytes = if chance.happens(100) { u64::from(size().bytes()) } else { 0x1000 };
        self.lsn = self.lsn.saturating_add(bytes);
    }

    /// Everything becomes what it has never been.
    pub fn replace_all(&mut self, chance: &mut Chance) {
        for slot in self.files.values_mut().flatten() {
            *slot = CONTENTS + chance.below(CONTENTS);
        }
        self.lsn = self.lsn.saturating_add(0x1000);
    }

    /// Everything is again as it was at the first backup.
    pub fn return_to_first(&mut self) {
        if let Some(first) = self.earlier.first() {
            self.files = first.clone();
        }
    }

    /// The rest of the segment is filled up, as at the end of a backup.
    pub fn switch(&mut self) {
        let number = SegmentNumber::containing(self.lsn, size());
        self.lsn = Lsn(number.end(size()).0 + 0x28);
    }

    /// The standby comes nearer, in a restartpoint.
    pub fn restartpoint(&mut self, chance: &mut Chance) {
        let behind = self.replayed().0.saturating_sub(self.standby_lsn.0);
        self.standby_lsn = Lsn(self.standby_lsn.0 + chance.below(behind + 1));
    }

    /// How far the standby has come.
    #[must_use]
    pub fn replayed(&self) -> Lsn {
        self.replay_stands_at.unwrap_or(self.lsn)
    }

    /// The standby comes no further.
    pub const fn stop_replay(&mut self) {
        self.replay_stands_at = Some(self.lsn);
    }

    /// The next whole segment that has not been archived.
    #[must_use]
    pub fn to_archive(&self) -> Option<SegmentNumber> {
        (self.next_archived.end(size()) <= self.lsn).then_some(self.next_archived)
    }
}

/// The plaintext of a content.
#[must_use]
pub fn plain(content: u64) -> Vec<u8> {
    let mut chance = Chance::new(content);
    (0..CHUNK_BYTES).map(|_| chance.below(256) as u8).collect()
}

/// The smallest segments there are.
///
/// # Panics
/// Never: it is a valid size.
#[must_use]
pub fn size() -> SegmentSize {
    SegmentSize::from_bytes(1 << 20).expect("a mebibyte is a segment size")
}

/// What never changes of the cluster.
#[must_use]
pub fn facts() -> ClusterFacts {
    ClusterFacts {
        system_identifier: SYSTEM,
        major: Major::V17,
        page_size_bytes: 8192,
        wal_segment_size: size(),
    }
}

/// The timeline.
#[must_use]
pub const fn timeline() -> TimelineId {
    TimelineId(1)
}

/// A folder with the segments, for they are pushed from files. The bytes follow from the number
/// alone, so that all runs of a process share it.
#[derive(Debug, Clone)]
pub struct WalFolder(Arc<tempfile::TempDir>);

impl WalFolder {
    /// An empty one.
    ///
    /// # Errors
    /// When there can be none.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(tempfile::tempdir()?)))
    }

    /// The path of a segment's file, made when it is new.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn segment(&self, number: SegmentNumber) -> std::io::Result<PathBuf> {
        let name = SegmentName { timeline: timeline(), number }.file_name(size());
        let path = self.0.path().join(name);
        if !path.exists() {
            write_whole(self.0.path(), &path, &segment_bytes(number))?;
        }
        Ok(path)
    }
}

fn write_whole(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// A segment's first page header, and nothing behind it.
fn segment_bytes(number: SegmentNumber) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size().bytes()).unwrap_or(0)];
    let mut put = |at: usize, part: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + part.len()) {
            place.copy_from_slice(part);
        }
    };
    put(0, &Major::V17.wal_magic().to_le_bytes());
    put(2, &[2]);
    put(4, &timeline().0.to_le_bytes());
    put(8, &number.start(size()).0.to_le_bytes());
    put(24, &SYSTEM.to_le_bytes());
    put(32, &size().bytes().to_le_bytes());
    put(36, &8192_u32.to_le_bytes());
    bytes
}
