//! What the store gave and this program cannot read: damaged, or written by a newer one.

use std::error::Error;

use crate::catalog::chain;
use crate::error::{EngineError, ErrorKind};

/// Why a stored object does not read; of one that nobody needs it is no reason to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Whether it is damaged or too new.
    pub cause: Cause,
    /// What was found.
    pub reason: String,
}

/// What keeps an object from being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its bytes are not what was written.
    Damage,
    /// Another version of the program wrote it: nobody can say here whether it is good.
    OtherVersion,
}

impl Unreadable {
    /// Damaged, for this reason.
    #[must_use]
    pub fn damaged(reason: impl Into<String>) -> Self {
        Self { cause: Cause::Damage, reason: reason.into() }
    }

    /// What an error says, whose kind is `kind`.
    #[must_use]
    pub fn of(kind: ErrorKind, error: &(dyn Error + 'static)) -> Self {
        Self { cause: Cause::of(kind), reason: chain(error) }
    }

    /// Whether another version of the program reads it.
    #[must_use]
    pub fn is_of_other_version(&self) -> bool {
        self.cause == Cause::OtherVersion
    }
}

impl From<&EngineError> for Unreadable {
    fn from(error: &EngineError) -> Self {
        Self::of(error.kind(), error)
    }
}

impl Cause {
    /// The cause that an error of this kind speaks of.
    #[must_use]
    pub const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Unsupported => Self::OtherVersion,
            _ => Self::Damage,
        }
    }

    /// The graver of two: damage outweighs what cannot be judged.
    #[must_use]
    pub const fn graver(self, other: Self) -> Self {
        match (self, other) {
            (Self::OtherVersion, Self::OtherVersion) => Self::OtherVersion,
            _ => Self::Damage,
        }
    }

    /// The reaction that it calls for.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        match self {
            Self::Damage => ErrorKind::Corrupt,
            Self::OtherVersion => ErrorKind::Unsupported,
        }
    }
}
