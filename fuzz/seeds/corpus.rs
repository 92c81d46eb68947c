//! Where seeds go: a folder for each fuzz target, a file for each seed, named by its contents.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The folder of all of them.
pub(crate) struct Corpus(PathBuf);

impl Corpus {
    /// Seeds that are there already stay.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Adds a seed.
    pub(crate) fn add(&self, target: &str, bytes: &[u8]) {
        let folder = self.0.join(target);
        fs::create_dir_all(&folder).expect("the folder is made");
        let name: String =
            Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        fs::write(folder.join(format!("seed-{name}")), bytes).expect("the seed is written");
    }

    /// A target that starts from nothing would find little in a minute, and nobody would notice.
    pub(crate) fn require_every_target(&self) {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
        let manifest = fs::read_to_string(&manifest).expect("fuzz/Cargo.toml is read");
        let targets: BTreeSet<_> = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"))
            .filter_map(|rest| rest.split_once(".rs").map(|(name, _)| name))
            .collect();
        assert!(!targets.is_empty());
        for target in targets {
            assert!(self.0.join(target).is_dir(), "the target {target} has no seeds");
        }
    }
}

/// The files directly in a folder below `tests/fixtures`, by name.
pub(crate) fn fixtures(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let entries = fs::read_dir(&folder).expect("the fixtures are there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("the fixture is read"))
        })
        .collect();
    files.sort();
    files
}
