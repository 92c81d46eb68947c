//! A terminal for a program under test, made by util-linux' `script`.

use std::process::{Command, Stdio};

use crate::postgres::as_server_user;

/// The same command, with its arguments and variables, on a terminal of its own, as PostgreSQL's
/// user. What it writes to standard output and standard error comes on standard output.
///
/// # Panics
/// When an argument is not UTF-8.
pub fn on_a_terminal(command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| quoted(word.to_str().expect("UTF-8"))).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.env("TERM", "xterm").stdin(Stdio::null()).current_dir("/");
    as_server_user(script)
}

/// A word that the shell takes as it stands.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
