//! The majors known here and the numbers by which PostgreSQL's files tell them apart, in one table.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{FileKind, FormatError, excerpt};

/// A PostgreSQL major version.
///
/// A new major is one more variant and one more row in the table below (and its differences where
/// the compiler or the tests against its server point to them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
#[non_exhaustive]
pub enum Major {
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
    /// PostgreSQL 19.
    V19,
}

/// What the files of a major say; from `pg_control.h`, `catversion.h` and `xlog_internal.h` of its
/// releases.
struct VersionRow {
    major: Major,
    number: u32,
    /// `PG_CONTROL_VERSION`.
    control_version: u32,
    /// `CATALOG_VERSION_NO` of the release, which minor releases never change.
    catalog_version: u32,
    /// `XLOG_PAGE_MAGIC`.
    wal_magic: u16,
}

const VERSIONS: [VersionRow; 6] = [
    VersionRow {
        major: Major::V14,
        number: 14,
        control_version: 1300,
        catalog_version: 202_107_181,
        wal_magic: 0xD10D,
    },
    VersionRow {
        major: Major::V15,
        number: 15,
        control_version: 1300,
        catalog_version: 202_209_061,
        wal_magic: 0xD110,
    },
    VersionRow {
        major: Major::V16,
        number: 16,
        control_version: 1300,
        catalog_version: 202_307_071,
        wal_magic: 0xD113,
    },
    VersionRow {
        major: Major::V17,
        number: 17,
        control_version: 1700,
        catalog_version: 202_406_281,
        wal_magic: 0xD116,
    },
    VersionRow {
        major: Major::V18,
        number: 18,
        control_version: 1800,
        catalog_version: 202_506_291,
        wal_magic: 0xD118,
    },
    VersionRow {
        major: Major::V19,
        number: 19,
        control_version: 1905,
        catalog_version: 202_610_061,
        wal_magic: 0xD122,
    },
];

/// The majors known here, for messages.
pub(crate) const KNOWN: &str = "14 to 19";

impl Major {
    /// All majors known here, oldest first.
    pub const ALL: [Self; 6] = [Self::V14, Self::V15, Self::V16, Self::V17, Self::V18, Self::V19];

    /// The number people use: 14, 15, …
    #[must_use]
    pub const fn number(self) -> u32 {
        self.row().number
    }

    /// `PG_CONTROL_VERSION`; 14, 15 and 16 share one.
    #[must_use]
    pub const fn control_version(self) -> u32 {
        self.row().control_version
    }

    /// `CATALOG_VERSION_NO`; the number in the name of a tablespace's version directory.
    #[must_use]
    pub const fn catalog_version(self) -> u32 {
        self.row().catalog_version
    }

    /// `XLOG_PAGE_MAGIC`, at the start of each WAL page.
    #[must_use]
    pub const fn wal_magic(self) -> u16 {
        self.row().wal_magic
    }

    /// The name of this major's directory within a tablespace, `TABLESPACE_VERSION_DIRECTORY` of
    /// `relpath.h`.
    #[must_use]
    pub fn tablespace_directory(self) -> String {
        format!("PG_{}_{}", self.number(), self.catalog_version())
    }

    /// The major with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        VERSIONS.iter().find(|row| row.number == number).map(|row| row.major)
    }

    /// The major that writes this WAL page magic.
    #[must_use]
    #[inline]
    pub fn from_wal_magic(magic: u16) -> Option<Self> {
        VERSIONS.iter().find(|row| row.wal_magic == magic).map(|row| row.major)
    }

    /// The major of a control file with these two numbers. The catalog version decides among majors
    /// that share a control version; it must lie in the major's own series.
    #[must_use]
    pub fn from_control_and_catalog(control_version: u32, catalog_version: u32) -> Option<Self> {
        VERSIONS
            .iter()
            .find(|row| {
                row.control_version == control_version && row.catalog_version == catalog_version
            })
            .map(|row| row.major)
    }

    const fn row(self) -> &'static VersionRow {
        let [v14, v15, v16, v17, v18, v19] = &VERSIONS;
        match self {
            Self::V14 => v14,
            Self::V15 => v15,
            Self::V16 => v16,
            Self::V17 => v17,
            Self::V18 => v18,
            Self::V19 => v19,
        }
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

impl From<Major> for u32 {
    fn from(major: Major) -> Self {
        major.number()
    }
}

impl TryFrom<u32> for Major {
    type Error = FormatError;

    fn try_from(number: u32) -> Result<Self, FormatError> {
        Self::from_number(number).ok_or_else(|| unknown(number.to_string()))
    }
}

impl FromStr for Major {
    type Err = FormatError;

    /// Reads the text of `PG_VERSION` (`17`, with or without a line end).
    fn from_str(text: &str) -> Result<Self, FormatError> {
        let text = text.trim_end();
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = if plain { text.parse().ok() } else { None };
        number.and_then(Self::from_number).ok_or_else(|| unknown(excerpt(text)))
    }
}

fn unknown(found: String) -> FormatError {
    FormatError::UnknownVersion {
        file: FileKind::Version,
        what: "major version",
        found,
        known: KNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::Major;

    #[test]
    fn every_major_is_found_by_its_numbers() {
        for major in Major::ALL {
            assert_eq!(Major::from_number(major.number()), Some(major));
            assert_eq!(Major::from_wal_magic(major.wal_magic()), Some(major));
            let by_control =
                Major::from_control_and_catalog(major.control_version(), major.catalog_version());
            assert_eq!(by_control, Some(major));
            assert_eq!(format!("{major}\n").parse::<Major>().unwrap(), major);
            let json = serde_json::to_string(&major).unwrap();
            assert_eq!(json, major.number().to_string());
            assert_eq!(serde_json::from_str::<Major>(&json).unwrap(), major);
        }
        assert_eq!(Major::V17.tablespace_directory(), "PG_17_202406281");
        assert!("13".parse::<Major>().is_err());
        assert!("20".parse::<Major>().is_err());
        assert!("".parse::<Major>().is_err());
        assert!(Major::from_control_and_catalog(1300, 202_406_281).is_none());
    }
}
