//! Verifying what is stored: every chunk that a backup refers to is there (and, when all is read,
//! opens and is the one it should be), and the WAL goes on without a gap from each backup's start.
//!
//! Nothing stops at the first finding. Chunks found bad are noted in the repository, so that the
//! next backup stores them again.

pub mod archiving;
mod chunks;
mod content;
mod directories;
mod files;
pub mod finding;
pub mod lost_moments;
mod notes;
mod rows;
mod sources;
pub mod touched;
mod wal;

use std::collections::{BTreeMap, BTreeSet};

use pgrecall_repo::damaged_chunks::UnreadNote;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::keys::RestoreKeyPublic;
use pgrecall_repo::names;

use crate::cancel::Cancel;
use crate::catalog::missing::{self, MissingBackup};
use crate::catalog::order;
use crate::catalog::reach::is_consistent;
use crate::catalog::wal::{Gap, StoredWal};
use crate::catalog::{self, Known};
use crate::clock::Clock;
use crate::cluster::ClusterStore;
use crate::error::EngineError;
use crate::meanwhile::{has_newer_keys, newer_keys};
use crate::progress::Progress;
use crate::seen::{BRING_BACK, GO_ON};
use crate::unreadable::{Cause, Unreadable};
use files::Walked;
use finding::{Finding, Severity, Verdict, VerifyReport};
use touched::TouchedFile;
use wal::WalCheck;

/// How thorough a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Manifests, file tables, maps and WAL trailers are read; chunks and segments are looked for.
    Structure,
    /// All of it is read, opened and compared.
    ReadData,
}

/// Which backups a verification looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// This one.
    One(BackupId),
    /// The newest. One that does not read may be it, and is told of.
    Newest,
}

/// Whether what is found damaged is written down in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notes {
    /// It is, for backups and expiries to go by.
    Written,
    /// Nothing is written.
    None,
}

/// What to verify, and how.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// How thoroughly.
    pub depth: Depth,
    /// Of which backups.
    pub which: Which,
    /// What is not there and should be, as somebody knows who has [seen](crate::seen) it:
    /// sentences.
    pub missing: Vec<String>,
    /// Whether to write down what is found.
    pub notes: Notes,
    /// The time, for notes.
    pub clock: Clock,
    /// This host, for notes.
    pub host: String,
    /// Who is told how far it is.
    pub progress: Progress,
    /// Whether to stop.
    pub cancel: Cancel,
}

/// Verifies what is stored of one lineage of a cluster.
///
/// # Errors
/// When the store fails: then nothing is known. Damage is no error but a finding.
pub async fn verify(
    cluster: &ClusterStore,
    options: &VerifyOptions,
) -> Result<VerifyReport, EngineError> {
    let mut report = VerifyReport::default();
    for missing in &options.missing {
        report.add_missing("the repository", missing, format!("{BRING_BACK} {GO_ON}"));
    }
    let mut backups = list(cluster, options.which, &mut report).await?;
    options.progress.phase("looking at backups", None);
    let read = (options.depth == Depth::ReadData).then_some(options);
    let looked = chunks::look(cluster, &backups, &mut report, (read, &options.cancel)).await?;
    options.progress.phase("looking at WAL", None);
    let stored = StoredWal::read(cluster).await?;
    report_histories(&stored, &mut report);
    report_locked(options, cluster, &mut report);
    let mut check = WalCheck::new(cluster, &stored, options.depth, &options.cancel);
    for (backup, walked) in backups.iter().zip(looked.walked) {
        let verdict = judge(cluster, backup, walked, &mut check, &mut report).await?;
        report.backups.push(verdict);
    }
    leave_out_expired(cluster, &mut backups, &mut report).await?;
    report_missing(cluster, options.which, &mut report).await?;
    check.leave_out_expired(&mut report).await?;
    report_gaps(&stored, &backups, &mut report);
    if options.which == Which::All {
        report.lost_moments = lost_moments::find(&stored, &backups, &report.backups);
    }
    report.checked.backups = count(backups.len());
    // What does not read: of packs and the index it is a warning.
    let may_be_of_newer_keys = |finding: &Finding| {
        let is_stored = finding.object.starts_with("domains/");
        finding.severity == Severity::Damage || is_stored && finding.severity == Severity::Warning
    };
    if report.findings.iter().any(may_be_of_newer_keys) {
        require_newest_keys(cluster).await?;
    }
    notes::write_down(options, &check, &mut report).await;
    Ok(report.finish())
}

