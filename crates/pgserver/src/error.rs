//! What can go wrong between us and a server.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;
use tokio_postgres::error::SqlState;

/// How a caller should react to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The file, database or role is not there.
    NotFound,
    /// Something else happened to the server meanwhile: the backup is void.
    Conflict,
    /// A major, a setting or an option that this build does not know.
    Unsupported,
    /// The server cannot be reached now; a retry may help.
    Unavailable,
    /// A password is wrong, or a right is missing.
    Denied,
    /// The caller (or the user) gave something that cannot be.
    Invalid,
    /// The server said what it should not.
    Internal,
}

/// An error of this crate. The text tells its own level only; the cause is in `source()`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A connection option that cannot be used.
    #[error("{option}: {problem}")]
    Option {
        /// The option or environment variable.
        option: String,
        /// What is wrong with it, without any secret.
        problem: String,
    },
    /// An option of libpq that is not supported here.
    #[error("{option} is not supported")]
    UnsupportedOption {
        /// The option or environment variable.
        option: String,
        /// What to use instead.
        instead: &'static str,
    },
    /// A file with certificates or passwords cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// `postmaster.pid` is not one.
    #[error("postmaster.pid: {problem}")]
    PostmasterFile {
        /// What is wrong with it.
        problem: String,
    },
    /// No connection came about.
    #[error("no connection to {address}")]
    Unreachable {
        /// Where: host and port, or the socket.
        address: String,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server does not take connections now: it starts, stops or is full.
    #[error("the server at {address} takes no connections now")]
    NotAccepting {
        /// Where.
        address: String,
        /// What it said.
        #[source]
        source: ServerMessage,
    },
    /// The server refuses this user.
    #[error("{address} refuses user {user:?}")]
    AuthenticationFailed {
        /// Where.
        address: String,
        /// The role.
        user: String,
        /// What it said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no such database.
    #[error("there is no database {database:?} at {address}")]
    NoDatabase {
        /// Where.
        address: String,
        /// The database.
        database: String,
        /// What the server said.
        #[source]
        source: ServerMessage,
    },
    /// TLS could not be agreed on, or the certificate is not trusted.
    #[error("no trusted TLS connection to {address}")]
    Tls {
        /// Where.
        address: String,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server's major is not known here.
    #[error("the server is PostgreSQL {}; 14 to 19 are known", shown_version(*number))]
    UnsupportedVersion {
        /// `server_version_num`.
        number: u32,
    },
    /// The role lacks a right.
    #[error("the role may not {act}")]
    Denied {
        /// What was tried.
        act: &'static str,
        /// The statements that give the right; `ROLE` stands for the role.
        grant: String,
        /// What the server said, if it was asked.
        #[source]
        source: Option<ServerMessage>,
    },
    /// A file or folder on the server's host is not there.
    #[error("the server has no {path:?}")]
    NoFile {
        /// The path as asked for.
        path: String,
        /// What it said.
        #[source]
        source: ServerMessage,
    },
    /// The server refused a statement for another reason.
    #[error("the server refused to {act}")]
    Refused {
        /// What was tried.
        act: &'static str,
        /// What it said.
        #[source]
        source: ServerMessage,
    },
    /// The session ended; a backup that ran on it is void.
    #[error("the connection was lost during: {act}")]
    ConnectionLost {
        /// What was under way.
        act: &'static str,
        /// The cause, where one is known.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The standby that was being backed up has become a primary.
    #[error("the standby was promoted during the backup, which is void")]
    PromotedDuringBackup {
        /// What it said.
        #[source]
        source: ServerMessage,
    },
    /// The server answered something that cannot be.
    #[error("{what}: the server answered {found:?}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// The answer.
        found: String,
    },
    /// An answer could not be decoded.
    #[error("{what}: the answer has an unexpected shape")]
    Shape {
        /// What was asked.
        what: &'static str,
        /// The cause.
        #[source]
        source: tokio_postgres::Error,
    },
    /// An argument that cannot be.
    #[error("{what}: {problem}")]
    Argument {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// An error message of the server's: severity, SQLSTATE, text, and detail if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMessage {
    /// The five characters of SQLSTATE.
    pub code: Box<str>,
    /// The primary message, in the server's language.
    pub message: Box<str>,
    /// The detail.
    pub detail: Option<Box<str>>,
    /// The server's own hint.
    pub hint: Option<Box<str>>,
}

impl ServerError {
    /// How to react.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Option { .. }
            | Self::File { .. }
            | Self::PostmasterFile { .. }
            | Self::Argument { .. } => ErrorKind::Invalid,
            Self::UnsupportedOption { .. } | Self::UnsupportedVersion { .. } => {
                ErrorKind::Unsupported
            }
            Self::Unreachable { .. } | Self::NotAccepting { .. } | Self::ConnectionLost { .. } => {
                ErrorKind::Unavailable
            }
            Self::AuthenticationFailed { .. } | Self::Tls { .. } | Self::Denied { .. } => {
                ErrorKind::Denied
            }
            Self::NoDatabase { .. } | Self::NoFile { .. } => ErrorKind::NotFound,
            Self::PromotedDuringBackup { .. } | Self::Refused { .. } => ErrorKind::Conflict,
            Self::Answer { .. } | Self::Shape { .. } => ErrorKind::Internal,
        }
    }

    /// What the user can do, where something is known to help; a sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnsupportedOption { instead, .. } => Some((*instead).to_owned()),
            Self::Denied { grant, .. } => Some(format!("As a superuser: {grant}")),
            Self::Unreachable { .. } => {
                Some("Is the server running, and are host and port right?".to_owned())
            }
            Self::AuthenticationFailed { .. } => {
                Some("See pg_hba.conf on the server, and where the password comes from.".to_owned())
            }
            Self::Tls { .. } => Some(
                "The certificate must chain to the root certificates, and with verify-full carry \
                 the host's name as a subject alternative name."
                    .to_owned(),
            ),
            Self::PromotedDuringBackup { .. } => Some("Start the backup again.".to_owned()),
            Self::Refused { source, .. } => source.hint.as_deref().map(str::to_owned),
            _ => None,
        }
    }

    /// The error of a statement that did `act`; missing rights are mended by `grant`.
    pub(crate) fn of_statement(
        error: tokio_postgres::Error,
        act: &'static str,
        grant: impl FnOnce() -> String,
    ) -> Self {
        let Some(source) = ServerMessage::of(&error) else {
            if error.is_closed() {
                return Self::ConnectionLost { act, source: None };
            }
            return Self::ConnectionLost { act, source: Some(cause_of(error)) };
        };
        match &*source.code {
            "42501" => Self::Denied { act, grant: grant(), source: Some(source) },
            // Class 57 is operator intervention: the server or this session is being ended.
            code if code.starts_with("57P") || code.starts_with("08") => {
                Self::ConnectionLost { act, source: Some(Box::new(source)) }
            }
            _ => Self::Refused { act, source },
        }
    }
}

impl ServerMessage {
    /// The server's message in `error`, if it came from the server.
    pub(crate) fn of(error: &tokio_postgres::Error) -> Option<Self> {
        let said = error.as_db_error()?;
        Some(Self {
            code: said.code().code().into(),
            message: said.message().into(),
            detail: said.detail().map(Into::into),
            hint: said.hint().map(Into::into),
        })
    }

    pub(crate) fn is(&self, state: &SqlState) -> bool {
        &*self.code == state.code()
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl Error for ServerMessage {}

/// What lies below an error of the client library, whose own text says "error connecting" and
/// then repeats its cause.
pub(crate) fn cause_of(error: tokio_postgres::Error) -> Box<dyn Error + Send + Sync> {
    let text = error.to_string();
    error.into_source().unwrap_or_else(|| text.into())
}

/// A version as people write it, old three-part ones too.
fn shown_version(number: u32) -> String {
    let major = number / 10_000;
    if major >= 10 {
        return format!("{major}.{}", number % 10_000);
    }
    format!("{major}.{}.{}", number / 100 % 100, number % 100)
}
