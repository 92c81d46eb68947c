//! Which WAL is stored: segments by size and timeline, the ranges they make, the gaps between them,
//! and the timelines' histories.

use std::collections::{BTreeMap, BTreeSet};

use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineId};
use pgrecall_repo::archive;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::names;
use pgrecall_repo::object::Proof;
use pgrecall_store::Key;

use super::wal_damage::KnownDamage;
use crate::archive::holder::{self, Holders};
use crate::cluster::ClusterStore;
use crate::details::Position;
use crate::error::EngineError;
use crate::retention::floor::Floors;
use crate::wal_place;

/// No history file is longer.
const HISTORY_BYTES_MAX: u64 = 1 << 20;

/// Segments of one size on one timeline.
#[derive(Debug, Clone, Default)]
pub struct StoredSegments {
    /// Their numbers, in order.
    numbers: Vec<SegmentNumber>,
    /// Bytes of their objects.
    pub stored_bytes: u64,
}

/// A run of segments without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first segment.
    pub first: SegmentNumber,
    /// The last segment.
    pub last: SegmentNumber,
}

impl StoredSegments {
    /// Whether this one is stored.
    #[must_use]
    pub fn has(&self, number: SegmentNumber) -> bool {
        self.numbers.binary_search(&number).is_ok()
    }

    /// How many are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The runs without gaps, in order.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for &number in &self.numbers {
            match runs.last_mut() {
                Some(run) if run.last.next() == number => run.last = number,
                _ => runs.push(Run { first: number, last: number }),
            }
        }
        runs
    }
}

/// A history file that could not be read.
#[derive(Debug)]
pub struct BadHistory {
    /// Its timeline.
    pub timeline: TimelineId,
    /// Its object.
    pub object: Key,
    /// Why not.
    pub error: EngineError,
}

/// The WAL of one lineage, by the names of its objects and the contents of its histories.
#[derive(Debug, Default)]
pub struct StoredWal {
    /// Segments by size and timeline; those whose collision was settled count.
    pub segments: BTreeMap<(u32, TimelineId), StoredSegments>,
    /// `.partial` files, with their segment size in bytes.
    pub partials: BTreeSet<(u32, SegmentName)>,
    /// Histories by timeline.
    pub histories: BTreeMap<TimelineId, History>,
    /// Histories that could not be read.
    pub bad_histories: Vec<BadHistory>,
    /// Which objects hold the files whose collisions were settled.
    pub holders: Holders,
    /// Up to where segments may have expired.
    pub floors: Floors,
    /// What a verification found damaged of those that are there.
    pub damage: KnownDamage,
}

