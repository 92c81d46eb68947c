//! `pgrecall completions`.

use clap::CommandFactory as _;

use crate::args::{Cli, Shell};
use crate::failure::Outcome;
use crate::output::stdout;

pub(crate) fn run(shell: Shell) -> Outcome<()> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pgrecall", &mut script);
    stdout::print(&String::from_utf8_lossy(&script))
}
