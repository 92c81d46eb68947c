//! A copy of the golden repository in the clear, to be damaged: three backups of one cluster, of which
//! one expired and one was ended, and a backup under way on another host.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub(crate) struct Golden {
    folder: TempDir,
}

impl Golden {
    pub(crate) fn clear() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let golden =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/repo/v2/clear/repository");
        let copied = Command::new("cp").arg("-r").arg(golden).arg(folder.path()).status();
        assert!(copied.expect("cp runs").success());
        let made = Self { folder };
        let url = made.repository();
        let lines =
            format!("[[repository]]\nurl = \"file://{}\"\nencryption = \"none\"\n", url.display());
        std::fs::write(made.config(), lines).expect("the configuration");
        made
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("pgrecall.toml")
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// A command on its cluster.
    pub(crate) fn pgrecall(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrecall"));
        command.env_clear().env("PGRECALL_CONFIG", self.config());
        command.args(["--cluster", "shop"]).args(words);
        command
    }

    /// The objects below a folder, in order.
    pub(crate) fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let found =
            Command::new("find").arg(self.repository().join(folder)).args(["-type", "f"]).output();
        let found = String::from_utf8(found.expect("find runs").stdout).expect("UTF-8");
        let mut found: Vec<PathBuf> = found.lines().map(PathBuf::from).collect();
        found.sort();
        found
    }

    /// Cuts an object in half.
    pub(crate) fn cut(&self, path: &Path) {
        let bytes = std::fs::read(path).expect("an object");
        std::fs::remove_file(path).expect("the old one goes");
        std::fs::write(path, &bytes[..bytes.len() / 2]).expect("an object");
    }
}
