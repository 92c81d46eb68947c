//! The plan of an expiry: made from listings and manifests, printed, and only then carried out.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pgrecall_pgformat::{Lsn, TimelineId};
use pgrecall_repo::backup::{LiveIntent, live_intents};
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::names;
use pgrecall_store::{Listed, Prefix};

use super::floor::{Floor, Floors};
use super::hold;
use super::rules::{self, Candidate, KeepRules, Reason, Reasons};
use super::wal::{self, KeptBackup, OldWal, UnderWay, WalAfter, WalCut};
use crate::cancel::Cancel;
use crate::catalog::missing;
use crate::catalog::order::{self, Ending};
use crate::catalog::reach::{self, Reach, Times};
use crate::catalog::wal::StoredWal;
use crate::catalog::{self, Known, UnreadableRow};
use crate::clock::Clock;
use crate::cluster::ClusterStore;
use crate::details::BackupDetails;
use crate::error::{EngineError, ErrorKind};
use crate::unreadable::Cause;
use crate::verify;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ExpireRequest {
    /// What to keep.
    pub rules: KeepRules,
    /// Whose days, weeks, months and years count.
    pub zone: TimeZone,
    /// Tells the time.
    pub clock: Clock,
    /// Whether to stop.
    pub cancel: Cancel,
}

/// A backup that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRow {
    /// The backup.
    pub id: BackupId,
    /// When it was consistent, RFC 3339.
    pub ended: String,
    /// Why it stays.
    pub reasons: Vec<Reason>,
}

/// A backup that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiringRow {
    /// The backup.
    pub id: BackupId,
    /// When it was consistent, RFC 3339.
    pub ended: String,
    /// Bytes of all its files; what of them is stored for it alone only a collection can tell.
    pub bytes: u64,
}

/// What an expiry will do.
#[derive(Debug, Clone)]
pub struct ExpirePlan {
    /// The cluster.
    pub cluster: String,
    /// Its system identifier, in decimal.
    pub system_identifier: String,
    /// Backups that stay, the oldest first.
    pub keeps: Vec<KeptRow>,
    /// Backups that go, the oldest first.
    pub expires: Vec<ExpiringRow>,
    /// What goes of the WAL.
    pub wal: WalCut,
    /// How many WAL objects that is.
    pub wal_objects: u64,
    /// Their bytes.
    pub wal_bytes: u64,
    /// How far back one can go in time before it, RFC 3339.
    pub reaches_back_to: Option<String>,
    /// And after it.
    pub will_reach_back_to: Option<String>,
    /// What a person should know, sentences.
    pub notes: Vec<String>,
    /// The log that the plan goes by.
    pub(super) log: ExpiredLog,
    /// What the log is to say of the WAL, where it does not yet.
    pub(super) floors: Option<Floors>,
    /// The backups that stay, as far as WAL is concerned.
    pub(super) anchors: Vec<KeptBackup>,
    /// The newest timeline that is known.
    pub(super) through: TimelineId,
}

impl ExpirePlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expires.is_empty() && self.wal_objects == 0
    }
}

