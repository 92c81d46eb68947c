//! What people see of `list`, `verify` and `check`: tables that line up, sizes, ages and moments as
//! people read them, colours on a terminal and nowhere else, and logs as they were asked for.

use std::path::Path;
use std::process::Command;

use pgrecall_testkit::postgres::Cluster;
use pgrecall_testkit::terminal::on_a_terminal;
use serde_json::Value;

use crate::site::{Site, newest_major, switch};
use crate::verifying::{flip, largest};

struct Shown {
    site: Site,
    primary: Cluster,
}

/// What a run printed.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Shown {
    /// A cluster with one backup.
    fn new() -> Self {
        let site = Site::new();
        let primary = site.primary(newest_major());
        let this = Self { site, primary };
        let said = this.run(&["backup", "--fast-checkpoint"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let last = switch(&this.primary);
        this.site.wait_archived(&this.primary, &last);
        this
    }

    fn command(&self, words: &[&str]) -> Command {
        let data = self.primary.data_dir().to_str().expect("UTF-8");
        self.site.pgrecall(Path::new("/"), &[words, &["--pgdata", data]].concat())
    }

    fn run(&self, words: &[&str]) -> Said {
        said(self.command(words))
    }
}

fn said(mut command: Command) -> Said {
    let output = command.output().expect("the command runs");
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

#[test]
fn tables_line_up_and_tell_sizes_ages_and_moments_as_people_read_them() {
    let shown = Shown::new();
    let Said { out, .. } = shown.run(&["list"]);
    let head = out.lines().find(|line| line.contains("BACKUP")).expect("a table");
    let row = out.lines().skip_while(|line| *line != head).nth(1).expect("a row");
    let column = |name: &str| head.find(name).unwrap_or_else(|| panic!("no {name}: {head}"));
    // Under TAKEN a moment begins, under SIZE a number with a unit ends.
    let (taken, rest) = row.split_at(column("TAKEN")).1.split_at("2026-11-22 14:03:07 UTC".len());
    assert!(taken.starts_with("20") && taken.ends_with(" UTC"), "{out}");
    assert!(rest.starts_with("  "), "{out}");
    let size = &row[..column("SIZE") + "SIZE".len()];
    assert!(size.ends_with(" MiB"), "{out}");
    let age = row.split_at(column("AGE")).1;
    assert!(age.trim_start().split("  ").next().is_some_and(|age| age.ends_with('s')), "{out}");

    let Said { out, code, .. } = shown.run(&["verify", "--read-data"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(" UTC  yes"), "{out}");
    assert!(out.trim_end().ends_with("\nsound"), "{out}");

    let bad = largest(&shown.site, "domains");
    flip(&bad, 4000);
    let Said { out, code, .. } = shown.run(&["verify", "--read-data"]);
    assert_eq!(code, Some(13), "{out}");
    assert!(out.contains("\nDAMAGE  backup "), "{out}");
    assert!(out.contains("files cannot be had whole"), "{out}");
    assert!(out.contains("use another backup, and take a new one"), "{out}");
    assert!(out.trim_end().ends_with("DAMAGED: see the findings above"), "{out}");
}

#[test]
fn missing_wal_is_incomplete_in_words_and_code() {
    let shown = Shown::new();
    let first = switch(&shown.primary);
    shown.site.wait_archived(&shown.primary, &first);
    let second = switch(&shown.primary);
    shown.site.wait_archived(&shown.primary, &second);
    std::fs::remove_file(shown.site.object(&first).expect("stored")).expect("removing");
    let Said { out, code, .. } = shown.run(&["verify"]);
    assert_eq!(code, Some(18), "{out}");
    assert!(out.contains(&first) && out.contains("recovery from them ends at"), "{out}");
    assert!(out.trim_end().ends_with("INCOMPLETE: see the findings above"), "{out}");
}

#[test]
fn colours_are_for_terminals() {
    let shown = Shown::new();
    for words in [&["list"][..], &["verify"], &["check"]] {
        let piped = shown.run(words);
        assert_eq!(piped.code, Some(0), "{}", piped.err);
        assert!(!piped.out.contains('\u{1b}'), "{words:?}: {:?}", piped.out);
        let seen = said(on_a_terminal(&shown.command(words)));
        assert!(seen.out.contains("\u{1b}[1m") || seen.out.contains("\u{1b}[32m"), "{}", seen.out);
        let mut plain = shown.command(words);
        plain.env("NO_COLOR", "1");
        let seen = said(on_a_terminal(&plain));
        let painted = ["\u{1b}[1m", "\u{1b}[2m", "\u{1b}[3"];
        assert!(!painted.iter().any(|code| seen.out.contains(code)), "{:?}", seen.out);
    }
}

#[test]
fn the_log_has_the_level_and_the_format_that_were_asked_for() {
    let shown = Shown::new();
    let log = |words: &[&str]| {
        let said = shown.run(&[&["verify"], words].concat());
        assert_eq!(said.code, Some(0), "{}", said.err);
        said.err
    };
    assert!(log(&[]).contains(" INFO  "), "by default what is done is told");
    assert_eq!(log(&["--log-level", "error"]), "");
    let debug = shown.run(&["check", "--log-level", "debug"]).err;
    assert!(debug.contains(" DEBUG ") && !shown.run(&["check"]).err.contains(" DEBUG "), "{debug}");
    let json = log(&["--log-format", "json"]);
    assert!(!json.is_empty());
    for line in json.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(line["level"], "INFO", "{line}");
        assert!(line["message"].is_string() && line["timestamp"].is_string(), "{line}");
    }
}
