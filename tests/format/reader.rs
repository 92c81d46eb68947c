//! `scripts/read_repository.py`, written from `docs/format.md` alone, reads what the program
//! writes, old and new, and notices what was changed.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::golden::{self, FIXTURES};
use crate::make::{self, Sort};

const READER: &str = "scripts/read_repository.py";

fn run(repository: &Path, key: Option<&Path>, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/read_repository.sh");
    let mut command = Command::new(script);
    command.arg(repository);
    if let Some(key) = key {
        command.arg("--key").arg(key);
    }
    command.args(arguments).output().unwrap()
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Reads everything with the reader and compares it with what should be there.
fn compare(repository: &Path, key: Option<&Path>, contents: &Value) {
    let listed = run(repository, key, &["list"]);
    succeed(&listed);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut ids: Vec<_> = listed.lines().map(|line| line.split(' ').next().unwrap()).collect();
    ids.sort_unstable();
    let backups = contents["backups"].as_object().unwrap();
    let mut expected: Vec<_> = backups.keys().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    for (id, files) in backups {
        let target = tempfile::tempdir().unwrap();
        let folder = target.path().to_str().unwrap();
        succeed(&run(repository, key, &["backup", id, folder]));
        assert_eq!(golden::sums_of(target.path()), *files, "backup {id}");
    }
    for (file, sum) in contents["archived"].as_object().unwrap() {
        let target = tempfile::tempdir().unwrap();
        let output = target.path().join(file);
        succeed(&run(repository, key, &["wal", "shop", file, output.to_str().unwrap()]));
        assert_eq!(golden::sums_of(target.path())[file], *sum, "{file}");
    }
}

#[test]
fn the_reader_is_short() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(READER)).unwrap();
    let lines = text.lines().count();
    assert!(lines <= 300, "{READER} has {lines} lines");
}

#[test]
fn the_reader_opens_every_golden_repository() {
    for fixture in FIXTURES {
        let key = fixture.key();
        let key = (fixture.sort == Sort::Encrypted).then_some(key.as_path());
        compare(&fixture.repository(), key, &fixture.contents());
    }
}

#[tokio::test]
async fn the_reader_opens_what_is_written_today() {
    for sort in [Sort::Clear, Sort::Encrypted] {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("repository");
        let made = make::make(&repository, sort).await;
        let key = folder.path().join("key");
        std::fs::write(&key, &made.key).unwrap();
        let key = (sort == Sort::Encrypted).then_some(key.as_path());
        compare(&repository, key, &make::contents(&made));
    }
}

#[tokio::test]
async fn the_reader_refuses_what_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    for sort in [Sort::Clear, Sort::Encrypted] {
        let repository = folder.path().join(format!("{sort:?}"));
        let made = make::make(&repository, sort).await;
        let key = folder.path().join("key");
        std::fs::write(&key, &made.key).unwrap();
        let key = (sort == Sort::Encrypted).then_some(key.as_path());
        let manifests = repository.join("domains/main/backups/shop").join(make::LINEAGE);
        let (first, second) = (&made.backups[0].0, &made.backups[1].0);
        let (first, second) =
            (manifests.join(first.to_string()), manifests.join(second.to_string()));
        succeed(&run(&repository, key, &["list"]));
        // Under another's name, and with one bit flipped.
        let sound = std::fs::read(&first).unwrap();
        std::fs::write(&first, std::fs::read(&second).unwrap()).unwrap();
        assert!(!run(&repository, key, &["list"]).status.success());
        for at in [20, 60, sound.len() - 1] {
            let mut flipped = sound.clone();
            flipped[at] ^= 1;
            std::fs::write(&first, &flipped).unwrap();
            assert!(!run(&repository, key, &["list"]).status.success(), "byte {at}");
        }
        std::fs::write(&first, &sound).unwrap();
        succeed(&run(&repository, key, &["list"]));
    }
}
