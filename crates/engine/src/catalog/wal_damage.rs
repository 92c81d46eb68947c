//! WAL that a verification found damaged, as far as what is stored is still what it looked at.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentSize};
use pgrecall_repo::RepoError;
use pgrecall_repo::damaged_wal::WalNotes;
use pgrecall_repo::format::document::DamagedWal;
use pgrecall_store::Key;

use super::wal::size_of_folder;
use crate::archive::holder::{self, Holders};
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};

/// Which segments were found damaged, and where recovery ends in each.
#[derive(Debug, Default)]
pub struct KnownDamage {
    /// By segment size and name.
    segments: BTreeMap<(u32, SegmentName), Vec<Noted>>,
    /// What was read.
    pub notes: WalNotes,
    /// Why nothing could be read, if so.
    pub unreadable: Option<EngineError>,
    /// Of the notes those of what is not there any more.
    pub over: BTreeSet<DamagedWal>,
    /// Who found it and when, for people.
    pub found: String,
}

#[derive(Debug)]
struct Noted {
    /// Of the way from this segment alone.
    after: Option<SegmentName>,
    from: Lsn,
}

impl KnownDamage {
    /// Reads the notes, before WAL is listed.
    ///
    /// # Errors
    /// When the store fails. Notes that do not read are no failure here.
    pub async fn read(cluster: &ClusterStore) -> Result<Self, EngineError> {
        match WalNotes::read(&cluster.sealed, &cluster.at).await.map_err(EngineError::from) {
            Ok(notes) => Ok(Self { found: notes.found.clone(), notes, ..Self::default() }),
            Err(error) if is_unread(&error) => {
                let notes = WalNotes::unread(&cluster.sealed, &cluster.at).await?;
                Ok(Self { notes, unreadable: Some(error), ..Self::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether others can stand for them once all has been read: not where another version of the
    /// program may read them.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let is_lost = |error: &EngineError| match error {
            EngineError::Repo(RepoError::Store(error)) if error.is_media_error() => true,
            error => matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound),
        };
        self.unreadable.as_ref().is_some_and(is_lost)
    }

    /// What the notes say of listed objects that hold their files; what they say of others is over.
    /// A settlement that names what is not there needs no note.
    #[must_use]
    pub fn of_listed<'a>(
        mut self,
        listed: impl Iterator<Item = &'a str>,
        holders: &Holders,
    ) -> Self {
        if self.notes.damaged.is_empty() && holders.settled().next().is_none() {
            return self;
        }
        let listed: HashSet<&str> = listed.collect();
        for wal in &self.notes.damaged.clone() {
            // What means nothing to this program may mean something to a newer one.
            let Some(segment) = Segment::of(wal) else { continue };
            let holds = holders.object(&segment.file).as_str() == wal.object;
            let unsettled = || holders.unreadable.iter().any(|(file, _)| *file == segment.file);
            if !listed.contains(wal.object.as_str()) {
                self.over.insert(wal.clone());
            } else if holds || unsettled() {
                self.add(segment);
            }
            // Else it does not hold now, and may again if what holds is lost.
        }
        for object in holders.settled().filter(|object| !listed.contains(object.as_str())) {
            if let Some(segment) = Segment::at(object.as_str()) {
                if self.found.is_empty() {
                    self.found = "the listing: its settlement names what is not there".into();
                }
                self.add(segment);
            }
        }
        self
    }

    fn add(&mut self, segment: Segment) {
        let Segment { name, size, noted, .. } = segment;
        self.segments.entry((size.bytes(), name)).or_default().push(noted);
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Where recovery ends in a segment, on a way from `before`, if it was found damaged.
    #[must_use]
    pub fn of_step(
        &self,
        name: SegmentName,
        before: Option<SegmentName>,
        size: SegmentSize,
    ) -> Option<Lsn> {
        let noted = self.segments.get(&(size.bytes(), name))?;
        let on_the_way = noted.iter().filter(|it| it.after.is_none() || it.after == before);
        on_the_way.map(|noted| noted.from).min()
    }

    /// The segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentSize, SegmentName)> {
        let sized = |size: u32| SegmentSize::try_from(size).ok();
        self.segments.keys().filter_map(move |(size, name)| Some((sized(*size)?, *name)))
    }
}

/// Whether notes do not read; one may be listed time after time, and not to be had.
pub(crate) fn is_unread(error: &EngineError) -> bool {
    error.is_unreadable() || error.kind() == ErrorKind::NotFound
}

/// A note's segment.
struct Segment {
    file: Key,
    name: SegmentName,
    size: SegmentSize,
    noted: Noted,
}

impl Segment {
    /// Nothing where the note means nothing to this program.
    fn of(wal: &DamagedWal) -> Option<Self> {
        let mut segment = Self::at(&wal.object)?;
        if let Some(after) = &wal.after {
            segment.noted.after = Some(segment_named(after, segment.size)?);
        }
        segment.noted.from = wal.from.parse().ok()?;
        Some(segment)
    }

    /// That of an object `clusters/<cluster>/<lineage>/wal/<size>/<timeline>/<log>/<file>`, perhaps
    /// with `.<digest>` behind it: from its first byte on. Of other files than segments there are
    /// no notes.
    fn at(object: &str) -> Option<Self> {
        let size = size_of_folder(object.split('/').nth(4)?)?;
        let object = Key::parse(object).ok()?;
        let file = holder::kept_file(&object).unwrap_or(object);
        let name = segment_named(file.file_name(), size)?;
        let noted = Noted { after: None, from: name.number.start(size) };
        Some(Self { file, name, size, noted })
    }
}

fn segment_named(file: &str, size: SegmentSize) -> Option<SegmentName> {
    match ArchiveName::parse(file, size) {
        Ok(ArchiveName::Segment(name)) => Some(name),
        _ => None,
    }
}
