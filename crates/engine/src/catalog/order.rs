//! In which order backups ended, and when: by the WAL where it tells, by clocks where it does not.
//!
//! The time in a manifest is that of the host that took the backup, in whole seconds. Two backups
//! may be of one second, and a clock may be wrong by years. But of two backups on one way through
//! the WAL the one that stopped later in it is younger, whatever the clocks said.

use jiff::Timestamp;
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::{Lsn, TimelineId};

use pgrecall_repo::id::BackupId;

use super::Known;
use super::wal::StoredWal;
use crate::details::BackupDetails;

/// Where a backup stopped, and when by its host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The timeline.
    pub timeline: TimelineId,
    /// The position.
    pub lsn: Lsn,
    /// The time.
    pub ended: Timestamp,
}

impl Ending {
    /// Of a backup.
    #[must_use]
    pub fn of(details: &BackupDetails) -> Self {
        let stop = details.stop;
        Self { timeline: stop.timeline, lsn: stop.lsn, ended: details.ended }
    }
}

/// A backup's place among others: the greater, the newer. On one way through the WAL it follows the
/// positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it ended, as far as the others allow.
    pub moment: Timestamp,
    /// Where.
    pub lsn: Lsn,
    /// On which timeline.
    pub timeline: TimelineId,
}

/// The places of backups, in the order in which these are given.
///
/// A time that lies after `now` is wrong: such a backup is as old as the one that followed it. A
/// time before that of a predecessor is wrong too: such a backup is as young as that one.
#[must_use]
pub fn places(
    endings: &[Ending],
    history_of: impl Fn(TimelineId) -> History,
    now: Timestamp,
) -> Vec<Place> {
    let histories: Vec<History> =
        endings.iter().map(|ending| history_of(ending.timeline)).collect();
    let all = || endings.iter().zip(&histories);
    let place = |(ending, history): (&Ending, &History)| {
        let earlier = endings.iter().filter(|other| precedes(other, ending, history));
        let earlier = earlier.map(|other| other.ended).filter(|ended| *ended <= now).max();
        let own = match ending.ended > now {
            false => ending.ended,
            true => {
                let later = all().filter(|(other, history)| precedes(ending, other, history));
                later.map(|(other, _)| other.ended).min().map_or(now, |next| next.min(now))
            }
        };
        let moment = earlier.map_or(own, |earlier| earlier.max(own));
        Place { moment, lsn: ending.lsn, timeline: ending.timeline }
    };
    all().map(place).collect()
}

/// The number of the newest.
#[must_use]
pub fn newest(endings: &[Ending], history_of: impl Fn(TimelineId) -> History) -> Option<usize> {
    let places = places(endings, history_of, Timestamp::MAX);
    places.iter().enumerate().max_by_key(|(_, place)| **place).map(|(number, _)| number)
}

/// The newest of a lineage's backups.
#[must_use]
pub fn newest_backup(known: &[Known], stored: &StoredWal) -> Option<BackupId> {
    let endings: Vec<Ending> = known.iter().map(|backup| Ending::of(&backup.details)).collect();
    let newest = newest(&endings, |timeline| stored.history(timeline))?;
    known.get(newest).map(|backup| backup.manifest.backup)
}

/// Whether `a` stopped on the way to where `b` stopped, before it; `history` is that of `b`.
fn precedes(a: &Ending, b: &Ending, history: &History) -> bool {
    let on_the_way = history.contains(a.timeline)
        && history.switch_point(a.timeline).is_none_or(|left| a.lsn <= left);
    on_the_way && (a.lsn, a.timeline) < (b.lsn, b.timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(timeline: u32, lsn: u64, ended: &str) -> Ending {
        let ended = format!("{ended}T00:00:00Z").parse().unwrap();
        Ending { timeline: TimelineId(timeline), lsn: Lsn(lsn), ended }
    }

    /// Timeline 2 left timeline 1 at 50.
    fn history(timeline: TimelineId) -> History {
        match timeline {
            TimelineId(2) => History::parse(timeline, b"1\t0/32\tno recovery target\n").unwrap(),
            _ => History::without_ancestors(timeline),
        }
    }

    /// The positions, the newest first, and the days that are taken for true.
    fn newest_first(endings: &[Ending]) -> Vec<(u64, String)> {
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let mut places = places(endings, history, now);
        places.sort_unstable_by_key(|place| std::cmp::Reverse(*place));
        let day = |place: &Place| place.moment.strftime("%m-%d").to_string();
        places.iter().map(|place| (place.lsn.0, day(place))).collect()
    }

    fn of(found: &[(u64, &str)]) -> Vec<(u64, String)> {
        found.iter().map(|(lsn, day)| (*lsn, (*day).to_owned())).collect()
    }

    #[test]
    fn of_one_second_the_wal_decides() {
        let day = "2026-11-20";
        let endings = [ending(1, 20, day), ending(1, 30, day), ending(1, 10, day)];
        assert_eq!(newest_first(&endings), of(&[(30, "11-20"), (20, "11-20"), (10, "11-20")]));
    }

    #[test]
    fn a_time_in_the_future_makes_no_backup_the_newest() {
        let endings =
            [ending(1, 10, "2026-11-01"), ending(1, 20, "2099-01-01"), ending(1, 30, "2026-11-03")];
        assert_eq!(newest_first(&endings), of(&[(30, "11-03"), (20, "11-03"), (10, "11-01")]));
        assert_eq!(newest_first(&endings[..2]), of(&[(20, "11-30"), (10, "11-01")]));
    }

    #[test]
    fn a_clock_that_went_back_makes_no_backup_old() {
        let endings =
            [ending(1, 10, "2026-11-01"), ending(1, 20, "1970-01-01"), ending(1, 30, "2026-11-03")];
        assert_eq!(newest_first(&endings), of(&[(30, "11-03"), (20, "11-01"), (10, "11-01")]));
        let both =
            [ending(1, 10, "2026-11-05"), ending(1, 20, "2099-01-01"), ending(1, 30, "1970-01-01")];
        assert_eq!(newest_first(&both), of(&[(30, "11-05"), (20, "11-05"), (10, "11-05")]));
    }

    #[test]
    fn between_ways_that_have_parted_clocks_decide() {
        // Timeline 1 went on after 50, to 90, before somebody restored and wrote timeline 2.
        let endings = [
            ending(1, 40, "2026-11-01"),
            ending(1, 90, "2026-11-02"),
            ending(2, 60, "2026-11-03"),
            ending(2, 70, "2026-10-01"),
        ];
        assert_eq!(
            newest_first(&endings),
            of(&[(70, "11-03"), (60, "11-03"), (90, "11-02"), (40, "11-01")])
        );
    }
}
