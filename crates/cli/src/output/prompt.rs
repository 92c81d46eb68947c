//! Questions on the terminal.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios};
use zeroize::Zeroizing;

use crate::config::secret::Secret;
use crate::failure::{Failure, Kind, Outcome};

/// Asks for a yes. Without a terminal nobody can answer.
///
/// # Errors
/// When the answer is no, or cannot be given.
pub(crate) fn confirm(question: &str, assumed: bool) -> Outcome<()> {
    if assumed {
        return Ok(());
    }
    let refused = |message: &str| Failure::new(Kind::Usage, message);
    if !is_possible() {
        return Err(refused("this needs a confirmation, and there is no terminal")
            .hint("Give --yes if you are sure."));
    }
    let mut terminal = Terminal::open()?;
    let answer = terminal.ask(&format!("{question} [y/N] "))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused("not confirmed; nothing was done")),
    }
}

/// Whether somebody can be asked.
pub(crate) fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a secret; what is typed is not shown.
///
/// # Errors
/// Without a terminal, or when nothing is typed.
pub(crate) fn secret(question: &str) -> Outcome<Secret> {
    let mut terminal = Terminal::open()?;
    let typed = {
        let _hidden = Hidden::on(&terminal.write)?;
        let typed = terminal.ask(question);
        terminal.tell("\n")?;
        typed?
    };
    let typed = Zeroizing::new(typed);
    let text = typed.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(Failure::new(Kind::Usage, "nothing was typed"));
    }
    Ok(Secret::new(text.to_owned()))
}

struct Terminal {
    read: BufReader<File>,
    write: File,
}

impl Terminal {
    fn open() -> Outcome<Self> {
        let open = || {
            let write = File::options().read(true).write(true).open("/dev/tty")?;
            Ok(Self { read: BufReader::new(write.try_clone()?), write })
        };
        open().map_err(|error: std::io::Error| {
            Failure::from_error(Kind::Usage, &error)
                .during("asking on the terminal")
                .hint("Without a terminal, give the answer by a flag, a file or a variable.")
        })
    }

    fn tell(&mut self, text: &str) -> Outcome<()> {
        self.write.write_all(text.as_bytes()).map_err(|error| {
            Failure::from_error(Kind::Unavailable, &error).during("writing to the terminal")
        })
    }

    fn ask(&mut self, question: &str) -> Outcome<String> {
        self.tell(question)?;
        let mut line = String::new();
        self.read.read_line(&mut line).map_err(|error| {
            Failure::from_error(Kind::Unavailable, &error).during("reading from the terminal")
        })?;
        Ok(line)
    }
}

/// The terminal without echo, until dropped.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn on(terminal: &File) -> Outcome<Self> {
        let hide = || {
            let terminal = terminal.try_clone()?;
            let before = rustix::termios::tcgetattr(&terminal)?;
            let mut hidden = before.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            rustix::termios::tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
            Ok(Self { terminal, before })
        };
        hide().map_err(|error: std::io::Error| {
            Failure::from_error(Kind::Unavailable, &error).during("hiding what is typed")
        })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
