//! The examples of help and documentation: every command has one, and every one is understood.

use clap::{CommandFactory as _, Parser as _};

use super::Cli;

/// The examples in a text, as lines that begin with `pgrecall`.
fn examples(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| {
        let at = line.find("pgrecall ")?;
        let (before, example) = line.split_at(at);
        let indented = before.starts_with("  ") || before.is_empty() || before == "sudo ";
        let quoted = before.ends_with('\'');
        let ends = [" | ", " > ", "  > ", "    ", " # "].map(|end| example.find(end));
        let end = ends.into_iter().flatten().min().unwrap_or(example.len());
        let example = example.get(..end)?.trim();
        indented
            .then(|| example.strip_suffix('\'').filter(|_| quoted).unwrap_or(example).to_owned())
    });
    lines.collect()
}

/// The code blocks of a page.
fn code(page: &str) -> String {
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter(|block| block.starts_with("sh\n")).collect()
}

/// Words as the shell has them; only single quotes are known.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 1 {
            if let Some(word) = words.last_mut() {
                word.push_str(part);
            }
            continue;
        }
        for (at, piece) in part.split(' ').enumerate() {
            if at > 0 {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.push_str(piece);
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn assert_understood(example: &str, where_from: &str) {
    let parsed = Cli::try_parse_from(words(example));
    let error = parsed.err().map(|error| error.to_string());
    assert_eq!(error, None, "{where_from}: {example}");
}

#[test]
fn every_command_has_an_example_and_all_are_understood() {
    fn walk(command: &clap::Command, name: &str) {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let found = examples(&help);
        found.iter().for_each(|example| assert_understood(example, name));
        let shown: Vec<_> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
        if shown.is_empty() {
            let own = found.iter().any(|example| example.starts_with(name));
            assert!(own, "the help of {name} has no example of it");
        }
        for sub in shown {
            walk(sub, &format!("{name} {}", sub.get_name()));
        }
    }
    walk(&Cli::command(), "pgrecall");
}

#[test]
fn the_examples_of_the_pages_are_understood() {
    for (name, page) in [
        ("README.md", include_str!("../../../../README.md")),
        ("docs/json.md", include_str!("../../../../docs/json.md")),
        ("docs/restore.md", include_str!("../../../../docs/restore.md")),
    ] {
        let found = examples(&code(page));
        assert!(!found.is_empty(), "{name} has examples");
        found.iter().for_each(|example| assert_understood(example, name));
    }
}

#[test]
fn an_option_that_is_not_there_would_be_seen() {
    let text = "  pgrecall list --nosuch | jq .\n  archive_command = 'pgrecall wal push %p'\nRun pgrecall x.";
    let found = examples(text);
    assert_eq!(found, ["pgrecall list --nosuch", "pgrecall wal push %p"]);
    assert!(Cli::try_parse_from(words(&found[0])).is_err());
    assert_eq!(words("pgrecall plan --to-time '2026-11-22 14:03:07+00'").len(), 4);
}
