//! `check` names each setting with which WAL would be lost, a clone that archives into the same
//! place, and what it could not try.

use pgrecall_testkit::postgres::{Cluster, ClusterOptions, Stop, as_server_user};
use serde_json::Value;

use crate::checking::{check, line};
use crate::site::{Site, newest_major, switch};

/// Settings for one start of the server, the check that fails by them, and words of what it found
/// and of what it says to do.
struct Lossy {
    settings: &'static [(&'static str, &'static str)],
    check: &'static str,
    found: &'static str,
    mend: &'static str,
}

const LOSSY: &[Lossy] = &[
    Lossy {
        settings: &[("wal_level", "minimal"), ("archive_mode", "off"), ("max_wal_senders", "0")],
        check: "wal_level",
        found: "wal_level is minimal",
        mend: "Set wal_level = replica",
    },
    Lossy {
        settings: &[("full_page_writes", "off")],
        check: "full_page_writes",
        found: "full_page_writes is off",
        mend: "Set full_page_writes = on",
    },
    Lossy {
        settings: &[("archive_command", "")],
        check: "archive_command",
        found: "archive_command is empty",
        mend: "wal push %p",
    },
    Lossy {
        settings: &[("archive_command", ""), ("archive_library", "elsewhere")],
        check: "archive_command",
        found: "archive_library is elsewhere",
        mend: "Set archive_library = ''",
    },
];

#[test]
fn settings_that_lose_wal_are_told_each_with_what_to_set() {
    let site = Site::new();
    let server = site.primary(newest_major());
    let (code, said) = check(&site, &server);
    assert_eq!(code, Some(0), "{said:#}");
    server.stop(Stop::Fast);
    for lossy in LOSSY {
        let server = Cluster::adopt(server.major(), server.data_dir());
        for (name, value) in lossy.settings {
            server.override_setting(name, value);
        }
        server.start();
        let (code, said) = check(&site, &server);
        assert_eq!(code, Some(17), "{said:#}");
        let failed = line(&said, lossy.check, "fail");
        assert!(text(&failed["found"]).contains(lossy.found), "{failed:#}");
        assert!(text(&failed["mend"][0]).contains(lossy.mend), "{failed:#}");
        server.stop(Stop::Fast);
    }
}

#[test]
fn a_clone_that_archives_into_the_same_place_is_told() {
    let site = Site::new();
    let server = site.primary(newest_major());
    switch(&server);
    server.stop(Stop::Fast);
    let folder = site.scratch().path().join("clone");
    let mut copy = std::process::Command::new("cp");
    copy.arg("-a").arg(server.data_dir()).arg(&folder);
    assert!(as_server_user(copy).status().expect("cp runs").success());
    let clone = Cluster::adopt(server.major(), &folder);
    clone.start();
    clone.psql("CREATE TABLE of_the_clone (n int)");
    let taken = switch(&clone);
    site.wait_archived(&clone, &taken);
    clone.stop(Stop::Immediate);

    server.start();
    server.psql("CREATE TABLE of_the_server (n int)");
    let (code, said) = check(&site, &server);
    assert_eq!(code, Some(12), "{said:#}");
    let failed = line(&said, "archiving", "fail");
    let words = format!("what is stored as {taken} is not this server's segment");
    assert!(text(&failed["found"]).contains(&words), "{failed:#}");
    assert!(text(&failed["mend"][0]).contains("Another server archives"), "{failed:#}");
}

#[test]
fn what_a_standby_cannot_prove_is_told_as_not_tried() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    let standby = Cluster::standby_of_stopped(&primary);
    standby.append_to("postgresql.conf", "archive_mode = on\n");
    standby.start();
    let (code, said) = check(&site, &standby);
    assert_eq!(code, Some(0), "{said:#}");
    let told = line(&said, "archiving", "warn");
    assert!(text(&told["found"]).contains("NOT TRIED: the server is a standby"), "{told:#}");
    assert!(text(&told["mend"][0]).contains("on the primary"), "{told:#}");
}

#[test]
fn a_repository_that_is_not_pinned_is_told() {
    let site = Site::new();
    let server = site.primary(newest_major());
    let config = std::fs::read_to_string(site.config()).expect("a configuration");
    let unpinned: Vec<&str> = config.lines().filter(|line| !line.starts_with("id =")).collect();
    assert!(unpinned.len() < config.lines().count(), "{config}");
    std::fs::write(site.config(), unpinned.join("\n")).expect("a configuration");
    let (_, said) = check(&site, &server);
    let told = line(&said, "repository", "warn");
    assert!(text(&told["found"]).contains("does not pin the repository's id"), "{told:#}");
    assert!(text(&told["mend"][0]).contains("Put id and key_fingerprint"), "{told:#}");
}

#[test]
fn an_idle_server_without_archive_timeout_is_told() {
    let site = Site::new();
    let command = site.archive_command();
    let server = Cluster::create(ClusterOptions::new(newest_major()).archive_command(&command));
    server.psql("ALTER SYSTEM SET archive_timeout = 0");
    server.reload();
    let (code, said) = check(&site, &server);
    assert_eq!(code, Some(0), "{said:#}");
    let told = line(&said, "archive_timeout", "warn");
    assert!(text(&told["mend"][0]).contains("Set archive_timeout = 60"), "{told:#}");
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