impl StoredWal {
    /// Lists the WAL of a lineage and reads its histories.
    ///
    /// # Errors
    /// When the store fails. A damaged history is no failure but an entry of
    /// [`bad_histories`](Self::bad_histories).
    pub async fn read(cluster: &ClusterStore) -> Result<Self, EngineError> {
        let mut wal = Self::default();
        let mut histories = Vec::new();
        let below = names::cluster_prefix(&cluster.at, "")?;
        // Before the listing: a note of what was not there yet would seem to be over.
        let notes = KnownDamage::read(cluster).await?;
        let listed = cluster.sealed.list(&below).await?;
        wal.holders = Holders::of(&cluster.sealed, &listed).await?;
        wal.floors = floors(cluster).await?;
        for object in &listed {
            let rest = object.key.strip_prefix(&below).unwrap_or_default();
            let mut parts = rest.split('/');
            match (parts.next(), parts.next()) {
                (Some("timelines"), Some(file)) => {
                    if let Ok(name) = ArchiveName::parse(file, cluster.facts.wal_segment_size) {
                        histories.push((name.timeline(), object.key.clone()));
                    }
                }
                (Some("wal"), Some(size)) => {
                    wal.add(size, object.key.file_name(), object.size);
                }
                _ => {}
            }
        }
        for segments in wal.segments.values_mut() {
            segments.numbers.sort_unstable();
            segments.numbers.dedup();
        }
        let there = listed.iter().map(|object| object.key.as_str());
        wal.damage = notes.of_listed(there, &wal.holders);
        for (timeline, object) in histories {
            match read_history(cluster, timeline, &object).await {
                Ok(history) => {
                    wal.histories.insert(timeline, history);
                }
                Err(error) if error.is_unreadable() => {
                    wal.bad_histories.push(BadHistory { timeline, object, error });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(wal)
    }

    fn add(&mut self, size: &str, file: &str, stored_bytes: u64) {
        let Some(size) = size_of_folder(size) else { return };
        // The settlement of a collision makes its segment one that can be fetched.
        let name = file.strip_suffix(".resolved").unwrap_or(file);
        match ArchiveName::parse(name, size) {
            Ok(ArchiveName::Segment(segment)) => {
                let entry = self.segments.entry((size.bytes(), segment.timeline)).or_default();
                entry.numbers.push(segment.number);
                entry.stored_bytes += stored_bytes;
            }
            Ok(ArchiveName::Partial(segment)) => {
                self.partials.insert((size.bytes(), segment));
            }
            _ => {}
        }
    }

    /// The object that holds a segment.
    ///
    /// # Errors
    /// As [`wal_place::object`].
    pub fn object(
        &self,
        cluster: &ClusterStore,
        name: SegmentName,
        size: SegmentSize,
    ) -> Result<Key, EngineError> {
        let file = wal_place::object(&cluster.at, ArchiveName::Segment(name), size)?;
        Ok(self.holders.object(&file).clone())
    }

    /// Whether a whole segment is stored.
    #[must_use]
    pub fn has(&self, name: SegmentName, size: SegmentSize) -> bool {
        let found = self.segments.get(&(size.bytes(), name.timeline));
        found.is_some_and(|segments| segments.has(name.number))
    }

    /// The history of a timeline; without a file it has no ancestors, as PostgreSQL assumes too.
    #[must_use]
    pub fn history(&self, timeline: TimelineId) -> History {
        let stored = self.histories.get(&timeline).cloned();
        stored.unwrap_or_else(|| History::without_ancestors(timeline))
    }

    /// Where the stored WAL of a timeline ends, behind gaps too; 0 when there is none.
    #[must_use]
    pub fn end_of(&self, timeline: TimelineId) -> Lsn {
        let of_it = self.segments.iter().filter(|((_, of), _)| *of == timeline);
        let ends = of_it.filter_map(|((size, _), segments)| {
            let size = SegmentSize::try_from(*size).ok()?;
            segments.numbers.last().map(|last| last.end(size))
        });
        ends.max().unwrap_or_default()
    }

    /// Timelines with WAL whose ancestors no history tells, and whose own is not stored at all.
    /// Timeline 1 has none.
    #[must_use]
    pub fn without_history(&self) -> Vec<TimelineId> {
        let known = |timeline: &TimelineId| {
            timeline.0 <= 1
                || self.histories.values().any(|history| history.contains(*timeline))
                || self.bad_histories.iter().any(|bad| bad.timeline == *timeline)
        };
        let mut found: Vec<TimelineId> =
            self.segments.keys().map(|(_, timeline)| *timeline).filter(|t| !known(t)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Between stored segments of one timeline.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for (&(size, timeline), segments) in &self.segments {
            let Ok(size) = SegmentSize::try_from(size) else { continue };
            for pair in segments.runs().windows(2) {
                let [before, after] = pair else { continue };
                let first = before.last.next();
                let last = after.first.previous().unwrap_or(first);
                gaps.push(Gap { timeline, first, last, size });
            }
        }
        gaps
    }

    /// Every timeline that is known of, by WAL or by a history.
    #[must_use]
    pub fn timelines(&self) -> BTreeSet<TimelineId> {
        let by_wal = self.segments.keys().map(|(_, timeline)| *timeline);
        by_wal.chain(self.histories.keys().copied()).collect()
    }

    /// The ways that recovery can go on from a position: to each timeline that descends from it
    /// and that no other one has left in turn without WAL of its own.
    #[must_use]
    pub fn ways_from(&self, start: Position, size: SegmentSize) -> Vec<Way> {
        let mut timelines = self.timelines();
        timelines.insert(start.timeline);
        let mut ways = Vec::new();
        for timeline in timelines {
            let history = self.history(timeline);
            let Some(spans) = history.path_from(start.timeline, start.lsn) else { continue };
            // Each timeline's WAL is read from the segment that its first byte is in.
            let owners = spans
                .iter()
                .map(|span| (SegmentNumber::containing(span.start, size), span.timeline))
                .collect();
            ways.push(Way {
                timeline,
                size,
                first: SegmentNumber::containing(start.lsn, size),
                owners,
            });
        }
        ways
    }
}

/// Segments of one timeline that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// The timeline in their names.
    pub timeline: TimelineId,
    /// The first one missing.
    pub first: SegmentNumber,
    /// The last one missing.
    pub last: SegmentNumber,
    /// Their size.
    pub size: SegmentSize,
}

impl Gap {
    /// Where the WAL before it ends.
    #[must_use]
    pub fn start(&self) -> Lsn {
        self.first.start(self.size)
    }

    /// Where there is WAL again.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.last.end(self.size)
    }

    /// The files, for people.
    #[must_use]
    pub fn files(&self) -> String {
        let name = |number| SegmentName { timeline: self.timeline, number }.file_name(self.size);
        if self.first == self.last {
            return format!("WAL {}", name(self.first));
        }
        format!("WAL {} to {}", name(self.first), name(self.last))
    }

    /// How many, for people.
    #[must_use]
    pub fn how_many(&self) -> String {
        match self.last.0.saturating_sub(self.first.0).saturating_add(1) {
            1 => "the segment is missing".into(),
            more => format!("{more} segments are missing"),
        }
    }

    /// Whether both lack some segment.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        (self.timeline, self.size) == (other.timeline, other.size)
            && self.first <= other.last
            && other.first <= self.last
    }
}

/// The WAL files from a position to the end of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where it leads.
    pub timeline: TimelineId,
    /// The size of its segments.
    pub size: SegmentSize,
    /// The first segment.
    pub first: SegmentNumber,
    /// From which segment on which timeline's files are read.
    owners: Vec<(SegmentNumber, TimelineId)>,
}

