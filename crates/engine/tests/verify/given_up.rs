//! A backup that is lost in part stops collections until it is given up.

use super::*;
use pgrecall_engine::giving_up::{carry_out, plan};
use pgrecall_engine::retention::hold;
use pgrecall_engine::{EngineError, ErrorKind};
use pgrecall_repo::RepoError;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::Hold;
use pgrecall_repo::gc::live_chunks;
use pgrecall_repo::keys::Rotation;

#[tokio::test]
async fn a_lost_part_of_the_list_of_files_stops_collections_until_the_backup_is_given_up() {
    let made = made().await;
    let (cluster, id) = (&made.cluster, made.backup);
    let (sealed, domain) = (&cluster.sealed, cluster.domain());
    // One whose list reads goes by expiry alone, whatever else it lacks.
    let data = made.names("domains/main/packs/data/").await.remove(0);
    made.store.delete(&data).await.unwrap();
    let refused = plan(cluster, id).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    let refused = carry_out(cluster, id).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");

    for pack in made.names("domains/main/packs/meta/").await {
        made.store.delete(&pack).await.unwrap();
    }
    let error = live_chunks(sealed, domain).await.unwrap_err();
    let RepoError::NeedUnknown { backup, .. } = &error else { panic!("{error}") };
    assert_eq!(*backup, id.to_string());
    // With keys that are missing it may be whole: those of the packs, not of its own manifest.
    made.repository.rotate(domain, Rotation::Sealing, None).await.unwrap();
    let rotated = made.repository.existing_domain(domain).await.unwrap();
    let newer = ClusterStore { sealed: rotated, ..cluster.clone() };
    let of_newer_keys = push_backup(&newer).await;
    for pack in made.names("domains/main/packs/meta/").await {
        made.store.delete(&pack).await.unwrap();
    }
    assert_eq!(plan(&newer, of_newer_keys).await.unwrap().quarantined.len(), 1);
    let keys = names::domain_keys(domain).entry(0);
    let kept = made.store.get(&keys, 1 << 20).await.unwrap();
    made.store.delete(&keys).await.unwrap();
    let lacking = made.repository.existing_domain(domain).await.unwrap();
    let lacking = ClusterStore { sealed: lacking, ..cluster.clone() };
    let refused = plan(&lacking, of_newer_keys).await.unwrap_err();
    assert!(refused.to_string().contains("the keys of epoch 0"), "{refused}");
    assert!(matches!(made.store.put_if_absent(&keys, kept).await, Put::Created));
    // With keys that are too old what was moved meanwhile seems to be lost.
    let refused = plan(cluster, id).await.unwrap_err();
    assert!(refused.to_string().contains("were rotated since"), "{refused}");
    made.store.delete(&names::manifest(&cluster.at, of_newer_keys)).await.unwrap();
    let (cluster, sealed) = (&newer, &newer.sealed);
    let planned = plan(cluster, id).await.unwrap();
    let manifest = names::manifest(&cluster.at, id);
    assert_eq!(planned.quarantined[0].name, manifest);
    assert!(made.store.get(&manifest, 1 << 20).await.is_ok(), "a plan writes nothing");

    let held = Hold { backup: id, reason: "audit".into(), until: None, by: "me".into() };
    hold::add(cluster, &held).await.unwrap();
    for refused in [plan(cluster, id).await.map(drop), carry_out(cluster, id).await.map(drop)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    }
    hold::remove(cluster, id).await.unwrap();

    assert_eq!(carry_out(cluster, id).await.unwrap().moved, 1);
    let kept = names::quarantine(&manifest, 1).unwrap();
    assert!(made.store.get(&kept, 1 << 20).await.is_ok(), "nothing is thrown away");
    let log = ExpiredLog::read(sealed, domain).await.unwrap();
    assert!(log.entry().backups.contains(&id), "a manifest that comes back counts no more");
    assert_eq!(live_chunks(sealed, domain).await.unwrap().backups, 0);
    let gone: EngineError = plan(cluster, id).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}
