//! What a backup and a restore show of their progress: a bar on a terminal, log lines elsewhere. And
//! what a restore asks for: on a terminal, and nowhere else.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use pgrecall_testkit::cluster_check::CheckedCluster;
use pgrecall_testkit::postgres::{Cluster, as_server_user};

use crate::fresh::fresh_copy;
use crate::ground::{back_up, make_bulk};
use crate::site::{Site, newest_major};

/// A backup that takes some seconds: slow to compress, on one thread.
fn slow_backup(site: &Site, cluster: &Cluster) -> Command {
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    let words = ["--pgdata", &pgdata, "backup", "--fast-checkpoint", "--threads", "1"];
    let mut command = site.pgrecall(Path::new("/"), &words);
    command.env("PGRECALL_BACKUP_COMPRESSION_LEVEL", "19");
    command
}

/// Runs the same command on a terminal of its own, made by util-linux' `script`, where somebody
/// types this.
fn on_a_terminal(command: &Command, typed: &str) -> (Output, String) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().expect("UTF-8")).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    script.env("TERM", "xterm").current_dir("/");
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = as_server_user(script).spawn().expect("script runs (util-linux)");
    let mut stdin = script.stdin.take().expect("a pipe");
    stdin.write_all(typed.as_bytes()).expect("typed");
    drop(stdin);
    let shown = script.wait_with_output().expect("an end");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    (shown, text)
}

/// A bar with what is done, a rate and an end was shown, no log lines of it, and nothing of it after
/// the last words.
fn assert_bar(shown: &str, phase: &str, last_words: &str) {
    let begins = format!("{phase} [");
    let bars: Vec<&str> = shown.split(['\r', '\n']).filter(|line| line.contains(&begins)).collect();
    let whole = |line: &&&str| line.contains(" of ") && line.contains("/s, ");
    let bar = bars.iter().filter(whole).find(|line| line.contains(" left"));
    assert!(bar.is_some(), "no bar with a rate and an end: {shown:?}");
    assert!(!shown.contains(&format!("INFO  {phase}")), "lines beside the bar: {shown}");
    let (_, last) = shown.rsplit_once(last_words).unwrap_or_else(|| panic!("{shown}"));
    assert!(!last.contains(&begins), "the bar stays behind: {shown:?}");
}

/// A log says where it begins, and has nothing that is for terminals.
fn assert_lines(logged: &str, phase: &str) {
    let begins = format!("INFO  {phase}: 0 B of ");
    let line = logged.lines().find(|line| line.contains(&begins));
    assert!(line.is_some_and(|line| line.ends_with(" (0 %)")), "{logged}");
    assert!(
        !logged.contains('\r') && !logged.contains('\u{1b}'),
        "no terminal, no bar: {logged:?}"
    );
}

#[test]
fn a_terminal_gets_a_bar_with_rate_and_end_and_a_log_gets_lines() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    let mut command = slow_backup(&site, &cluster);
    let (shown, text) = on_a_terminal(&command, "");
    assert!(shown.status.success(), "{text}");
    assert_bar(&text, "copying files", "backup complete:");
    let logged = command.output().expect("pgrecall runs");
    let text = String::from_utf8_lossy(&logged.stderr).into_owned();
    assert!(logged.status.success(), "{text}");
    assert_lines(&text, "copying files");
    a_restore_asks_and_shows_where_there_is_a_terminal(&site, &cluster);
}

fn a_restore_asks_and_shows_where_there_is_a_terminal(site: &Site, cluster: &Cluster) {
    make_bulk(cluster, "bulk");
    back_up(site, cluster);
    let fresh = fresh_copy(site, &["--to-immediate"]);
    let dir = fresh.scratch().path().join("copy");
    let text = dir.to_string_lossy().into_owned();
    // One thread is slow enough for a bar to be seen.
    let words = ["restore", &text, "--to-immediate", "--action", "promote", "--threads", "1"];
    let refused = fresh.run(Path::new("/"), &words);
    refused.expect_code(2);
    for role in ["copy", "primary", "standby"] {
        assert!(refused.stderr.contains(&format!("hint: --as {role}: ")), "{}", refused.stderr);
    }
    let command = fresh.pgrecall(Path::new("/"), &words);
    let (shown, text) = on_a_terminal(&command, "clone\n");
    assert_eq!(shown.status.code(), Some(2), "{text}");
    assert!(text.contains("What is it to be: copy, primary or standby? "), "{text}");
    assert!(text.contains("--as copy: a second server"), "{text}");
    assert!(!dir.exists(), "refused before a byte is written");

    let (shown, text) = on_a_terminal(&command, "copy\n");
    assert!(shown.status.success(), "{text}");
    assert_bar(&text, "restoring files", "Restored ");
    let copy = CheckedCluster::adopt(cluster.major(), &dir);
    copy.start();
    copy.wait_until_recovered();
    assert_eq!(copy.psql("SHOW archive_mode"), "off", "it is a copy");
    assert_eq!(copy.psql("SELECT count(*), sum(id) FROM bulk"), "350000|61250175000");
    let again = fresh.scratch().path().join("again").to_string_lossy().into_owned();
    let words = ["restore", &again, "--as", "copy", "--to-immediate"];
    let logged = fresh.run(Path::new("/"), &words);
    logged.expect_code(0);
    assert_lines(&logged.stderr, "restoring files");
}
