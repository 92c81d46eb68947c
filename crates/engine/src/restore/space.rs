//! Whether there is space for what a restore writes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::layout::{Layout, Survey};
use crate::error::{EngineError, ErrorKind};

/// Bytes to be written at most, by the folder they go to.
pub(super) fn needs(layout: &Layout, survey: &Survey) -> Vec<(PathBuf, u64)> {
    let mut needs = Vec::new();
    for (link, bytes) in &survey.bytes {
        let to = if link.is_empty() { layout.dir.clone() } else { layout.place(link) };
        needs.push((to, *bytes));
    }
    needs
}

/// The nearest folder that exists.
fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"))
}

/// Refuses what does not fit.
///
/// # Errors
/// When it does not, or a file system cannot be looked at.
pub(super) fn check_space(needs: &[(PathBuf, u64)]) -> Result<(), EngineError> {
    let mut by_device: Vec<(u64, &Path, u64)> = Vec::new();
    for (to, bytes) in needs {
        let at = existing_ancestor(to);
        let meta = fs::metadata(at).map_err(|error| EngineError::file("look at", at, error))?;
        match by_device.iter_mut().find(|(device, ..)| *device == meta.dev()) {
            Some((_, _, sum)) => *sum = sum.saturating_add(*bytes),
            None => by_device.push((meta.dev(), at, *bytes)),
        }
    }
    for (_, at, bytes) in by_device {
        let free = rustix::fs::statvfs(at)
            .map_err(|errno| EngineError::file("look at", at, errno.into()))?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        if free < bytes {
            let message = format!(
                "the file system of {} has {free} bytes free, and the backup needs {bytes}",
                at.display()
            );
            return Err(EngineError::refused(ErrorKind::Unavailable, message)
                .hint("Free space there, or restore elsewhere."));
        }
    }
    Ok(())
}