impl Way {
    /// The file of a segment: that of the newest timeline that has begun by then, as PostgreSQL
    /// tries them (`XLogFileReadAnyTLI` of `xlogrecovery.c`).
    #[must_use]
    pub fn name_of(&self, number: SegmentNumber) -> SegmentName {
        let owner = self.owners.iter().rev().find(|(from, _)| *from <= number);
        let timeline = owner.or(self.owners.first()).map_or(self.timeline, |(_, owner)| *owner);
        SegmentName { timeline, number }
    }

    /// The last segment that is stored without a gap before it; nothing if the first is missing.
    #[must_use]
    pub fn last_stored(&self, wal: &StoredWal) -> Option<SegmentNumber> {
        let mut last = None;
        let mut number = self.first;
        while wal.has(self.name_of(number), self.size) {
            last = Some(number);
            number = number.next();
        }
        last
    }

    /// The first segment up to `last` that was found damaged, as far as this way leads over it, and
    /// where recovery ends there.
    #[must_use]
    pub fn damaged(&self, wal: &StoredWal, last: SegmentNumber) -> Option<(SegmentNumber, Lsn)> {
        if wal.damage.is_empty() {
            return None;
        }
        let mut number = self.first;
        while number <= last {
            let (name, before) = self.step(number);
            if let Some(from) = wal.damage.of_step(name, before, self.size) {
                return Some((number, from));
            }
            number = number.next();
        }
        None
    }

    /// A segment, with the one before it on this way.
    #[must_use]
    pub fn step(&self, number: SegmentNumber) -> (SegmentName, Option<SegmentName>) {
        let before = number.previous().filter(|before| *before >= self.first);
        (self.name_of(number), before.map(|before| self.name_of(before)))
    }

    /// Missing segments that others of this way come after.
    #[must_use]
    pub fn gaps(&self, wal: &StoredWal) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = Vec::new();
        let size = self.size;
        let Some(furthest) = self.furthest(wal) else { return gaps };
        let mut number = self.first;
        while number < furthest {
            let SegmentName { timeline, .. } = self.name_of(number);
            if !wal.has(self.name_of(number), size) {
                match gaps.last_mut() {
                    Some(gap) if gap.last.next() == number && gap.timeline == timeline => {
                        gap.last = number;
                    }
                    _ => gaps.push(Gap { timeline, first: number, last: number, size }),
                }
            }
            number = number.next();
        }
        gaps
    }

    /// The last segment of this way that is stored at all.
    fn furthest(&self, wal: &StoredWal) -> Option<SegmentNumber> {
        let of = |timeline: TimelineId| wal.segments.get(&(self.size.bytes(), timeline));
        let last = self.owners.iter().filter_map(|(_, timeline)| {
            let numbers = &of(*timeline)?.numbers;
            numbers.iter().rev().find(|number| self.name_of(**number).timeline == *timeline)
        });
        last.copied().max()
    }

    /// Where the WAL after the last segment begins.
    #[must_use]
    pub fn end_of(&self, last: Option<SegmentNumber>) -> Lsn {
        last.map_or_else(|| self.first.start(self.size), |last| last.end(self.size))
    }
}

