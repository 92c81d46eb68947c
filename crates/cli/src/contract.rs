//! Who called us, read from the bare arguments before anything else can go wrong. `restore_command`
//! and `archive_command` have their own rules for exit codes, and those hold for usage errors,
//! configuration errors and panics as well.

use std::ffi::OsString;
use std::path::Path;

use crate::args::Command;
use crate::args::wal::WalCommand;

/// The rules by which the exit code is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contract {
    /// A person or a script: codes by kind.
    Person,
    /// `archive_command`: every failure within 1–125.
    Push,
    /// `restore_command` in point-in-time or crash recovery: 1 only for proven absence, 126 for
    /// everything else.
    Fetch,
    /// `restore_command` of a standby: every failure is 1, since PostgreSQL then streams or asks
    /// again, while above 125 it would shut the standby down.
    StandbyFetch,
    /// `restore_command` at the very end of recovery, when the signal files are gone already:
    /// PostgreSQL asks once more for the history of the timeline that it leaves, to write that of
    /// the new one (`writeTimeLineHistory` in `timeline.c`). It has the file in `pg_wal`, and takes
    /// it from there when it is told 1. Above 125 it dies in the middle of the promotion, and would
    /// come up again on the old timeline. Every failure is 1.
    PromotionFetch,
}

impl Contract {
    /// Reads the contract from the arguments (without the program's name) and from `standby.signal`
    /// in the working directory, which for `restore_command` is the data directory.
    pub(crate) fn of(arguments: &[OsString]) -> Self {
        match command(arguments) {
            Some(Wal::Push) => Self::Push,
            Some(Wal::Fetch) => Self::fetch_here(arguments),
            None => Self::Person,
        }
    }

    /// The same for arguments that were parsed: a value, such as a cluster called `archive-push`,
    /// is no command.
    pub(crate) fn of_parsed(command: &Command, arguments: &[OsString]) -> Self {
        match command {
            Command::Wal(WalCommand::Push(_)) | Command::ArchivePush(_) => Self::Push,
            Command::Wal(WalCommand::Fetch(_)) | Command::ArchiveGet(_) => {
                Self::fetch_here(arguments)
            }
            _ => Self::Person,
        }
    }

    /// The same for arguments that could not be parsed: a mistyped command in `restore_command`
    /// must not end recovery either.
    pub(crate) fn of_unparsable(arguments: &[OsString]) -> Self {
        match Self::of(arguments) {
            Self::Person if looks_like_fetch(arguments) => Self::fetch_here(arguments),
            known => known,
        }
    }

