//! Which WAL goes: all that no kept backup needs, and none that anything might.
//!
//! LSNs only grow along a timeline, and a timeline begins where its parent was left. So what lies
//! below the start of every backup that WAL is kept for lies below every way from any of them, on
//! whichever timeline: one comparison of positions decides, and no history has to be right for it.

use std::collections::BTreeSet;

use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentSize, TimelineId};
use pgrecall_repo::id::BackupId;
use pgrecall_store::{Key, Listed, Prefix};

use super::floor::Floors;

/// A backup that stays, as far as WAL is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBackup {
    /// Where replay starts.
    pub start: Lsn,
    /// Where it is consistent.
    pub stop: Lsn,
    /// What is kept of the WAL after it.
    pub after: WalAfter,
}

/// What is kept of the WAL after a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalAfter {
    /// All.
    All,
    /// None but what makes it consistent.
    None,
}

/// A backup under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// The backup.
    pub id: BackupId,
    /// Where it starts, once it has said so.
    pub start: Option<Lsn>,
}

/// A stretch of WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// Its first position.
    pub from: Lsn,
    /// The position that must be reached.
    pub to: Lsn,
}

/// What goes of a lineage's WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalCut {
    /// Nothing, and why.
    Nothing {
        /// A sentence.
        why: String,
    },
    /// What ends at or before a position, but for some stretches.
    Below {
        /// The position.
        lsn: Lsn,
        /// The newest timeline that is known: who writes a newer one may do so below the position.
        through: TimelineId,
        /// Stretches that make older backups consistent.
        spared: BTreeSet<Stretch>,
    },
}

impl WalCut {
    /// Decides from the backups that stay and those under way.
    #[must_use]
    pub fn settle(kept: &[KeptBackup], under_way: &[UnderWay], through: TimelineId) -> Self {
        if let Some(silent) = under_way.iter().find(|backup| backup.start.is_none()) {
            let why = format!(
                "the backup {} is under way and has not said yet where it starts",
                silent.id
            );
            return Self::Nothing { why };
        }
        let anchors = kept.iter().filter(|backup| backup.after == WalAfter::All);
        let Some(oldest) = anchors.map(|backup| backup.start).min() else {
            return Self::Nothing { why: "no backup stays that WAL could be replayed on".into() };
        };
        let live = under_way.iter().filter_map(|backup| backup.start).min();
        let lsn = live.map_or(oldest, |live| live.min(oldest));
        let older = kept.iter().filter(|backup| backup.start < lsn);
        let spared = older.map(|backup| Stretch { from: backup.start, to: backup.stop }).collect();
        Self::Below { lsn, through, spared }
    }

    /// Whether a segment goes.
    #[must_use]
    pub fn takes(&self, segment: SegmentName, size: SegmentSize) -> bool {
        let Self::Below { lsn, through, spared } = self else { return false };
        let (start, end) = (segment.number.start(size), segment.number.end(size));
        // A record may end on a segment's first byte: the stretch's last position counts too.
        segment.timeline <= *through
            && end <= *lsn
            && !spared.iter().any(|stretch| start <= stretch.to && stretch.from < end)
    }
}

/// An object that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldWal {
    /// The object.
    pub object: Key,
    /// Its bytes.
    pub bytes: u64,
}

/// The objects below a lineage's `wal/` folder that go: segments, `.partial` and `.backup` files,
/// and the settlements and contents that belong to them, as far as floors say that they may. Names
/// that mean nothing to us stay.
#[must_use]
pub fn old_wal(listed: &[Listed], below: &Prefix, cut: &WalCut, floors: &Floors) -> Vec<OldWal> {
    let goes = |object: &&Listed| {
        let place = object.key.strip_prefix(below).and_then(segment_of);
        place.is_some_and(|(segment, size)| {
            cut.takes(segment, size) && floors.cover(segment.timeline, segment.number.end(size))
        })
    };
    let old = listed.iter().filter(goes);
    old.map(|object| OldWal { object: object.key.clone(), bytes: object.size }).collect()
}

/// The segment that an object belongs to, by its path below the lineage's folder, such as
/// `wal/16MiB/00000001/00000000/000000010000000000000003.partial`.
fn segment_of(path: &str) -> Option<(SegmentName, SegmentSize)> {
    let mut parts = path.split('/');
    if parts.next()? != "wal" {
        return None;
    }
    let mebibytes: u64 = parts.next()?.strip_suffix("MiB")?.parse().ok()?;
    let size = SegmentSize::from_bytes(mebibytes.checked_mul(1 << 20)?).ok()?;
    let (timeline, log, file) = (parts.next()?, parts.next()?, parts.next()?);
    let segment = ArchiveName::parse(file.get(..24)?, size).ok()?.segment()?;
    let name = segment.file_name(size);
    let in_place = name.get(..8) == Some(timeline) && name.get(8..16) == Some(log);
    let rest_is_ours = file.get(24..).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    (in_place && rest_is_ours && parts.next().is_none()).then_some((segment, size))
}

