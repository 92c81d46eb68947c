//! What can go wrong with an operation, by what the reader of the message can do about it.

use std::io;
use std::path::{Path, PathBuf};

use pgrecall_pgserver::ServerError;
pub use pgrecall_repo::ErrorKind;
use pgrecall_repo::RepoError;
use thiserror::Error;

/// Everything that an operation can fail with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The repository or its store failed; its own account says how.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The server failed; its own account says how.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A file of the database host.
    #[error("cannot {act} {path}")]
    File {
        /// What was tried: "read", "write", "list", "create", …
        act: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of PostgreSQL's is not what it should be.
    #[error("{path} is not what it should be")]
    Postgres {
        /// The file, on disk or in the archive.
        path: String,
        /// What is wrong with it.
        source: pgrecall_pgformat::FormatError,
    },
    /// The operation was asked to stop, by a signal.
    #[error("stopped as asked")]
    Cancelled,
    /// Anything that the variants above do not say: what was found, and what kind of reaction it
    /// calls for. Each such place gives a hint where there is something to do.
    #[error("{message}")]
    Refused {
        /// The reaction.
        kind: ErrorKind,
        /// What was found; a sentence of its own, without the hint.
        message: String,
        /// What to do, sentences for people.
        hints: Vec<String>,
    },
}

impl EngineError {
    /// The reaction that this calls for.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Repo(error) => error.kind(),
            Self::Server(error) => server_kind(error),
            Self::File { source, .. } => file_kind(source),
            Self::Postgres { .. } => ErrorKind::Corrupt,
            Self::Cancelled => ErrorKind::Unavailable,
            Self::Refused { kind, .. } => *kind,
        }
    }

    /// Whether it speaks of bytes that cannot be read, rather than of a store that fails. A bad
    /// sector speaks of what lies on it.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Repo(RepoError::Store(error)) if error.is_media_error() => true,
            _ => matches!(self.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
        }
    }

    /// Whether it proves that stored bytes are not what was written: not those of another version,
    /// not those that keys would open which are not here, nor what a disk may read again.
    #[must_use]
    pub fn is_proven_damage(&self) -> bool {
        !matches!(self, Self::Repo(RepoError::KeysMissing { .. }))
            && self.kind() == ErrorKind::Corrupt
    }

    /// What to do about it, for people.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Refused { hints, .. } => hints.clone(),
            Self::Server(error) => error.hint().into_iter().collect(),
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                vec!["Free space there, then run the same command again.".into()]
            }
            _ => Vec::new(),
        }
    }

    /// A refusal without hints.
    pub fn refused(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Refused { kind, message: message.into(), hints: Vec::new() }
    }

    /// The same with one more hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Refused { hints, .. } = &mut self {
            hints.push(hint.into());
        }
        self
    }

    /// A failure on a file of the host.
    pub fn file(act: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::File { act, path: path.as_ref().to_owned(), source }
    }
}

fn file_kind(source: &io::Error) -> ErrorKind {
    match source.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        _ => ErrorKind::Unavailable,
    }
}

fn server_kind(error: &ServerError) -> ErrorKind {
    use pgrecall_pgserver::ErrorKind as Server;
    match error.kind() {
        Server::NotFound => ErrorKind::NotFound,
        Server::Conflict => ErrorKind::Conflict,
        Server::Unsupported => ErrorKind::Unsupported,
        Server::Unavailable => ErrorKind::Unavailable,
        Server::Denied => ErrorKind::Denied,
        Server::Invalid => ErrorKind::Invalid,
        Server::Internal => ErrorKind::Internal,
    }
}
