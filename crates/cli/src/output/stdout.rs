//! Standard output: the only place that writes to it. A reader that went away (`pgrecall list |
//! head`) is no error.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::failure::{Failure, Kind, Outcome};

/// Writes the text as it is.
pub(crate) fn print(text: &str) -> Outcome<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::from_error(Kind::Unavailable, &error).during("writing to standard output"))
        }
        _ => Ok(()),
    }
}

/// Writes the text and ends the line.
pub(crate) fn print_line(text: &str) -> Outcome<()> {
    print(&format!("{text}\n"))
}

/// Writes a value as indented JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::from_error(Kind::Internal, &error).during("writing JSON"))?;
    print_line(&text)
}

/// Whether a stream gets colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Plain,
    Ansi,
}

impl Colour {
    pub(crate) fn of_stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    pub(crate) fn of_stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    /// Colours only on a terminal that can show them, and not when `NO_COLOR` is set
    /// (no-color.org).
    fn of(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if terminal && !refused && !dumb { Self::Ansi } else { Self::Plain }
    }

    /// The text in a colour.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Good => 32,
            Paint::Warning => 33,
            Paint::Bad => 31,
            Paint::Heading => 1,
            Paint::Faint => 2,
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// What a colour stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Good,
    Warning,
    Bad,
    Heading,
    Faint,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_plain() {
        assert_eq!(Colour::Plain.paint(Paint::Bad, "x"), "x");
        assert_eq!(Colour::Ansi.paint(Paint::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