#[cfg(test)]
mod tests {
    use pgrecall_pgformat::SegmentNumber;

    use super::super::floor::Floor;
    use super::*;

    fn size() -> SegmentSize {
        SegmentSize::from_bytes(16 << 20).unwrap()
    }

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    fn kept(start: &str, stop: &str, after: WalAfter) -> KeptBackup {
        KeptBackup { start: lsn(start), stop: lsn(stop), after }
    }

    fn settle(kept: &[KeptBackup], under_way: &[UnderWay]) -> WalCut {
        WalCut::settle(kept, under_way, TimelineId(9))
    }

    fn goes(cut: &WalCut) -> Vec<u64> {
        let takes = |number: &u64| {
            let number = SegmentNumber(*number);
            cut.takes(SegmentName { timeline: TimelineId(1), number }, size())
        };
        (0..16).filter(takes).collect()
    }

    #[test]
    fn wal_below_the_oldest_start_goes_but_for_what_makes_older_ones_consistent() {
        let backups = [
            kept("0/8000028", "0/8000130", WalAfter::All),
            kept("0/A000028", "0/A000130", WalAfter::All),
            kept("0/3000028", "0/5000000", WalAfter::None),
        ];
        let cut = settle(&backups, &[]);
        assert_eq!(goes(&cut), vec![0, 1, 2, 6, 7]);
    }

    #[test]
    fn nothing_goes_without_a_backup_or_beside_one_that_is_silent() {
        assert_eq!(goes(&settle(&[], &[])), Vec::<u64>::new());
        let old = [kept("0/3000028", "0/5000000", WalAfter::None)];
        assert_eq!(goes(&settle(&old, &[])), Vec::<u64>::new());
        let new = [kept("0/8000028", "0/8000130", WalAfter::All)];
        let id = BackupId::from_bytes([1; 16]);
        let silent = [UnderWay { id, start: None }];
        assert_eq!(goes(&settle(&new, &silent)), Vec::<u64>::new());
        let early = [UnderWay { id, start: Some(lsn("0/4000028")) }];
        assert_eq!(goes(&settle(&new, &early)), vec![0, 1, 2, 3]);
        let late = [UnderWay { id, start: Some(lsn("0/9000028")) }];
        assert_eq!(goes(&settle(&new, &late)), vec![0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_start_on_a_segments_first_byte_keeps_that_segment() {
        let cut = settle(&[kept("0/8000000", "0/8000130", WalAfter::All)], &[]);
        assert_eq!(goes(&cut).last(), Some(&7));
    }

    #[test]
    fn objects_are_told_by_their_places() {
        let below = Prefix::parse("clusters/main/7/").unwrap();
        let cut = settle(&[kept("0/4000028", "0/4000130", WalAfter::All)], &[]);
        let listed = |path: &str| Listed {
            key: Key::parse(&format!("clusters/main/7/{path}")).unwrap(),
            size: 5,
        };
        let old = [
            "wal/16MiB/00000001/00000000/000000010000000000000003",
            "wal/16MiB/00000001/00000000/000000010000000000000003.partial",
            "wal/16MiB/00000001/00000000/000000010000000000000003.00000028.backup",
            "wal/16MiB/00000001/00000000/000000010000000000000003.resolved",
            "wal/16MiB/00000001/00000000/000000010000000000000003.0123456789abcdef",
            "wal/16MiB/00000009/00000000/000000090000000000000001",
            "wal/1MiB/00000001/00000000/00000001000000000000003F",
        ];
        let stays = [
            "identity",
            "wal/16MiB/0000000A/00000000/0000000A0000000000000001",
            "timelines/00000002.history",
            "wal/16MiB/00000001/00000000/000000010000000000000004",
            "wal/1MiB/00000001/00000000/000000010000000000000040",
            "wal/16MiB/00000002/00000000/000000010000000000000003",
            "wal/16MiB/00000001/00000000/000000010000000000000003x",
            "wal/16MiB/00000001/00000000/readme",
            "wal-summaries/16MiB/00000001/00000000/000000010000000000000003",
        ];
        let all: Vec<Listed> = old.iter().chain(&stays).map(|path| listed(path)).collect();
        let floors = Floors::default();
        assert_eq!(old_wal(&all, &below, &cut, &floors), vec![], "nothing said that it may go");
        let floor = Floor { through: TimelineId(9), below: lsn("0/4000028") };
        let floors = floors.and(floor).unwrap();
        let found = old_wal(&all, &below, &cut, &floors);
        let found: Vec<&str> =
            found.iter().filter_map(|object| object.object.strip_prefix(&below)).collect();
        assert_eq!(found, old);
    }
}
