//! `latest`, where it is not known which backup is that.

use std::process::Command;

use crate::golden::Golden;

/// The exit code, and all that was said.
fn run(mut command: Command) -> (i32, String) {
    let output = command.output().expect("pgrecall runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("an exit code"), String::from_utf8(said).expect("UTF-8"))
}

#[test]
fn a_manifest_that_does_not_read_may_be_the_latest() {
    let golden = Golden::clear();
    let latest = ["verify", "--backup", "latest"];
    let hold = ["hold", "add", "latest", "--reason", "a test"];
    // To this program its manifests are of another version.
    let (code, said) = run(golden.pgrecall(&latest));
    assert_eq!((code, said.matches("its manifest does not read").count()), (14, 2), "{said}");
    let (code, said) = run(golden.pgrecall(&hold));
    assert_eq!(code, 14, "{said}");
    golden.objects("domains/main/backups").iter().for_each(|manifest| golden.cut(manifest));
    let (code, said) = run(golden.pgrecall(&latest));
    assert_eq!(code, 13, "{said}");
    assert!(said.contains("cannot be restored by this program, and may be the newest"), "{said}");
    let (code, said) = run(golden.pgrecall(&hold));
    assert_eq!(code, 13, "{said}");
    assert!(said.contains("nobody knows which backup is the latest"), "{said}");
    assert!(said.contains("hint: Give the id"), "{said}");
    // By its id one can be held: `repair` does not give it up then.
    let (_, listed) = run(golden.pgrecall(&latest));
    let id = listed.split("DAMAGE  backup ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let id = id.expect("an id");
    let (code, said) = run(golden.pgrecall(&["hold", "add", id, "--reason", "a test"]));
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(golden.pgrecall(&["repair", "--dry-run"]));
    assert!(code == 13 && said.contains("the backup is held"), "{code}: {said}");
}

#[test]
fn without_backups_there_is_no_latest() {
    let golden = Golden::clear();
    for manifest in golden.objects("domains/main/backups") {
        std::fs::remove_file(manifest).expect("it goes");
    }
    let (code, said) = run(golden.pgrecall(&["verify", "--backup", "latest"]));
    assert_eq!(code, 10, "{said}");
    assert!(said.contains("no backup is called latest"), "{said}");
}
