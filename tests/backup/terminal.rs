//! What a backup shows of its progress: a bar on a terminal, log lines elsewhere.

use std::path::Path;
use std::process::{Command, Stdio};

use pgrecall_testkit::postgres::{Cluster, as_server_user};

use crate::site::{Site, newest_major};

/// A backup that takes some seconds: slow to compress, on one thread.
fn slow_backup(site: &Site, cluster: &Cluster) -> Command {
    let pgdata = cluster.data_dir().to_string_lossy().into_owned();
    let words = ["--pgdata", &pgdata, "backup", "--fast-checkpoint", "--threads", "1"];
    let mut command = site.pgrecall(Path::new("/"), &words);
    command.env("PGRECALL_BACKUP_COMPRESSION_LEVEL", "19");
    command
}

/// The same command on a terminal of its own, made by util-linux' `script`.
fn on_a_terminal(command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().expect("UTF-8")).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    script.env("TERM", "xterm").stdin(Stdio::null()).current_dir("/");
    as_server_user(script)
}

#[test]
fn a_terminal_gets_a_bar_with_rate_and_end_and_a_log_gets_lines() {
    let site = Site::new();
    let cluster = site.primary(newest_major());
    let plain = slow_backup(&site, &cluster);
    let shown = on_a_terminal(&plain).output().expect("script runs (util-linux)");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{text}");
    let bars: Vec<&str> =
        text.split(['\r', '\n']).filter(|line| line.contains("copying files [")).collect();
    let whole = |line: &&&str| line.contains(" of ") && line.contains("/s, ");
    let bar = bars.iter().filter(whole).find(|line| line.contains(" left"));
    assert!(bar.is_some(), "no bar with a rate and an end: {text:?}");
    assert!(!text.contains("INFO  copying files"), "lines beside the bar: {text}");
    assert!(text.contains("backup complete:"), "{text}");
    let last = text.rsplit("backup complete:").next().unwrap_or_default();
    assert!(!last.contains("copying files ["), "the bar stays behind: {text:?}");

    let mut plain = plain;
    let logged = plain.output().expect("pgrecall runs");
    let text = String::from_utf8_lossy(&logged.stderr).into_owned();
    assert!(logged.status.success(), "{text}");
    let line = text.lines().find(|line| line.contains("INFO  copying files: 0 B of "));
    assert!(line.is_some_and(|line| line.ends_with(" (0 %)")), "{text}");
    assert!(!text.contains('\r') && !text.contains('\u{1b}'), "no terminal, no bar: {text:?}");
}
