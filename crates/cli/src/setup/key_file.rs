//! Writing a key file: never over another one, and durable before anything is sealed for it.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use pgrecall_repo::keys::KeyFile;

use super::owner::{Owner, User};
use crate::failure::{Failure, Kind, Outcome};

/// Writes the key with mode 0600, for its owner alone.
///
/// # Errors
/// When a file is there, or it cannot be written and synced.
pub(crate) fn write(path: &Path, key: &KeyFile, owner: Option<Owner>) -> Outcome<()> {
    write_text(path, &key.to_text(), "the key file", owner)
}

/// Writes the text of a key of any kind, which is called `what` when it cannot be written.
///
/// # Errors
/// As [`write()`].
pub(crate) fn write_text(path: &Path, text: &str, what: &str, owner: Option<Owner>) -> Outcome<()> {
    write_new(path, text.as_bytes(), 0o600).map_err(|error| {
        let failure = Failure::from_error(kind_of(&error), &error)
            .during(format!("writing {what} {}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                failure.hint("A key is never written over another file: name another place.")
            }
            std::io::ErrorKind::PermissionDenied => failure
                .hint("Name a place that this user may write to, or run the command as root."),
            _ => failure,
        }
    })?;
    match owner {
        Some(owner) => owner.give(path, User::Too),
        None => Ok(()),
    }
}

fn kind_of(error: &std::io::Error) -> Kind {
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => Kind::AlreadyExists,
        std::io::ErrorKind::PermissionDenied => Kind::Denied,
        std::io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::Unavailable,
    }
}

/// Writes a file that must not exist, and makes it and its name durable.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // Whatever the umask takes away, and a half-written file would be in the way of the next try.
    let written = file
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => std::fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Makes the folder of a file that is to be written, and those above it.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_folder_of(path: &Path) -> Outcome<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .collect();
    let mut made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
    for new in missing {
        // Under a strict umask the server's user could not get to the file.
        made = made.and_then(|()| std::fs::set_permissions(new, Permissions::from_mode(0o755)));
    }
    made.map_err(|error| {
        Failure::from_error(kind_of(&error), &error)
            .during(format!("making the folder {}", folder.display()))
            .hint("Name another file with --config, or run the command as root.")
    })
}

#[cfg(test)]
mod tests {
    use pgrecall_repo::random::SharedRandom;

    use super::*;

    #[test]
    fn a_key_is_for_its_owner_alone_and_never_written_over() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.key");
        let key = KeyFile::random(&SharedRandom::system());
        assert!(write(&path, &key, None).is_ok());
        let mode = std::fs::metadata(&path).expect("the key file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = std::fs::read(&path).expect("the key file");
        let other = KeyFile::random(&SharedRandom::system());
        let failure = write(&path, &other, None).expect_err("a second key in one file");
        assert_eq!(failure.kind, Kind::AlreadyExists);
        assert_eq!(std::fs::read(&path).expect("the key file"), before);
    }
}
