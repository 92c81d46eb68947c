//! A store that never answers: `wal fetch` gives up in time on a standby, and dies of PostgreSQL's
//! signals at once.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pgrecall_testkit::postgres::Stop;
use pgrecall_testkit::scripted_s3::{Meddle, Reply, ScriptedS3};
use rustix::process::{Pid, Signal, kill_process};

use crate::ground::Ground;
use crate::unreached::{Limits, SEGMENT, program, run, site};

/// Waits until a request has arrived, which is never answered.
fn wait_for_request(server: &ScriptedS3) {
    let end = Instant::now() + Duration::from_secs(30);
    while server.requests().is_empty() {
        assert!(Instant::now() < end, "nothing was asked for");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// PostgreSQL looks at the signal that its `restore_command` died of (`RestoreArchivedFile`,
/// `xlogarchive.c`): an exit code in its place would end recovery, or keep a shutdown waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_dies_of_the_signals_that_postgresql_sends() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        for is_standby in [false, true] {
            let server = ScriptedS3::start(vec![Reply::Silence; 20]).await;
            let site = site(&server.endpoint(), Limits::Default);
            if is_standby {
                fs::write(site.path().join("pgdata/standby.signal"), "").expect("standby.signal");
            }
            let words = format!("wal fetch {SEGMENT} pg_wal/RECOVERYXLOG");
            let mut command = program(site.path(), &words);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            let (status, took) = tokio::task::block_in_place(|| {
                let child = command.spawn().expect("the program runs");
                wait_for_request(&server);
                let began = Instant::now();
                kill_process(Pid::from_child(&child), signal).expect("it is there");
                let output = child.wait_with_output().expect("an end");
                (output.status, began.elapsed())
            });
            let expected = Some(signal.as_raw());
            assert_eq!(status.signal(), expected, "{signal:?}, standby {is_standby}: {status:?}");
            assert!(took < Duration::from_secs(2), "{signal:?}: {took:?}");
            let left = fs::read_dir(site.path().join("pgdata/pg_wal")).expect("pg_wal").count();
            assert_eq!(left, 1, "nothing half fetched is left");
        }
    }
}

/// `wal.standby_progress_timeout` is 5 s where nobody says otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_standby_a_silent_store_costs_five_seconds() {
    let server = ScriptedS3::start(vec![Reply::Silence; 20]).await;
    let site = site(&server.endpoint(), Limits::Default);
    fs::write(site.path().join("pgdata/standby.signal"), "").expect("standby.signal");
    let began = Instant::now();
    let words = format!("wal fetch {SEGMENT} pg_wal/RECOVERYXLOG");
    let (code, said) = tokio::task::block_in_place(|| run(site.path(), &words));
    let took = began.elapsed();
    assert_eq!(code, Some(1), "{said}");
    assert!(took >= Duration::from_millis(4500) && took < Duration::from_secs(9), "{took:?}");
    assert!(said.contains("no byte moved for 5"), "{said}");
    assert!(said.contains("wal fetch FAILED on a standby"), "{said}");
    assert!(!site.path().join("pgdata/pg_wal/RECOVERYXLOG").exists());
}

/// The startup process waits in `restore_command` while the store says nothing.
#[test]
fn a_fast_shutdown_does_not_wait_for_a_fetch_that_hangs() {
    let ground = Ground::new();
    let cluster = ground.cluster();
    cluster.stop(Stop::Fast);
    // Patient enough to outlast the test.
    let patience =
        "PGRECALL_REPOSITORY_S3_READ_TIMEOUT=100s PGRECALL_REPOSITORY_S3_RETRY_BUDGET=100s";
    let command = format!("{patience} {}", ground.restore_command());
    cluster.append_to("postgresql.conf", &format!("restore_command = '{command}'\n"));
    for signal in ["recovery.signal", "standby.signal"] {
        cluster.append_to(signal, "");
        let before = ground.server().requests().len();
        ground.server().meddle(|_| Meddle::Instead(Reply::Silence));
        cluster.spawn();
        cluster.wait_until("the fetch hangs", || ground.server().requests().len() > before);
        let began = Instant::now();
        cluster.stop(Stop::Fast);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{signal}: {took:?}\n{}", cluster.log());
        assert!(!cluster.log().contains("invalid checkpoint"), "{}", cluster.log());
        fs::remove_file(cluster.data_dir().join(signal)).expect("removed");
    }
    // It was stopped while it recovered, and is whole.
    ground.server().meddle(|_| Meddle::No);
    cluster.start();
    assert_eq!(cluster.psql("SELECT count(*) FROM t"), "5000");
}
