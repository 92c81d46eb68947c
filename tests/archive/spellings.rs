//! The names that other programs have for `wal push` and `wal fetch`, and a configuration that does
//! not say which repository is meant.

use pgrecall_testkit::postgres::{Cluster, ClusterOptions};

use crate::site::{Site, newest_major, switch};

#[test]
fn archive_push_and_archive_get_are_push_and_fetch() {
    let site = Site::new();
    let command = site.archive_command().replace("wal push", "archive-push");
    assert!(command.contains(" archive-push "), "{command}");
    let primary = Cluster::create(ClusterOptions::new(newest_major()).archive_command(&command));
    let name = switch(&primary);
    site.wait_archived(&primary, &name);
    let target = site.scratch().path().join("fetched");
    let words = ["archive-get", &name, target.to_str().expect("UTF-8")];
    site.run(primary.data_dir(), &words).expect_code(0);
    let fetched = std::fs::read(&target).expect("fetched");
    let original = std::fs::read(primary.data_dir().join("pg_wal").join(&name)).expect("read");
    assert!(fetched == original, "{name} came back otherwise");
}

/// An empty folder mounted over the repository must not be taken for it, so that nothing is
/// acknowledged before it is said which one is meant.
#[test]
fn nothing_is_pushed_or_fetched_without_a_pinned_repository() {
    let site = Site::new();
    let primary = site.primary(newest_major());
    let name = switch(&primary);
    site.wait_archived(&primary, &name);
    std::fs::remove_file(site.object(&name).expect("stored")).expect("removed");
    let config = std::fs::read_to_string(site.config()).expect("a configuration");
    let unpinned: Vec<&str> = config.lines().filter(|line| !line.starts_with("id =")).collect();
    assert!(unpinned.len() < config.lines().count(), "{config}");
    std::fs::write(site.config(), unpinned.join("\n")).expect("a configuration");
    let run = |words: &[&str]| site.run(primary.data_dir(), words);
    let path = format!("pg_wal/{name}");
    let pushed = run(&["wal", "push", &path]);
    assert!(pushed.expect_code(3).stderr.contains("repository.id"), "{}", pushed.stderr);
    assert!(site.object(&name).is_none(), "it was stored");
    let fetched = run(&["wal", "fetch", &name, "pg_wal/RECOVERYXLOG"]);
    assert!(fetched.expect_code(126).stderr.contains("repository.id"), "{}", fetched.stderr);
}
