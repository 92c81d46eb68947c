//! What the repository holds of a cluster: backups and how far each reaches, WAL ranges and gaps,
//! backups under way, and what could not be read.

pub mod missing;
pub mod order;
pub mod reach;
pub mod wal;
pub mod wal_damage;

use jiff::Timestamp;
use pgrecall_repo::backup as sessions;
use pgrecall_repo::damaged_chunks::{ChunkNotes, UnreadNote};
use pgrecall_repo::id::BackupId;
use pgrecall_repo::index;
use pgrecall_repo::keys::RestoreKeyPublic;
use pgrecall_repo::{manifests, names};
use serde::Serialize;

use crate::backup::incarnation;
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::cluster::ClusterStore;
use crate::details::{BackupDetails, Method, Position, TakenFrom};
use crate::error::{EngineError, ErrorKind};
use crate::unreadable::{Cause, Unreadable};
use crate::verify;
use reach::{Reach, Times};
use wal::StoredWal;

/// A cluster of one lineage, as the repository knows it. Its JSON is stable: members are added,
/// never changed.
#[derive(Debug, Serialize)]
pub struct ClusterCatalog {
    /// The cluster's name.
    pub cluster: String,
    /// Its system identifier, in decimal: too large for the numbers of many JSON readers.
    pub system_identifier: String,
    /// The domain that it shares keys and chunks in.
    pub domain: String,
    /// PostgreSQL's major version when the cluster was first seen.
    pub major: u32,
    /// Backups that exist, the oldest first.
    pub backups: Vec<BackupRow>,
    /// Backups whose manifests do not read.
    pub unreadable: Vec<UnreadableRow>,
    /// Backups whose manifests are not there, though others have seen them, and that have not
    /// expired.
    pub missing_backups: Vec<MissingRow>,
    /// Backups that have begun and not ended.
    pub under_way: Vec<UnderWayRow>,
    /// WAL, by timeline.
    pub timelines: Vec<TimelineRow>,
    /// What is wrong with histories and settlements, sentences: recovery may stop there.
    pub wal_problems: Vec<String>,
    /// Bytes of all WAL objects.
    pub wal_stored_bytes: u64,
    /// Chunks of the domain that were found bad; the next backup stores them again.
    pub damaged_chunks: u64,
    /// What this host has seen here and is not there any more: sentences.
    pub missing: Vec<String>,
    /// The fingerprint of the restore key that new data is sealed for; nothing where whoever writes
    /// can also read.
    pub restore_key: Option<String>,
}

/// A backup.
#[derive(Debug, Serialize)]
pub struct BackupRow {
    /// Its id.
    pub id: BackupId,
    /// When it began, RFC 3339.
    pub began: String,
    /// When it was consistent.
    pub ended: String,
    /// Seconds since then.
    pub age_s: i64,
    /// The host that took it.
    pub host: String,
    /// PostgreSQL's major version.
    pub major: u32,
    /// Primary or standby.
    pub from: TakenFrom,
    /// How changes were found.
    pub method: Method,
    /// The backup compared with.
    pub reference: Option<BackupId>,
    /// Where replay starts.
    pub start: Position,
    /// Where it is consistent.
    pub stop: Position,
    /// Whether the WAL from start to stop is stored.
    pub wal_complete: bool,
    /// What of its files cannot be had, an example; looked for only where chunks of the domain were
    /// found damaged.
    pub broken: Option<String>,
    /// How far recovery can go, along each timeline.
    pub reach: Vec<Reach>,
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that were new.
    pub new_bytes: u64,
    /// Bytes that the backup added to the repository.
    pub stored_bytes: u64,
    /// Files with pages that were damaged in the source.
    pub damaged_files: u64,
    /// Those pages.
    pub damaged_blocks: u64,
}

/// A manifest that does not read.
#[derive(Debug, Serialize)]
pub struct UnreadableRow {
    /// The backup.
    pub id: BackupId,
    /// Why not, with all causes.
    pub reason: String,
    /// Whether it is damaged or of another version.
    #[serde(skip)]
    pub cause: Cause,
}

