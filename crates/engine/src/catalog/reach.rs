//! How far recovery from a backup can go: along each timeline, up to the first segment that is not
//! stored, and the newest moment that is known there.

use std::collections::HashMap;

use jiff::Timestamp;
use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_pgformat::{Lsn, SegmentName, SegmentNumber};
use serde::Serialize;

use super::wal::{StoredWal, Way};
use crate::archive::trailer;
use crate::cluster::ClusterStore;
use crate::details::BackupDetails;
use crate::error::EngineError;

/// How far recovery can go along one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// The timeline.
    pub timeline: u32,
    /// The first LSN that is not stored.
    pub until_lsn: Lsn,
    /// The last moment that the stored WAL speaks of, RFC 3339; nothing when it speaks of none.
    pub until_time: Option<String>,
    /// The file that is missing next.
    pub next_segment: String,
}

/// Segments looked back for a moment: a segment without any transaction or checkpoint is rare.
const LOOK_BACK_SEGMENTS: usize = 8;

/// The newest moments of segments, each read once.
#[derive(Debug)]
pub struct Times<'a> {
    cluster: &'a ClusterStore,
    known: HashMap<SegmentName, Option<Timestamp>>,
}

impl<'a> Times<'a> {
    /// None known yet.
    #[must_use]
    pub fn new(cluster: &'a ClusterStore) -> Self {
        Self { cluster, known: HashMap::new() }
    }

    async fn of(
        &mut self,
        wal: &StoredWal,
        way: &Way,
        number: SegmentNumber,
    ) -> Result<Option<Timestamp>, EngineError> {
        let name = way.name_of(number);
        if let Some(known) = self.known.get(&name) {
            return Ok(*known);
        }
        let object = wal.object(self.cluster, name, way.size)?;
        let time = match trailer::read(&self.cluster.sealed, &object).await {
            Ok(stored) => stored.trailer.summary.as_ref().and_then(newest),
            // A damaged trailer hides a moment here; `verify` says what it means.
            Err(error) if error.is_unreadable() || is_missing(&error) => None,
            Err(error) => return Err(error),
        };
        self.known.insert(name, time);
        Ok(time)
    }
}

fn is_missing(error: &EngineError) -> bool {
    error.kind() == crate::error::ErrorKind::NotFound
}

/// The newest moment that a segment speaks of.
#[must_use]
pub fn newest(summary: &SegmentSummary) -> Option<Timestamp> {
    let transaction = summary.transactions.latest.map(|end| end.time);
    let checkpoints = summary.checkpoints.items.iter().map(|record| &record.checkpoint);
    let checkpoint = checkpoints.map(|c| c.time_unix_secs.saturating_mul(1_000_000)).max();
    let point = summary.restore_points.items.iter().map(|point| point.time).max();
    let micros = |time: pgrecall_pgformat::Timestamp| time.to_unix_micros();
    let newest = transaction.map(micros).max(checkpoint).max(point.map(micros))?;
    Timestamp::from_microsecond(newest).ok()
}

/// Whether the WAL up to a backup's stop is there: on a way that leads over the timeline on which
/// the backup stopped.
#[must_use]
pub fn is_consistent(reach: &[Reach], details: &BackupDetails, wal: &StoredWal) -> bool {
    let stop = details.stop;
    reach.iter().any(|reach| {
        let history = wal.history(pgrecall_pgformat::TimelineId(reach.timeline));
        reach.until_lsn >= stop.lsn
            && history.contains(stop.timeline)
            && history.switch_point(stop.timeline).is_none_or(|left| stop.lsn <= left)
    })
}

/// How far recovery from a backup can go, along each timeline that goes on from it.
///
/// # Errors
/// When the store fails.
pub async fn of(
    details: &BackupDetails,
    wal: &StoredWal,
    times: &mut Times<'_>,
) -> Result<Vec<Reach>, EngineError> {
    let mut found = Vec::new();
    for way in wal.ways_from(details.start, details.wal_segment_size) {
        let last = way.last_stored(wal);
        let damaged = last.and_then(|last| way.damaged(wal, last));
        let until_lsn = damaged.map_or_else(|| way.end_of(last), |(_, from)| from);
        let until_lsn = until_lsn.max(details.start.lsn);
        // A timeline of whose own WAL nothing is stored offers nothing that its parent does not.
        let own = last.is_some_and(|last| way.name_of(last).timeline == way.timeline);
        if !own && way.timeline != details.start.timeline {
            continue;
        }
        let next = match damaged {
            Some((damaged, _)) => damaged,
            None => last.map_or(way.first, SegmentNumber::next),
        };
        let last = match damaged {
            Some((damaged, _)) => damaged.previous(),
            None => last,
        };
        found.push(Reach {
            timeline: way.timeline.0,
            until_lsn,
            until_time: until_time(wal, &way, last, times).await?,
            next_segment: way.name_of(next).file_name(way.size),
        });
    }
    Ok(found)
}

async fn until_time(
    wal: &StoredWal,
    way: &Way,
    last: Option<SegmentNumber>,
    times: &mut Times<'_>,
) -> Result<Option<String>, EngineError> {
    let mut number = last;
    for _ in 0..LOOK_BACK_SEGMENTS {
        let Some(at) = number.filter(|number| *number >= way.first) else { return Ok(None) };
        if let Some(time) = times.of(wal, way, at).await? {
            return Ok(Some(time.to_string()));
        }
        number = at.previous();
    }
    Ok(None)
}
