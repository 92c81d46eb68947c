//! `check` proves the path of a segment into the repository and back, and says what to mend.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use pgrecall_testkit::postgres::{Cluster, ClusterOptions, majors};
use serde_json::Value;

use crate::site::{Site, newest_major, own_all};

/// What `check --json` said, with its exit code.
pub(crate) fn check(site: &Site, cluster: &Cluster) -> (Option<i32>, Value) {
    let data = cluster.data_dir();
    let words = ["check", "--json", "--pgdata", data.to_str().expect("UTF-8")];
    let output = site.pgrecall(data, &words).output().expect("pgrecall runs");
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    // Whatever is wrong, it says what to do about it.
    for line in said["lines"].as_array().expect("lines") {
        let mend = line["mend"].as_array().expect("what to mend");
        assert!(line["verdict"] == "pass" || !mend.is_empty(), "{line:#}");
    }
    (output.status.code(), said)
}

/// The line of one check.
pub(crate) fn line<'a>(said: &'a Value, check: &str, verdict: &str) -> &'a Value {
    let lines = said["lines"].as_array().expect("lines");
    let found = lines.iter().find(|line| line["check"] == check && line["verdict"] == verdict);
    found.unwrap_or_else(|| panic!("no {verdict} of {check} in {said:#}"))
}

#[test]
fn a_segment_goes_into_the_repository_and_comes_back_on_every_version() {
    for major in majors() {
        let site = Site::new();
        let primary = site.primary(major);
        for _ in 0..2 {
            let (code, said) = check(&site, &primary);
            assert_eq!(code, Some(0), "{said:#}");
            assert_eq!(said["passed"], true);
            line(&said, "archive_command", "pass");
            line(&said, "archiving", "pass");
            line(&said, "store", "pass");
            let fetched = line(&said, "restore_command", "pass");
            assert!(fetched["found"].as_str().expect("text").contains("came back"), "{said:#}");
            let keys = line(&said, "keys", "warn");
            assert!(keys["found"].as_str().expect("text").contains("only key"), "{said:#}");
            let command = said["restore_command"].as_str().expect("a restore_command");
            assert!(command.contains("wal fetch %f \"%p\""), "{command}");
        }
    }
}

#[test]
fn a_server_that_does_not_archive_is_told_how_to() {
    let site = Site::new();
    let server = Cluster::create(ClusterOptions::new(newest_major()));
    let (code, said) = check(&site, &server);
    assert_eq!(code, Some(17), "{said:#}");
    assert_eq!(said["passed"], false);
    let mend = line(&said, "archive_command", "fail")["mend"][0].as_str().expect("text").to_owned();
    assert!(mend.contains("archive_mode = on") && mend.contains("wal push %p"), "{mend}");

    let elsewhere =
        Cluster::create(ClusterOptions::new(newest_major()).archive_command("test -f %p"));
    let (code, said) = check(&site, &elsewhere);
    assert_eq!(code, Some(18), "{said:#}");
    // A script may call pgrecall: what arrives is the proof, and nothing does.
    line(&said, "archive_command", "warn");
    line(&said, "archiving", "fail");
}

#[test]
fn a_failing_archive_command_is_told_with_the_archivers_own_account() {
    let site = Site::new();
    let command = format!("false && {}", site.archive_command());
    let server = Cluster::create(ClusterOptions::new(newest_major()).archive_command(&command));
    let (code, said) = check(&site, &server);
    assert_eq!(code, Some(18), "{said:#}");
    let found = line(&said, "archiving", "fail")["found"].as_str().expect("text").to_owned();
    assert!(found.contains("did not arrive"), "{found}");
    assert!(found.contains("archive_command failed"), "{found}");
}

/// A second place for the same repository: what is pushed there is spoilt, and only then moved to
/// where `check` looks for it.
fn spoiling(site: &Site, shadow: &Site) -> String {
    let script = format!(
        "#!/bin/sh\nset -e\n{push}\ncd {shadow}\nobject=$(find clusters -name \"$2\")\n\
         chmod u+w \"$object\"\n\
         printf 'spoilt' | dd of=\"$object\" bs=1 seek=400 conv=notrunc 2>/dev/null\n\
         mkdir -p \"{real}/${{object%/*}}\"\nmv \"$object\" \"{real}/$object\"\n",
        push = shadow.archive_command().replace("%p", "\"$PWD/$1\""),
        shadow = shadow.repository().display(),
        real = site.repository().display(),
    );
    let path = site.scratch().file("spoil", script.as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    format!("{} %p %f", path.display())
}

#[test]
fn a_segment_that_does_not_come_back_is_told_with_the_command_to_try() {
    let site = Site::new();
    let server = site.primary(newest_major());
    let (code, said) = check(&site, &server);
    assert_eq!(code, Some(0), "{said:#}");
    let shadow = site.over_copy(|to| {
        let copied = Command::new("cp").arg("-r").arg(site.repository()).arg(to).status();
        assert!(copied.expect("cp runs").success());
    });
    let command = spoiling(&site, &shadow);
    server.psql(&format!("ALTER SYSTEM SET archive_command = '{command}'"));
    server.reload();
    server.wait_until("the command is in force", || server.psql("SHOW archive_command") == command);
    let (code, said) = check(&site, &server);
    assert_eq!(code, Some(15), "{said:#}");
    assert_eq!(said["passed"], false);
    line(&said, "archiving", "pass");
    let failed = line(&said, "restore_command", "fail");
    let found = failed["found"].as_str().expect("text");
    assert!(found.contains("it ended with exit status: 126"), "{found}");
    assert!(found.contains("does not open") || found.contains("damaged"), "{found}");
    let mend = failed["mend"][0].as_str().expect("text");
    assert!(mend.contains("Run it by hand in the data directory"), "{mend}");
    assert!(mend.contains(" wal fetch 0000000100000000000000"), "{mend}");
}

#[test]
fn a_store_that_cannot_be_written_is_told_with_the_rights_that_lack() {
    let site = Site::new();
    let server = site.primary(newest_major());
    let folder = site.repository().join("store");
    std::fs::create_dir(&folder).expect("where the probe tries");
    own_all(site.repository());
    let mode = |mode| {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    mode(0o555);
    let (code, said) = check(&site, &server);
    mode(0o755);
    assert_eq!(code, Some(16), "{said:#}");
    let failed = line(&said, "store", "fail");
    assert!(failed["found"].as_str().expect("text").contains("permission denied"), "{said:#}");
    let mend = failed["mend"][0].as_str().expect("text");
    assert!(mend.contains("needs read and write rights on its folders"), "{mend}");
    // What else can be tried is tried.
    line(&said, "restore_command", "pass");
}

#[test]
fn a_server_that_is_down_and_a_repository_that_is_gone_are_both_told() {
    let site = Site::new();
    let server = Cluster::create_stopped(ClusterOptions::new(newest_major()));
    let (code, said) = check(&site, &server);
    assert_eq!(code, Some(15), "{said:#}");
    line(&said, "repository", "pass");
    line(&said, "server", "fail");
    site.unmount();
    let (code, said) = check(&site, &server);
    assert_eq!(code, Some(10), "{said:#}");
    line(&said, "repository", "fail");
    line(&said, "server", "fail");
    site.bring_back();
}
