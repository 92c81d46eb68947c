//! The plan of a recovery: which backup, which way through the WAL, where to stop; made from
//! manifests, histories and trailers alone, before a byte is written.

use pgrecall_pgformat::timeline::{History, TimelineSpan};
use pgrecall_pgformat::xact::TransactionEnd;
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentNumber, TimelineId, Timestamp};
use pgrecall_repo::id::BackupId;
use serde::Serialize;

use super::heads::{Heads, heads};
use super::refusal::{PlanError, Refusal, Way, known_timelines, show};
use super::route::{self, Route};
use super::scan::WalPath;
use super::target::{BackupChoice, Bound, Request, Target};
use super::wal_view::{StoredWal, WalView};
use crate::catalog::order::{self, Ending};
use crate::details::BackupDetails;

/// A backup that a plan may start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRow {
    /// The backup.
    pub id: BackupId,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// What it says of PostgreSQL.
    pub details: BackupDetails,
}

/// Where recovery stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Stop {
    /// At the first record that starts at this position or later.
    Lsn {
        /// `recovery_target_lsn`.
        lsn: Lsn,
        /// Whether that record is replayed.
        bound: Bound,
    },
    /// As soon as the backup is consistent.
    Consistency {
        /// Where that is.
        lsn: Lsn,
        /// The record after which it is. PostgreSQL's own `recovery_target = 'immediate'` stops
        /// before the record that follows (`recoveryStopsBefore`), which may not have been written.
        after: Lsn,
    },
}

/// Segments of one timeline, first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SegmentRange {
    /// The timeline in their names.
    pub timeline: TimelineId,
    /// The first.
    pub first: SegmentNumber,
    /// The last.
    pub last: SegmentNumber,
}

/// A segment that recovery asks for by a name it is not stored under: the restore puts it into
/// `pg_wal`. It is the last one of a timeline that was left before the segment was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Seed {
    /// The name that PostgreSQL asks for.
    pub wanted: SegmentName,
    /// What has its content up to the stop.
    pub stored: ArchiveName,
}

/// What a restore will cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Bytes of the backup's files.
    pub file_bytes: u64,
    /// Bytes of the WAL to replay, uncompressed.
    pub wal_bytes: u64,
    /// Requests to the store, about.
    pub requests: u64,
}

/// What a recovery will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    /// The backup to start from.
    pub backup: BackupRow,
    /// What was asked for.
    pub target: Target,
    /// Where recovery stops.
    pub stop: Stop,
    /// `recovery_target_timeline`.
    pub timeline: TimelineId,
    /// The stretches of WAL to replay, oldest first; the last one ends at the stop.
    pub path: Vec<TimelineSpan>,
    /// The segments needed.
    pub segments: Vec<SegmentRange>,
    /// How many those are.
    pub segment_count: u64,
    /// Those that are stored under other names.
    pub seeds: Vec<Seed>,
    /// The last commit or abort that is replayed, where there is one after the backup's start.
    pub last_kept: Option<TransactionEnd>,
    /// The commit or abort that recovery stops before.
    pub first_left_out: Option<TransactionEnd>,
    /// What it will cost.
    pub estimate: Estimate,
    /// What a person should know, sentences.
    pub notes: Vec<String>,
}

/// Bytes of one read of a pack, about.
const READ_BYTES: u64 = 8 << 20;

/// Makes a plan.
///
/// # Errors
/// [`PlanError::Refused`] when the target cannot be reached, or is not clear.
pub async fn plan<V: WalView>(
    view: &V,
    backups: &[BackupRow],
    request: &Request,
) -> Result<RestorePlan, PlanError> {
    let stored = view.stored();
    let backups = choose_backups(backups, &request.backup, stored)?;
    let of_backups: Vec<TimelineId> =
        backups.iter().map(|backup| backup.details.stop.timeline).collect();
    let ends = match request.timeline {
        Some(timeline) => {
            let mut known = known_timelines(stored);
            known.extend(&of_backups);
            if !known.contains(&timeline) {
                known.sort_unstable();
                known.dedup();
                return Err(Refusal::UnknownTimeline { timeline, known }.into());
            }
            Heads { timelines: vec![timeline], notes: Vec::new() }
        }
        None if request.target == Target::Immediate => {
            let newest = newest(&backups, stored).map(|backup| backup.details.stop.timeline);
            Heads { timelines: newest.into_iter().collect(), notes: Vec::new() }
        }
        None => {
            let mut heads = heads(view, &of_backups).await?;
            if let Some(timeline) = stored.without_history().first() {
                if request.target == Target::Latest {
                    return Err(no_history(view, *timeline).into());
                }
                heads.notes.push(format!(
                    "{}: whether the target lies on it, or what was committed on it, nobody knows.",
                    no_history(view, *timeline)
                ));
            }
            heads
        }
    };
    let mut found: Vec<Route<'_>> = Vec::new();
    let mut refused: Vec<(TimelineId, Refusal)> = Vec::new();
    for head in ends.timelines {
        let path = WalPath::new(stored.history(head), stored.segment_size);
        match route::find(view, &path, &backups, request).await {
            Ok(route) => found.push(route),
            Err(PlanError::Refused(refusal)) => refused.push((head, refusal)),
            Err(failed) => return Err(failed),
        }
    }
    let mut route = settle(found, refused, &request.target)?;
    let owner = route.owner();
    // PostgreSQL refuses such a target (`validateRecoveryParameters`, xlogrecovery.c).
    if owner.0 > 1 && !stored.histories.contains_key(&owner) {
        return Err(no_history(view, owner).into());
    }
    route.notes.extend(ends.notes);
    Ok(finish(view, route, request)?)
}

