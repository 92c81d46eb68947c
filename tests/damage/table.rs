//! The table, made by trying and held against the one that is written down.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgrecall_repo::format::root::RootSuite;

use crate::command::Command;
use crate::made::{Copy, Made};
use crate::object::{Damage, Kind, Pair};

const INTRODUCTION: &str = "\
# What comes of damage

Made by `tests/damage.rs`: one object of a repository with two backups is damaged, and each command is run.

- *ok*: the right result, and nothing said of the object; *told*: the right result, and the object named.
- *damaged*, *unsupported*, …: refused with the exit code of that kind, the object named. A question mark: refused,
  the object not named.
- `wal fetch`: *stops* is exit code 126, *absent* is 1. It is called for a stored segment, for one of which two contents
  were stored and settled, and for one that was never stored.
- The *plan* of `expire --keep-last 1` and of `gc` (`--dry-run`) is made before `verify --read-data` has looked.
- `expire --keep-last 1`, `gc`, `repair` and `gc` once more come last. What could be restored before can be restored
  after them. Of notes of damage that do not read `verify` has found again what they said, where it can.
- *plan*, *restore* and *list* succeed with the older backup where the newer one is not there.
- An older version put back: an object is put once under its name, so that what was there before it is its absence, *missing*. Of a log
  (of keys, of what has expired, of damaged WAL, …) the older version is the log without its highest entry, *missing*, or the
  entry before under the name of the highest, *another of its kind*. Who can tell by what he has seen is said in
  docs/threat-model.md; `tests/backup/rolled_back.rs` puts back whole repositories.
- `init`, `backup` and `check` need a server, and `key` and `hold` change what they have read: other tests run them.

";

/// The rows without their padding.
fn rows(text: &str) -> Vec<String> {
    let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
    text.lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

fn row(made: &Made, foreign_root: &[u8], kind: (Kind, &str), damage: (Damage, &str)) -> String {
    let copy = made.copy();
    let pair = kind.0.pair(&copy);
    damage.0.apply(&copy.repository(), &pair, foreign_root);
    let outcomes = Command::ALL.map(|(command, _)| command.run(&copy, &pair).0);
    assert_still_restores(&copy, &pair, &outcomes);
    format!("| {} | {} | {} |", kind.1, damage.1, outcomes.join(" | "))
}

/// What could be restored can be restored after an expiry and a collection, and nothing else than
/// one of the backups comes of it.
fn assert_still_restores(copy: &Copy<'_>, pair: &Pair, outcomes: &[String]) {
    let (after, said) = Command::Restore.run(copy, pair);
    let could = |outcome: &str| outcome == "ok" || outcome == "told";
    let before = Command::ALL.iter().position(|(command, _)| *command == Command::Restore);
    let before = &outcomes[before.expect("it is in the table")];
    assert!(!could(before) || could(&after), "{} after {before}: {said}", pair.object);
}

/// All rows, made by a few threads at once.
fn made_table(made: &Made, foreign_root: &[u8]) -> String {
    let cells: Vec<_> =
        Kind::ALL.into_iter().flat_map(|kind| Damage::ALL.map(|damage| (kind, damage))).collect();
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(vec![String::new(); cells.len()]);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((kind, damage)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = cells.iter().position(|cell| cell == &(*kind, *damage));
                    let made = row(made, foreign_root, *kind, *damage);
                    rows.lock().expect("no thread panics here")[at.expect("a cell")] = made;
                }
            });
        }
    });
    let names: Vec<_> = Command::ALL.iter().map(|(_, name)| *name).collect();
    let head = format!(
        "| object | damage | {} |\n|{}\n",
        names.join(" | "),
        "---|".repeat(2 + Command::ALL.len())
    );
    head + &rows.into_inner().expect("no thread panics").join("\n") + "\n"
}

/// Without damage every command succeeds, else the table would prove nothing.
#[tokio::test]
async fn nothing_is_wrong_with_a_sound_repository() {
    let made = Made::new(RootSuite::Aes256Gcm).await;
    let copy = made.copy();
    let pair = Kind::Segment.pair(&copy);
    for (command, name) in Command::ALL {
        let (outcome, said) = command.run(&copy, &pair);
        let right = if command == Command::FetchMissing { "absent" } else { "ok" };
        assert_eq!(outcome, right, "{name}: {said}");
    }
}

#[tokio::test]
async fn damage_has_the_outcome_that_is_written_down() {
    let made = Made::new(RootSuite::Aes256Gcm).await;
    let foreign_root = Made::new(RootSuite::Aes256Gcm).await.root();
    let found = made_table(&made, &foreign_root);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/damage/table.md");
    if std::env::var_os("PGRECALL_WRITE_DAMAGE_TABLE").is_some() {
        std::fs::write(&path, format!("{INTRODUCTION}{found}")).expect("the table is written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let (written, found) = (rows(&written), rows(&found));
    let differing: Vec<_> = written
        .iter()
        .zip(&found)
        .filter(|(written, found)| written != found)
        .map(|(written, found)| format!("written: {written}\nfound:   {found}\n"))
        .collect();
    assert!(
        differing.is_empty() && written.len() == found.len(),
        "{}\nWhere this is right, PGRECALL_WRITE_DAMAGE_TABLE=1 writes tests/damage/table.md anew.",
        differing.join("\n")
    );
}

/// Without encryption there is no seal that an attacker could not make. What storage does is noticed
/// all the same: each command ends as the rows above allow, and no restore is wrong.
#[tokio::test]
async fn rot_of_a_clear_repository_is_noticed_too() {
    let made = Made::new(RootSuite::None).await;
    let foreign_root = Made::new(RootSuite::None).await.root();
    for kind in Kind::ALL {
        if kind.0.found(&made.copy()).is_none() {
            assert!(["wrap", "key log"].contains(&kind.1), "there is no {}", kind.1);
            continue;
        }
        for damage in Damage::ALL.into_iter().filter(|(damage, _)| damage.is_rot()) {
            row(&made, &foreign_root, kind, damage);
        }
    }
}