/// A backup whose manifest is not there.
#[derive(Debug, Serialize)]
pub struct MissingRow {
    /// The backup.
    pub id: BackupId,
    /// What is known of it.
    pub reason: String,
    /// How to go on without it.
    #[serde(skip)]
    pub go_on: String,
}

impl UnreadableRow {
    fn new(id: BackupId, kind: ErrorKind, error: &(dyn std::error::Error + 'static)) -> Self {
        let Unreadable { cause, reason } = Unreadable::of(kind, error);
        Self { id, reason, cause }
    }

    /// Why it does not read.
    #[must_use]
    pub fn why(&self) -> Unreadable {
        Unreadable { cause: self.cause, reason: self.reason.clone() }
    }
}

/// A backup under way.
#[derive(Debug, Serialize)]
pub struct UnderWayRow {
    /// Its id.
    pub id: BackupId,
    /// Its host.
    pub host: String,
    /// Its process there.
    pub process: u32,
    /// When it began, RFC 3339.
    pub began: String,
    /// Seconds since then; unknown when the time does not read.
    pub age_s: Option<i64>,
    /// Why it seems to have died, if it does. A guess, for people.
    pub looks_dead: Option<String>,
}

/// The WAL of one timeline.
#[derive(Debug, Serialize)]
pub struct TimelineRow {
    /// The timeline.
    pub timeline: u32,
    /// The timeline that it left, and where; nothing for the first, or without its history.
    pub forked_from: Option<Position>,
    /// The size of its segments.
    pub segment_size_bytes: u32,
    /// Segments that follow each other; between two of these is a gap.
    pub ranges: Vec<RangeRow>,
    /// Segments in all.
    pub segments: u64,
    /// Bytes of their objects.
    pub stored_bytes: u64,
}

/// Segments without a gap.
#[derive(Debug, Serialize)]
pub struct RangeRow {
    /// The first file.
    pub first: String,
    /// The last file.
    pub last: String,
    /// The first LSN.
    pub start_lsn: String,
    /// The LSN after the last.
    pub end_lsn: String,
}

/// A backup with its details.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its manifest.
    pub manifest: pgrecall_repo::format::document::Manifest,
    /// What the manifest says of PostgreSQL.
    pub details: BackupDetails,
}

/// The backups of one lineage, the oldest first, and those that do not read.
///
/// # Errors
/// When the store fails.
pub async fn backups(
    cluster: &ClusterStore,
) -> Result<(Vec<Known>, Vec<UnreadableRow>), EngineError> {
    let listed = manifests::list(&cluster.sealed, cluster.domain()).await?;
    let mut unreadable = Vec::new();
    for found in listed.unreadable.into_iter().filter(|found| found.at == cluster.at) {
        unreadable.push(UnreadableRow::new(found.id, found.error.kind(), &found.error));
    }
    let mut known = Vec::new();
    for backup in listed.valid.into_iter().filter(|backup| backup.at == cluster.at) {
        match BackupDetails::of(&backup.manifest) {
            Ok(details) => known.push(Known { manifest: backup.manifest, details }),
            Err(error) => {
                unreadable.push(UnreadableRow::new(backup.manifest.backup, error.kind(), &error));
            }
        }
    }
    known.sort_by_key(|backup| (backup.details.stop.lsn, backup.details.ended));
    Ok((known, unreadable))
}

