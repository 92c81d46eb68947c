//! Moments that can be reached from no backup any more: stretches of a timeline that some backup
//! should lead to, and none does. What has expired is not lost.

use std::collections::{BTreeMap, BTreeSet};

use pgrecall_pgformat::{Lsn, SegmentNumber, TimelineId};
use serde::Serialize;

use super::finding::Verdict;
use crate::catalog::Known;
use crate::catalog::wal::StoredWal;

/// A stretch of a timeline that recovery cannot stop in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostMoments {
    /// The timeline.
    pub timeline: TimelineId,
    /// Up to here recovery can go, or here a backup that cannot be restored was consistent.
    pub after_lsn: Lsn,
    /// The last moment known before it, RFC 3339; nothing when none is known.
    pub after: Option<String>,
    /// From here on it can again, by a later backup; nothing when it cannot.
    pub until_lsn: Option<Lsn>,
    /// When that backup was consistent.
    pub until: Option<String>,
}

/// A place on a timeline, with its moment.
type Place = (Lsn, Option<String>);

/// What one timeline should offer, and what it does.
#[derive(Debug, Default)]
struct Stretch {
    /// Where backups were consistent, whole or not.
    wanted: BTreeSet<Place>,
    /// From where to where recovery can go.
    reached: BTreeSet<(Place, Place)>,
}

/// Finds them.
#[must_use]
pub fn find(wal: &StoredWal, backups: &[Known], verdicts: &[Verdict]) -> Vec<LostMoments> {
    let mut stretches: BTreeMap<TimelineId, Stretch> = BTreeMap::new();
    for (backup, verdict) in backups.iter().zip(verdicts) {
        let stop = backup.details.stop;
        let ended = (stop.lsn, Some(verdict.ended.clone()));
        for reach in &verdict.reach {
            let timeline = TimelineId(reach.timeline);
            let history = wal.history(timeline);
            let leads = history.contains(stop.timeline)
                && history.switch_point(stop.timeline).is_none_or(|left| stop.lsn <= left);
            if !leads {
                continue;
            }
            let stretch = stretches.entry(timeline).or_default();
            stretch.wanted.insert(ended.clone());
            if verdict.restorable && reach.until_lsn >= stop.lsn {
                let until = (reach.until_lsn, reach.until_time.clone());
                stretch.reached.insert((ended.clone(), until));
            }
        }
    }
    let Some(size) = backups.first().map(|backup| backup.details.wal_segment_size) else {
        return Vec::new();
    };
    let mut lost = Vec::new();
    for (timeline, stretch) in stretches {
        // What lies before the fork is the parent's.
        let begins = wal.history(timeline).switches().last().map_or(Lsn(0), |left| left.lsn);
        let ends = wal.end_of(timeline);
        let mut found = stretch.lost(timeline, begins, ends);
        found.retain(|lost| {
            let next = SegmentNumber::containing(lost.after_lsn, size);
            !wal.floors.cover(timeline, next.end(size))
        });
        lost.extend(found);
    }
    lost
}

impl Stretch {
    fn lost(self, timeline: TimelineId, begins: Lsn, ends: Lsn) -> Vec<LostMoments> {
        let mut lost = Vec::new();
        let Some(first) = self.wanted.into_iter().next() else { return lost };
        // Recovery can go as far as this.
        let mut edge = first;
        let mut add = |(after_lsn, after): Place, until: Option<Place>| {
            let end = until.as_ref().map_or(ends, |(lsn, _)| *lsn);
            if after_lsn < end && begins < end {
                let (until_lsn, until) = until.unzip();
                let until = until.flatten();
                lost.push(LostMoments { timeline, after_lsn, after, until_lsn, until });
            }
        };
        for (from, to) in self.reached {
            if from.0 > edge.0 {
                add(edge.clone(), Some(from));
            }
            if to.0 > edge.0 {
                edge = to;
            }
        }
        add(edge, None);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(lsn: u64) -> Place {
        (Lsn(lsn), Some(lsn.to_string()))
    }

    fn lost(wanted: &[u64], reached: &[(u64, u64)], ends: u64) -> Vec<(u64, Option<u64>)> {
        let stretch = Stretch {
            wanted: wanted.iter().map(|lsn| place(*lsn)).collect(),
            reached: reached.iter().map(|(from, to)| (place(*from), place(*to))).collect(),
        };
        let found = stretch.lost(TimelineId(1), Lsn(0), Lsn(ends));
        found.iter().map(|lost| (lost.after_lsn.0, lost.until_lsn.map(|lsn| lsn.0))).collect()
    }

    #[test]
    fn nothing_is_lost_where_backups_reach_each_other() {
        assert_eq!(lost(&[10, 20], &[(10, 50), (20, 50)], 50), []);
        assert_eq!(lost(&[], &[], 50), []);
        // The first cannot be restored, but then the second can only be reached by itself.
        assert_eq!(lost(&[10, 20], &[(20, 50)], 50), [(10, Some(20))]);
        // The second cannot, and the first goes on over it.
        assert_eq!(lost(&[10, 20], &[(10, 50)], 50), []);
    }

    #[test]
    fn a_hole_loses_what_lies_between_it_and_the_next_backup() {
        assert_eq!(lost(&[10, 40], &[(10, 30), (40, 50)], 50), [(30, Some(40))]);
        assert_eq!(lost(&[10, 40], &[(10, 30)], 50), [(30, None)]);
        assert_eq!(lost(&[10, 40], &[], 50), [(10, None)]);
    }
}