/// Makes a plan for one lineage of a cluster. Nothing is written.
///
/// # Errors
/// `Invalid` without rules; damage to whatever the plan would have to go by, for who deletes must
/// know all of it; the store's failures.
pub async fn plan(
    cluster: &ClusterStore,
    request: &ExpireRequest,
) -> Result<ExpirePlan, EngineError> {
    if request.rules.is_empty() {
        let message = "no rule says what to keep, so everything is kept";
        return Err(EngineError::refused(ErrorKind::Invalid, message).hint(
            "Set keep_last, keep_window, keep_daily, … in [cluster.retention], or give --keep-last.",
        ));
    }
    // Manifests first, then the log (G5).
    let (known, unreadable) = catalog::backups(cluster).await?;
    require_readable(&unreadable)?;
    missing::require_none(&cluster.sealed, cluster.domain()).await?;
    let log = ExpiredLog::read(&cluster.sealed, cluster.domain()).await?;
    let known: Vec<Known> = known
        .into_iter()
        .filter(|backup| !log.entry().backups.contains(&backup.manifest.backup))
        .collect();
    let stored = sound_wal(cluster).await?;
    let (mut candidates, notes) = candidates(cluster, &known, &stored, request).await?;
    // A clock that is far ahead would make everything old: time ends with the newest good backup.
    let good = candidates.iter().filter(|backup| backup.good);
    let newest = good.map(|backup| backup.place.moment).max();
    let now = request.clock.now();
    let now = newest.map_or(now, |newest| now.min(newest));
    let mut held = hold::in_force(&log, now);
    for candidate in &mut candidates {
        candidate.held = held.remove(&candidate.id);
    }
    let reasons = reasons(&candidates, request, now);
    let everything = rules::judge(&candidates, &all(), now, &request.zone);
    let mut plan = ExpirePlan {
        cluster: cluster.at.cluster.to_string(),
        system_identifier: cluster.at.lineage.clone(),
        keeps: Vec::new(),
        expires: Vec::new(),
        wal: WalCut::Nothing { why: String::new() },
        wal_objects: 0,
        wal_bytes: 0,
        reaches_back_to: text(rules::reach_back(&candidates, &everything)),
        will_reach_back_to: text(rules::reach_back(&candidates, &reasons)),
        notes,
        log,
        floors: None,
        anchors: Vec::new(),
        through: stored.timelines().into_iter().max().unwrap_or(TimelineId(0)),
    };
    for backup in &known {
        let (id, ended) = (backup.manifest.backup, backup.details.ended.to_string());
        match reasons.get(&id) {
            Some(reasons) => {
                plan.anchors.push(anchor(backup, reasons));
                plan.keeps.push(KeptRow { id, ended, reasons: reasons.clone() });
            }
            None => {
                plan.expires.push(ExpiringRow { id, ended, bytes: backup.manifest.bytes });
            }
        }
    }
    let cut = wal_cut(cluster, &plan).await?;
    let floors = Floors::of(cluster, &plan.log)?;
    plan.floors = cut.floor().and_then(|floor| floors.and(floor));
    let old = cut.objects(plan.floors.as_ref().unwrap_or(&floors));
    plan.wal = cut.cut;
    plan.wal_objects = u64::try_from(old.len()).unwrap_or(u64::MAX);
    plan.wal_bytes = old.iter().map(|object| object.bytes).sum();
    Ok(plan)
}

/// Why each backup stays. What seems broken may be so for a moment only, as while a collection
/// moves its chunks: what would be kept if all were good stays besides.
fn reasons(candidates: &[Candidate], request: &ExpireRequest, now: Timestamp) -> Reasons {
    let judge = |all: &[Candidate]| rules::judge(all, &request.rules, now, &request.zone);
    let all_good: Vec<Candidate> =
        candidates.iter().map(|backup| Candidate { good: true, ..backup.clone() }).collect();
    let mut reasons = judge(candidates);
    for (id, why) in judge(&all_good) {
        reasons.entry(id).or_insert(why);
    }
    reasons
}

/// Rules that keep everything.
fn all() -> KeepRules {
    KeepRules { last: u32::MAX, ..KeepRules::default() }
}

fn text(moment: Option<Timestamp>) -> Option<String> {
    moment.map(|moment| moment.to_string())
}

fn require_readable(unreadable: &[UnreadableRow]) -> Result<(), EngineError> {
    let Some(row) = gravest(unreadable, |row| row.cause) else { return Ok(()) };
    let message = format!(
        "{} backups do not read, so nobody knows which WAL they need; {}: {}",
        unreadable.len(),
        row.id,
        row.reason
    );
    Err(EngineError::refused(row.cause.kind(), message)
        .hint("`pgrecall verify` says what is wrong. Until then nothing expires.")
        .hint(
            "Bring the manifest back, by an earlier version of it or from a copy; where there is \
             none, `pgrecall repair` gives the backup up.",
        ))
}

