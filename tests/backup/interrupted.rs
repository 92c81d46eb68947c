//! Backups that end before their time, and what the next one finds.

use pgrecall_testkit::postgres::{Cluster, majors};
use rustix::process::Signal;

use crate::ground::{
    Running, back_up, back_up_aloud, make_bulk, number, objects, restored, try_backup,
};
use crate::site::{Site, newest_major, switch};

/// A cluster with a table that does not compress away, and whose pages autovacuum leaves alone.
fn filled(site: &Site, major: u32) -> Cluster {
    let cluster = site.primary(major);
    cluster.psql(
        "CREATE TABLE t WITH (autovacuum_enabled = off) AS
           SELECT i AS id, md5(i::text) || md5((-i)::text) AS v FROM generate_series(1, 300000) i",
    );
    cluster
}

#[test]
fn a_signal_at_the_start_of_a_copy_ends_it_cleanly() {
    let site = Site::new();
    let cluster = filled(&site, newest_major());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let backup = Running::held_in_the_middle(&site, &cluster);
        backup.signal(signal);
        backup.signal(Signal::CONT);
        let ended = backup.end();
        ended.expect_code(code);
        assert!(ended.stderr.contains("stopped as asked"), "{}", ended.stderr);
        assert!(objects(&site, "backups").is_empty());
        assert!(objects(&site, "intents").is_empty(), "no intent stays");
    }
    back_up(&site, &cluster);
    let copy = restored(&site, newest_major(), "copy", &["--to-latest"]);
    assert_eq!(copy.psql("SELECT count(*), sum(id) FROM t"), "300000|45000150000");
}

#[test]
fn a_signal_in_the_middle_of_a_copy_ends_it_cleanly_and_its_packs_serve_the_next() {
    let site = Site::new();
    let cluster = filled(&site, newest_major());
    back_up(&site, &cluster);
    for (signal, code, table) in [(Signal::INT, 130, "one"), (Signal::TERM, 143, "two")] {
        make_bulk(&cluster, table);
        let size = format!("SELECT pg_relation_size('{table}')");
        let size: u64 = cluster.psql(&size).parse().expect("a size");
        let packs = objects(&site, "packs").len();
        let backup = Running::held_after_a_pack(&site, &cluster);
        backup.signal(signal);
        backup.signal(Signal::CONT);
        let ended = backup.end();
        assert!(ended.expect_code(code).stderr.contains("stopped as asked"), "{}", ended.stderr);
        assert!(objects(&site, "intents").is_empty(), "no intent stays");
        assert!(objects(&site, "packs").len() > packs, "its packs stay");
        let (told, stderr) = back_up_aloud(&site, &cluster);
        let new = number(&told, "new_bytes");
        // A pack has 32 MiB.
        assert!(new < size - (30 << 20), "{new} of {size} bytes are stored anew: {told}");
        assert!(!stderr.contains("had died"), "{stderr}");
    }
    let copy = restored(&site, newest_major(), "copy", &["--to-latest"]);
    for table in ["one", "two"] {
        let sql = format!("SELECT count(*), sum(id) FROM {table}");
        assert_eq!(copy.psql(&sql), "350000|61250175000");
    }
}

/// What the log says of a checkpoint that is not spread (`LogCheckpointStart`, xlog.c).
const FAST: &str = "immediate";

/// The words of the server's log on the checkpoints that backups have asked for since then.
fn checkpoints(cluster: &Cluster, since: usize) -> Vec<String> {
    let log = cluster.log().split_off(since);
    let asked = log.lines().filter_map(|line| line.split_once("checkpoint starting: "));
    asked.map(|(_, how)| how.to_owned()).filter(|how| how.contains("force wait")).collect()
}

#[test]
fn a_spread_checkpoint_is_waited_for_and_a_signal_ends_the_wait() {
    for major in majors() {
        spread_and_fast(major);
    }
}

