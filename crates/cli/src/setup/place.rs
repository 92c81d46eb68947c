//! Where a new repository goes: what must be there first, and what is better not so.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::owner::{Owner, User};
use crate::failure::{Failure, Kind, Outcome};

/// The folder of a directory store's URL.
pub(crate) fn folder(url: &str) -> Option<PathBuf> {
    url.strip_prefix("file://").map(PathBuf::from)
}

/// Makes the folder of a directory store; the folder above must be there, so that a disk that is
/// not mounted, or a slip in the path, is noticed.
///
/// # Errors
/// When the folder above is not there, or the folder cannot be made.
pub(crate) fn make(folder: &Path, owner: Option<Owner>) -> Outcome<()> {
    if folder.exists() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(folder);
    if !above.is_dir() {
        let message = format!("the folder {} is not there", above.display());
        return Err(Failure::new(Kind::NotFound, message).hint(format!(
            "Mount the disk that the repository is to lie on, or make the folder: mkdir -p {}",
            above.display()
        )));
    }
    std::fs::create_dir(folder).map_err(|error| {
        let failure = Failure::from_error(Kind::Denied, &error)
            .during(format!("making the folder {}", folder.display()));
        failure.hint(format!(
            "Make it as root and give it to the user who runs PostgreSQL: install -d -o postgres \
             -m 750 {}",
            folder.display()
        ))
    })?;
    set_mode(folder, 0o750)?;
    match owner {
        Some(owner) => owner.give(folder, User::Too),
        None => Ok(()),
    }
}

/// Sees to it that the data directory's user can write into the folder: an empty one of root's,
/// such as a new disk's, is given to him; one that holds other things is nobody's to give.
///
/// # Errors
/// When the folder is root's and holds other things.
pub(crate) fn require_usable(folder: &Path, owner: Option<Owner>) -> Outcome<()> {
    let Some(owner) = owner.filter(|_| Owner::of(folder).is_some_and(|of| of.uid == 0)) else {
        return Ok(());
    };
    let entries = std::fs::read_dir(folder).map_err(|error| {
        Failure::from_error(Kind::Denied, &error).during(format!("listing {}", folder.display()))
    })?;
    let others = entries.flatten().map(|entry| entry.file_name());
    if let Some(other) = others.into_iter().find(|name| name != "lost+found") {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder).map_or(0, |found| found.permissions().mode());
        let group = Owner::of(folder).is_some_and(|of| of.gid == owner.gid) && mode & 0o020 != 0;
        if group || mode & 0o002 != 0 {
            return Ok(());
        }
        let message = format!(
            "the folder {} is root's and holds other things ({}): the server's user, {}, could not \
             archive into it",
            folder.display(),
            other.to_string_lossy(),
            owner.uid
        );
        return Err(Failure::new(Kind::Denied, message).hint(format!(
            "Name a folder of its own: file://{}",
            folder.join("pgrecall").display()
        )));
    }
    owner.give(folder, User::Too)
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Outcome<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|error| {
        Failure::from_error(Kind::Denied, &error)
            .during(format!("setting the mode of {}", path.display()))
    })
}

/// Whether both lie on one file system: what takes one away takes the other, too.
pub(crate) fn on_one_disk(folder: &Path, pgdata: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    device(folder).is_some_and(|device_of| device(pgdata) == Some(device_of))
}
