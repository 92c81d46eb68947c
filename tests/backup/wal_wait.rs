//! WAL that does not arrive: the backup is not committed, and says what the archiver is doing.

use pgrecall_testkit::postgres::{Cluster, majors};

use crate::ground::{back_up, objects, try_backup};
use crate::site::{Site, switch};

/// A server whose archive_command is another from now on.
fn archiving_by(site: &Site, major: u32, command: &str) -> Cluster {
    let cluster = site.primary(major);
    set(&cluster, command);
    cluster
}

fn set(cluster: &Cluster, command: &str) {
    cluster.psql(&format!("ALTER SYSTEM SET archive_command = '{command}'"));
    cluster.reload();
    cluster.wait_until("the setting is in force", || {
        cluster.psql("SELECT current_setting('archive_command')") == command
            || command.is_empty()
                && cluster.psql("SELECT current_setting('archive_command')") == "(disabled)"
    });
}

#[track_caller]
fn expect(site: &Site, cluster: &Cluster, said: &[&str]) {
    let run = try_backup(site, cluster, &["--fast-checkpoint", "--wal-timeout", "2s"]);
    run.expect_code(18);
    let always = ["did not arrive within 2 s", "not committed"];
    for part in always.iter().chain(said) {
        assert!(run.stderr.contains(part), "no {part:?} in {}", run.stderr);
    }
    assert!(objects(site, "backups").is_empty() && objects(site, "intents").is_empty());
    // What was copied serves the next try.
    assert!(!objects(site, "packs").is_empty());
}

#[test]
fn a_command_that_fails_is_told_with_its_file_and_count() {
    for major in majors() {
        let site = Site::new();
        let cluster = archiving_by(&site, major, "false");
        let said = [
            "the server's last try to archive, of 0000000100000000000000",
            "failures so far)",
            "hint: The server's log has what archive_command printed",
        ];
        expect(&site, &cluster, &said);
    }
}

#[test]
fn a_server_without_a_command_is_told_to_have_archived_nothing() {
    for major in majors() {
        let site = Site::new();
        let cluster = archiving_by(&site, major, "");
        let said = [
            "the server has archived nothing since it started",
            "hint: Set archive_mode = on and archive_command to `pgrecall wal push %p`",
        ];
        expect(&site, &cluster, &said);
    }
}

#[test]
fn a_slow_archiver_is_told_with_the_last_file_that_arrived() {
    for major in majors() {
        let site = Site::new();
        let cluster = site.primary(major);
        let last = switch(&cluster);
        site.wait_archived(&cluster, &last);
        let waits = format!("sleep 8; {}", site.archive_command());
        set(&cluster, &waits);
        let said = [
            format!("the last one archived was {last}"),
            "hint: If WAL is written faster than it is archived, wait longer (--wal-timeout)"
                .into(),
        ];
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        expect(&site, &cluster, &said);
        set(&cluster, &site.archive_command());
        back_up(&site, &cluster);
    }
}

/// `archive_command = 'true'`, another tool, or another repository.
#[test]
fn a_command_that_archives_elsewhere_is_found_out() {
    for major in majors() {
        let site = Site::new();
        let cluster = archiving_by(&site, major, "true");
        let said = [
            "by its own account the server has archived it",
            "hint: archive_command succeeds without storing anything in this repository",
        ];
        expect(&site, &cluster, &said);
    }
}
