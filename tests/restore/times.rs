//! Times that are hard to meet: in an idle hour, within a backup, beyond the WAL, the very time of
//! a commit, and one between commits whose times run backwards.

use std::path::Path;

use pgrecall_pgformat::{Lsn, Timestamp};
use pgrecall_testkit::commit_log::{CommitLog, Inclusion, Target, sql_timestamp};
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, majors};
use pgrecall_testkit::workload::{Workload, WorkloadOptions};
use rustix::process::Signal;
use serde_json::Value;

use crate::fresh::{Restored, plan, planned};
use crate::ground::{Running, back_up};
use crate::site::{Site, switch};

/// A primary with clients at work, and a backup.
fn busy(site: &Site, major: u32) -> (Cluster, Workload) {
    let primary = site.primary(major);
    let workload = at_work(site, &primary);
    (primary, workload)
}

fn at_work(site: &Site, primary: &Cluster) -> Workload {
    let workload = Workload::start(primary, &WorkloadOptions::new(3));
    workload.wait_commits(50);
    back_up(site, primary);
    workload.wait_commits(50);
    workload
}

/// Archives the segment that is being written, without a commit.
fn archive(site: &Site, primary: &Cluster) {
    let last = primary.psql("SELECT pg_walfile_name(pg_switch_wal())");
    site.wait_archived(primary, &last);
}

/// A plan and a restore to this time are refused, before a byte is written, with these words.
fn assert_refused(site: &Site, flags: &[&str], code: i32, said: &[&str]) -> String {
    let dir = site.scratch().path().join("refused");
    let text = dir.to_string_lossy().into_owned();
    let mut stderr = String::new();
    for command in [vec!["plan"], vec!["restore", &text, "--as", "copy"]] {
        let words = [command.as_slice(), flags].concat();
        let refused = site.run(Path::new("/"), &words);
        refused.expect_code(code);
        for part in said {
            assert!(refused.stderr.contains(part), "{words:?}: {}", refused.stderr);
        }
        assert!(!dir.exists(), "{words:?}: something was written");
        stderr = refused.stderr;
    }
    stderr
}

#[test]
fn a_time_in_an_idle_hour_gives_what_was_before_it() {
    for major in majors() {
        let site = Site::new();
        let (primary, workload) = busy(&site, major);
        workload.pause();
        let idle = workload.mark(&primary);
        let time = sql_timestamp(idle.time);
        // A checkpoint tells whole seconds: one that began in a later second shows that WAL covers it.
        let later = format!("SELECT checkpoint_time > '{time}' FROM pg_control_checkpoint()");
        primary.wait_until("a checkpoint is later", || {
            primary.psql("CHECKPOINT");
            primary.psql(&later) == "t"
        });
        archive(&site, &primary);
        let flags = ["--to-time", time.as_str()];
        let nothing_follows = Restored::started(&site, major, "copy", &flags);
        workload.go_on();
        workload.wait_commits(50);
        let log = workload.finish(&primary);
        site.wait_archived(&primary, &switch(&primary));
        let commits_follow = Restored::started(&site, major, "copy", &flags);
        let target = Target::Time(idle.time, Inclusion::Inclusive);
        let before = log.expected_at(&target).must_have;
        assert_ne!(before, log.expected_at(&Target::Latest).must_have);
        assert_eq!(before, log.expected_at(&Target::Before(idle.lsn)).must_have);
        for copy in [nothing_follows, commits_follow] {
            copy.wait_until_paused();
            log.assert_equals(&copy, &target);
        }
    }
}

