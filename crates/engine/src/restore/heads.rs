//! The ends of the cluster's history: timelines that nobody left, and those that went on after
//! somebody did.

use std::collections::BTreeMap;

use pgrecall_pgformat::{Lsn, SegmentName, SegmentNumber, TimelineId};

use super::refusal::known_timelines;
use super::wal_view::WalView;
use crate::error::EngineError;

/// Trailers asked for at once.
const BATCH_SEGMENTS: usize = 64;

/// The timelines at which a recovery to the latest moment could end, oldest first.
///
/// # Errors
/// When stored WAL cannot be read.
pub async fn heads<V: WalView>(
    view: &V,
    more: &[TimelineId],
) -> Result<Vec<TimelineId>, EngineError> {
    let stored = view.stored();
    let mut all = known_timelines(stored);
    all.extend_from_slice(more);
    all.sort_unstable();
    all.dedup();
    let mut left: BTreeMap<TimelineId, Lsn> = BTreeMap::new();
    for timeline in &all {
        if let Some(switch) = stored.history(*timeline).switches().last() {
            let lsn = left.entry(switch.timeline).or_insert(switch.lsn);
            *lsn = (*lsn).max(switch.lsn);
        }
    }
    let mut heads = Vec::new();
    for timeline in all {
        let ends = match left.get(&timeline) {
            None => true,
            Some(lsn) => goes_on(view, timeline, *lsn).await?,
        };
        if ends {
            heads.push(timeline);
        }
    }
    Ok(heads)
}

/// Whether transactions ended on a timeline after it was left: somebody's work, that following the
/// other branch would lose.
async fn goes_on<V: WalView>(
    view: &V,
    timeline: TimelineId,
    left: Lsn,
) -> Result<bool, EngineError> {
    let stored = view.stored();
    let Some(numbers) = stored.segments.get(&timeline) else { return Ok(false) };
    let first = SegmentNumber::containing(left, stored.segment_size);
    let names: Vec<SegmentName> =
        numbers.range(first..).map(|number| SegmentName { timeline, number: *number }).collect();
    for part in names.chunks(BATCH_SEGMENTS) {
        let summaries = view.summaries(part).await?;
        let after = |end: Option<pgrecall_pgformat::xact::TransactionEnd>| {
            end.is_some_and(|end| end.lsn >= left)
        };
        if summaries.iter().any(|summary| after(summary.transactions.last)) {
            return Ok(true);
        }
    }
    Ok(false)
}
