//! Completions and manual pages are made from the command tree.

use crate::program::Place;

#[test]
fn each_shell_gets_a_script_that_knows_the_commands() {
    let place = Place::new("not even a valid configuration is needed");
    for shell in ["bash", "zsh", "fish"] {
        let run = place.run(&format!("completions {shell}"));
        assert_eq!(run.code, 0, "{}", run.stderr);
        for word in ["restore", "tablespace-map", "verify"] {
            assert!(run.stdout.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(place.run("completions tcsh").code, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let place = Place::new("");
    let run = place.run("man pages");
    assert_eq!(run.code, 0, "{}", run.stderr);
    for page in ["pgrecall.1", "pgrecall-restore.1", "pgrecall-wal-fetch.1", "pgrecall-key-add.1"] {
        let text = std::fs::read_to_string(place.data().join("pages").join(page)).expect(page);
        assert!(text.contains("pgrecall"), "{page}");
    }
}