#[test]
fn a_time_within_a_backup_is_served_by_an_older_one_or_refused() {
    for major in majors() {
        let site = Site::new();
        let (primary, workload) = busy(&site, major);
        let older = plan(&site, &["--to-immediate"])["backup"]["id"].clone();
        let backup = Running::held_in_the_middle(&site, &primary);
        workload.wait_commits(30);
        let within = workload.mark(&primary);
        workload.wait_commits(30);
        backup.signal(Signal::CONT);
        backup.end().expect_code(0);
        let log = workload.finish(&primary);
        site.wait_archived(&primary, &switch(&primary));
        let newer = plan(&site, &["--to-immediate"])["backup"]["id"].clone();
        assert_ne!(older, newer);

        let time = sql_timestamp(within.time);
        let within_it = format!("the target lies within backup {}", newer.as_str().expect("an id"));
        let said =
            [within_it.as_str(), "which is consistent from", "no older backup gets to the target"];
        assert_refused(&site, &["--to-time", &time, "--backup", "latest"], 18, &said);
        let flags = ["--to-time", time.as_str()];
        assert_eq!(plan(&site, &flags)["backup"]["id"], older);
        let copy = Restored::started(&site, major, "copy", &flags);
        copy.wait_until_paused();
        log.assert_equals(&copy, &Target::Time(within.time, Inclusion::Inclusive));
    }
}

#[test]
fn what_was_before_the_first_backup_is_refused() {
    for major in majors() {
        let site = Site::new();
        let (primary, workload) = busy(&site, major);
        let log = workload.finish(&primary);
        site.wait_archived(&primary, &switch(&primary));
        let first = log.commits()[0].record.expect("a record");
        let said = [
            "the target lies before the first backup that could be used",
            "hint: The earliest moment that can be reached is the end of that backup: ",
        ];
        let (time, lsn) = (sql_timestamp(first.time), first.start.to_string());
        for flags in [["--to-time", &time], ["--to-lsn", &lsn]] {
            assert_refused(&site, &flags, 18, &said);
        }
    }
}

#[test]
fn a_time_beyond_the_wal_is_refused_and_the_latest_one_that_is_told_works() {
    for major in majors() {
        let site = Site::new();
        let (primary, workload) = busy(&site, major);
        workload.pause();
        let idle = workload.mark(&primary);
        archive(&site, &primary);
        let log = workload.finish(&primary);
        let hour = Timestamp::from_unix_micros(idle.time.to_unix_micros() + 3_600_000_000);
        let said = [
            "the stored WAL does not reach the target",
            "The latest time that can be asked for is",
        ];
        assert_refused(&site, &["--to-time", &sql_timestamp(hour)], 18, &said);
        // No transaction is later, and yet nobody knows: the WAL ends with the last one.
        let told = assert_refused(&site, &["--to-time", &sql_timestamp(idle.time)], 18, &said);
        let (_, latest) = told.split_once("can be asked for is ").expect("a hint");
        let (latest, _) = latest.split_once("+00.").expect("a time");
        let flags = ["--to-time", &format!("{latest}+00")];
        let copy = Restored::started(&site, major, "copy", &flags);
        copy.wait_until_paused();
        log.assert_equals(&copy, &Target::Latest);
    }
}

/// The time of a commit that a target at that time keeps or leaves out as asked. Where a later
/// time stands before it in the WAL, recovery ends there either way: another commit is chosen.
fn parted(log: &CommitLog, after: Lsn) -> (Timestamp, Target, Target) {
    let records = log.commits().into_iter().filter_map(|commit| commit.record);
    let mut times: Vec<_> =
        records.filter(|record| record.start > after).map(|record| record.time).collect();
    let half = times.split_off(times.len() / 2);
    let targets = half.into_iter().map(|time| {
        let at = |inclusion| Target::Time(time, inclusion);
        (time, at(Inclusion::Inclusive), at(Inclusion::Exclusive))
    });
    let mut parted =
        targets.filter(|(_, kept, left_out)| log.expected_at(kept) != log.expected_at(left_out));
    parted.next().expect("a commit later than all before it")
}

#[test]
fn the_very_time_of_a_commit_is_kept_or_left_out_as_asked() {
    for major in majors() {
        let site = Site::new();
        let (primary, workload) = busy(&site, major);
        let backup_end = primary.psql("SELECT pg_current_wal_lsn()").parse().expect("an LSN");
        workload.wait_commits(50);
        let log = workload.finish(&primary);
        site.wait_archived(&primary, &switch(&primary));
        let (chosen, kept, left_out) = parted(&log, backup_end);
        let time = sql_timestamp(chosen);
        for (flags, target) in
            [(vec!["--to-time", &time], kept), (vec!["--to-time", &time, "--exclusive"], left_out)]
        {
            let copy = Restored::started(&site, major, "copy", &flags);
            copy.wait_until_paused();
            log.assert_equals(&copy, &target);
        }
    }
}