fn no_history<V: WalView>(view: &V, timeline: TimelineId) -> Refusal {
    let bad = view.stored().bad_histories.get(&timeline).cloned();
    Refusal::NoHistory { timeline, bad }
}

fn newest<'a>(backups: &[&'a BackupRow], stored: &StoredWal) -> Option<&'a BackupRow> {
    let endings: Vec<Ending> = backups.iter().map(|backup| Ending::of(&backup.details)).collect();
    let newest = order::newest(&endings, |timeline| stored.history(timeline))?;
    backups.get(newest).copied()
}

fn choose_backups<'a>(
    backups: &'a [BackupRow],
    choice: &BackupChoice,
    stored: &StoredWal,
) -> Result<Vec<&'a BackupRow>, Refusal> {
    let all: Vec<&BackupRow> = backups.iter().collect();
    if all.is_empty() {
        return Err(Refusal::NoBackups);
    }
    match choice {
        BackupChoice::Best => Ok(all),
        BackupChoice::Latest => Ok(newest(&all, stored).into_iter().collect()),
        BackupChoice::Prefix(prefix) => Ok(vec![with_prefix(backups, prefix)?]),
    }
}

/// The one backup whose id begins so.
///
/// # Errors
/// When there is none, or more than one.
pub fn with_prefix<'a>(backups: &'a [BackupRow], prefix: &str) -> Result<&'a BackupRow, Refusal> {
    let fits: Vec<&BackupRow> =
        backups.iter().filter(|backup| backup.id.to_string().starts_with(prefix)).collect();
    match fits.as_slice() {
        [] if backups.is_empty() => Err(Refusal::NoBackups),
        [] => Err(Refusal::UnknownBackup { prefix: prefix.to_owned() }),
        [one] => Ok(one),
        _ => Err(Refusal::AmbiguousBackup {
            prefix: prefix.to_owned(),
            ids: fits.iter().map(|backup| backup.id.to_string()).collect(),
        }),
    }
}

/// Of the ways found on all branches the one that is meant.
fn settle<'a>(
    mut found: Vec<Route<'a>>,
    refused: Vec<(TimelineId, Refusal)>,
    target: &Target,
) -> Result<Route<'a>, Refusal> {
    let forks = match target {
        // On a branch whose latest moment cannot be reached there may still be the data meant.
        Target::Latest => found.len() + refused.iter().filter(|(_, r)| is_way(r)).count() > 1,
        // Where WAL of a newer branch does not go so far, the older one's moment may be another.
        Target::Time(_) if newer_falls_short(&found, &refused) => true,
        _ => found.windows(2).any(|pair| match pair {
            [a, b] => (a.stop, a.owner()) != (b.stop, b.owner()),
            _ => false,
        }),
    };
    if forks {
        let mut ways: Vec<Way> = found.iter().map(|route| way(route, target)).collect();
        if matches!(target, Target::Latest | Target::Time(_)) {
            ways.extend(refused.iter().filter(|(_, r)| is_way(r)).map(|(timeline, refusal)| Way {
                timeline: *timeline,
                left: None,
                what: refusal.to_string(),
            }));
        }
        ways.sort_by_key(|way| way.timeline);
        return Err(Refusal::TwoTimelines { ways });
    }
    if let Some(route) = found.pop() {
        return Ok(route);
    }
    // The newest branch's reason says most.
    Err(refused.into_iter().next_back().map_or(Refusal::NoBackups, |(_, refusal)| refusal))
}

