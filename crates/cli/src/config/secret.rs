//! A text that must not be seen: no `Debug`, no `Display`, wiped when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::failure::{Failure, Kind, Outcome};

/// A passphrase, password or access key.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself. Whoever calls this keeps it out of logs, errors and argv.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// Where a secret comes from; it is fetched only when it is needed.
#[derive(Clone)]
pub(crate) enum SecretSource {
    /// From an environment variable, or from the configuration file where that is allowed.
    Given(Secret),
    /// The first line of a file.
    File(PathBuf),
    /// The first line a shell command prints.
    Command(String),
}

impl SecretSource {
    /// Fetches the secret. `what` names it in errors ("passphrase").
    pub(crate) fn obtain(&self, what: &str) -> Outcome<Secret> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => from_file(path, what),
            Self::Command(command) => from_command(command, what),
        }
    }
}

fn from_file(path: &Path, what: &str) -> Outcome<Secret> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        Failure::from_error(Kind::Configuration, &error)
            .during(format!("reading the {what} from {}", path.display()))
    })?;
    first_line(&text).ok_or_else(|| {
        Failure::configuration(format!("the file {} holds no {what}", path.display()))
    })
}

fn from_command(command: &str, what: &str) -> Outcome<Secret> {
    let output = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            Failure::from_error(Kind::Configuration, &error)
                .during(format!("running the command for the {what}"))
        })?;
    let (status, bytes) = (output.status, Zeroizing::new(output.stdout));
    if !status.success() {
        return Err(Failure::configuration(format!(
            "the command for the {what} ended with {status}"
        )));
    }
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(first_line)
        .ok_or_else(|| Failure::configuration(format!("the command for the {what} printed none")))
}

fn first_line(text: &str) -> Option<Secret> {
    let line = text.lines().next().unwrap_or_default();
    (!line.is_empty()).then(|| Secret::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gives_its_first_line() {
        let source = SecretSource::Command("echo horse; echo battery".to_owned());
        let secret = source.obtain("passphrase").map_err(|failure| failure.to_string());
        assert_eq!(secret.map(|secret| secret.expose().to_owned()), Ok("horse".to_owned()));
    }

    #[test]
    fn a_failing_or_silent_command_is_an_error_without_its_output() {
        for command in ["echo horse; exit 3", "true", "printf '\\n'"] {
            let failure = SecretSource::Command(command.to_owned()).obtain("passphrase").err();
            let text = failure.map(|failure| failure.to_string()).unwrap_or_default();
            assert!(text.contains("the command for the passphrase"), "{command}: {text}");
            assert!(!text.contains("horse"), "{text}");
        }
    }
}
