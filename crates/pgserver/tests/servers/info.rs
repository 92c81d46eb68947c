//! What is read once, and the rights it takes.

use std::time::Duration;

use pgrecall_pgformat::TimelineId;
use pgrecall_pgserver::{ArchiveMode, ErrorKind, RecoveryState, ServerError, WalLevel};
use pgrecall_testkit::postgres::{Checksums, Cluster, ClusterOptions, majors};

use crate::{connect, connect_as, follow_hint};

#[tokio::test]
async fn settings_and_identity_are_read() {
    for major in majors() {
        let options = ClusterOptions::new(major)
            .wal_segment_size_mib(4)
            .checksums(Checksums::Off)
            .setting("cluster_name", "main")
            .setting("wal_level", "logical")
            .setting("archive_timeout", "2min");
        let cluster = Cluster::create(options.archive_command("true"));
        let info = connect(&cluster).await.info().await.unwrap();
        let controldata = cluster.tool("pg_controldata").arg(cluster.data_dir()).output().unwrap();
        let text = String::from_utf8(controldata.stdout).unwrap();
        assert!(text.contains(&format!("identifier:           {}\n", info.system_identifier)));
        assert_eq!((info.state, info.timeline), (RecoveryState::Primary, TimelineId(1)));
        assert_eq!((info.role.as_str(), info.rights.superuser), ("postgres", true));
        let settings = &info.settings;
        assert_eq!(settings.data_directory, cluster.data_dir());
        assert_eq!(settings.config_file, cluster.data_dir().join("postgresql.conf"));
        assert_eq!(settings.hba_file, cluster.data_dir().join("pg_hba.conf"));
        assert_eq!(settings.ident_file, cluster.data_dir().join("pg_ident.conf"));
        assert_eq!(settings.cluster_name, "main");
        assert_eq!(settings.wal_level, WalLevel::Logical);
        assert_eq!(settings.archive_mode, ArchiveMode::On);
        assert_eq!(settings.archive_command.as_deref(), Some("true"));
        assert_eq!(settings.archive_library, None);
        assert_eq!(settings.archive_timeout, Some(Duration::from_secs(120)));
        assert_eq!(settings.wal_segment_size.bytes(), 4 << 20);
        assert_eq!((settings.block_size_bytes, settings.wal_block_size_bytes), (8192, 8192));
        assert!(settings.full_page_writes && settings.track_commit_timestamp);
        assert!(!settings.data_checksums);
        assert_eq!(settings.summarize_wal, (major >= 17).then_some(false));
        assert_eq!((settings.max_connections, settings.max_prepared_transactions), (60, 0));
        assert_eq!(settings.server_encoding, "UTF8");
        assert!(info.tablespaces.is_empty());
    }
}

#[tokio::test]
async fn without_archiving_no_command_is_shown() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let settings = connect(&cluster).await.info().await.unwrap().settings;
        assert_eq!((settings.archive_mode, settings.archive_command), (ArchiveMode::Off, None));
        assert_eq!(settings.archive_timeout, None);
        assert!(settings.data_checksums);
    }
}

#[tokio::test]
async fn tablespaces_are_listed_with_their_places() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let places = [cluster.scratch().dir("one"), cluster.scratch().dir("two")];
        for (place, name) in places.iter().zip(["one", "öther \"x\""]) {
            let name = name.replace('"', "\"\"");
            cluster.psql(&format!("CREATE TABLESPACE \"{name}\" LOCATION '{}'", place.display()));
        }
        let found = connect(&cluster).await.info().await.unwrap().tablespaces;
        let names: Vec<&str> = found.iter().map(|space| space.name.as_str()).collect();
        assert_eq!(names, ["one", "öther \"x\""]);
        for (space, place) in found.iter().zip(&places) {
            assert_eq!(&space.location, place);
            let link = cluster.data_dir().join(format!("pg_tblspc/{}", space.oid));
            assert_eq!(&std::fs::read_link(link).unwrap(), place);
        }
    }
}

#[tokio::test]
async fn a_role_without_rights_is_told_what_to_ask_for() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let role = "back \"up\"";
        let server = connect_as(&cluster, role, "").await;
        let Err(_) = server.info().await else { panic!("{role} sees all settings") };
        let error = server.info().await.unwrap_err();
        assert!(matches!(error, ServerError::Denied { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Denied);
        follow_hint(&cluster, &error.hint().unwrap());
        let info = server.info().await.unwrap();
        assert_eq!(info.role, role);
        let rights = info.rights;
        assert!(rights.read_all_settings && !rights.superuser && !rights.backup);
        assert!(!rights.switch_wal && !rights.create_restore_point && !rights.read_files);
        assert!(!rights.checkpoint);
        assert!(server.archiver_status().await.is_ok());
        assert!(server.current_wal_lsn().await.is_ok());
    }
}

#[tokio::test]
async fn a_standby_knows_its_state_and_timeline() {
    for major in majors() {
        let primary = Cluster::create(ClusterOptions::new(major));
        let standby = Cluster::standby_of(&primary);
        let server = connect(&standby).await;
        let info = server.info().await.unwrap();
        assert_eq!((info.state, info.timeline), (RecoveryState::Standby, TimelineId(1)));
        let of_primary = connect(&primary).await.info().await.unwrap();
        assert_eq!(info.system_identifier, of_primary.system_identifier);
        standby.promote();
        let info = server.info().await.unwrap();
        assert_eq!((info.state, info.timeline), (RecoveryState::Primary, TimelineId(2)));
        let second = Cluster::standby_of(&standby);
        assert_eq!(connect(&second).await.timeline().await.unwrap(), TimelineId(2));
    }
}
