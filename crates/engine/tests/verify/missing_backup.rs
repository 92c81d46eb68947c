//! A backup whose manifest is gone, and that a later one has seen, is missed by everybody.

use super::*;
use pgrecall_engine::backup::Host;
use pgrecall_engine::catalog::missing;
use pgrecall_engine::collection::dead::{DeadRule, Sightings};
use pgrecall_engine::collection::plan::{CollectRequest, plan as collect};
use pgrecall_engine::collection::policy::Policy;
use pgrecall_engine::retention::hold;
use pgrecall_engine::{EngineError, ErrorKind, giving_up};
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::{Expired, Hold};
use pgrecall_repo::repair;

/// Whether a collection would begin.
async fn collects(made: &Made) -> Result<(), EngineError> {
    let mut request = CollectRequest {
        policy: Policy::default(),
        dead: DeadRule {
            host: Host { name: "db1".into(), process: 1 },
            after: None,
            clock: Clock::system(),
        },
        sightings: Sightings::default(),
        progress: Progress::silent(),
        cancel: Cancel::new(),
    };
    let (sealed, domain) = (&made.cluster.sealed, made.cluster.domain());
    collect(sealed, domain, &mut request).await.map(drop)
}

/// A backup of one empty folder.
async fn push_backup_that_saw(cluster: &ClusterStore, saw: BackupId) -> BackupId {
    let session = begin(&cluster.sealed, &cluster.at).await;
    let plain = table::encode(&[entry("base", EntryKind::Directory)]);
    let id = cluster.sealed.keys().chunk_id(&plain);
    let mut pack = PackBuilder::new(&cluster.sealed, cluster.domain(), Kind::MetaPack).unwrap();
    pack.add(id, &plain, Level::default()).unwrap();
    session.put_pack(pack.finish().unwrap()).await.unwrap();
    let plain_len = plain.len() as u32;
    let mut details = details(cluster);
    details["saw_backups"] = serde_json::json!([saw]);
    let manifest = Manifest {
        backup: session.id(),
        cluster: "main".into(),
        lineage: cluster.at.lineage.clone(),
        tables: vec![TableChunk { first: "base".into(), entries: 1, id, plain_len }],
        entries: 1,
        bytes: 0,
        details,
    };
    session.commit(&manifest).await.unwrap();
    session.id()
}

/// A second backup, which saw the first, and the first one's manifest, which goes.
async fn with_a_hole() -> (Made, BackupId, bytes::Bytes) {
    let made = made().await;
    let later = push_backup_that_saw(&made.cluster, made.backup).await;
    assert!(check(&made, Depth::Structure).await.sound);
    let name = names::manifest(&made.cluster.at, made.backup);
    let kept = made.store.get(&name, 1 << 20).await.unwrap();
    made.store.delete(&name).await.unwrap();
    (made, later, kept)
}

#[tokio::test]
async fn it_is_told_and_nothing_goes_until_it_is_back() {
    let (made, later, kept) = with_a_hole().await;
    let report = check(&made, Depth::Structure).await;
    assert!(!report.sound);
    assert_eq!(report.gravest(), Some(Nature::Missing));
    let told = said(&report);
    for part in [made.backup.to_string(), later.to_string(), "--give-up".into()] {
        assert!(told.contains(&part), "{told}");
    }
    let listed = catalog::read(&made.cluster, &Clock::system(), "db1").await.unwrap();
    assert_eq!(listed.missing_backups.iter().map(|row| row.id).collect::<Vec<_>>(), [made.backup]);
    let refused = collects(&made).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Incomplete);
    assert!(refused.to_string().contains(&made.backup.to_string()), "{refused}");
    assert!(refused.hints().iter().any(|hint| hint.contains("--give-up")));

    let name = names::manifest(&made.cluster.at, made.backup);
    assert!(matches!(made.store.put_if_absent(&name, kept).await, Put::Created));
    assert!(check(&made, Depth::Structure).await.sound);
    collects(&made).await.unwrap();
}

#[tokio::test]
async fn what_has_expired_is_not_missed() {
    let (made, ..) = with_a_hole().await;
    let (sealed, domain) = (&made.cluster.sealed, made.cluster.domain());
    let log = ExpiredLog::read(sealed, domain).await.unwrap();
    let expired = Expired { backups: vec![made.backup], ..Expired::default() };
    log.append(sealed, domain, expired).await.unwrap();
    assert!(missing::find(sealed, domain).await.unwrap().is_empty());
    assert!(check(&made, Depth::Structure).await.sound);
    collects(&made).await.unwrap();
}

#[tokio::test]
async fn one_that_nothing_brings_back_is_given_up() {
    let (made, later, _) = with_a_hole().await;
    let cluster = &made.cluster;
    // Of one that nobody has seen nothing is known.
    let other = BackupId::from_bytes([9; 16]);
    let unknown = giving_up::plan(cluster, other).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    // What is held is wanted: letting go of it takes another decision.
    let held = Hold { backup: made.backup, reason: "audit".into(), until: None, by: "me".into() };
    hold::add(cluster, &held).await.unwrap();
    let refused = giving_up::carry_out(cluster, made.backup).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    hold::remove(cluster, made.backup).await.unwrap();
    let plan = giving_up::plan(cluster, made.backup).await.unwrap();
    assert!(plan.quarantined[0].reason.contains(&later.to_string()), "{plan:?}");
    assert!(!missing::find(&cluster.sealed, cluster.domain()).await.unwrap().is_empty());

    giving_up::carry_out(cluster, made.backup).await.unwrap();
    let log = ExpiredLog::read(&cluster.sealed, cluster.domain()).await.unwrap();
    assert!(log.entry().backups.contains(&made.backup));
    assert!(check(&made, Depth::Structure).await.sound);
    collects(&made).await.unwrap();
}

#[tokio::test]
async fn one_that_comes_back_meanwhile_is_not_given_up() {
    let (made, _, kept) = with_a_hole().await;
    let (cluster, name) = (&made.cluster, names::manifest(&made.cluster.at, made.backup));
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    let plan = giving_up::plan(cluster, made.backup).await.unwrap();
    assert!(matches!(made.store.put_if_absent(&name, kept.clone()).await, Put::Created));
    let done = repair::give_up(sealed, domain, &plan).await.unwrap();
    assert!(done.stayed[0].reason.contains("it is there again"), "{done:?}");
    // One that reads and whose list does is for expiry to remove.
    let refused = giving_up::carry_out(cluster, made.backup).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(made.store.get(&name, 1 << 20).await.unwrap(), kept);
    assert!(ExpiredLog::read(sealed, domain).await.unwrap().entry().backups.is_empty());
    assert!(check(&made, Depth::Structure).await.sound);
}
