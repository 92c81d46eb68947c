//! Positions, switches, restore points, checkpoints.

use pgrecall_pgformat::{Lsn, TimelineId};
use pgrecall_pgserver::{ErrorKind, Server, ServerError};
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, majors};

use crate::{connect, connect_as, follow_hint};

#[tokio::test]
async fn a_switch_closes_the_segment_that_has_something_in_it() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major).wal_segment_size_mib(1));
        let server = connect(&cluster).await;
        cluster.psql("CREATE TABLE t (i int)");
        let open = cluster.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
        let switch = server.switch_wal().await.unwrap();
        assert_eq!(switch.closed_segment, open);
        assert!(switch.lsn.is_valid());
        // Now and then the server writes of its own accord, so the first idle moment counts.
        let mut last = switch;
        let idle = loop {
            let next = server.switch_wal().await.unwrap();
            if next.closed_segment == last.closed_segment {
                break next;
            }
            last = next;
        };
        assert_eq!(idle.lsn.0 % (1 << 20), 0, "{idle:?}");
        let open = idle.closed_segment;
        cluster.psql("INSERT INTO t VALUES (1)");
        let switch = server.switch_wal().await.unwrap();
        assert!(switch.closed_segment > open, "{switch:?} after {open}");
    }
}

#[tokio::test]
async fn restore_points_lie_between_the_positions_around_them() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let server = connect(&cluster).await;
        let before = server.current_wal_lsn().await.unwrap();
        let point = server.create_restore_point("before the migration").await.unwrap();
        server.checkpoint().await.unwrap();
        let after = server.flush_lsn().await.unwrap();
        assert!(before < point && point < after, "{before} {point} {after}");
        assert!(cluster.log().contains("before the migration"));
        for name in ["", &"x".repeat(64)] {
            let error = server.create_restore_point(name).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        server.create_restore_point(&"x".repeat(63)).await.unwrap();
        assert_eq!(server.last_replay_lsn().await.unwrap(), None);
        assert_eq!(server.timeline().await.unwrap(), TimelineId(1));
    }
}

#[tokio::test]
async fn a_standby_tells_what_it_has_replayed_and_writes_nothing() {
    for major in majors() {
        let primary = Cluster::create(ClusterOptions::new(major));
        let standby = Cluster::standby_of(&primary);
        let on_primary = connect(&primary).await;
        let reached = on_primary.create_restore_point("mark").await.unwrap();
        // The record of a restore point is not flushed by itself.
        on_primary.switch_wal().await.unwrap();
        standby.wait_caught_up(&primary);
        let server = connect(&standby).await;
        let replayed: Lsn = server.last_replay_lsn().await.unwrap().unwrap();
        assert!(replayed >= reached, "{replayed} {reached}");
        server.checkpoint().await.unwrap();
        assert!(matches!(server.switch_wal().await, Err(ServerError::Refused { .. })));
        assert!(matches!(server.current_wal_lsn().await, Err(ServerError::Refused { .. })));
        server.ping().await.unwrap();
    }
}

async fn denials(server: &Server) -> Vec<String> {
    let mut hints = Vec::new();
    let mut note = |error: Option<ServerError>| {
        if let Some(error) = error {
            assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
            hints.push(error.hint().unwrap());
        }
    };
    note(server.switch_wal().await.err());
    note(server.create_restore_point("x").await.err());
    if server.version().major().number() >= 15 {
        note(server.checkpoint().await.err());
    }
    hints
}

#[tokio::test]
async fn the_hints_give_the_rights() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let server = connect_as(&cluster, "backup", "").await;
        let hints = denials(&server).await;
        assert_eq!(hints.len(), if major >= 15 { 3 } else { 2 });
        hints.iter().for_each(|hint| follow_hint(&cluster, hint));
        assert!(denials(&server).await.is_empty());
        if major == 14 {
            assert_eq!(server.checkpoint().await.unwrap_err().kind(), ErrorKind::Denied);
        }
    }
}
