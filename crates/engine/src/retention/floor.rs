//! Up to where WAL may have expired, as the log of expired backups says it: written before the
//! first segment goes, and never taken back.
//!
//! A floor holds for the timelines that were there when it was written. A server that was restored
//! since, from a backup kept as a state of its day, writes its own timeline below an old floor.

use pgrecall_pgformat::{Lsn, SegmentNumber, TimelineId};
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::ExpiredWal;

use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};

/// Segments of some timelines that may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Those of this timeline and of all with lower numbers …
    pub through: TimelineId,
    /// … that end here or before.
    pub below: Lsn,
}

impl Floor {
    const fn covers(self, timeline: TimelineId, end: Lsn) -> bool {
        timeline.0 <= self.through.0 && end.0 <= self.below.0
    }
}

/// All floors of a lineage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Floors(Vec<Floor>);

impl Floors {
    /// What a log says of a lineage.
    ///
    /// # Errors
    /// When it says so in words that are no LSN.
    pub fn of(cluster: &ClusterStore, log: &ExpiredLog) -> Result<Self, EngineError> {
        let own = |wal: &&ExpiredWal| {
            wal.cluster == cluster.at.cluster.as_str() && wal.lineage == cluster.at.lineage
        };
        let floor = |wal: &ExpiredWal| {
            let below = wal.below.parse().map_err(|source| EngineError::Postgres {
                path: "the log of expired backups".into(),
                source,
            })?;
            Ok(Floor { through: TimelineId(wal.through), below })
        };
        Ok(Self(log.entry().wal.iter().filter(own).map(floor).collect::<Result<_, EngineError>>()?))
    }

    /// Whether a segment that ends there may be gone.
    #[must_use]
    pub fn cover(&self, timeline: TimelineId, end: Lsn) -> bool {
        self.0.iter().any(|floor| floor.covers(timeline, end))
    }

    /// With one more; nothing when these say so already.
    #[must_use]
    pub fn and(&self, floor: Floor) -> Option<Self> {
        if self.cover(floor.through, floor.below) {
            return None;
        }
        let others = self.0.iter().copied().filter(|old| !floor.covers(old.through, old.below));
        Some(Self(others.chain([floor]).collect()))
    }

    /// As the log writes it.
    #[must_use]
    pub fn to_log(&self, cluster: &ClusterStore) -> Vec<ExpiredWal> {
        let row = |floor: &Floor| ExpiredWal {
            cluster: cluster.at.cluster.to_string(),
            lineage: cluster.at.lineage.clone(),
            through: floor.through.0,
            below: floor.below.to_string(),
        };
        self.0.iter().map(row).collect()
    }
}

/// Refuses a backup that would start below what has expired. Its start is to be written down
/// before: whoever expires WAL afterwards sees it, and what went before stands in the log.
///
/// # Errors
/// `Incomplete` when WAL from the start on may be gone; when the log cannot be read.
pub async fn require_wal_from(
    cluster: &ClusterStore,
    timeline: TimelineId,
    start: Lsn,
) -> Result<(), EngineError> {
    let log = ExpiredLog::read(&cluster.sealed, cluster.domain()).await?;
    let size = cluster.facts.wal_segment_size;
    let end = SegmentNumber::containing(start, size).end(size);
    if !Floors::of(cluster, &log)?.cover(timeline, end) {
        return Ok(());
    }
    let message = format!(
        "this server is behind: a backup of it starts at {start}, and WAL from there on has expired"
    );
    Err(EngineError::refused(ErrorKind::Incomplete, message)
        .hint("Wait until the standby has caught up with its primary, or back the primary up."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(through: u32, below: u64) -> Floor {
        Floor { through: TimelineId(through), below: Lsn(below) }
    }

    #[test]
    fn floors_only_grow() {
        let floors = Floors::default().and(floor(1, 100)).unwrap();
        assert_eq!(floors.and(floor(1, 90)), None);
        assert_eq!(floors.and(floor(1, 110)), Some(Floors(vec![floor(1, 110)])));
        // A server restored to before 100 writes timeline 2.
        let both = floors.and(floor(2, 50)).unwrap();
        assert_eq!(both, Floors(vec![floor(1, 100), floor(2, 50)]));
        assert_eq!(both.and(floor(2, 120)), Some(Floors(vec![floor(2, 120)])));
    }

    #[test]
    fn a_floor_holds_for_the_timelines_that_were_there() {
        let floors = Floors::default().and(floor(2, 100)).unwrap();
        let covers = |timeline, end| floors.cover(TimelineId(timeline), Lsn(end));
        assert!(covers(1, 100) && covers(2, 50));
        assert!(!covers(2, 101) && !covers(3, 50));
    }
}