fn newer_falls_short(found: &[Route<'_>], refused: &[(TimelineId, Refusal)]) -> bool {
    let newest = found.iter().map(|route| route.path.history().timeline()).max();
    refused.iter().any(|(timeline, refusal)| {
        newest.is_some_and(|newest| *timeline > newest)
            && matches!(
                refusal,
                Refusal::BeyondWal { .. }
                    | Refusal::MissingSegment { .. }
                    | Refusal::BrokenWal { .. }
            )
    })
}

/// Whether a branch that was refused could be meant all the same.
const fn is_way(refusal: &Refusal) -> bool {
    !matches!(refusal, Refusal::NoBackupOnTimeline { .. })
}

fn way(route: &Route<'_>, target: &Target) -> Way {
    let history = route.path.history();
    let lsn = match route.stop {
        Stop::Lsn { lsn, .. } | Stop::Consistency { lsn, .. } => lsn,
    };
    let time = route.last_kept.map(|end| show(end.time));
    let time = time.unwrap_or_else(|| "none after the backup".into());
    let what = match target {
        Target::Latest => format!("goes to LSN {lsn}, the last transaction: {time}"),
        _ => format!("the target is LSN {lsn} there, the last transaction kept: {time}"),
    };
    let left = history.switches().last().map(|switch| (switch.timeline, switch.lsn));
    Way { timeline: history.timeline(), left, what }
}

/// The history of an ancestor, from that of a descendant.
fn history_of(history: &History, timeline: TimelineId) -> History {
    if timeline == history.timeline() {
        return history.clone();
    }
    let mut parents = history.switches().iter().take_while(|switch| switch.timeline < timeline);
    let Some(first) = parents.next() else { return History::without_ancestors(timeline) };
    let mut built = History::without_ancestors(first.timeline);
    let mut left = first;
    for next in parents {
        built = built.fork(next.timeline, left.lsn, &left.reason).unwrap_or(built);
        left = next;
    }
    let fallback = History::without_ancestors(timeline);
    built.fork(timeline, left.lsn, &left.reason).unwrap_or(fallback)
}

/// The segments, the seeds and the words.
fn finish<V: WalView>(
    view: &V,
    route: Route<'_>,
    request: &Request,
) -> Result<RestorePlan, Refusal> {
    let stored = view.stored();
    let size = stored.segment_size;
    let owner = route.owner();
    let path = WalPath::new(history_of(route.path.history(), owner), size);
    let details = &route.backup.details;
    let end = route.needed_until.max(details.stop.lsn);
    let first = SegmentNumber::containing(details.start.lsn, size);
    let last = SegmentNumber::ending_at(end, size).max(first);
    let (mut segments, mut seeds): (Vec<SegmentRange>, Vec<Seed>) = (Vec::new(), Vec::new());
    let mut number = first;
    while number <= last {
        let wanted = path.name_of(number);
        if !stored.has(wanted) {
            let Some(stand_in) = stand_in(view, &route.path, wanted) else {
                return Err(Refusal::MissingSegment {
                    segment: wanted.file_name(size),
                    end: None,
                    last_transaction: None,
                    last_xid: None,
                });
            };
            seeds.push(Seed { wanted, stored: stand_in });
        }
        match segments.last_mut() {
            Some(range) if range.timeline == wanted.timeline => range.last = number,
            _ => segments.push(SegmentRange {
                timeline: wanted.timeline,
                first: number,
                last: number,
            }),
        }
        number = number.next();
    }
    let segment_count = last.0.saturating_sub(first.0).saturating_add(1);
    let file_bytes = route.backup.bytes;
    let estimate = Estimate {
        file_bytes,
        wal_bytes: segment_count.saturating_mul(size.bytes().into()),
        requests: file_bytes.div_ceil(READ_BYTES).saturating_add(segment_count).saturating_add(16),
    };
    let mut spans =
        path.history().path_from(details.start.timeline, details.start.lsn).unwrap_or_default();
    if let Some(span) = spans.last_mut() {
        span.end = Some(end);
    }
    Ok(RestorePlan {
        target: request.target.clone(),
        stop: route.stop,
        timeline: owner,
        path: spans,
        segments,
        segment_count,
        seeds,
        last_kept: route.last_kept,
        first_left_out: route.first_left_out,
        estimate,
        notes: notes(&route, view),
        backup: route.backup.clone(),
    })
}

/// What else has the content of a timeline's last segment: the next timeline's copy of it, or the
/// `.partial` that the promoted server left.
fn stand_in<V: WalView>(view: &V, path: &WalPath, wanted: SegmentName) -> Option<ArchiveName> {
    let stored = view.stored();
    let heir = path.name_of(wanted.number);
    if heir.timeline > wanted.timeline && stored.has(heir) {
        return Some(ArchiveName::Segment(heir));
    }
    stored.partials.contains(&wanted).then_some(ArchiveName::Partial(wanted))
}

fn notes<V: WalView>(route: &Route<'_>, view: &V) -> Vec<String> {
    let mut notes = route.notes.clone();
    let details = &route.backup.details;
    if !details.damage.is_empty() {
        let files: Vec<&str> =
            details.damage.iter().map(|file| file.path.as_str()).take(5).collect();
        notes.push(format!(
            "This backup holds pages that were damaged in the source already, in {} files: {}.",
            details.damage.len(),
            files.join(", ")
        ));
    }
    if let (Some(partial), Stop::Lsn { lsn, .. }) =
        (route.path.last_partial(view.stored()), route.stop)
        && SegmentNumber::containing(lsn, view.stored().segment_size) == partial.number
    {
        notes.push(format!(
            "The last WAL comes from {}.partial: what a server had of its unfinished segment when \
             it was promoted. Nothing is stored of what came after.",
            partial.file_name(view.stored().segment_size)
        ));
    }
    notes
}

/// The time of a refusal's neighbours.
#[must_use]
pub fn time_of(end: Option<TransactionEnd>) -> Option<Timestamp> {
    end.map(|end| end.time)
}
