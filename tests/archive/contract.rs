//! Exit codes, which are all that PostgreSQL hears: never 1 to 125 outside standby mode unless
//! absence is proven, always 1 in it.

use std::path::PathBuf;
use std::process::Command;

use pgrecall_repo::keys::KeyFile;
use pgrecall_repo::random::SharedRandom;
use pgrecall_testkit::postgres::{Cluster, ClusterOptions, Stop};

use crate::site::{Run, Site, newest_major, switch};

/// A stopped data directory whose cluster has one segment in the repository.
struct Case {
    site: Site,
    data: PathBuf,
    stored: String,
    cluster: Cluster,
}

const MISSING: &str = "0000000100000000000000FE";

impl Case {
    fn new() -> Self {
        let site = Site::new();
        let cluster = site.primary(newest_major());
        let stored = switch(&cluster);
        site.wait_archived(&cluster, &stored);
        cluster.stop(Stop::Fast);
        let data = cluster.data_dir().to_owned();
        Self { site, data, stored, cluster }
    }

    fn fetch(&self, name: &str) -> Command {
        self.site.pgrecall(&self.data, &["wal", "fetch", name, "pg_wal/RECOVERYXLOG"])
    }

    /// The same failure outside standby mode and in it.
    #[track_caller]
    fn expect_failure(&self, said: &str, make: impl Fn() -> Command) {
        let run = Run::of(make());
        assert!(run.expect_code(126).stderr.contains(said), "no {said:?} in {}", run.stderr);
        self.cluster.append_to("standby.signal", "");
        let run = Run::of(make());
        std::fs::remove_file(self.data.join("standby.signal")).expect("removed");
        assert!(run.expect_code(1).stderr.contains(said), "no {said:?} in {}", run.stderr);
        assert!(run.stderr.contains("wal fetch FAILED on a standby"), "{}", run.stderr);
        assert!(!self.data.join("pg_wal/RECOVERYXLOG").exists());
        assert!(!self.data.join("pg_wal/RECOVERYXLOG.pgrecall").exists());
    }
}

#[test]
fn one_means_proven_absent_and_nothing_else() {
    let case = Case::new();
    for name in [MISSING, "00000002.history"] {
        let run = Run::of(case.fetch(name));
        assert_eq!(run.expect_code(1).stderr, "", "a proven absence is quiet");
    }
    Run::of(case.fetch(&case.stored)).expect_code(0);
    std::fs::remove_file(case.data.join("pg_wal/RECOVERYXLOG")).expect("fetched");

    case.site.cut_off();
    case.expect_failure("the directory does not exist", || case.fetch(MISSING));
    case.site.bring_back();
    case.site.unmount();
    case.expect_failure("no repository at", || case.fetch(MISSING));
    case.site.bring_back();
    Run::of(case.fetch(MISSING)).expect_code(1);
}

#[test]
fn a_cluster_that_the_repository_does_not_know_is_no_proof() {
    let case = Case::new();
    let other = Cluster::create_stopped(ClusterOptions::new(newest_major()));
    let words = ["wal", "fetch", MISSING, "pg_wal/RECOVERYXLOG"];
    let run = case.site.run(other.data_dir(), &words);
    assert!(run.expect_code(126).stderr.contains("NOT PROVEN"), "{}", run.stderr);
    assert!(run.stderr.contains("system identifier"), "{}", run.stderr);
    // Outside any data directory nobody is known to ask.
    let elsewhere = case.site.scratch().dir("elsewhere");
    let run = case.site.run(&elsewhere, &["wal", "fetch", MISSING, "x"]);
    assert!(run.expect_code(126).stderr.contains("NOT PROVEN"), "{}", run.stderr);
    case.site.run(&elsewhere, &["wal", "fetch", &case.stored, "x"]).expect_code(0);
    // The folder above pg_wal tells, and so does --pgdata.
    let there = case.data.join("pg_wal/RECOVERYXLOG").display().to_string();
    case.site.run(&elsewhere, &["wal", "fetch", MISSING, &there]).expect_code(1);
    let data = case.data.display().to_string();
    case.site.run(&elsewhere, &["wal", "fetch", MISSING, "x", "--pgdata", &data]).expect_code(1);
}

/// What was set up wrongly is no more a proof on a standby than elsewhere, and told as loudly.
#[test]
fn another_cluster_is_no_proof_on_a_standby_either() {
    let case = Case::new();
    let other = Cluster::create_stopped(ClusterOptions::new(newest_major()));
    other.append_to("standby.signal", "");
    for name in [MISSING, &case.stored, "00000002.history"] {
        let words = ["wal", "fetch", name, "pg_wal/RECOVERYXLOG"];
        let run = case.site.run(other.data_dir(), &words);
        for said in ["NOT PROVEN", "system identifier", "wal fetch FAILED on a standby"] {
            assert!(run.expect_code(1).stderr.contains(said), "no {said:?} in {}", run.stderr);
        }
        assert!(!other.data_dir().join("pg_wal/RECOVERYXLOG").exists());
    }
}

#[test]
fn a_key_that_opens_nothing_is_no_absence() {
    let case = Case::new();
    let key = KeyFile::random(&SharedRandom::system());
    let foreign = case.site.scratch().file("foreign.key", key.to_text().as_bytes());
    let none = case.site.scratch().path().join("none.key");
    for (key, said) in [(&foreign, "does not open the repository"), (&none, "does not exist")] {
        for name in [MISSING, &case.stored] {
            case.expect_failure(said, || {
                let mut command = case.fetch(name);
                command.env("PGRECALL_REPOSITORY_KEY_FILE", key);
                command
            });
        }
    }
    Run::of(case.fetch(MISSING)).expect_code(1);
    Run::of(case.fetch(&case.stored)).expect_code(0);
}

