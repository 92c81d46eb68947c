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
