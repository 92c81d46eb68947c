//! A hot standby: whatever goes wrong with the repository, it streams on, starts again, and can be
//! promoted.

use pgrecall_testkit::postgres::{Cluster, Stop, majors};

use crate::site::{Site, switch};

fn standby_of(site: &Site, primary: &Cluster) -> Cluster {
    let standby = Cluster::standby_of_stopped(primary);
    let command = site.restore_command();
    standby.append_to("postgresql.conf", &format!("restore_command = '{command}'\n"));
    standby
        .append_to("postgresql.conf", "archive_mode = on\nwal_retrieve_retry_interval = 200ms\n");
    standby
}

fn insert_and_follow(primary: &Cluster, standby: &Cluster, n: u32) {
    primary.psql(&format!("INSERT INTO followed VALUES ({n})"));
    standby.wait_caught_up(primary);
    let found = standby.psql(&format!("SELECT count(*) FROM followed WHERE n = {n}"));
    assert_eq!(found, "1");
}

#[test]
fn a_standby_streams_on_without_the_repository_and_can_be_promoted() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        primary.psql("CREATE TABLE followed (n int)");
        let standby = standby_of(&site, &primary);
        standby.start();
        insert_and_follow(&primary, &standby, 1);
        let archived = switch(&primary);
        site.wait_archived(&primary, &archived);
        site.unmount();
        insert_and_follow(&primary, &standby, 2);
        primary.restart();
        insert_and_follow(&primary, &standby, 3);
        standby.restart();
        insert_and_follow(&primary, &standby, 4);
        assert!(standby.log().contains("wal fetch FAILED on a standby"), "{}", standby.log());
        primary.stop(Stop::Immediate);
        standby.promote();
        standby.psql("INSERT INTO followed VALUES (5)");
        assert_eq!(standby.psql("SELECT count(*) FROM followed"), "5");
        site.bring_back();
        site.wait_archived(&standby, "00000002.history");
    }
}

#[test]
fn a_standby_lives_from_the_archive_alone() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        primary.psql("CREATE TABLE followed (n int)");
        let standby = site.copy_of(&primary, "standby", "standby.signal");
        standby.append_to("postgresql.conf", "wal_retrieve_retry_interval = 200ms\n");
        standby.spawn();
        for n in 1..=3 {
            primary.psql(&format!("INSERT INTO followed VALUES ({n})"));
            let name = switch(&primary);
            site.wait_archived(&primary, &name);
        }
        standby.wait_until("the rows arrive", || {
            standby.try_psql("SELECT count(*) FROM followed").as_deref() == Ok("3")
        });
        assert!(!standby.log().contains("FAILED"), "{}", standby.log());
    }
}

#[test]
fn a_standby_goes_on_when_the_program_itself_breaks() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        primary.psql("CREATE TABLE followed (n int)");
        let standby = standby_of(&site, &primary);
        let good = site.restore_command();
        standby.start();
        let breaks = [
            (format!("PGRECALL_TEST_PANIC=early {good}"), "planted by"),
            (format!("PGRECALL_TEST_PANIC=late {good}"), "planted by"),
            (good.replace("wal fetch", "--no-such-flag wal fetch"), "wrong command line"),
            (good.replace("wal fetch", "--cluster other wal fetch"), "other"),
        ];
        for (n, (command, said)) in (1..).zip(&breaks) {
            let before = standby.log().len();
            standby.append_to("postgresql.conf", &format!("restore_command = '{command}'\n"));
            standby.restart();
            insert_and_follow(&primary, &standby, n);
            let log = standby.log().split_off(before);
            assert!(log.contains(said), "no {said:?} in:\n{log}");
            assert!(log.contains("wal fetch FAILED on a standby"), "{log}");
        }
        standby.promote();
    }
}

/// When the signal files are gone, PostgreSQL asks for the history of the timeline that it leaves.
#[test]
fn a_second_promotion_without_the_repository_keeps_the_whole_history() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        let second = standby_of(&site, &primary);
        second.start();
        primary.stop(Stop::Fast);
        second.promote();
        second.psql("CREATE TABLE followed (n int)");
        let third = standby_of(&site, &second);
        third.start();
        insert_and_follow(&second, &third, 1);
        second.stop(Stop::Immediate);
        site.unmount();
        third.promote();
        third.psql("INSERT INTO followed VALUES (2)");
        assert_eq!(third.psql("SELECT count(*) FROM followed"), "2");
        let history = third.data_dir().join("pg_wal/00000003.history");
        let history = std::fs::read_to_string(history).expect("the new timeline's history");
        let ancestors = history.lines().filter(|line| !line.trim().is_empty()).count();
        assert_eq!(ancestors, 2, "{history}");
        assert!(third.log().contains("at the end of recovery"), "{}", third.log());
    }
}
