//! What an errno of the file system means for a caller, in words.

use std::io;

use rustix::io::Errno;

use crate::error::{Act, ErrorKind, StoreError};

/// The error for an errno met while `doing` something to `object`.
pub(super) fn from_errno(
    act: Act,
    object: impl Into<String>,
    doing: &str,
    errno: Errno,
) -> StoreError {
    let (kind, what, hint) = meaning(errno);
    let error = StoreError::new(kind, act, object, format!("{doing}: {what}"))
        .caused_by(io::Error::from(errno));
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The directory under an open store is gone.
pub(super) fn root_removed(act: Act, url: &str) -> StoreError {
    let what = "the root directory has been removed";
    StoreError::new(ErrorKind::Unavailable, act, url, what)
}

fn meaning(errno: Errno) -> (ErrorKind, &'static str, Option<&'static str>) {
    match errno {
        Errno::NOSPC => (
            ErrorKind::Unavailable,
            "the disk is full",
            Some(
                "Make room on the repository's file system: with a megabyte `pgrecall expire` goes \
                 on, which frees WAL, and then `gc` (docs/retention.md, When the disk is full).",
            ),
        ),
        Errno::DQUOT => (
            ErrorKind::Unavailable,
            "the disk quota is used up",
            Some("Raise the quota of this user on the repository's file system."),
        ),
        Errno::FBIG => (
            ErrorKind::Unavailable,
            "the file is larger than this process may write",
            Some("Raise the file size limit (ulimit -f) of the user that runs this."),
        ),
        Errno::ROFS => (
            ErrorKind::Denied,
            "the file system is read-only",
            Some(
                "A file system that found errors remounts itself read-only: see the kernel's log.",
            ),
        ),
        Errno::ACCESS | Errno::PERM => (
            ErrorKind::Denied,
            "permission denied",
            Some(
                "Every user that shares the repository needs read and write rights on its folders.",
            ),
        ),
        Errno::IO => (
            ErrorKind::Unavailable,
            "the disk reports an input/output error",
            Some("See the kernel's log; the disk may be failing."),
        ),
        Errno::LOOP | Errno::NOTDIR | Errno::ISDIR => {
            (ErrorKind::Corrupt, "not a regular file below plain folders", None)
        }
        Errno::NAMETOOLONG => (ErrorKind::Invalid, "the name is too long here", None),
        Errno::MFILE | Errno::NFILE => {
            (ErrorKind::Unavailable, "too many files are open", Some("Raise `ulimit -n`."))
        }
        _ => (ErrorKind::Unavailable, "the file system refuses", None),
    }
}