/// What is found of a backup that is left out.
pub const EXPIRED: &str = "it has expired since this began, and what it needs goes";

/// Leaves out what has expired since it was listed: its WAL and its packs may go. The log is read
/// after the last miss (R1).
async fn leave_out_expired(
    cluster: &ClusterStore,
    backups: &mut Vec<Known>,
    report: &mut VerifyReport,
) -> Result<(), EngineError> {
    let expired = match expired_of(cluster, backups).await? {
        Ok(expired) => expired,
        Err(why) => {
            report.add_unreadable(
                Severity::Damage,
                names::expired(cluster.domain()).prefix().as_str(),
                ("the log of expired backups does not read: ", &why),
                "no backup is taken, nothing expires and nothing is collected until it does: bring \
                 the object back, by an earlier version of it or from a copy",
            );
            BTreeSet::new()
        }
    };
    backups.retain(|backup| !expired.contains(&backup.manifest.backup));
    report.backups.retain(|verdict| !expired.contains(&verdict.backup));
    for id in expired {
        let object = format!("backup {id}");
        report.findings.retain(|finding| finding.object != object);
        report.add(Severity::Note, object, EXPIRED, "nothing is lost by it");
    }
    Ok(())
}

/// Those that the log names; why it does not read, where it does not.
async fn expired_of(
    cluster: &ClusterStore,
    backups: &[Known],
) -> Result<Result<BTreeSet<BackupId>, Unreadable>, EngineError> {
    match ExpiredLog::read(&cluster.sealed, cluster.domain()).await {
        Ok(log) => {
            let ids = backups.iter().map(|backup| backup.manifest.backup);
            let named: BTreeSet<BackupId> = ids.collect();
            let expired = log.entry().backups.iter().filter(|id| named.contains(*id));
            Ok(Ok(expired.copied().collect()))
        }
        Err(error) if error.is_damage() => Ok(Err(Unreadable::of(error.kind(), &error))),
        Err(error) => Err(error.into()),
    }
}