fn spread_and_fast(major: u32) {
    let site = Site::new();
    let cluster = filled(&site, major);
    cluster.psql("UPDATE t SET v = v || 'x'");
    let since = cluster.log().len();
    // Spread over minutes.
    let backup = Running::begin(&site, &cluster, &[]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'backup_start|start_backup' \
                 AND pid <> pg_backend_pid()";
    cluster.wait_until("the backup waits", || cluster.psql(waits) == "1");
    // A request that the checkpointer has not taken up yet is one with the next.
    cluster.wait_until("the checkpoint begins", || !checkpoints(&cluster, since).is_empty());
    backup.signal(Signal::INT);
    let began = std::time::Instant::now();
    let ended = backup.end();
    assert!(began.elapsed().as_secs() < 10, "it waited for the checkpoint");
    ended.expect_code(130);
    assert!(objects(&site, "intents").is_empty(), "{}", ended.stderr);

    // Spread over a second or two.
    cluster.psql("ALTER SYSTEM SET checkpoint_timeout = '30s'");
    cluster.psql("ALTER SYSTEM SET checkpoint_completion_target = 0.05");
    cluster.reload();
    cluster.psql("UPDATE t SET v = v || 'y'");
    try_backup(&site, &cluster, &[]).expect_code(0);
    let spread = checkpoints(&cluster, since);
    assert!(spread.len() > 1 && !spread.iter().any(|how| how.contains(FAST)), "{spread:?}");
    let since = cluster.log().len();
    back_up(&site, &cluster);
    let fast = checkpoints(&cluster, since);
    assert!(!fast.is_empty() && fast.iter().all(|how| how.contains(FAST)), "{fast:?}");

    let flags = ["--to-immediate", "--action", "promote"];
    let copy = restored(&site, major, "copy", &flags);
    assert_eq!(
        copy.psql("SELECT count(*), count(*) FILTER (WHERE v LIKE '%xy') FROM t"),
        "300000|300000"
    );
}

/// The archive is gone, so that what ends meanwhile ends while it waits for WAL.
#[test]
fn what_a_backup_stored_that_ended_while_it_waited_for_wal_is_used() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    for (signal, code, table) in [(Signal::TERM, Some(143), "one"), (Signal::KILL, None, "two")] {
        make_bulk(&cluster, table);
        site.wait_archived(&cluster, &switch(&cluster));
        cluster.psql("ALTER SYSTEM SET archive_command = 'false'");
        cluster.reload();
        let mut backup = Running::begin(&site, &cluster, &["--fast-checkpoint"]);
        backup.wait_said("waiting for WAL");
        let began = std::time::Instant::now();
        backup.signal(signal);
        let ended = backup.end();
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(began.elapsed().as_secs() < 10, "it waited on");
        let had_time = signal == Signal::TERM;
        assert_eq!(ended.stderr.contains("stopped as asked"), had_time, "{}", ended.stderr);
        assert_eq!(objects(&site, "intents").is_empty(), had_time, "{}", ended.stderr);
        cluster.psql("ALTER SYSTEM RESET archive_command");
        cluster.reload();
        let (told, stderr) = back_up_aloud(&site, &cluster);
        assert_eq!(stderr.contains("had died"), !had_time, "{stderr}");
        assert!(number(&told, "new_bytes") < 4_000_000, "its packs serve: {told}");
        assert!(objects(&site, "intents").is_empty());
    }
    let copy = restored(&site, newest_major(), "copy", &["--to-latest"]);
    for table in ["one", "two"] {
        let sql = format!("SELECT count(*), sum(id) FROM {table}");
        assert_eq!(copy.psql(&sql), "350000|61250175000");
    }
}

#[test]
fn of_two_at_once_one_is_refused_and_one_is_whole() {
    let site = Site::new();
    let cluster = filled(&site, newest_major());
    let first = Running::held_in_the_middle(&site, &cluster);
    let second = try_backup(&site, &cluster, &["--fast-checkpoint"]);
    assert_ne!(second.code, Some(0));
    assert!(second.stderr.contains("is under way"), "{}", second.stderr);
    assert!(!second.stderr.contains("remove the object"), "{}", second.stderr);
    first.signal(Signal::CONT);
    first.end().expect_code(0);
    let again = back_up(&site, &cluster);
    assert!(number(&again, "new_bytes") < 4_000_000, "{again}");
}
