//! What to do next, for failures that bring no hint of their own.

use pgrecall_repo::RepoError;
use pgrecall_store::StoreError;

use crate::failure::Kind;

/// What the store itself has to say.
pub(crate) fn for_store(error: &StoreError) -> Option<String> {
    error.hint().map(str::to_owned)
}

/// What to do about an error of the repository.
pub(crate) fn for_repo(error: &RepoError) -> Option<String> {
    let sentence = match error {
        RepoError::NoteUnread { source }
            if source.kind() == pgrecall_repo::ErrorKind::Unsupported =>
        {
            return for_repo(source);
        }
        RepoError::NoteUnread { .. } => {
            "`pgrecall verify --read-data` reads everything again, and puts another note in its \
             place. Until then nothing expires and nothing is collected."
        }
        RepoError::Store(source) | RepoError::Unknown { source, .. } => return for_store(source),
        RepoError::NoRepository { .. } => {
            "Is the right place named, and is the disk mounted? pgrecall init makes a repository."
        }
        RepoError::OtherRepository { .. } => {
            "This is another repository than the one that init has pinned: look at --repo and at \
             what is mounted there."
        }
        RepoError::OtherSuite { .. } => {
            "repository.encryption in the configuration must say what the repository is; an \
             encrypted one that has become clear is not the one that was made."
        }
        RepoError::OtherKey { .. } => {
            "The key opens a repository that is not the pinned one: somebody has put another in \
             its place, or repository.key_fingerprint is wrong."
        }
        RepoError::WrongKey { .. } => {
            "`pgrecall key list`, run where a key works, shows the keys that open it."
        }
        RepoError::NoRestoreKey { .. } => NO_RESTORE_KEY,
        RepoError::KeysMissing { .. } => {
            "Nothing else opens it: bring back the object with its keys, by an earlier version of \
             it or from a copy of the repository. Where keys were rotated meanwhile, run it again."
        }
        RepoError::Newer { .. } => "Use the version of pgrecall that wrote it, or a newer one.",
        RepoError::Older { .. } => {
            "Builds from before the first release wrote it, and nothing converts it: make another \
             repository with `pgrecall init` and take a backup into it. Only the build that wrote \
             this one can restore from it."
        }
        RepoError::Unsettled { source, .. } => match &**source {
            RepoError::Store(source) | RepoError::Unknown { source, .. } => {
                return for_store(source);
            }
            _ => {
                "`pgrecall list` shows whether it counts. Keys that were rotated while it ran are \
                 none that it has: what is sealed by them it cannot read."
            }
        },
        RepoError::NeedUnknown { backup, cluster, .. } => {
            return Some(format!(
                "Take a backup: it stores again what the server still has. `pgrecall repair` mends \
                 what it can, and `pgrecall verify` says what is lost. If nothing brings it back, \
                 `pgrecall repair --cluster {cluster} --give-up {backup}` lets go of the backup."
            ));
        }
        RepoError::PacksMissing { .. } => {
            "Run the backup again: it stores what is missing. `pgrecall verify` shows what else \
             was lost."
        }
        RepoError::ChunkMissing { .. } => {
            "`pgrecall verify` shows which backups need it; another backup may be whole."
        }
        _ => return None,
    };
    Some(sentence.to_owned())
}

/// What to do where data cannot be read.
pub(crate) const NO_RESTORE_KEY: &str = "Run it where one restores: there repository.restore_key_file names the file with that \
     restore key.";

/// A sentence for the kind, where one always holds.
pub(crate) fn for_kind(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Usage => Some("`pgrecall COMMAND --help` shows what a command takes."),
        Kind::Configuration | Kind::Invalid => {
            Some("`pgrecall config` prints what is in force and where each value came from.")
        }
        Kind::NotFound => {
            Some("`pgrecall list` shows what the repository holds, `pgrecall config` which one.")
        }
        Kind::Denied => {
            Some("`pgrecall config` shows which key and which credentials are in force.")
        }
        Kind::Incomplete => {
            Some("`pgrecall verify` shows what is missing, and what can still be reached.")
        }
        Kind::Unsupported => Some("A newer version of pgrecall may know it."),
        Kind::Corrupt => Some("`pgrecall verify` shows what else is damaged, and what it means."),
        Kind::Unavailable => Some("Trying again may help; `pgrecall check` tries the whole path."),
        Kind::Internal => {
            Some("This is a defect of pgrecall: please report it with the whole message.")
        }
        Kind::AlreadyExists | Kind::Conflict | Kind::Interrupted | Kind::Terminated => None,
    }
}