/// Tells of backups that are not there, and should be.
async fn report_missing(
    cluster: &ClusterStore,
    which: Which,
    report: &mut VerifyReport,
) -> Result<(), EngineError> {
    let missing = match missing::find(&cluster.sealed, cluster.domain()).await {
        Ok(missing) => missing,
        // Of the log that says which have expired: told already.
        Err(error) if error.is_unreadable() => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_meant = |backup: &MissingBackup| match which {
        Which::All => true,
        Which::One(only) => backup.id == only,
        Which::Newest => false,
    };
    for backup in missing.iter().filter(|backup| backup.at == cluster.at && is_meant(backup)) {
        let consequence = format!(
            "it cannot be restored, and until it is back nothing expires and nothing is collected. \
             {BRING_BACK} {}",
            backup.go_on()
        );
        report.add_missing(format!("backup {}", backup.id), backup.told(), consequence);
    }
    Ok(())
}

/// What newer keys have sealed looks damaged to those that were read.
async fn require_newest_keys(cluster: &ClusterStore) -> Result<(), EngineError> {
    match has_newer_keys(&cluster.sealed, cluster.domain()).await? {
        true => Err(newer_keys(cluster.domain())),
        false => Ok(()),
    }
}

/// Tells what was not opened for want of a key.
fn report_locked(options: &VerifyOptions, cluster: &ClusterStore, report: &mut VerifyReport) {
    let missing = cluster.sealed.keys().restore_keys_missing();
    let missing: Vec<String> = missing.iter().map(|public| public.fingerprint()).collect();
    if missing.is_empty() || options.depth == Depth::Structure {
        return;
    }
    report.add(
        Severity::Warning,
        "data",
        format!(
            "what is sealed for the restore key {}, which is not here, was not opened: of chunks \
             the sealed bytes were compared with a keyed check, of WAL the trailers were read",
            missing.join(" or ")
        ),
        "run verify --read-data where the restore key is",
    );
}

/// The restore keys that a backup needs and that are not here: its chunks are looked for in the
/// packs that hold them.
///
/// # Errors
/// When the store fails.
pub async fn restore_keys_wanted(
    cluster: &ClusterStore,
    backup: &Known,
) -> Result<BTreeSet<String>, EngineError> {
    let keys = cluster.sealed.keys();
    if keys.restore_keys_missing().is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut report = VerifyReport::default();
    let one = std::slice::from_ref(backup);
    let looked = chunks::look(cluster, one, &mut report, (None, &Cancel::new())).await?;
    let packs = looked.rows.packs_in_use().into_iter();
    let locked = packs.filter_map(|(pack, _)| keys.locked(&pack.sealing));
    Ok(locked.map(RestoreKeyPublic::fingerprint).collect())
}

async fn list(
    cluster: &ClusterStore,
    which: Which,
    report: &mut VerifyReport,
) -> Result<Vec<Known>, EngineError> {
    let (mut backups, unreadable) = catalog::backups(cluster).await?;
    report.unsure |= !unreadable.is_empty();
    for row in unreadable {
        let consequence = match which {
            Which::One(only) if only != row.id => continue,
            Which::Newest => {
                "it cannot be restored by this program, and may be the newest: bring the manifest \
                 back, or have `pgrecall repair` give it up"
            }
            Which::One(_) | Which::All => {
                "it cannot be restored by this program: bring the manifest back, or have \
                 `pgrecall repair` give it up"
            }
        };
        report.add_unreadable(
            Severity::Damage,
            format!("backup {}", row.id),
            ("its manifest does not read: ", &row.why()),
            consequence,
        );
    }
    let only = match which {
        Which::All => return Ok(backups),
        Which::One(only) => Some(only),
        Which::Newest => order::newest_backup(&backups, &StoredWal::read(cluster).await?),
    };
    backups.retain(|backup| Some(backup.manifest.backup) == only);
    Ok(backups)
}

/// Backups that are not whole.
#[derive(Debug, Default)]
pub struct Broken {
    /// Each with an example of what is not there or was found bad.
    pub backups: BTreeMap<BackupId, String>,
    /// Notes that do not read, which may say so of others.
    pub unread: Vec<UnreadNote>,
}

/// The backups some of whose chunks are not there or were found bad.
///
/// # Errors
/// When the store fails.
pub async fn broken(
    cluster: &ClusterStore,
    backups: &[Known],
    cancel: &Cancel,
) -> Result<Broken, EngineError> {
    let mut report = VerifyReport::default();
    let looked = chunks::look(cluster, backups, &mut report, (None, cancel)).await?;
    let unread = looked.rows.unread_notes;
    let ids = backups.iter().map(|backup| backup.manifest.backup);
    let broken = ids.zip(looked.walked).filter(|(_, walked)| !walked.is_whole());
    let mut broken: BTreeMap<_, _> = broken.map(|(id, walked)| (id, walked.example())).collect();
    if !broken.is_empty() {
        // Where that is not known, nothing is.
        let expired = expired_of(cluster, backups).await?.unwrap_or_default();
        broken.retain(|id, _| !expired.contains(id));
        require_newest_keys(cluster).await?;
    }
    Ok(Broken { backups: broken, unread })
}

fn report_histories(stored: &StoredWal, report: &mut VerifyReport) {
    for bad in &stored.bad_histories {
        let what = format!("the history of timeline {} does not read: ", bad.timeline.0);
        report.add_unreadable(
            Severity::Damage,
            bad.object.as_str(),
            (&what, &Unreadable::from(&bad.error)),
            format!("recovery to timeline {} and those after it fails", bad.timeline.0),
        );
    }
    for (file, error) in &stored.holders.unreadable {
        report.add_unreadable(
            Severity::Damage,
            file.as_str(),
            ("the settlement of its two contents does not read: ", &Unreadable::from(error)),
            "nobody can tell which content holds, and recovery stops before it",
        );
    }
    for file in &stored.holders.unsettled {
        let name = file.file_name();
        report.add(
            Severity::Damage,
            file.as_str(),
            format!(
                "two contents of it are kept, and there is no {file}.resolved that says which of \
                 them holds"
            ),
            format!(
                "recovery may take the wrong one, or stop before it: settle it again with `pgrecall \
                 wal resolve {name}`"
            ),
        );
    }
    for timeline in stored.without_history() {
        report.add_missing(
            format!("timeline {}", timeline.0),
            format!("its history, {:08X}.history, is not stored", timeline.0),
            "nobody knows which backups lead to it, and PostgreSQL refuses it as a target: push the \
             file from the pg_wal of a server that has been on that timeline",
        );
    }
    report.checked.histories = count(stored.histories.len() + stored.bad_histories.len());
}

/// Gaps in the WAL: those on the way from a backup, and others.
fn report_gaps(stored: &StoredWal, backups: &[Known], report: &mut VerifyReport) {
    let mut hurt: BTreeMap<Gap, usize> = BTreeMap::new();
    for backup in backups {
        let details = &backup.details;
        let mut gaps = BTreeSet::new();
        for way in stored.ways_from(details.start, details.wal_segment_size) {
            gaps.extend(way.gaps(stored));
        }
        for gap in gaps {
            *hurt.entry(gap).or_default() += 1;
        }
    }
    let expired = |gap: &Gap| stored.floors.cover(gap.timeline, gap.end());
    for (gap, backups) in &hurt {
        if expired(gap) {
            let consequence = format!(
                "it has expired: {backups} backups before it are kept as they are, and recovery \
                 from them ends at {}",
                gap.start()
            );
            report.add(Severity::Note, gap.files(), gap.how_many(), consequence);
            continue;
        }
        report.add_missing(
            gap.files(),
            gap.how_many(),
            format!(
                "{backups} backups begin before it: recovery from them ends at {}; later moments \
                 need a backup taken after {}",
                gap.start(),
                gap.end()
            ),
        );
    }
    for gap in stored.gaps() {
        if !hurt.keys().any(|known| known.overlaps(&gap)) {
            let consequence = "no backup begins before it: nothing is lost by it";
            report.add(Severity::Note, gap.files(), gap.how_many(), consequence);
        }
    }
}

async fn judge(
    cluster: &ClusterStore,
    backup: &Known,
    walked: Walked,
    check: &mut WalCheck<'_>,
    report: &mut VerifyReport,
) -> Result<Verdict, EngineError> {
    let (id, details) = (backup.manifest.backup, &backup.details);
    let object = format!("backup {id}");
    report.checked.entries += walked.entries;
    let reach = check.reach_of(backup, report).await?;
    let consistent = is_consistent(&reach, details, check.stored());
    report_files(&object, &walked, report);
    if !consistent {
        let furthest = reach.iter().max_by_key(|reach| reach.until_lsn);
        let (furthest, next) = furthest
            .map(|reach| (reach.until_lsn, reach.next_segment.as_str()))
            .unwrap_or_default();
        let what = format!(
            "its WAL is needed from {} to {}, and is sound up to {furthest}: what comes is in \
             {next}",
            details.start.lsn, details.stop.lsn
        );
        if check.ends_by_version(details.start.lsn, furthest) {
            let why = Unreadable { cause: Cause::OtherVersion, reason: what };
            report.add_unreadable(Severity::Damage, &object, ("", &why), "");
        } else {
            let consequence = "it cannot be restored: without that WAL it never becomes consistent";
            report.add_missing(&object, what, consequence);
        }
    }
    if !details.damage.is_empty() {
        let pages: u64 = details.damage.iter().map(|file| file.count).sum();
        report.add(
            Severity::Warning,
            &object,
            format!("{pages} pages of {} files were damaged in the source", details.damage.len()),
            "it restores to the same damage; keep an older backup that is free of it",
        );
    }
    Ok(Verdict {
        backup: id,
        cluster: cluster.at.cluster.to_string(),
        system_identifier: cluster.at.lineage.clone(),
        ended: details.ended.to_string(),
        restorable: walked.is_whole() && consistent,
        reach,
        bad_files: walked.bad_files,
        touched: walked.touched,
    })
}

fn report_files(object: &str, walked: &Walked, report: &mut VerifyReport) {
    let because = |reason: String| Unreadable { cause: walked.cause(), reason };
    for table in &walked.bad_tables {
        report.add_unreadable(
            Severity::Damage,
            object,
            ("its file table does not read ", &because(table.clone())),
            "it cannot be restored as a whole",
        );
    }
    if walked.bad_files > 0 {
        let example = |file: &TouchedFile| format!("{}: {}", file.text(), file.reason);
        let examples: Vec<String> = walked.touched.iter().take(3).map(example).collect();
        let what = format!("{} files cannot be had whole: ", walked.bad_files);
        report.add_unreadable(
            Severity::Damage,
            object,
            (&what, &because(examples.join("; "))),
            "it cannot be restored as a whole; use another backup, and take a new one",
        );
    }
    if let Some(example) = &walked.unhashed_example {
        report.add(
            Severity::Warning,
            object,
            format!("page hashes of {} files are gone: {example}", walked.unhashed_files),
            "it restores; the next backup reads these files as if they were new",
        );
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