/// The first of those that have the gravest cause.
fn gravest<T>(all: &[T], cause: impl Fn(&T) -> Cause) -> Option<&T> {
    all.iter().find(|one| cause(one) == Cause::Damage).or(all.first())
}

/// Without all histories and settlements, what can be restored looks as if it could not.
fn require_sound(stored: &StoredWal) -> Result<(), EngineError> {
    let histories = stored.bad_histories.iter().map(|bad| (bad.object.to_string(), &bad.error));
    let settlements =
        stored.holders.unreadable.iter().map(|(file, e)| (format!("{file}.resolved"), e));
    let bad = histories.chain(settlements).map(|(file, e)| (file, Cause::of(e.kind())));
    let missing = stored.without_history().into_iter();
    let missing = missing.map(|t| (format!("{:08X}.history", t.0), Cause::Damage));
    let bad: Vec<(String, Cause)> = bad.chain(missing).collect();
    let Some((example, cause)) = gravest(&bad, |(_, cause)| *cause) else { return Ok(()) };
    let message =
        format!("{example} does not read or is not there, so nobody knows what is needed");
    Err(EngineError::refused(cause.kind(), message)
        .hint("`pgrecall verify` says what is wrong. Until then nothing expires."))
}

/// The WAL, where all that says something of it reads.
async fn sound_wal(cluster: &ClusterStore) -> Result<StoredWal, EngineError> {
    let stored = StoredWal::read(cluster).await?;
    require_sound(&stored)?;
    if let Some(error) = &stored.damage.unreadable {
        return Err(unread_note(error));
    }
    Ok(stored)
}

/// Without what verifications have noted, backups look good that cannot be restored.
fn unread_note(error: &EngineError) -> EngineError {
    let message =
        format!("a note of what was found damaged does not read: {}", catalog::chain(error));
    let cause = Cause::of(error.kind());
    EngineError::refused(cause.kind(), message).hint(match cause {
        Cause::OtherVersion => "Use the version of pgrecall that wrote it, or a newer one.",
        Cause::Damage => {
            "`pgrecall verify --read-data` reads everything again, and puts another in its place. \
             Until then nothing expires."
        }
    })
}

async fn candidates(
    cluster: &ClusterStore,
    known: &[Known],
    stored: &StoredWal,
    request: &ExpireRequest,
) -> Result<(Vec<Candidate>, Vec<String>), EngineError> {
    let newest = stored.timelines().into_iter().max();
    let endings: Vec<Ending> = known.iter().map(|backup| Ending::of(&backup.details)).collect();
    let history = |timeline| stored.history(timeline);
    let places = order::places(&endings, history, request.clock.now());
    let verify::Broken { backups: broken, unread } =
        verify::broken(cluster, known, &request.cancel).await?;
    if let Some(note) = unread.into_iter().next() {
        return Err(unread_note(&note.error.into()));
    }
    let mut notes: Vec<String> = broken
        .iter()
        .map(|(id, why)| format!("{id} cannot be restored whole, so it does not count: {why}"))
        .collect();
    let mut times = Times::new(cluster);
    let mut candidates = Vec::with_capacity(known.len());
    for (backup, place) in known.iter().zip(places) {
        let details = &backup.details;
        let id = backup.manifest.backup;
        let reach = reach::of(details, stored, &mut times).await?;
        let consistent = reach::is_consistent(&reach, details, stored);
        if !consistent {
            notes.push(never_consistent(id, details, &reach));
        }
        candidates.push(Candidate {
            id,
            place,
            ended: details.ended,
            good: consistent && !broken.contains_key(&id),
            damaged: !details.damage.is_empty(),
            leads_to_newest: newest.is_none_or(|newest| leads_to(backup, stored, newest)),
            // The log says, once it is clear what time it is.
            held: None,
        });
    }
    Ok((candidates, notes))
}

