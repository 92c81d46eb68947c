//! Resource managers: which part of PostgreSQL a WAL record belongs to (`rmgrlist.h`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A resource manager's id (`RmgrId`). The ids are the same in 14 to 19; from 15 on extensions may
/// have their own, from 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceManager(pub u8);

/// The built-in ones by id, named as `pg_waldump` names them.
const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// The first id for extensions (`RM_MIN_CUSTOM_ID`).
const CUSTOM_MIN: u8 = 128;

impl ResourceManager {
    /// Checkpoints, restore points and other records about the WAL itself.
    pub const XLOG: Self = Self(0);
    /// Commits and aborts.
    pub const TRANSACTION: Self = Self(1);
    /// Relation files made and truncated.
    pub const STORAGE: Self = Self(2);
    /// Databases made and dropped.
    pub const DATABASE: Self = Self(4);

    /// Whether a record can carry this id (`RmgrIdIsValid`; extensions' ids count for 14 too, which
    /// has none).
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.built_in_name().is_some() || self.0 >= CUSTOM_MIN
    }

    fn built_in_name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0)).copied()
    }
}

/// As `pg_waldump` prints it; extensions' ones are `custom128` and so on.
impl fmt::Display for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.built_in_name() {
            Some(name) => f.write_str(name),
            None if self.0 >= CUSTOM_MIN => write!(f, "custom{:03}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}
