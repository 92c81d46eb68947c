//! On whose behalf PostgreSQL called: the data directory around a WAL file, and what its
//! `pg_control` says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pgrecall_pgformat::control::ControlFile;

use crate::cluster::ClusterFacts;
use crate::error::{EngineError, ErrorKind};

/// Where to look.
#[derive(Debug, Clone)]
pub struct Around {
    /// The working directory: for commands that PostgreSQL runs, the data directory.
    pub working_directory: PathBuf,
    /// The WAL file, as PostgreSQL gives it by `%p`.
    pub wal_path: PathBuf,
    /// The data directory that the settings name.
    pub configured: Option<PathBuf>,
    /// Whether a person has named that one for this very call.
    pub named: Named,
}

/// Where the name of the configured data directory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// From this very call: no other one is looked at.
    Now,
    /// From settings that other data directories may be called with.
    Before,
}

/// A data directory and what it says of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// The cluster.
    pub facts: ClusterFacts,
}

/// The file, below the data directory.
const CONTROL: &str = "global/pg_control";
/// PostgreSQL writes the file in place, and a reader may see half of each state.
const TORN_READS_MAX: usize = 5;

impl Around {
    /// The data directory: the one that was named for this call, else the working directory, else
    /// the folder above the WAL file's `pg_wal`, else the configured one; nothing when none of them
    /// is there.
    ///
    /// # Errors
    /// When the first of them that has a `pg_control` has one that does not read.
    pub fn find(&self) -> Result<Option<DataDirectory>, EngineError> {
        for path in self.candidates() {
            if let Some(facts) = read(&path.join(CONTROL))? {
                return Ok(Some(DataDirectory { path, facts }));
            }
        }
        Ok(None)
    }

    /// As [`find`](Self::find), where there must be one.
    ///
    /// # Errors
    /// As [`find`](Self::find), and when there is none.
    pub fn require(&self) -> Result<DataDirectory, EngineError> {
        self.find()?.ok_or_else(|| {
            let looked: Vec<String> =
                self.candidates().iter().map(|path| path.display().to_string()).collect();
            let message = format!(
                "cannot tell which cluster {} belongs to: no {CONTROL} in {}",
                self.wal_path.display(),
                looked.join(", ")
            );
            EngineError::refused(ErrorKind::Invalid, message)
                .hint("Name the data directory with --pgdata.")
        })
    }

    fn candidates(&self) -> Vec<PathBuf> {
        if let (Named::Now, Some(named)) = (self.named, &self.configured) {
            return vec![named.clone()];
        }
        let mut found = vec![self.working_directory.clone()];
        // By the words of the path: `pg_wal` itself is often a link to another disk.
        let above = self.wal_path.parent().filter(|folder| folder.ends_with("pg_wal"));
        let above = above.and_then(Path::parent).map(|path| self.working_directory.join(path));
        found.extend(above.into_iter().chain(self.configured.clone()));
        let mut kept: Vec<PathBuf> = Vec::new();
        for path in found {
            // Paths compare part by part: `/data/` is `/data`.
            if !kept.contains(&path) {
                kept.push(path);
            }
        }
        kept
    }
}

fn read(path: &Path) -> Result<Option<ClusterFacts>, EngineError> {
    for again in 1.. {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
            Err(error) => return Err(EngineError::file("read", path, error)),
        };
        match ControlFile::decode(&bytes) {
            Ok(control) => return Ok(Some(ClusterFacts::of(&control))),
            Err(source) if again >= TORN_READS_MAX => {
                let path = path.display().to_string();
                return Err(EngineError::Postgres { path, source });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(working: &str, wal: &str, configured: Option<&str>) -> Around {
        Around {
            working_directory: working.into(),
            wal_path: wal.into(),
            configured: configured.map(PathBuf::from),
            named: Named::Before,
        }
    }

    #[test]
    fn the_working_directory_comes_first_and_the_settings_last() {
        let paths = |around: &Around| -> Vec<String> {
            around.candidates().iter().map(|path| path.display().to_string()).collect()
        };
        let inside = around("/data", "pg_wal/RECOVERYXLOG", Some("/other"));
        assert_eq!(paths(&inside), ["/data", "/other"]);
        assert_eq!(paths(&around("/root", "/data/pg_wal/X", None)), ["/root", "/data"]);
        assert_eq!(paths(&around("/root", "/tmp/X", Some("/data"))), ["/root", "/data"]);
        let named = Around { named: Named::Now, ..around("/data", "pg_wal/X", Some("/other")) };
        assert_eq!(paths(&named), ["/other"]);
    }

    #[test]
    fn a_damaged_control_file_is_an_error_and_none_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display().to_string();
        assert_eq!(around(&here, "x", None).find().unwrap(), None);
        let error = around(&here, "x", None).require().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        std::fs::create_dir(folder.path().join("global")).unwrap();
        std::fs::write(folder.path().join(CONTROL), vec![1; 8192]).unwrap();
        let error = around(&here, "x", None).find().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
