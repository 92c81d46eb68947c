//! WAL that a verification found damaged, as far as what is stored is still what it looked at.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentSize};
use pgrecall_repo::damaged_wal::WalNotes;
use pgrecall_repo::format::document::DamagedWal;
use pgrecall_store::Key;

use super::wal::size_of_folder;
use crate::archive::holder::Holders;

/// Which segments were found damaged, and where recovery ends in each.
#[derive(Debug, Default)]
pub struct KnownDamage {
    /// By segment size and name.
    segments: BTreeMap<(u32, SegmentName), Vec<Noted>>,
    /// Notes of what is not there any more, or holds no file.
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
    /// What notes say of objects that are there and hold their files. What they say of others is
    /// over. A settlement that names what is not there needs no note.
    #[must_use]
    pub fn of<'a>(
        notes: WalNotes,
        listed: impl Iterator<Item = &'a str>,
        holders: &Holders,
    ) -> Self {
        let mut known = Self { found: notes.found, ..Self::default() };
        if notes.damaged.is_empty() && holders.settled().next().is_none() {
            return known;
        }
        let listed: HashSet<&str> = listed.collect();
        for wal in notes.damaged {
            let segment = Segment::of(&wal).filter(|segment| {
                listed.contains(wal.object.as_str())
                    && holders.object(&segment.file).as_str() == wal.object
            });
            match segment {
                Some(segment) => known.add(segment),
                None => {
                    known.over.insert(wal);
                }
            }
        }
        for object in holders.settled().filter(|object| !listed.contains(object.as_str())) {
            if let Some(segment) = Segment::at(object.as_str()) {
                if known.found.is_empty() {
                    known.found = "the listing: its settlement names what is not there".into();
                }
                known.add(segment);
            }
        }
        known
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
    /// with `.<digest>` behind it: from its first byte on.
    fn at(object: &str) -> Option<Self> {
        let size = size_of_folder(object.split('/').nth(4)?)?;
        let (folder, file) = object.rsplit_once('/')?;
        let file = file.split('.').next()?;
        let name = segment_named(file, size)?;
        let noted = Noted { after: None, from: name.number.start(size) };
        Some(Self { file: Key::parse(&format!("{folder}/{file}")).ok()?, name, size, noted })
    }
}

fn segment_named(file: &str, size: SegmentSize) -> Option<SegmentName> {
    match ArchiveName::parse(file, size) {
        Ok(ArchiveName::Segment(name)) => Some(name),
        _ => None,
    }
}
