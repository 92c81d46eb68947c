//! The program as a user, a script and PostgreSQL run it: output, exit codes, configuration.

#[path = "cli/completions.rs"]
mod completions;
#[path = "cli/config.rs"]
mod config;
#[path = "cli/exit.rs"]
mod exit;
#[path = "cli/gc.rs"]
mod gc;
#[path = "cli/init.rs"]
mod init;
#[path = "cli/program.rs"]
mod program;
