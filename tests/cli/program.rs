//! Runs the binary in a folder of its own, with nothing of this machine's environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder to run in, with `pgrecall.toml` beside it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

/// What a run gave.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("data")).expect("a data folder");
        std::fs::write(folder.path().join("pgrecall.toml"), config).expect("writing pgrecall.toml");
        Self { folder }
    }

    /// The working directory of runs.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("pgrecall.toml")
    }

    /// Makes the working directory look like a standby's.
    pub(crate) fn standby(self) -> Self {
        std::fs::write(self.data().join("standby.signal"), "").expect("writing standby.signal");
        self
    }

    pub(crate) fn run(&self, line: &str) -> Run {
        self.run_with(line, &[])
    }

    /// Run by a shell that does something first, such as `umask 077`.
    pub(crate) fn run_after(&self, first: &str, line: &str) -> Run {
        let line = format!("{first} && exec {} {line}", env!("CARGO_BIN_EXE_pgrecall"));
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &line]);
        finish(shell, &[], &self.config(), &self.data())
    }

    pub(crate) fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        run(&words, variables, &self.config(), &self.data())
    }
}

fn run(words: &[&str], variables: &[(&str, &str)], config: &Path, directory: &Path) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrecall"));
    command.args(words);
    finish(command, variables, config, directory)
}

fn finish(
    mut command: Command,
    variables: &[(&str, &str)],
    config: &Path,
    directory: &Path,
) -> Run {
    let output = command
        .env_clear()
        .env("PGRECALL_CONFIG", config)
        .envs(variables.iter().copied())
        .current_dir(directory)
        .output()
        .expect("running pgrecall");
    let Output { status, stdout, stderr } = output;
    Run {
        code: status.code().expect("an exit code, not a signal"),
        stdout: String::from_utf8(stdout).expect("UTF-8 on standard output"),
        stderr: String::from_utf8(stderr).expect("UTF-8 on standard error"),
    }
}
