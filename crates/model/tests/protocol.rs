//! The protocol holds within bounds, and each of its rules is needed: without it the search finds
//! the harm that `docs/protocol.md` names. `PGRECALL_MODEL_BOUNDS=large` makes the long searches,
//! too: minutes, and some gigabytes of memory.

use pgrecall_model::runs::{self, Expected, Length, Run};

/// Makes the searches that `which` chooses and lists those that found something else.
fn unexpected(which: impl Fn(&Run) -> bool) -> Vec<String> {
    let large = std::env::var("PGRECALL_MODEL_BOUNDS").is_ok_and(|bounds| bounds == "large");
    let mut found = Vec::new();
    for run in runs::all() {
        if (run.length == Length::Short || large) && which(&run) {
            let outcome = run.search();
            if !run.is_as_expected(&outcome) {
                found.push(format!("{}, {:?}: {outcome:#?}", run.name, run.expected));
            }
        }
    }
    found
}

#[test]
fn the_protocol_holds() {
    assert_eq!(unexpected(|run| run.expected == Expected::Sound), Vec::<String>::new());
}

#[test]
fn every_rule_is_needed() {
    assert_eq!(unexpected(|run| run.expected != Expected::Sound), Vec::<String>::new());
}

#[test]
fn names_of_searches_are_their_own() {
    let mut names: Vec<String> = runs::all().into_iter().map(|run| run.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
