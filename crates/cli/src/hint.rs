//! What to do next, for failures that bring no hint of their own.

use crate::failure::Kind;

/// A sentence for the kind, where one always holds.
pub(crate) fn for_kind(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Usage => Some("`pgrecall COMMAND --help` shows what a command takes."),
        Kind::Configuration => {
            Some("`pgrecall config` prints what is in force and where each value came from.")
        }
        Kind::Corrupt => Some("`pgrecall verify` shows what else is damaged, and what it means."),
        Kind::Unavailable => Some("Trying again may help; `pgrecall check` tries the whole path."),
        Kind::Internal => {
            Some("This is a defect of pgrecall: please report it with the whole message.")
        }
        Kind::NotFound
        | Kind::AlreadyExists
        | Kind::Conflict
        | Kind::Unsupported
        | Kind::Denied
        | Kind::Invalid
        | Kind::Incomplete
        | Kind::Interrupted
        | Kind::Terminated => None,
    }
}
