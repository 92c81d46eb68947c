//! The command line of pgrecall: settles under whose rules it runs, parses, dispatches, and turns
//! every ending, panics included, into the exit code which the caller understands.

mod args;
mod commands;
mod config;
mod context;
mod contract;
mod dispatch;
mod exit;
mod failure;
mod hint;
mod logging;
mod moment;
mod output;
mod report;
mod setup;

use std::cell::Cell;
use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::Cli;
use crate::contract::Contract;
use crate::failure::{Failure, Kind};

fn main() -> ExitCode {
    panic::set_hook(Box::new(report::on_panic));
    without_core_dump();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let contract = Cell::new(Contract::of(&arguments));
    let ended = panic::catch_unwind(AssertUnwindSafe(|| run(&arguments, &contract)));
    let failure = match ended {
        Ok(Ok(code)) => return ExitCode::from(code),
        Ok(Err(failure)) => failure,
        Err(_) => report::of_panic(),
    };
    let contract = contract.get();
    let code = exit::code(contract, &failure);
    // Telling must not change the exit code either, whatever happens to it.
    let _ = panic::catch_unwind(|| report::failure(contract, &failure));
    ExitCode::from(code)
}

/// Keys are in memory, and belong in no file that a crash leaves behind.
fn without_core_dump() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, nothing);
}

fn run(arguments: &[OsString], contract: &Cell<Contract>) -> Result<u8, Failure> {
    plant_panic("early");
    let words = std::iter::once(OsString::from("pgrecall")).chain(arguments.iter().cloned());
    match Cli::try_parse_from(words) {
        Ok(cli) => {
            contract.set(Contract::of_parsed(&cli.command, arguments));
            dispatch::run(cli, contract)
        }
        Err(error) => {
            let parsed_as = Contract::of_unparsable(arguments);
            contract.set(parsed_as);
            told_by_clap(&error, arguments, parsed_as)
        }
    }
}

/// Help, the version, or a usage error: clap words them all.
fn told_by_clap(
    error: &clap::Error,
    arguments: &[OsString],
    contract: Contract,
) -> Result<u8, Failure> {
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // With nobody left to read it, there is nothing to be done about an error here.
    let _ = error.print();
    if help && (contract == Contract::Person || contract::asks_help_only(arguments)) {
        return Ok(0);
    }
    if help {
        // Exit code 0 would tell PostgreSQL that the file is safe, or that it was fetched.
        return Err(Failure::new(Kind::Usage, "help was asked for in place of a WAL file"));
    }
    let message = error.to_string();
    let first = message.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    Err(Failure::new(Kind::Usage, first).during("wrong command line"))
}

/// Ends the process by a panic where a test asks for it; release builds do not know this.
fn plant_panic(place: &str) {
    if cfg!(debug_assertions)
        && std::env::var_os("PGRECALL_TEST_PANIC").is_some_and(|planted| planted == place)
    {
        panic!("planted by PGRECALL_TEST_PANIC");
    }
}
