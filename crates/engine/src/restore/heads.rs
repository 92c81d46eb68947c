//! The ends of the cluster's history: timelines that nobody left, and those that went on after
//! somebody did.

use std::collections::BTreeMap;

use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentNumber, TimelineId};

use super::refusal::known_timelines;
use super::wal_view::WalView;
use crate::error::EngineError;

/// Trailers asked for at once.
const BATCH_SEGMENTS: usize = 64;

/// The ends of the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    /// The timelines at which a recovery to the latest moment could end, oldest first; those whose
    /// ancestors nobody knows are not among them.
    pub timelines: Vec<TimelineId>,
    /// What could not be found out, sentences.
    pub notes: Vec<String>,
}

/// Finds the ends of the history. `more` are timelines that are known of otherwise.
///
/// # Errors
/// When the store fails.
pub async fn heads<V: WalView>(view: &V, more: &[TimelineId]) -> Result<Heads, EngineError> {
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
    let unknown = stored.without_history();
    let mut heads = Heads::default();
    for timeline in all.into_iter().filter(|timeline| !unknown.contains(timeline)) {
        let ends = match left.get(&timeline) {
            None => true,
            Some(lsn) => goes_on(view, timeline, *lsn, &mut heads.notes).await?,
        };
        if ends {
            heads.timelines.push(timeline);
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
    notes: &mut Vec<String>,
) -> Result<bool, EngineError> {
    let stored = view.stored();
    let Some(numbers) = stored.segments.get(&timeline) else { return Ok(false) };
    let first = SegmentNumber::containing(left, stored.segment_size);
    let names: Vec<SegmentName> =
        numbers.range(first..).map(|number| SegmentName { timeline, number: *number }).collect();
    let mut unreadable = None;
    for part in names.chunks(BATCH_SEGMENTS) {
        let stored_as: Vec<ArchiveName> =
            part.iter().map(|name| ArchiveName::Segment(*name)).collect();
        let after = |end: Option<pgrecall_pgformat::xact::TransactionEnd>| {
            end.is_some_and(|end| end.lsn >= left)
        };
        for (name, look) in part.iter().zip(view.summaries(&stored_as).await?) {
            match look {
                Ok(summary) if after(summary.transactions.last) => return Ok(true),
                Ok(_) => {}
                Err(_) => unreadable = unreadable.or(Some(*name)),
            }
        }
    }
    if let Some(name) = unreadable {
        notes.push(format!(
            "Whether transactions ended on timeline {} after it was left is not known: the trailer \
             of {} does not read.",
            timeline.0,
            name.file_name(stored.segment_size)
        ));
    }
    Ok(false)
}
