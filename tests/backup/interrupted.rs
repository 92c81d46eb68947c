//! Backups that end before their time, and what the next one finds.

use pgrecall_testkit::postgres::Cluster;
use rustix::process::Signal;

use crate::ground::{
    Running, back_up, back_up_aloud, make_bulk, number, objects, restored, try_backup,
};
use crate::site::{Site, newest_major, wait_for};

/// A cluster with a table that does not compress away, and whose pages autovacuum leaves alone.
fn filled(site: &Site) -> Cluster {
    let cluster = site.primary(newest_major());
    cluster.psql(
        "CREATE TABLE t WITH (autovacuum_enabled = off) AS
           SELECT i AS id, md5(i::text) || md5((-i)::text) AS v FROM generate_series(1, 300000) i",
    );
    cluster
}

#[test]
fn a_signal_at_the_start_of_a_copy_ends_it_cleanly() {
    let site = Site::new();
    let cluster = filled(&site);
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
    let cluster = filled(&site);
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

#[test]
fn a_signal_ends_the_wait_for_the_checkpoint() {
    let site = Site::new();
    let cluster = filled(&site);
    cluster.psql("UPDATE t SET v = v || 'x'");
    // Spread over minutes.
    let backup = Running::begin(&site, &cluster, &[]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%backup_start%' \
                 AND pid <> pg_backend_pid()";
    cluster.wait_until("the backup waits", || cluster.psql(waits) == "1");
    backup.signal(Signal::INT);
    let began = std::time::Instant::now();
    let ended = backup.end();
    assert!(began.elapsed().as_secs() < 10, "it waited for the checkpoint");
    ended.expect_code(130);
    assert!(objects(&site, "intents").is_empty(), "{}", ended.stderr);
}

#[test]
fn what_a_killed_backup_stored_is_used_and_its_intent_does_not_stand_in_the_way() {
    let site = Site::new();
    let cluster = filled(&site);
    // The archive is gone after the copy, so that the killed one has stored everything.
    cluster.psql("ALTER SYSTEM SET archive_command = 'false'");
    cluster.reload();
    let backup = Running::begin(&site, &cluster, &["--fast-checkpoint"]);
    // An index names the packs; without it the next one would not know them.
    wait_for("the backup waits for WAL", || !objects(&site, "index").is_empty());
    backup.signal(Signal::KILL);
    assert_eq!(backup.end().code, None);
    assert!(!objects(&site, "intents").is_empty(), "it had no time to tidy");
    cluster.psql("ALTER SYSTEM RESET archive_command");
    cluster.reload();
    let (told, stderr) = back_up_aloud(&site, &cluster);
    assert!(stderr.contains("had died"), "{stderr}");
    assert!(number(&told, "new_bytes") < 4_000_000, "its packs serve: {told}");
    assert!(objects(&site, "intents").is_empty());
    let copy = restored(&site, newest_major(), "copy", &["--to-latest"]);
    assert_eq!(copy.psql("SELECT count(*), sum(id) FROM t"), "300000|45000150000");
}

#[test]
fn of_two_at_once_one_is_refused_and_one_is_whole() {
    let site = Site::new();
    let cluster = filled(&site);
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
