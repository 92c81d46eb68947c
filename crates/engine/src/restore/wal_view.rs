//! What the planner sees of the stored WAL: which segments there are, what their trailers say, and
//! the records of the few segments that have to be looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use pgrecall_pgformat::segment_summary::SegmentSummary;
use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::xact::TransactionEnd;
use pgrecall_pgformat::{
    ArchiveName, Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineId, Timestamp,
};

use crate::error::EngineError;
use crate::unreadable::Unreadable;

/// Names of what is stored.
#[derive(Debug, Clone)]
pub struct StoredWal {
    /// The size of the segments.
    pub segment_size: SegmentSize,
    /// Whether the lineage has WAL in segments of another size too.
    pub has_other_sizes: bool,
    /// Whole segments of each timeline.
    pub segments: BTreeMap<TimelineId, BTreeSet<SegmentNumber>>,
    /// Last segments of timelines that were left.
    pub partials: BTreeSet<SegmentName>,
    /// Ancestries, as their history files tell them.
    pub histories: BTreeMap<TimelineId, History>,
    /// History files that do not read, and why.
    pub bad_histories: BTreeMap<TimelineId, Unreadable>,
}

impl StoredWal {
    /// Nothing.
    #[must_use]
    pub const fn empty(segment_size: SegmentSize) -> Self {
        Self {
            segment_size,
            has_other_sizes: false,
            segments: BTreeMap::new(),
            partials: BTreeSet::new(),
            histories: BTreeMap::new(),
            bad_histories: BTreeMap::new(),
        }
    }

    /// Whether a whole segment is stored under this very name.
    #[must_use]
    pub fn has(&self, name: SegmentName) -> bool {
        self.segments.get(&name.timeline).is_some_and(|numbers| numbers.contains(&name.number))
    }

    /// Timelines with ancestors that nobody knows: there is WAL of them, or a history that does not
    /// read. Timeline 1 has none.
    #[must_use]
    pub fn without_history(&self) -> Vec<TimelineId> {
        let named = self.segments.keys().chain(self.bad_histories.keys()).copied();
        let known = |timeline: &TimelineId| {
            timeline.0 <= 1 || self.histories.values().any(|history| history.contains(*timeline))
        };
        let mut found: Vec<TimelineId> = named.filter(|timeline| !known(timeline)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A timeline's ancestry; without a history file it has none (`readTimeLineHistory`).
    #[must_use]
    pub fn history(&self, timeline: TimelineId) -> History {
        self.histories
            .get(&timeline)
            .cloned()
            .unwrap_or_else(|| History::without_ancestors(timeline))
    }
}

/// What the trailer of a segment says.
pub type Look = Result<Arc<SegmentSummary>, Unreadable>;

/// A record, as far as a recovery target cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRecord {
    /// Where it starts.
    pub lsn: Lsn,
    /// The position after it.
    pub end_lsn: Lsn,
    /// What it is.
    pub mark: Mark,
}

/// What a record is to a recovery target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The end of a transaction.
    Transaction(TransactionEnd),
    /// A restore point.
    RestorePoint {
        /// When it was made.
        time: Timestamp,
        /// Its name.
        name: Box<str>,
    },
    /// Anything else.
    Other,
}

/// Where the planner reads WAL. Names are those of whole segments and of `.partial` files.
pub trait WalView: Sync {
    /// What is stored.
    fn stored(&self) -> &StoredWal;

    /// What the trailers of these segments say, in their order.
    ///
    /// # Errors
    /// When the store fails.
    fn summaries(
        &self,
        names: &[ArchiveName],
    ) -> impl Future<Output = Result<Vec<Look>, EngineError>> + Send;

    /// What a segment itself says, with all that it has of records which others share.
    ///
    /// # Errors
    /// When the store fails.
    fn whole_summary(
        &self,
        name: ArchiveName,
    ) -> impl Future<Output = Result<Look, EngineError>> + Send;

    /// All records that start and end in a segment, in order.
    ///
    /// # Errors
    /// When the store fails.
    fn records(
        &self,
        name: ArchiveName,
    ) -> impl Future<Output = Result<Result<Vec<WalRecord>, Unreadable>, EngineError>> + Send;
}
