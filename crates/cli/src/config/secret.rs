//! A text that must not be seen: no `Debug`, no `Display`, wiped when dropped.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    /// Fetches the secret. `what` names it in errors ("passphrase"); a command may take `within`.
    pub(crate) fn obtain(&self, what: &str, within: Duration) -> Outcome<Secret> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => from_file(path, what),
            Self::Command(command) => from_command(command, what, within),
        }
    }
}

fn from_file(path: &Path, what: &str) -> Outcome<Secret> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        Failure::from_error(Kind::Configuration, &error)
            .during(format!("reading the {what} from {}", path.display()))
    })?;
    warn_if_open_to_everybody(path, &format!("the file of the {what},"));
    first_line(&text).ok_or_else(|| {
        Failure::configuration(format!("the file {} holds no {what}", path.display()))
    })
}

/// Warns of a file with a secret that is not for its owner and group alone.
pub(crate) fn warn_if_open_to_everybody(path: &Path, what: &str) {
    let mode = std::fs::metadata(path).map(|found| found.permissions().mode()).unwrap_or(0);
    if mode & 0o007 != 0 {
        tracing::warn!("{what} {} is open to everybody; chmod 600 it", path.display());
    }
}

/// No secret is longer.
const COMMAND_BYTES_MAX: u64 = 64 << 10;

/// How often a running command is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A vault that hangs must not hang PostgreSQL's archiver or recovery: a command that takes too
/// long is killed, with all that it has started.
fn from_command(command: &str, what: &str, within: Duration) -> Outcome<Secret> {
    let running = |error: &std::io::Error| {
        Failure::from_error(Kind::Configuration, error)
            .during(format!("running the command for the {what}"))
    };
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .map_err(|error| running(&error))?;
    let mut printed = child.stdout.take();
    let read_all = move || {
        // One that grew would leave pieces behind.
        let capacity = usize::try_from(COMMAND_BYTES_MAX).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
        let Some(printed) = printed.take() else { return Ok(bytes) };
        printed.take(COMMAND_BYTES_MAX).read_to_end(&mut bytes).map(|_| bytes)
    };
    let reading = std::thread::Builder::new().spawn(read_all).map_err(|error| running(&error))?;
    let began = Instant::now();
    // What it started in the background may hold its output open: that counts as running.
    while !(reading.is_finished() && child.try_wait().map_err(|error| running(&error))?.is_some()) {
        if began.elapsed() >= within {
            let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
            let message = format!(
                "the command for the {what} did not end within {} s, and was killed",
                within.as_secs_f64()
            );
            return Err(Failure::new(Kind::Unavailable, message));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let status = child.wait().map_err(|error| running(&error))?;
    let bytes = match reading.join() {
        Ok(read) => read.map_err(|error| running(&error))?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
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

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let alive = folder.path().join("alive");
        // The shell waits for a child that would tell that it lives on.
        let command = format!("(sleep 1; touch '{}'); echo horse", alive.display());
        let began = Instant::now();
        let source = SecretSource::Command(command);
        let failure = source.obtain("passphrase", Duration::from_millis(200)).err();
        assert!(failure.is_some_and(|failure| failure.kind == Kind::Unavailable));
        assert!(began.elapsed() < Duration::from_millis(900));
        std::thread::sleep(Duration::from_millis(1200));
        assert!(!alive.exists());
    }

    #[test]
    fn a_command_gives_its_first_line() {
        let source = SecretSource::Command("echo horse; echo battery".to_owned());
        let secret = source.obtain("passphrase", LONG).map_err(|failure| failure.to_string());
        assert_eq!(secret.map(|secret| secret.expose().to_owned()), Ok("horse".to_owned()));
    }

    #[test]
    fn a_failing_or_silent_command_is_an_error_without_its_output() {
        for command in ["echo horse; exit 3", "true", "printf '\\n'"] {
            let failure =
                SecretSource::Command(command.to_owned()).obtain("passphrase", LONG).err();
            let text = failure.map(|failure| failure.to_string()).unwrap_or_default();
            assert!(text.contains("the command for the passphrase"), "{command}: {text}");
            assert!(!text.contains("horse"), "{text}");
        }
    }
}
