//! What a command makes of a damaged repository, in a word or two.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output};

use crate::made::{Copy, NEW_FILE, SEGMENT, SETTLED};
use crate::object::Pair;

/// A command that reads the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    List,
    Plan,
    Restore,
    Keys,
    Holds,
    ExpirePlan,
    GcPlan,
    Verify,
    Fetch,
    FetchSettled,
    FetchMissing,
    PushAgain,
    PushNew,
    Expire,
    Gc,
    Repair,
    GcAgain,
}

impl Command {
    /// In the order of the table.
    pub(crate) const ALL: [(Self, &'static str); 17] = [
        (Self::List, "list"),
        (Self::Plan, "plan"),
        (Self::Restore, "restore"),
        (Self::Keys, "key list"),
        (Self::Holds, "hold list"),
        (Self::ExpirePlan, "expire, plan"),
        (Self::GcPlan, "gc, plan"),
        (Self::Verify, "verify"),
        (Self::Fetch, "wal fetch"),
        (Self::FetchSettled, "wal fetch, settled"),
        (Self::FetchMissing, "wal fetch, missing"),
        (Self::PushAgain, "wal push, stored"),
        (Self::PushNew, "wal push, new"),
        (Self::Expire, "expire"),
        (Self::Gc, "gc"),
        (Self::Repair, "repair"),
        (Self::GcAgain, "gc, then"),
    ];

    fn words(self, target: &Path) -> Vec<String> {
        let target = target.to_str().expect("UTF-8");
        let words: &[&str] = match self {
            Self::List => &["list"],
            Self::Plan => &["plan"],
            Self::Restore => &["restore", target, "--as", "copy"],
            Self::Keys => &["key", "list"],
            Self::Holds => &["hold", "list"],
            Self::ExpirePlan => &["expire", "--keep-last", "1", "--dry-run"],
            Self::GcPlan => &["gc", "--dry-run"],
            Self::Verify => &["verify", "--read-data"],
            Self::Fetch => &["wal", "fetch", SEGMENT, target],
            Self::FetchSettled => &["wal", "fetch", SETTLED, target],
            Self::FetchMissing => &["wal", "fetch", "0000000100000000000000FE", target],
            Self::PushAgain => &["wal", "push", "pg_wal/000000010000000000000008"],
            Self::PushNew => &["wal", "push", "pg_wal/00000007.history"],
            Self::Expire => &["expire", "--keep-last", "1"],
            Self::Gc | Self::GcAgain => &["gc"],
            Self::Repair => &["repair", "--yes"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Runs it; `pair` is what was damaged. Gives the outcome, and all that was said.
    pub(crate) fn run(self, copy: &Copy<'_>, pair: &Pair) -> (String, String) {
        let target = copy.path().join("target");
        let _ = fs::remove_dir_all(copy.path().join("cache"));
        let before = standing(copy.repository());
        let output = Process::new(env!("CARGO_BIN_EXE_pgrecall"))
            .args(self.words(&target))
            .env_clear()
            .env("PGRECALL_CONFIG", copy.path().join("pgrecall.toml"))
            .current_dir(copy.pgdata())
            .output()
            .expect("the program runs");
        let outcome = self.judge(copy, pair, &output, &target);
        let after = standing(copy.repository());
        for (object, was) in &before {
            let as_it_was = match (self, after.get(object)) {
                (Self::Expire | Self::Gc | Self::GcAgain, None) => true,
                (Self::Repair, None) => {
                    let below = object.strip_prefix(copy.repository()).expect("below it");
                    after.contains_key(&copy.repository().join("quarantine").join(below))
                }
                (_, None) => is_said_anew(object, &after),
                (_, is) => is == Some(was),
            };
            assert!(as_it_was, "{} is harmed: {outcome:?}", object.display());
        }
        // Whichever it is.
        let _ = (fs::remove_file(&target), fs::remove_dir_all(&target));
        outcome
    }

    fn judge(
        self,
        copy: &Copy<'_>,
        pair: &Pair,
        output: &Output,
        target: &Path,
    ) -> (String, String) {
        let printed = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        let context = format!("{self:?} with {}: {code:?}\n{printed}\n{said}", pair.object);
        assert!(!said.contains("panicked"), "{context}");
        // What a command prints when it succeeds names everything; a warning names what is wrong.
        let is_warning = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let warnings: Vec<_> = said.lines().filter(is_warning).collect();
        let where_named = match (self, code) {
            // A verification prints what it finds wrong, and nothing of what is sound.
            (Self::Verify | Self::Repair, _) => format!("{printed}{said}"),
            // So does a list, beside what is sound.
            (Self::List, Some(0)) => {
                let is_bad =
                    |line: &&str| line.contains("does not read") || line.contains("is missing");
                let bad = printed.lines().filter(is_bad);
                warnings.into_iter().chain(bad).collect::<Vec<_>>().join("\n")
            }
            (_, Some(0)) => warnings.join("\n"),
            _ => format!("{printed}{said}"),
        };
        let named = pair.is_named_in(&where_named);
        match self {
            Self::Restore if code == Some(0) => assert_restored(copy, target, &context),
            Self::Restore => {
                assert!(!target.join("global/pg_control").exists(), "it could start: {context}");
                assert!(said.contains("hint: "), "nothing to do about it: {context}");
            }
            Self::Fetch | Self::FetchSettled if code == Some(0) => {
                let fetched = fs::read(target).expect("a file");
                assert!(fetched == copy.made.segment, "the wrong bytes: {context}");
            }
            Self::Fetch | Self::FetchSettled | Self::FetchMissing => {
                assert!(!target.exists(), "a file in spite of the failure: {context}");
                assert!(matches!(code, Some(1 | 126)), "{context}");
            }
            Self::PushAgain | Self::PushNew => {
                assert!(code.is_some_and(|code| code <= 125), "{context}");
            }
            Self::List
            | Self::Plan
            | Self::ExpirePlan
            | Self::GcPlan
            | Self::Expire
            | Self::Gc
            | Self::GcAgain
                if code != Some(0) =>
            {
                assert!(said.contains("hint: "), "nothing to do about it: {context}");
            }
            _ => {}
        }
        if self == Self::PushNew && code == Some(0) {
            let stored = copy.objects("clusters/main");
            assert!(stored.iter().any(|name| name.ends_with(NEW_FILE)), "not stored: {context}");
            remove_stored(copy);
        }
        (in_words(self, code, named, &context), context)
    }
}

/// Every object, and what changes when somebody writes to it.
fn standing(repository: PathBuf) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![repository]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let about = entry.metadata().expect("metadata");
            if about.is_dir() {
                folders.push(entry.path());
            } else {
                let written = (about.ino(), about.size(), about.mtime(), about.mtime_nsec());
                found.insert(entry.path(), written);
            }
        }
    }
    found
}

/// Of the log of damaged WAL the highest entry says all; who puts one removes those below.
fn is_said_anew<T>(object: &Path, after: &BTreeMap<PathBuf, T>) -> bool {
    let log = object.parent().expect("a folder");
    log.ends_with("damaged")
        && log.components().any(|part| part.as_os_str() == "clusters")
        && after.keys().any(|other| other.parent() == Some(log) && other > &object.to_owned())
}

fn remove_stored(copy: &Copy<'_>) {
    for name in copy.objects("clusters/main") {
        if name.ends_with(NEW_FILE) {
            fs::remove_file(copy.repository().join(name)).expect("it is removed");
        }
    }
}

fn in_words(command: Command, code: Option<i32>, named: bool, context: &str) -> String {
    let word = match (command, code) {
        (_, Some(0)) => return if named { "told" } else { "ok" }.to_owned(),
        (Command::Fetch | Command::FetchSettled | Command::FetchMissing, code) => match code {
            Some(1) => return "absent".to_owned(),
            Some(126) => "stops",
            _ => panic!("an ending that PostgreSQL misunderstands: {context}"),
        },
        (_, Some(10)) => "not found",
        (_, Some(11)) => "already exists",
        (_, Some(12)) => "conflict",
        (_, Some(13)) => "damaged",
        (_, Some(14)) => "unsupported",
        (_, Some(15)) => "unavailable",
        (_, Some(16)) => "denied",
        (_, Some(17)) => "invalid",
        (_, Some(18)) => "incomplete",
        _ => panic!("an ending that no damage excuses: {context}"),
    };
    if named { word.to_owned() } else { format!("{word} ?") }
}

/// The target holds one of the backups, whole and unchanged.
fn assert_restored(copy: &Copy<'_>, target: &Path, context: &str) {
    let read = |files: &BTreeMap<String, Vec<u8>>| {
        files.iter().all(|(name, bytes)| fs::read(target.join(name)).ok().as_ref() == Some(bytes))
    };
    assert!(copy.made.backups.iter().any(|(_, files)| read(files)), "a wrong restore: {context}");
}
