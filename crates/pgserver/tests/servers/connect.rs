//! Getting in, and not getting in.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use pgrecall_pgserver::{
    Checkpoint, ErrorKind, Host, PassFile, Password, RecoveryState, Server, ServerError,
};
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, majors};

use crate::{connect, options};

#[tokio::test]
async fn the_local_server_is_found_by_its_pid_file() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        let server = connect(&cluster).await;
        assert_eq!(server.version().major().number(), major);
        let shown = cluster.psql("SHOW server_version_num");
        assert_eq!(server.version().number().to_string(), shown);
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgrecall'";
        assert_eq!(cluster.psql(count), "1");
        server.close().await;
        cluster.wait_until("the session has ended", || cluster.psql(count) == "0");
    }
}

#[tokio::test]
async fn settings_of_the_role_do_not_reach_into_the_session() {
    for major in majors() {
        // A spread checkpoint takes up to 3 s here.
        let options = ClusterOptions::new(major)
            .setting("checkpoint_timeout", "30s")
            .setting("checkpoint_completion_target", "0.1");
        let cluster = Cluster::create(options);
        cluster.psql(
            "CREATE SCHEMA trap;
             CREATE FUNCTION trap.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true';
             CREATE TABLE t AS SELECT generate_series(1, 20000) AS i;
             ALTER ROLE postgres SET search_path = trap, pg_catalog;
             ALTER ROLE postgres SET statement_timeout = '200ms';
             ALTER ROLE postgres SET idle_session_timeout = '200ms';
             ALTER ROLE postgres SET timezone = 'Asia/Kolkata'",
        );
        let server = connect(&cluster).await;
        assert_eq!(server.recovery_state().await.unwrap(), RecoveryState::Primary);
        // A checkpoint spread over seconds, then an idle session.
        let began = Instant::now();
        let running = server.start_backup("spread", Checkpoint::Spread).await.unwrap();
        assert!(began.elapsed() > Duration::from_millis(200), "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(400)).await;
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn passwords_come_from_options_or_a_pass_file() {
    for major in majors() {
        let cluster = Cluster::create(ClusterOptions::new(major));
        cluster.psql("CREATE ROLE backup LOGIN PASSWORD 'right'");
        let hba = "local all postgres trust\nlocal all all scram-sha-256\n";
        std::fs::write(cluster.data_dir().join("pg_hba.conf"), hba).unwrap();
        cluster.reload();
        let mut options = options(&cluster);
        options.user = "backup".to_owned();
        // The reload takes a moment: until then everybody is trusted.
        while Server::connect(&options).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for password in [None, Some("wrong-password")] {
            options.password = password.map(|text| Password::new(text.to_owned()));
            let error = Server::connect(&options).await.unwrap_err();
            assert!(matches!(error, ServerError::AuthenticationFailed { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(!format!("{error:?}").contains("wrong-password"));
        }
        let line = format!("{}:*:*:backup:right\n", cluster.socket_dir().display());
        options.password = PassFile::new(line).password_for(&options);
        Server::connect(&options).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let cluster = Cluster::create(ClusterOptions::new(majors()[0]));
    cluster.psql("CREATE DATABASE shut; ALTER DATABASE shut ALLOW_CONNECTIONS false");
    let mut options = options(&cluster);
    options.database = "missing".to_owned();
    let error = Server::connect(&options).await.unwrap_err();
    assert!(matches!(error, ServerError::NoDatabase { .. }), "{error:?}");
    options.database = "shut".to_owned();
    let error = Server::connect(&options).await.unwrap_err();
    assert!(matches!(error, ServerError::NotAccepting { .. }), "{error:?}");
    options.user = "nobody".to_owned();
    let error = Server::connect(&options).await.unwrap_err();
    assert!(matches!(error, ServerError::AuthenticationFailed { .. }), "{error:?}");
    options.port += 1;
    let error = Server::connect(&options).await.unwrap_err();
    assert!(matches!(error, ServerError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&options.address()), "{error}");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up() {
    let cluster = Cluster::create(ClusterOptions::new(majors()[0]));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options(&cluster);
    options.host = Host::Tcp("127.0.0.1".to_owned());
    options.port = silent.local_addr().unwrap().port();
    options.connect_timeout = Duration::from_millis(300);
    let began = Instant::now();
    let error = Server::connect(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
}