fn never_consistent(id: BackupId, details: &BackupDetails, reach: &[Reach]) -> String {
    let own = |reach: &&Reach| reach.timeline == details.stop.timeline.0;
    let furthest =
        reach.iter().find(own).or_else(|| reach.iter().max_by_key(|reach| reach.until_lsn));
    let next = furthest.map(|reach| reach.next_segment.as_str()).unwrap_or_default();
    format!(
        "{id} needs WAL up to {} and does not count: {next} is missing or was found damaged",
        details.stop.lsn
    )
}

fn leads_to(backup: &Known, stored: &StoredWal, newest: TimelineId) -> bool {
    let (start, stop) = (backup.details.start, backup.details.stop);
    let history = stored.history(newest);
    // Left before the backup was consistent, its timeline leads nowhere else.
    let left = history.switch_point(stop.timeline);
    history.path_from(start.timeline, start.lsn).is_some()
        && history.contains(stop.timeline)
        && left.is_none_or(|left| stop.lsn <= left)
}

fn anchor(backup: &Known, reasons: &[Reason]) -> KeptBackup {
    let after = match reasons.iter().any(Reason::keeps_wal_after) {
        true => WalAfter::All,
        false => WalAfter::None,
    };
    KeptBackup { start: backup.details.start.lsn, stop: backup.details.stop.lsn, after }
}

/// What may go of the WAL as it was at one moment.
pub(super) struct Cutting {
    pub(super) cut: WalCut,
    listed: Vec<Listed>,
    below: Prefix,
}

impl Cutting {
    fn floor(&self) -> Option<Floor> {
        match self.cut {
            WalCut::Nothing { .. } => None,
            WalCut::Below { lsn: below, through, .. } => Some(Floor { through, below }),
        }
    }

    pub(super) fn objects(&self, floors: &Floors) -> Vec<OldWal> {
        wal::old_wal(&self.listed, &self.below, &self.cut, floors)
    }
}

/// What may go of the WAL, by the backups that the plan keeps, those that are under way now, and
/// those that were committed since it was made: one of a standby may start before all of them.
///
/// # Errors
/// When a backup does not read, or the store fails.
pub(super) async fn wal_cut(
    cluster: &ClusterStore,
    plan: &ExpirePlan,
) -> Result<Cutting, EngineError> {
    // What comes while this is listed is newer than all that goes.
    let below = names::cluster_prefix(&cluster.at, "")?;
    let listed = cluster.sealed.list(&below).await?;
    // Intents before manifests: a backup that commits in between is seen in one of the two.
    let live = live_intents(&cluster.sealed, &cluster.at).await?;
    let live = live.iter().map(under_way).collect::<Result<Vec<_>, _>>()?;
    let (backups, unreadable) = catalog::backups(cluster).await?;
    require_readable(&unreadable)?;
    let mut anchors = plan.anchors.clone();
    for backup in backups {
        let id = backup.manifest.backup;
        let planned = plan.keeps.iter().any(|row| row.id == id)
            || plan.expires.iter().any(|row| row.id == id);
        if !planned {
            let (start, stop) = (backup.details.start.lsn, backup.details.stop.lsn);
            anchors.push(KeptBackup { start, stop, after: WalAfter::All });
        }
    }
    let cut = WalCut::settle(&anchors, &live, plan.through);
    Ok(Cutting { cut, listed, below })
}

fn under_way(live: &LiveIntent) -> Result<UnderWay, EngineError> {
    let id = live.intent.backup;
    let start = match &live.start {
        None => None,
        Some(start) => Some(start.lsn.parse::<Lsn>().map_err(|source| EngineError::Postgres {
            path: format!("the start of backup {id}"),
            source,
        })?),
    };
    Ok(UnderWay { id, start })
}
