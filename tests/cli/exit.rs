//! Exit codes decide whether PostgreSQL ends recovery, drops a segment or tries again: whatever
//! goes wrong, `wal fetch` and `wal push` must answer within their contracts.

use crate::program::{Place, Run};

const FETCH: &str = "wal fetch 000000010000000000000001 pg_wal/RECOVERYXLOG";
const PUSH: &str = "wal push pg_wal/000000010000000000000001";

/// Environment variables of a run.
type Variables = &'static [(&'static str, &'static str)];

/// Runs of `wal fetch` that must fail before anything is fetched: (arguments, configuration,
/// variables).
fn broken_fetches() -> Vec<(String, &'static str, Variables)> {
    vec![
        (format!("{FETCH} extra"), "", &[]),
        ("wal fetch 000000010000000000000001".to_owned(), "", &[]),
        ("wal fetch".to_owned(), "", &[]),
        (format!("--no-such-option {FETCH}"), "", &[]),
        (format!("{FETCH} --to-time x"), "", &[]),
        (format!("{FETCH} --help"), "", &[]),
        (format!("--version {FETCH}"), "", &[]),
        ("archive-get 000000010000000000000001".to_owned(), "", &[]),
        ("wla fetch 000000010000000000000001 pg_wal/RECOVERYXLOG".to_owned(), "", &[]),
        ("fetch 00000002.history pg_wal/RECOVERYHISTORY".to_owned(), "", &[]),
        (FETCH.to_owned(), "[[repository]]\nulr = 'file:///b'\n", &[]),
        (FETCH.to_owned(), "[[repository", &[]),
        (FETCH.to_owned(), "", &[("PGRECALL_CONFIG", "/nonexistent/pgrecall.toml")]),
        (FETCH.to_owned(), "", &[("PGRECALL_WAL_FETCH_TIMEOUT", "soon")]),
        (FETCH.to_owned(), "[[cluster]]\nname='a'\n[[cluster]]\nname='b'\n", &[]),
        (FETCH.to_owned(), "", &[("PGRECALL_TEST_PANIC", "early")]),
        (FETCH.to_owned(), "[[cluster]]\nname='a'\n", &[("PGRECALL_TEST_PANIC", "late")]),
        (format!("{FETCH} --log-level loud"), "", &[]),
        (format!("{FETCH} --log-format json extra"), "", &[]),
    ]
}

#[test]
fn a_broken_fetch_never_looks_like_a_missing_file() {
    for (line, config, variables) in broken_fetches() {
        let run = Place::new(config).run_with(&line, variables);
        assert_eq!(run.code, 126, "{line} {variables:?}: {}", run.stderr);
        assert!(!run.stderr.is_empty(), "{line} said nothing");
    }
}

#[test]
fn on_a_standby_a_broken_fetch_lets_recovery_go_on_and_says_so() {
    for (line, config, variables) in broken_fetches() {
        let run = Place::new(config).standby().run_with(&line, variables);
        assert_eq!(run.code, 1, "{line} {variables:?}: {}", run.stderr);
        assert!(run.stderr.contains("wal fetch FAILED on a standby"), "{line}: {}", run.stderr);
    }
}

#[test]
fn a_standby_told_to_stop_stops() {
    let config = "[[cluster]]\nname = 'a'\n[wal]\nstandby_on_error = 'stop'\n";
    let panics = [("PGRECALL_TEST_PANIC", "late")];
    let run = Place::new(config).standby().run_with(FETCH, &panics);
    assert_eq!(run.code, 126, "{}", run.stderr);
}

#[test]
fn a_broken_push_neither_acknowledges_nor_kills_the_archiver() {
    let cases: [(&str, &str, Variables); 8] = [
        ("wal push", "", &[]),
        ("wal push a b", "", &[]),
        ("wal push --help pg_wal/x", "", &[]),
        ("--version wal push pg_wal/x", "", &[]),
        ("archive-push --nonsense x", "", &[]),
        (PUSH, "[[repository]]\nulr = 'file:///b'\n", &[]),
        (PUSH, "", &[("PGRECALL_TEST_PANIC", "early")]),
        (PUSH, "[[cluster]]\nname='a'\n", &[("PGRECALL_TEST_PANIC", "late")]),
    ];
    for (line, config, variables) in cases {
        let run = Place::new(config).run_with(line, variables);
        assert!((1..=125).contains(&run.code), "{line}: {} {}", run.code, run.stderr);
    }
}

#[test]
fn people_get_codes_by_kind_and_a_hint() {
    let place = Place::new("");
    let Run { code, stderr, .. } = place.run("backup --no-such-option");
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--no-such-option"), "{stderr}");
    let Run { code, stderr, .. } = place.run("--config /nonexistent.toml config");
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.starts_with("error: the configuration file /nonexistent.toml"), "{stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
    let Run { code, stderr, .. } = place.run_with("config", &[("PGRECALL_TEST_PANIC", "late")]);
    assert_eq!(code, 19, "{stderr}");
    assert!(stderr.contains("panic at ") && stderr.contains("please report"), "{stderr}");
}

#[test]
fn options_that_could_do_nothing_are_refused() {
    let place = Place::new("[[cluster]]\nname = 'a'\n");
    for (line, words) in [
        ("plan --exclusive", "Give --to-time, --to-lsn or --to-xid with it"),
        ("restore /srv/x --as copy --exclusive", "Give --to-time, --to-lsn or --to-xid with it"),
        ("restore /srv/x --as standby --action promote", "Leave --action out"),
        ("restore /srv/x --as standby --to-xid 7", "Leave the target out"),
    ] {
        let run = place.run(line);
        assert_eq!(run.code, 2, "{line}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{line}: {}", run.stderr);
    }
}

#[test]
fn help_and_version_succeed() {
    let place = Place::new("");
    for line in ["--help", "--version", "wal fetch --help", "wal push --help", "restore --help"] {
        let run = place.run(line);
        assert_eq!(run.code, 0, "{line}: {}", run.stderr);
        assert!(run.stdout.contains("pgrecall") && run.stderr.is_empty(), "{line}: {}", run.stderr);
    }
}

#[test]
fn errors_are_json_where_logs_are() {
    let place = Place::new("[log]\nformat = 'json'\n");
    let run = place.run_with("config", &[("PGRECALL_TEST_PANIC", "late")]);
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with('{') && last.contains("\"kind\":\"internal\""), "{}", run.stderr);
}
