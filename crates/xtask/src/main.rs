//! Checks of the source tree that cargo itself does not make: `cargo xtask tidy`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod directions;
mod listing;
mod source;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy::run(),
        _ => {
            eprintln!("usage: cargo xtask tidy");
            ExitCode::from(2)
        }
    }
}
