//! A temporary directory that the server's user owns.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::user::ServerUser;

/// Longest base path that leaves room for a socket's name in `sockaddr_un` (108 bytes).
const BASE_LENGTH_MAX: usize = 60;

/// A directory owned by the server's user, removed on drop unless `PGRECALL_KEEP=1`.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new directory with mode 0755 in the system's temporary folder.
    pub fn new() -> Self {
        let mut base = std::env::temp_dir();
        if base.as_os_str().len() > BASE_LENGTH_MAX {
            base = PathBuf::from("/tmp");
        }
        let made = tempfile::Builder::new()
            .prefix("pgr-")
            .tempdir_in(&base)
            .unwrap_or_else(|e| panic!("temporary directory in {}: {e}", base.display()));
        let path = made.keep();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .unwrap_or_else(|e| panic!("chmod {}: {e}", path.display()));
        ServerUser::current().own(&path);
        Self { path }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it, mode 0700, owned by the server's user.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))
            .unwrap_or_else(|e| panic!("chmod {}: {e}", path.display()));
        ServerUser::current().own(&path);
        path
    }

    /// Writes a file in it, mode 0600, owned by the server's user.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .unwrap_or_else(|e| panic!("chmod {}: {e}", path.display()));
        ServerUser::current().own(&path);
        path
    }

    /// A path of `program` that the server's user can run: the same one, or a copy in here when
    /// root runs the tests from a folder that others may not enter.
    pub fn reachable_program(&self, program: &Path) -> PathBuf {
        let open = |path: &Path| {
            std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
        };
        if *ServerUser::current() == ServerUser::Own || program.ancestors().all(open) {
            return program.to_owned();
        }
        let name = program.file_name().unwrap_or_else(|| panic!("{}", program.display()));
        let copy = self.path.join(name);
        std::fs::copy(program, &copy).unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))
            .unwrap_or_else(|e| panic!("chmod {}: {e}", copy.display()));
        copy
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("PGRECALL_KEEP").is_some_and(|keep| keep == "1") {
            return;
        }
        // What a server had started, such as an archive_command, may outlive it by a moment and
        // still write here.
        for _ in 0..50 {
            match std::fs::remove_dir_all(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        assert!(std::thread::panicking(), "{} cannot be removed", self.path.display());
    }
}