/// An error with its causes on one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Reads the catalog of one lineage. `host` is this host's name: of backups under way here it can
/// be seen whether their process lives.
///
/// # Errors
/// When the store fails; what does not read is listed as such.
pub async fn read(
    cluster: &ClusterStore,
    clock: &Clock,
    host: &str,
) -> Result<ClusterCatalog, EngineError> {
    let now = clock.now();
    let (known, unreadable) = backups(cluster).await?;
    let wal = StoredWal::read(cluster).await?;
    let mut times = Times::new(cluster);
    let (damaged_chunks, unread) = noted_there(cluster).await?;
    let mut problems = wal_problems(&wal);
    problems.extend(unread.iter().map(|note| {
        let why = chain(&note.error);
        format!("a note of chunks that were found damaged does not read: {}: {why}", note.name)
    }));
    let mut broken = match damaged_chunks {
        0 => verify::Broken::default(),
        _ => verify::broken(cluster, &known, &Cancel::new()).await.unwrap_or_else(|error| {
            problems.push(format!("which backups are whole could not be told: {}", chain(&error)));
            verify::Broken::default()
        }),
    }
    .backups;
    let mut rows = Vec::new();
    for backup in &known {
        let reach = reach::of(&backup.details, &wal, &mut times).await?;
        let broken = broken.remove(&backup.manifest.backup);
        rows.push(BackupRow { broken, ..backup_row(backup, &wal, reach, now) });
    }
    let missing_backups = missing_rows(cluster, &mut problems).await?;
    let live = live_intents(cluster).await?;
    let timelines: Vec<TimelineRow> = timeline_rows(&wal);
    Ok(ClusterCatalog {
        cluster: cluster.at.cluster.to_string(),
        system_identifier: cluster.at.lineage.clone(),
        domain: cluster.at.domain.to_string(),
        major: cluster.facts.major.number(),
        backups: rows,
        unreadable,
        missing_backups,
        under_way: live.iter().map(|live| under_way(live, now, host)).collect(),
        wal_problems: problems,
        wal_stored_bytes: timelines.iter().map(|row| row.stored_bytes).sum(),
        timelines,
        damaged_chunks,
        missing: Vec::new(),
        restore_key: cluster.sealed.keys().sealed_for().map(RestoreKeyPublic::fingerprint),
    })
}

