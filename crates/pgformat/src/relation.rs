//! Names of relation files, from the path below the data directory to tablespace, database,
//! relation, fork, segment.
//!
//! The rules are those of `relpath.c` and of `parse_filename_for_nontemp_relation` in `reinit.c`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The tablespace of `base/` (`DEFAULTTABLESPACE_OID`).
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// The tablespace of `global/` (`GLOBALTABLESPACE_OID`).
pub const GLOBAL_TABLESPACE: u32 = 1664;

/// A fork of a relation (`ForkNumber`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fork {
    /// The data itself.
    Main,
    /// The free space map, `_fsm`.
    FreeSpaceMap,
    /// The visibility map, `_vm`.
    VisibilityMap,
    /// What an unlogged relation is reset to, `_init`.
    Init,
}

impl Fork {
    /// The fork with PostgreSQL's number, 0 to 3.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Main),
            1 => Some(Self::FreeSpaceMap),
            2 => Some(Self::VisibilityMap),
            3 => Some(Self::Init),
            _ => None,
        }
    }

    /// The name that PostgreSQL's tools print: `main`, `fsm`, `vm`, `init`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::FreeSpaceMap => "fsm",
            Self::VisibilityMap => "vm",
            Self::Init => "init",
        }
    }

    fn from_suffix(suffix: &str) -> Option<Self> {
        match suffix {
            "fsm" => Some(Self::FreeSpaceMap),
            "vm" => Some(Self::VisibilityMap),
            "init" => Some(Self::Init),
            _ => None,
        }
    }
}

/// A relation's storage (`RelFileLocator`, before 16 `RelFileNode`): what WAL block references
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationLocator {
    /// The tablespace's OID.
    pub tablespace: u32,
    /// The database's OID; 0 for what all databases share.
    pub database: u32,
    /// The relation's file number (relfilenode).
    pub relation: u32,
}

/// As `pg_waldump` prints it: tablespace/database/relation.
impl fmt::Display for RelationLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.relation)
    }
}

/// Whose relation a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// Everybody's.
    Shared,
    /// A temporary relation of the backend with this number.
    Backend(u32),
}

/// A file of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationFile {
    /// The relation.
    pub locator: RelationLocator,
    /// Which fork.
    pub fork: Fork,
    /// Which piece of the fork, from 0; each but the last has `relseg_size` blocks.
    pub segment: u32,
    /// Whether it is a temporary relation.
    pub owner: Owner,
}

impl RelationFile {
    /// Reads a path below the data directory, with `/` between its parts. Nothing if it is no
    /// relation file.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let (tablespace, database) = match parts.next()? {
            "base" => (DEFAULT_TABLESPACE, parse_oid(parts.next()?)?),
            "global" => (GLOBAL_TABLESPACE, 0),
            "pg_tblspc" => {
                let tablespace = parse_oid(parts.next()?)?;
                parts.next().filter(|directory| directory.starts_with("PG_"))?;
                (tablespace, parse_oid(parts.next()?)?)
            }
            _ => return None,
        };
        let name = RelationFileName::parse(parts.next()?)?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            locator: RelationLocator { tablespace, database, relation: name.relation },
            fork: name.fork,
            segment: name.segment,
            owner: name.owner,
        })
    }
}

/// The last part of a relation file's path: `16384`, `16384_fsm.1`, `t3_16384_vm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationFileName {
    /// The relation's file number.
    pub relation: u32,
    /// Which fork.
    pub fork: Fork,
    /// Which piece of the fork, from 0.
    pub segment: u32,
    /// Whether it is a temporary relation.
    pub owner: Owner,
}

impl RelationFileName {
    /// Reads a file name; nothing if it is not a relation's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (owner, rest) = match name.strip_prefix('t') {
            Some(rest) => {
                let (backend, rest) = rest.split_once('_')?;
                (Owner::Backend(parse_number(backend)?), rest)
            }
            None => (Owner::Shared, name),
        };
        let (rest, segment) = match rest.split_once('.') {
            Some((rest, segment)) => (rest, parse_oid(segment)?),
            None => (rest, 0),
        };
        let (relation, fork) = match rest.split_once('_') {
            Some((relation, suffix)) => (relation, Fork::from_suffix(suffix)?),
            None => (rest, Fork::Main),
        };
        Some(Self { relation: parse_oid(relation)?, fork, segment, owner })
    }
}

/// A number as PostgreSQL prints it: digits, no leading zero, not zero.
fn parse_oid(text: &str) -> Option<u32> {
    if text.starts_with('0') { None } else { parse_number(text) }
}

/// One to ten digits that fit.
fn parse_number(text: &str) -> Option<u32> {
    let plain = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::{Fork, Owner, RelationFile, RelationLocator};

    fn file(
        (tablespace, database, relation): (u32, u32, u32),
        fork: Fork,
        segment: u32,
        owner: Owner,
    ) -> RelationFile {
        let locator = RelationLocator { tablespace, database, relation };
        RelationFile { locator, fork, segment, owner }
    }

    #[test]
    fn reads_relation_files() {
        for (path, expected) in [
            ("base/5/16384", file((1663, 5, 16384), Fork::Main, 0, Owner::Shared)),
            ("base/5/16384_fsm.1", file((1663, 5, 16384), Fork::FreeSpaceMap, 1, Owner::Shared)),
            ("base/5/16384.12", file((1663, 5, 16384), Fork::Main, 12, Owner::Shared)),
            ("global/1260_vm", file((1664, 0, 1260), Fork::VisibilityMap, 0, Owner::Shared)),
            (
                "pg_tblspc/16400/PG_17_202406281/5/16390_init",
                file((16400, 5, 16390), Fork::Init, 0, Owner::Shared),
            ),
            (
                "base/5/t3_16384_fsm.2",
                file((1663, 5, 16384), Fork::FreeSpaceMap, 2, Owner::Backend(3)),
            ),
            ("base/5/4294967295", file((1663, 5, u32::MAX), Fork::Main, 0, Owner::Shared)),
        ] {
            assert_eq!(RelationFile::parse(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn other_files_are_none() {
        for path in [
            "",
            "base",
            "base/5",
            "base/5/",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/pg_internal.init",
            "base/5/016384",
            "base/5/16384.0",
            "base/5/16384_xyz",
            "base/5/16384_fsm_vm",
            "base/5/4294967296",
            "base/5/16384/1",
            "base/x/16384",
            "global/pg_control",
            "pg_tblspc/16400/16384",
            "pg_tblspc/16400/XX/5/16384",
            "pg_wal/16384",
            "base/5/t_16384",
            "base/5/16384.99999999999",
        ] {
            assert_eq!(RelationFile::parse(path), None, "{path}");
        }
    }
}
