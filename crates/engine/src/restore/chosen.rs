//! The plan that holds among the lineage's backups, with what it is carried out from.
//!
//! `pg_resetwal --wal-segsize` begins WAL anew with segments of another size: no replay goes over
//! that, so backups are planned with by the size of their own WAL, the newest's first.

use std::collections::BTreeMap;

use pgrecall_pgformat::{SegmentName, SegmentSize};
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::id::BackupId;

use super::plan::{BackupRow, RestorePlan, plan, with_prefix};
use super::refusal::{PlanError, Refusal};
use super::repo_wal::{RepoWal, backups};
use super::target::{BackupChoice, Request, Target};
use crate::cancel::Cancel;
use crate::catalog::wal_damage::KnownDamage;
use crate::catalog::{Known, chain, noted_there};
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::verify;

/// A plan, its backup's manifest, and the WAL that it goes through.
#[derive(Debug)]
pub struct Chosen<'a> {
    /// The plan.
    pub plan: RestorePlan,
    /// Of the backup that it starts from.
    pub manifest: Manifest,
    /// The WAL of that backup's segment size.
    pub wal: RepoWal<'a>,
}

/// Makes the plan.
///
/// # Errors
/// [`PlanError::Refused`] when the target cannot be reached, or is not clear.
pub async fn choose<'a>(
    cluster: &'a ClusterStore,
    request: &Request,
) -> Result<Chosen<'a>, PlanError> {
    let (rows, manifests) = backups(cluster).await?;
    let bad = found_bad(cluster, &rows, &manifests).await?;
    let mut refused: Option<Refusal> = None;
    for size in sizes(&rows, &request.backup)? {
        let wal = RepoWal::open(cluster, size).await?;
        let of_size = |row: &&BackupRow| row.details.wal_segment_size == size;
        let of_size: Vec<BackupRow> = rows.iter().filter(of_size).cloned().collect();
        match plan_with(&wal, &of_size, request, &bad).await {
            Ok(mut plan) => {
                plan.notes.extend(said_of_bad(&plan, &bad));
                plan.notes.extend(wal_found_bad(&plan, wal.damage()));
                let id = plan.backup.id;
                let manifest = manifests.into_iter().find(|manifest| manifest.backup == id);
                let manifest = manifest.ok_or_else(|| {
                    let message = format!("the plan names backup {id}, which has no manifest");
                    EngineError::refused(ErrorKind::Corrupt, message)
                })?;
                return Ok(Chosen { plan, manifest, wal });
            }
            Err(PlanError::Refused(refusal)) => {
                let goes_on = may_lie_elsewhere(&refusal, &request.target);
                refused = Some(said_of_all(refused, refusal));
                if !goes_on {
                    break;
                }
            }
            Err(failed) => return Err(failed),
        }
    }
    match refused {
        Some(refusal) => Err(refusal.into()),
        None => Err(Refusal::NoBackups.into()),
    }
}

/// A plan from another backup in place of one that is not whole, where nobody has said which one is
/// meant and the other leads to the very same moment.
async fn plan_with(
    wal: &RepoWal<'_>,
    rows: &[BackupRow],
    request: &Request,
    bad: &BTreeMap<BackupId, String>,
) -> Result<RestorePlan, PlanError> {
    let first = plan(wal, rows, request).await?;
    if request.backup != BackupChoice::Best || !bad.contains_key(&first.backup.id) {
        return Ok(first);
    }
    let whole: Vec<BackupRow> =
        rows.iter().filter(|row| !bad.contains_key(&row.id)).cloned().collect();
    if whole.is_empty() {
        return Ok(first);
    }
    match plan(wal, &whole, request).await {
        Ok(mut other) if (other.stop, other.timeline) == (first.stop, first.timeline) => {
            let id = first.backup.id;
            let why = bad.get(&id).map_or("", String::as_str);
            other
                .notes
                .push(format!("Backup {id} cannot be restored whole, and is passed over: {why}."));
            Ok(other)
        }
        Ok(_) | Err(PlanError::Refused(_)) => Ok(first),
        Err(failed) => Err(failed),
    }
}

/// The backups that cannot be restored whole, each with an example, where a verification has noted
/// that chunks of the domain are damaged: without a note nobody looks through all of them.
async fn found_bad(
    cluster: &ClusterStore,
    rows: &[BackupRow],
    manifests: &[Manifest],
) -> Result<BTreeMap<BackupId, String>, EngineError> {
    if noted_there(cluster).await?.0 == 0 {
        return Ok(BTreeMap::new());
    }
    let known = rows
        .iter()
        .zip(manifests)
        .map(|(row, manifest)| Known { manifest: manifest.clone(), details: row.details.clone() });
    let known: Vec<Known> = known.collect();
    // It is good advice, and nothing that a plan needs.
    let broken = verify::broken(cluster, &known, &Cancel::new()).await;
    Ok(broken.map_or_else(
        |error| {
            tracing::warn!("which backups are whole could not be told: {}", chain(&error));
            BTreeMap::new()
        },
        |broken| broken.backups,
    ))
}

fn said_of_bad(plan: &RestorePlan, bad: &BTreeMap<BackupId, String>) -> Option<String> {
    let id = plan.backup.id;
    let why = bad.get(&id)?;
    Some(format!("Backup {id} cannot be restored whole: {why}."))
}