/// Two neighbours in the WAL, of which the second one ended earlier, by their times.
fn inversion(log: &CommitLog, after: Lsn) -> (Timestamp, Timestamp) {
    let mut backwards = log.ends().windows(2).filter(|pair| pair[0].time > pair[1].time);
    let found = backwards.find(|pair| pair[0].start > after);
    found.map(|pair| (pair[0].time, pair[1].time)).unwrap_or_else(|| {
        panic!("the times of {} transactions rise with the WAL", log.ends().len())
    })
}

/// A commit takes its time first and its place in the WAL then. Where many clients wait for each
/// other in between, since rows are large and the WAL has few buffers, some overtake others.
fn crowd(primary: &Cluster) {
    primary.psql(
        "CREATE TABLE crowd (id bigserial, client int, v text);
         ALTER TABLE crowd ALTER v SET STORAGE PLAIN",
    );
    let small = "INSERT INTO crowd (client) VALUES (:client_id);";
    let large = "INSERT INTO crowd (client, v)
        SELECT :client_id, repeat('x', 7000) FROM generate_series(1, 5);";
    let mut pgbench = primary.client_tool("pgbench");
    pgbench.args(["--no-vacuum", "--client=32", "--jobs=2", "--transactions=100"]);
    for (name, script, weight) in [("small.sql", small, 5), ("large.sql", large, 1)] {
        let script = primary.scratch().file(name, script.replace('\n', " ").as_bytes());
        pgbench.arg(format!("--file={}@{weight}", script.display()));
    }
    let output = pgbench.arg("postgres").output().expect("pgbench runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const ROWS: &str = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM pgrecall_workload t;
    SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM crowd t";

#[test]
fn where_times_run_backwards_the_plan_stops_where_postgresql_does() {
    for major in majors() {
        let site = Site::new();
        let options = ClusterOptions::new(major)
            .archive_command(&site.archive_command())
            .setting("wal_buffers", "32kB");
        let primary = Cluster::create(options);
        let workload = at_work(&site, &primary);
        let from = workload.mark(&primary).lsn;
        crowd(&primary);
        let log = workload.finish(&primary);
        site.wait_archived(&primary, &switch(&primary));
        let (first, second) = inversion(&log, from);
        for (name, time, inclusion) in [
            // The second one is left out, though it had committed by then.
            ("second", second, Inclusion::Inclusive),
            ("first", first, Inclusion::Inclusive),
            ("before-first", first, Inclusion::Exclusive),
        ] {
            let text = sql_timestamp(time);
            let mut flags = vec!["--to-time", text.as_str(), "--action", "promote"];
            let mut settings =
                format!("recovery_target_time = '{text}'\nrecovery_target_action = 'promote'\n");
            if inclusion == Inclusion::Exclusive {
                flags.push("--exclusive");
                settings.push_str("recovery_target_inclusive = off\n");
            }
            let left_out = plan(&site, &planned(&flags))["first_left_out"].clone();
            let theirs = Restored::by_postgresql(&site, major, name, &settings);
            theirs.start();
            let ours = Restored::started(&site, major, name, &flags);
            for copy in [&theirs, &ours] {
                copy.wait_until_recovered();
                log.assert_equals(copy, &Target::Time(time, inclusion));
            }
            assert_eq!(ours.psql(ROWS), theirs.psql(ROWS), "{name}");
            let stopped = format!(
                "recovery stopping before {} of transaction {},",
                word(&left_out),
                left_out["xid"]
            );
            assert!(theirs.log().contains(&stopped), "{stopped}: {}", theirs.log());
        }
    }
}

/// What PostgreSQL calls the end of a transaction.
fn word(end: &Value) -> &'static str {
    match end["outcome"].as_str() {
        Some(outcome) if outcome.contains("commit") => "commit",
        Some(_) => "abort",
        None => panic!("{end}"),
    }
}