/// Up to where the log says that WAL has expired; a log that does not read says nothing.
async fn floors(cluster: &ClusterStore) -> Result<Floors, EngineError> {
    let read = async {
        let log = ExpiredLog::read(&cluster.sealed, cluster.domain()).await?;
        Floors::of(cluster, &log)
    };
    match read.await {
        Err(error) if error.is_unreadable() => Ok(Floors::default()),
        read => read,
    }
}

/// The segment size of a folder such as `16MiB`.
pub(super) fn size_of_folder(folder: &str) -> Option<SegmentSize> {
    let mebibytes: u64 = folder.strip_suffix("MiB")?.parse().ok()?;
    SegmentSize::from_bytes(mebibytes.checked_mul(1 << 20)?).ok()
}

pub(crate) async fn read_history(
    cluster: &ClusterStore,
    timeline: TimelineId,
    object: &Key,
) -> Result<History, EngineError> {
    let bytes = holder::read(&cluster.sealed, object, async |object: &Key| {
        let mut bytes = Vec::new();
        archive::fetch(&cluster.sealed, object, HISTORY_BYTES_MAX, Proof::Hash, |part| {
            bytes.extend_from_slice(part);
        })
        .await?;
        Ok(bytes)
    })
    .await?;
    History::parse(timeline, &bytes)
        .map_err(|source| EngineError::Postgres { path: object.to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size() -> SegmentSize {
        SegmentSize::from_bytes(16 << 20).unwrap()
    }

    fn wal(files: &[&str]) -> StoredWal {
        let mut wal = StoredWal::default();
        for file in files {
            wal.add("16MiB", file, 100);
        }
        for segments in wal.segments.values_mut() {
            segments.numbers.sort_unstable();
            segments.numbers.dedup();
        }
        wal
    }

    fn at(timeline: u32, lsn: &str) -> Position {
        Position { timeline: TimelineId(timeline), lsn: lsn.parse().unwrap() }
    }

    #[test]
    fn runs_end_at_gaps_and_settled_collisions_count() {
        let wal = wal(&[
            "000000010000000000000003",
            "000000010000000000000002",
            "000000010000000000000005.resolved",
            "000000010000000000000005.0123456789abcdef",
            "000000010000000000000007.partial",
        ]);
        let segments = &wal.segments[&(16 << 20, TimelineId(1))];
        let run = |first, last| Run { first: SegmentNumber(first), last: SegmentNumber(last) };
        assert_eq!(segments.runs(), vec![run(2, 3), run(5, 5)]);
        assert_eq!(wal.partials.len(), 1);
    }

    #[test]
    fn a_way_takes_the_new_timelines_file_for_the_segment_of_the_switch() {
        let mut wal = wal(&[
            "000000010000000000000002",
            "000000020000000000000003",
            "000000020000000000000004",
        ]);
        let history = History::parse(TimelineId(2), b"1\t0/3000100\tpromoted\n").unwrap();
        wal.histories.insert(TimelineId(2), history);
        let ways = wal.ways_from(at(1, "0/2000028"), size());
        assert_eq!(ways.len(), 2);
        assert_eq!(ways[0].last_stored(&wal), Some(SegmentNumber(2)));
        assert_eq!(ways[1].last_stored(&wal), Some(SegmentNumber(4)));
        assert_eq!(ways[1].end_of(ways[1].last_stored(&wal)), "0/5000000".parse().unwrap());
        // A backup that begins after the fork, on the old timeline, does not reach the new one.
        assert_eq!(wal.ways_from(at(1, "0/3000200"), size()).len(), 1);
    }
}
