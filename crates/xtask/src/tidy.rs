//! `cargo xtask tidy`: runs every check and prints all offenders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::{directions, listing, source};

/// Something that breaks a rule of the house, as `path:line: what`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Offence {
    pub(crate) path: String,
    /// 0 where the whole file is meant.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Offence {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

pub(crate) fn run() -> ExitCode {
    match check() {
        Ok(offences) if offences.is_empty() => {
            println!("tidy: nothing to mend");
            ExitCode::SUCCESS
        }
        Ok(offences) => {
            for Offence { path, line, what } in &offences {
                match line {
                    0 => println!("{path}: {what}"),
                    line => println!("{path}:{line}: {what}"),
                }
            }
            println!("tidy: {} to mend", offences.len());
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("tidy: {message}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<Vec<Offence>, String> {
    // Cargo's word at the time of the run: a binary may have come here with a copied target folder.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = here.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).join("../..");
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    let mut offences = directions::check(&metadata(&root)?)?;
    let files = rust_files(&root)?;
    for (path, text) in &files {
        offences.extend(source::check(path, text));
    }
    let manifest = read(&root.join("Cargo.toml"))?;
    offences.extend(listing::check(&manifest, &files));
    offences.sort();
    Ok(offences)
}

/// What cargo knows of the workspace and of all it depends on.
fn metadata(root: &Path) -> Result<serde_json::Value, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

/// Every Rust file of the tree, by its path from the root.
fn rust_files(root: &Path) -> Result<Vec<(String, String)>, String> {
    let mut folders: Vec<PathBuf> =
        ["crates", "tests", "benches", "fuzz"].map(|folder| root.join(folder)).to_vec();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        if !folder.exists() {
            continue;
        }
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() {
                if name != "target" && name != "fixtures" && name != "corpus" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let short = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                files.push((short, read(&path)?));
            }
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("no Rust file below {}", root.display()));
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