async fn missing_rows(
    cluster: &ClusterStore,
    problems: &mut Vec<String>,
) -> Result<Vec<MissingRow>, EngineError> {
    let missing = match missing::find(&cluster.sealed, cluster.domain()).await {
        Ok(missing) => missing,
        Err(error) if error.is_unreadable() => {
            problems
                .push(format!("which backups are missing could not be told: {}", chain(&error)));
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let of_it = missing.iter().filter(|backup| backup.at == cluster.at);
    Ok(of_it
        .map(|backup| MissingRow { id: backup.id, reason: backup.told(), go_on: backup.go_on() })
        .collect())
}

/// Chunks that were found damaged in packs that are there yet. Notes stay when a collection has
/// removed their packs.
pub(crate) async fn noted_there(
    cluster: &ClusterStore,
) -> Result<(u64, Vec<UnreadNote>), EngineError> {
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let ChunkNotes { chunks: noted, unread, .. } = ChunkNotes::read(sealed, domain).await?;
    if noted.is_empty() {
        return Ok((0, unread));
    }
    let packs = index::list_packs(sealed, domain).await?;
    let there = noted.iter().filter(|chunk| packs.contains_key(&chunk.pack)).count();
    Ok((u64::try_from(there).unwrap_or(u64::MAX), unread))
}

/// Intents of backups that have not ended: of one that has, and was taken with credentials that may
/// not delete, the intent stays until the next collection.
async fn live_intents(cluster: &ClusterStore) -> Result<Vec<sessions::LiveIntent>, EngineError> {
    let mut live = Vec::new();
    for intent in sessions::live_intents(&cluster.sealed, &cluster.at).await? {
        let ended = names::manifest(&cluster.at, intent.intent.backup);
        match cluster.sealed.header(&ended).await {
            Err(error) if error.is_not_found() => live.push(intent),
            // Committed, or ended by somebody; what does not read is listed among the backups.
            Ok(_) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(live)
}

/// What the listing, the histories, the settlements and the notes show already; `verify` says more.
fn wal_problems(wal: &StoredWal) -> Vec<String> {
    let mut problems = Vec::new();
    for bad in &wal.bad_histories {
        let (timeline, object) = (bad.timeline.0, &bad.object);
        let why = chain(&bad.error);
        problems.push(format!("the history of timeline {timeline} does not read: {object}: {why}"));
    }
    for timeline in wal.without_history() {
        problems.push(format!("the history of timeline {} is not stored", timeline.0));
    }
    for (file, error) in &wal.holders.unreadable {
        let why = chain(error);
        problems.push(format!("the settlement of {file}'s contents does not read: {why}"));
    }
    if let Some(error) = &wal.damage.unreadable {
        problems.push(format!("the note of damaged WAL does not read: {}", chain(error)));
    }
    for (size, name) in wal.damage.segments() {
        let (file, found) = (name.file_name(size), &wal.damage.found);
        problems.push(format!("{file} was found damaged, by {found}"));
    }
    for file in &wal.holders.unsettled {
        problems
            .push(format!("two contents of {file} are kept, and no settlement says which holds"));
    }
    problems
}

fn backup_row(backup: &Known, wal: &StoredWal, reach: Vec<Reach>, now: Timestamp) -> BackupRow {
    let details = &backup.details;
    BackupRow {
        id: backup.manifest.backup,
        began: details.began.clone(),
        ended: details.ended.to_string(),
        age_s: seconds_since(details.ended, now),
        host: details.host.clone(),
        major: details.major.number(),
        from: details.from,
        method: details.method,
        reference: details.reference,
        start: details.start,
        stop: details.stop,
        wal_complete: reach::is_consistent(&reach, details, wal),
        broken: None,
        reach,
        entries: backup.manifest.entries,
        bytes: backup.manifest.bytes,
        new_bytes: details.stats.new_bytes,
        stored_bytes: details.stats.stored_bytes,
        damaged_files: u64::try_from(details.damage.len()).unwrap_or(u64::MAX),
        damaged_blocks: details.damage.iter().map(|file| file.count).sum(),
    }
}

fn age(then: &str, now: Timestamp) -> Option<i64> {
    then.parse().ok().map(|then| seconds_since(then, now))
}

fn seconds_since(then: Timestamp, now: Timestamp) -> i64 {
    now.as_second().saturating_sub(then.as_second())
}

/// A backup that has run this long is worth a look.
const LONG_BACKUP_S: i64 = 24 * 60 * 60;

fn under_way(live: &sessions::LiveIntent, now: Timestamp, host: &str) -> UnderWayRow {
    let intent = &live.intent;
    let age_s = age(&intent.began, now);
    let looks_dead = if intent.host == host && !incarnation::is_alive(intent.process) {
        Some(format!("there is no process {} on this host any more", intent.process))
    } else {
        age_s.filter(|age| *age > LONG_BACKUP_S).map(|_| "it began more than a day ago".to_owned())
    };
    UnderWayRow {
        id: intent.backup,
        host: intent.host.clone(),
        process: intent.process,
        began: intent.began.clone(),
        age_s,
        looks_dead,
    }
}

fn timeline_rows(wal: &StoredWal) -> Vec<TimelineRow> {
    let mut rows = Vec::new();
    for (&(size_bytes, timeline), segments) in &wal.segments {
        let Ok(size) = pgrecall_pgformat::SegmentSize::try_from(size_bytes) else { continue };
        let name = |number| pgrecall_pgformat::SegmentName { timeline, number }.file_name(size);
        let ranges = segments.runs().into_iter().map(|run| RangeRow {
            first: name(run.first),
            last: name(run.last),
            start_lsn: run.first.start(size).to_string(),
            end_lsn: run.last.end(size).to_string(),
        });
        let forked_from = wal.histories.get(&timeline).and_then(|history| {
            let switch = history.switches().last()?;
            Some(Position { timeline: switch.timeline, lsn: switch.lsn })
        });
        rows.push(TimelineRow {
            timeline: timeline.0,
            forked_from,
            segment_size_bytes: size_bytes,
            ranges: ranges.collect(),
            segments: u64::try_from(segments.len()).unwrap_or(u64::MAX),
            stored_bytes: segments.stored_bytes,
        });
    }
    rows
}