    fn fetch_here(arguments: &[OsString]) -> Self {
        if Path::new("standby.signal").exists() {
            Self::StandbyFetch
        } else if ends_promotion(arguments, Path::new("")) {
            Self::PromotionFetch
        } else {
            Self::Fetch
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wal {
    Push,
    Fetch,
}

/// Finds the command by its words alone. Options may stand anywhere among them, wrong ones too, so
/// this asks for the order of the words and not for their places.
fn command(arguments: &[OsString]) -> Option<Wal> {
    let mut after_wal = false;
    for word in arguments.iter().filter_map(|argument| argument.to_str()) {
        match word {
            "archive-get" => return Some(Wal::Fetch),
            "archive-push" => return Some(Wal::Push),
            "fetch" if after_wal => return Some(Wal::Fetch),
            "push" if after_wal => return Some(Wal::Push),
            "resolve" if after_wal => return None,
            "wal" => after_wal = true,
            _ => {}
        }
    }
    None
}

/// The first timeline has no ancestors, and no history file.
const FIRST_HISTORY: &str = "00000001.history";

/// Whether a history file is asked for that recovery can do without: the one that no cluster has,
/// or, once the signal files are gone, one that `pg_wal` holds.
fn ends_promotion(arguments: &[OsString], data_directory: &Path) -> bool {
    arguments.iter().filter_map(|argument| argument.to_str()).any(|word| {
        word == FIRST_HISTORY
            || (is_history_name(word)
                && !data_directory.join("recovery.signal").exists()
                && data_directory.join("pg_wal").join(word).is_file())
    })
}

/// Whether the arguments hold what PostgreSQL puts in place of `%f`, followed by something in the
/// place of `%p`.
pub(crate) fn looks_like_fetch(arguments: &[OsString]) -> bool {
    let named = arguments.iter().position(|argument| argument.to_str().is_some_and(is_wal_name));
    named.is_some_and(|at| arguments.len() > at + 1)
}

/// Whether the arguments are nothing but the words of a command and a call for help.
pub(crate) fn asks_help_only(arguments: &[OsString]) -> bool {
    let words = ["wal", "push", "fetch", "archive-push", "archive-get", "-h", "--help"];
    arguments.iter().all(|argument| argument.to_str().is_some_and(|word| words.contains(&word)))
}

/// A segment's name (24 hex digits) or a history file's (8 hex digits and `.history`), as in
/// PostgreSQL's `xlog_internal.h`.
fn is_wal_name(word: &str) -> bool {
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    hex(word, 24) || is_history_name(word)
}

fn is_history_name(word: &str) -> bool {
    let stem = word.strip_suffix(".history").filter(|stem| stem.len() == 8);
    stem.is_some_and(|stem| stem.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_command_is_found_among_options_known_or_not() {
        for (line, expected) in [
            ("wal fetch 000000010000000000000001 pg_wal/RECOVERYXLOG", Some(Wal::Fetch)),
            ("--config /x wal fetch a b", Some(Wal::Fetch)),
            ("--no-such-option wal fetch a b", Some(Wal::Fetch)),
            ("wal --cluster main fetch a b", Some(Wal::Fetch)),
            ("archive-get a b", Some(Wal::Fetch)),
            ("--repo wal archive-get a b", Some(Wal::Fetch)),
            ("wal push pg_wal/fetch", Some(Wal::Push)),
            ("wal push fetch", Some(Wal::Push)),
            ("archive-push pg_wal/0000", Some(Wal::Push)),
            ("backup --threads 3", None),
            ("wal resolve x", None),
            ("", None),
        ] {
            assert_eq!(command(&words(line)), expected, "{line}");
        }
    }

    /// A bare scan of the words takes a value for a command, and 126 for the archiver's death.
    #[test]
    fn a_value_that_reads_like_a_command_is_none_once_it_is_parsed() {
        use clap::Parser as _;
        for (line, expected) in [
            ("--cluster archive-push wal fetch 000000010000000000000001 x", Contract::Fetch),
            ("--cluster archive-get wal push pg_wal/000000010000000000000001", Contract::Push),
            ("--cluster archive-get list", Contract::Person),
        ] {
            let arguments = words(&format!("pgrecall {line}"));
            let cli = crate::args::Cli::try_parse_from(&arguments).expect("a command line");
            assert_eq!(Contract::of_parsed(&cli.command, &arguments[1..]), expected, "{line}");
        }
    }

    #[test]
    fn a_promotion_can_do_without_histories_that_it_has() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let here = folder.path();
        std::fs::create_dir(here.join("pg_wal"))?;
        let ends = |name: &str| {
            ends_promotion(&words(&format!("wal fetch {name} pg_wal/RECOVERYHISTORY")), here)
        };
        assert!(ends("00000001.history"));
        assert!(!ends("00000003.history"));
        std::fs::write(here.join("pg_wal/00000003.history"), "1\t0/3000000\tno reason\n")?;
        std::fs::write(here.join("pg_wal/000000030000000000000004"), "")?;
        assert!(ends("00000003.history"));
        assert!(!ends("000000030000000000000004"));
        std::fs::write(here.join("recovery.signal"), "")?;
        assert!(!ends("00000003.history"));
        Ok(())
    }

    #[test]
    fn a_mistyped_restore_command_is_still_one() {
        assert!(looks_like_fetch(&words("wall fetch 000000010000000000000001 pg_wal/X")));
        assert!(looks_like_fetch(&words("fetch 00000002.history pg_wal/X")));
        assert!(!looks_like_fetch(&words("wall push pg_wal/000000010000000000000001")));
        assert!(!looks_like_fetch(&words("restore /srv/pg --to-tiem now")));
    }
}