#[test]
fn a_repository_of_another_version_is_no_absence() {
    let case = Case::new();
    let root = case.site.root();
    // A host that has no copies yet reads the root anew.
    let cache = case.site.scratch().dir("another-cache");
    let others = [
        (r#""version": 2"#, r#""version": 3"#, "has version 3, and this program reads up to 2"),
        (r#""version": 2"#, r#""version": 1"#, "is of an older, unreleased format"),
        (r#""features": []"#, r#""features": ["tape"]"#, "needs the feature \"tape\""),
    ];
    for (old, new, said) in others {
        assert!(root.contains(old), "{root}");
        case.site.set_root(&root.replacen(old, new, 1));
        for name in [MISSING, &case.stored] {
            case.expect_failure(said, || {
                let mut command = case.fetch(name);
                command.env("PGRECALL_REPOSITORY_CACHE_DIR", &cache);
                command
            });
        }
    }
    case.site.set_root(&root);
    Run::of(case.fetch(MISSING)).expect_code(1);
}

#[test]
fn damage_of_any_kind_is_no_absence() {
    let case = Case::new();
    let object = case.site.object(&case.stored).expect("stored");
    let whole = std::fs::read(&object).expect("the object");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut longer = whole.clone();
    longer.extend_from_slice(b"more");
    let damages = [
        Vec::new(),
        whole[..1].to_vec(),
        whole[..whole.len() / 3].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        flipped(0),
        flipped(20),
        flipped(whole.len() / 2),
        longer,
        vec![0; whole.len()],
    ];
    for damaged in &damages {
        std::fs::write(&object, damaged).expect("damage");
        case.expect_failure(&case.stored, || case.fetch(&case.stored));
    }
    // Its own sound bytes under the name of another segment.
    std::fs::write(&object, &whole).expect("mended");
    let moved = object.with_file_name(MISSING);
    std::fs::copy(&object, &moved).expect("copied");
    pgrecall_testkit::postgres::ServerUser::current().own(&moved);
    case.expect_failure(MISSING, || case.fetch(MISSING));
    Run::of(case.fetch(&case.stored)).expect_code(0);
}

#[test]
fn push_fails_within_1_to_125_whatever_happens() {
    let case = Case::new();
    let path = format!("pg_wal/{}", case.stored);
    let push = |more: &[&str]| {
        let words: Vec<&str> =
            ["wal", "push", &path].into_iter().chain(more.iter().copied()).collect();
        case.site.pgrecall(&case.data, &words)
    };
    Run::of(push(&[])).expect_code(0);
    let mut panicking = push(&[]);
    panicking.env("PGRECALL_TEST_PANIC", "late");
    let mut failing = vec![panicking, push(&["--no-such-flag"]), push(&["--help"])];
    failing.push(case.site.pgrecall(&case.data, &["wal", "push", "pg_wal/no-such-name"]));
    failing.push(case.site.pgrecall(&case.data, &["wal", "push", &format!("pg_wal/{MISSING}")]));
    for command in failing {
        let shown = format!("{command:?}");
        let code = Run::of(command).code;
        assert!(code.is_some_and(|code| (1..=125).contains(&code)), "{code:?} of {shown}");
    }
    for take_away in [Site::cut_off, Site::unmount] {
        take_away(&case.site);
        let run = Run::of(push(&[]));
        assert!(run.code.is_some_and(|code| (1..=125).contains(&code)), "{run:?}");
        case.site.bring_back();
    }
}

#[test]
fn a_file_that_is_not_what_its_name_says_is_refused() {
    let case = Case::new();
    let whole = std::fs::read(case.data.join("pg_wal").join(&case.stored)).expect("a segment");
    let changed = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        bytes
    };
    case.site.scratch().dir("unfit");
    let cases = [
        ("its size in bytes", whole[..whole.len() - 1].to_vec()),
        ("its size in bytes", Vec::new()),
        ("the first page's magic", changed(1, 0xEE)),
        ("pages of timeline 3", changed(4, 3)),
        ("the first page's address", changed(11, 0x77)),
        ("the system identifier", changed(24, whole[24] ^ 1)),
        ("the segment size in bytes", changed(35, 0x02)),
    ];
    for (said, bytes) in cases {
        let path = case.site.scratch().file(&format!("unfit/{}", case.stored), &bytes);
        let run = case.site.run(&case.data, &["wal", "push", path.to_str().expect("UTF-8")]);
        assert!(run.expect_code(17).stderr.contains(said), "no {said:?} in {}", run.stderr);
    }
}

#[test]
fn damaged_wal_is_archived_and_told_loudly() {
    let case = Case::new();
    let object = case.site.object(&case.stored).expect("stored");
    std::fs::remove_file(object).expect("removed");
    let mut bytes = std::fs::read(case.data.join("pg_wal").join(&case.stored)).expect("a segment");
    // In the middle of the first page's records.
    bytes[4000] ^= 0xFF;
    case.site.scratch().dir("bad");
    let path = case.site.scratch().file(&format!("bad/{}", case.stored), &bytes);
    let run = case.site.run(&case.data, &["wal", "push", path.to_str().expect("UTF-8")]);
    assert!(run.expect_code(0).stderr.contains("DAMAGED"), "{}", run.stderr);
    Run::of(case.fetch(&case.stored)).expect_code(0);
    let fetched = std::fs::read(case.data.join("pg_wal/RECOVERYXLOG")).expect("fetched");
    assert!(fetched == bytes);
}
