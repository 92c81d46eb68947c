//! Where the programs of each major are.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::user::as_server_user;

/// Majors that `scripts/servers.sh` installs.
const KNOWN_MAJORS: [u32; 6] = [14, 15, 16, 17, 18, 19];

/// The installation of one PostgreSQL major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresHome {
    major: u32,
    root: PathBuf,
}

impl PostgresHome {
    /// The installation of `major` under `PGRECALL_TEST_SERVERS`, by default
    /// `/var/lib/pgrecall-test` for root and `~/.cache/pgrecall-test` for others.
    ///
    /// Panics when it is not there: a test that needs a server is never skipped.
    pub fn find(major: u32) -> Self {
        let root = servers_folder().join(format!("postgresql-{major}"));
        assert!(
            root.join("bin/postgres").is_file(),
            "PostgreSQL {major} is not installed in {}: run scripts/servers.sh {major}",
            root.display()
        );
        Self { major, root }
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The path of a program, e.g. `pg_controldata`.
    pub fn program(&self, name: &str) -> PathBuf {
        let path = self.root.join("bin").join(name);
        assert!(path.is_file(), "PostgreSQL {} has no program {name}", self.major);
        path
    }

    /// A command that runs a program of this major as the server's user.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        // libpqwalreceiver.so has no path of its own to libpq, and would load the system's older
        // one, if there is any.
        command.env("LD_LIBRARY_PATH", self.root.join("lib"));
        as_server_user(command)
    }

    /// The folder of `bin`, `lib` and `share`.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// The majors that tests run on: `PGRECALL_TEST_MAJORS` as a list like `14,17` or `all`; 17 alone
/// when it is not set.
pub fn majors() -> Vec<u32> {
    parse_majors(std::env::var("PGRECALL_TEST_MAJORS").ok().as_deref())
}

fn parse_majors(setting: Option<&str>) -> Vec<u32> {
    match setting.map(str::trim) {
        None | Some("") => vec![17],
        Some("all") => KNOWN_MAJORS.to_vec(),
        Some(list) => list
            .split(',')
            .map(|text| match text.trim().parse() {
                Ok(major) if KNOWN_MAJORS.contains(&major) => major,
                _ => panic!("PGRECALL_TEST_MAJORS: {text:?} is none of {KNOWN_MAJORS:?}"),
            })
            .collect(),
    }
}

/// Where `scripts/servers.sh` installs.
pub(crate) fn servers_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("PGRECALL_TEST_SERVERS") {
        return PathBuf::from(folder);
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/pgrecall-test");
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cache"))
    });
    cache.expect("HOME is not set").join("pgrecall-test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_come_from_a_list_or_a_word() {
        assert_eq!(parse_majors(None), [17]);
        assert_eq!(parse_majors(Some("")), [17]);
        assert_eq!(parse_majors(Some("14, 18")), [14, 18]);
        assert_eq!(parse_majors(Some("all")), KNOWN_MAJORS);
    }

    #[test]
    #[should_panic(expected = "13")]
    fn an_unknown_major_is_not_skipped() {
        parse_majors(Some("13,17"));
    }
}
