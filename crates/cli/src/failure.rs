//! What every command ends with when it does not succeed: a kind, the chain of causes, and hints.

use std::error::Error;
use std::fmt;

use pgrecall_engine::EngineError;
use pgrecall_pgserver::ServerError;
use pgrecall_repo::{ErrorKind, RepoError};
use pgrecall_store::StoreError;

use crate::hint;

/// Why a command ended. A kind exists only where the reaction of a person, a script or PostgreSQL
/// differs; `exit.rs` gives each its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command line itself is wrong.
    Usage,
    /// A setting is missing, unknown or malformed.
    Configuration,
    /// The named thing is not there.
    NotFound,
    /// The named thing is there already.
    AlreadyExists,
    /// Somebody else holds it, or it is there with other content.
    Conflict,
    /// Stored bytes are not what was written.
    Corrupt,
    /// A newer format, an unknown PostgreSQL major, or a store that cannot do what is asked.
    Unsupported,
    /// The store or the server does not answer; trying again may help.
    Unavailable,
    /// A key, a permission or a credential is missing or wrong.
    Denied,
    /// What was asked cannot work with what was found.
    Invalid,
    /// Something needed is not complete: missing WAL, an unfinished backup or restore.
    Incomplete,
    /// A defect of pgrecall itself.
    Internal,
    /// Ended by SIGINT.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

/// A command's failure, ready to be shown.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// The outermost statement first, each cause after it.
    pub(crate) chain: Vec<String>,
    /// Whole sentences that say what to do.
    pub(crate) hints: Vec<String>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, chain: vec![message.into()], hints: Vec::new() }
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(Kind::Configuration, message)
    }

    /// Takes an error with all its sources. Each level is expected to tell its own part only.
    pub(crate) fn from_error(kind: Kind, error: &(dyn Error + 'static)) -> Self {
        let mut chain = vec![error.to_string()];
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some libraries repeat their cause in their own text; said once is enough.
            if !chain.last().is_some_and(|last| last.contains(&text)) {
                chain.push(text);
            }
            source = cause.source();
        }
        Self { kind, chain, hints: Vec::new() }
    }

    /// Puts another failure behind this one, as its cause.
    pub(crate) fn caused_by(mut self, cause: Self) -> Self {
        self.chain.extend(cause.chain);
        self.hints.extend(cause.hints);
        self
    }

    /// Puts what was being done in front of what went wrong.
    pub(crate) fn during(mut self, act: impl Into<String>) -> Self {
        self.chain.insert(0, act.into());
        self
    }

    pub(crate) fn hint(mut self, sentence: impl Into<String>) -> Self {
        self.hints.push(sentence.into());
        self
    }
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::AlreadyExists => Self::AlreadyExists,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::Incomplete => Self::Incomplete,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let mut failure = Self::from_error(ErrorKind::from(error.kind()).into(), &error);
        failure.hints.extend(hint::for_store(&error));
        failure
    }
}

impl From<RepoError> for Failure {
    fn from(error: RepoError) -> Self {
        let mut failure = Self::from_error(error.kind().into(), &error);
        failure.hints.extend(hint::for_repo(&error));
        failure
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        use pgrecall_pgserver::ErrorKind as Server;
        let kind = match error.kind() {
            Server::NotFound => Kind::NotFound,
            Server::Conflict => Kind::Conflict,
            Server::Unsupported => Kind::Unsupported,
            Server::Unavailable => Kind::Unavailable,
            Server::Denied => Kind::Denied,
            Server::Invalid => Kind::Invalid,
            Server::Internal => Kind::Internal,
        };
        let mut failure = Self::from_error(kind, &error);
        failure.hints.extend(error.hint());
        failure
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let mut failure = Self::from_error(error.kind().into(), &error);
        failure.hints.extend(error.hints());
        if let EngineError::Repo(error) = &error {
            failure.hints.extend(hint::for_repo(error));
        }
        failure
    }
}

/// The chain on one line, joined by colons; line breaks inside of it become spaces, so that a log
/// keeps one line per event.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.chain.iter().enumerate() {
            if at > 0 {
                f.write_str(": ")?;
            }
            let mut lines = part.split('\n').map(str::trim).filter(|line| !line.is_empty());
            if let Some(first) = lines.next() {
                f.write_str(first)?;
            }
            for line in lines {
                write!(f, " {line}")?;
            }
        }
        Ok(())
    }
}

/// What an engine operation or a command returns here.
pub(crate) type Outcome<T> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_one_line_outermost_first() {
        let failure = Failure::new(Kind::Corrupt, "checksum differs\n  at byte 4096")
            .during("pack p1")
            .hint("Run pgrecall verify.");
        assert_eq!(failure.to_string(), "pack p1: checksum differs at byte 4096");
        assert_eq!(failure.hints, ["Run pgrecall verify."]);
    }

    #[test]
    fn sources_are_followed_and_not_repeated() {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("reading /etc/pgrecall/pgrecall.toml")
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Outer(std::io::Error::other("disk on fire"));
        let failure = Failure::from_error(Kind::Unavailable, &error);
        assert_eq!(failure.to_string(), "reading /etc/pgrecall/pgrecall.toml: disk on fire");
    }
}