/// What a verification has found of the WAL that the plan goes through. It may have been mended
/// since, and there is no other: it is no reason to refuse.
fn wal_found_bad(plan: &RestorePlan, damage: &KnownDamage) -> Option<String> {
    if let Some(error) = &damage.unreadable {
        return Some(format!("What was found damaged of the WAL does not read: {}", chain(error)));
    }
    let needed = |name: &SegmentName| {
        let ranges = plan.segments.iter();
        let mut of_timeline = ranges.filter(|range| range.timeline == name.timeline);
        of_timeline.any(|range| range.first <= name.number && name.number <= range.last)
    };
    let (size, first) = damage.segments().find(|(_, name)| needed(name))?;
    Some(format!(
        "{} was found damaged, by {}: unless that was mended since, recovery ends before it.",
        first.file_name(size),
        damage.found
    ))
}

/// The segment sizes to plan with, that of the newest backup first.
fn sizes(rows: &[BackupRow], choice: &BackupChoice) -> Result<Vec<SegmentSize>, Refusal> {
    let mut newest_first: Vec<&BackupRow> = match choice {
        BackupChoice::Prefix(prefix) => vec![with_prefix(rows, prefix)?],
        BackupChoice::Best | BackupChoice::Latest => rows.iter().collect(),
    };
    newest_first.sort_by_key(|row| std::cmp::Reverse(row.details.ended));
    let mut sizes = Vec::new();
    for row in newest_first {
        if !sizes.contains(&row.details.wal_segment_size) {
            sizes.push(row.details.wal_segment_size);
        }
    }
    if matches!(choice, BackupChoice::Latest) {
        sizes.truncate(1);
    }
    Ok(sizes)
}

/// Whether the target may lie in WAL of another size. The latest moment lies in the newest, and
/// where it is not clear what is meant, another size makes nothing clearer. Elsewhere no WAL goes
/// beyond its own end, so that a target which is found is the one that is meant.
const fn may_lie_elsewhere(refusal: &Refusal, target: &Target) -> bool {
    match refusal {
        Refusal::UnknownTimeline { .. } | Refusal::NoBackupOnTimeline { .. } => true,
        Refusal::InsideBackup { .. }
        | Refusal::TwoTimelines { .. }
        | Refusal::NoHistory { .. }
        | Refusal::AmbiguousBackup { .. } => false,
        _ => !matches!(target, Target::Latest),
    }
}

/// The earliest backup of all is that of the oldest WAL; else what the newest says holds.
fn said_of_all(newer: Option<Refusal>, older: Refusal) -> Refusal {
    match (newer, older) {
        (None, only) => only,
        (Some(Refusal::BeforeFirstBackup { .. }), older @ Refusal::BeforeFirstBackup { .. }) => {
            older
        }
        (Some(newer), _) => newer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::details::tests::details;
    use pgrecall_pgformat::Lsn;
    use pgrecall_repo::id::BackupId;

    fn row(id: u8, ended: i64, mib: u32) -> BackupRow {
        let mut details = details();
        details.ended = jiff::Timestamp::from_second(ended).unwrap();
        details.wal_segment_size = SegmentSize::from_bytes(u64::from(mib) << 20).unwrap();
        BackupRow { id: BackupId::from_bytes([id; 16]), bytes: 0, entries: 0, details }
    }

    fn mib(rows: &[BackupRow], choice: &BackupChoice) -> Vec<u32> {
        sizes(rows, choice).unwrap().iter().map(|size| size.bytes() >> 20).collect()
    }

    #[test]
    fn the_newest_backups_size_comes_first() {
        let rows = [row(1, 1, 16), row(2, 3, 4), row(3, 2, 16)];
        assert_eq!(mib(&rows, &BackupChoice::Best), [4, 16]);
        assert_eq!(mib(&rows, &BackupChoice::Latest), [4]);
        let named = BackupChoice::Prefix(rows[0].id.to_string());
        assert_eq!(mib(&rows, &named), [16]);
        assert!(mib(&[], &BackupChoice::Best).is_empty());
        let unknown = BackupChoice::Prefix("zz".into());
        assert_eq!(sizes(&rows, &unknown), Err(Refusal::UnknownBackup { prefix: "zz".into() }));
    }

    #[test]
    fn the_earliest_moment_is_that_of_the_oldest_wal() {
        let before =
            |lsn| Refusal::BeforeFirstBackup { first_ended: String::new(), first_stop: Lsn(lsn) };
        assert_eq!(said_of_all(Some(before(9)), before(1)), before(1));
        let unknown = Refusal::UnknownXid { xid: 7 };
        assert_eq!(said_of_all(Some(unknown.clone()), before(1)), unknown);
        assert_eq!(said_of_all(Some(before(9)), unknown.clone()), before(9));
        assert_eq!(said_of_all(None, unknown.clone()), unknown);
    }

    #[test]
    fn a_hole_in_one_sizes_wal_leads_to_the_other_and_the_latest_does_not() {
        let missing = Refusal::MissingSegment {
            segment: String::new(),
            end: None,
            last_transaction: None,
            last_xid: None,
        };
        assert!(may_lie_elsewhere(&missing, &Target::Lsn(Lsn(1))));
        assert!(may_lie_elsewhere(&missing, &Target::Immediate));
        assert!(!may_lie_elsewhere(&missing, &Target::Latest));
        let two = Refusal::TwoTimelines { ways: Vec::new() };
        assert!(!may_lie_elsewhere(&two, &Target::Lsn(Lsn(1))));
    }
}
