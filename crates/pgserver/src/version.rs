//! `server_version_num`, and which majors can be worked with.

use std::fmt;

use pgrecall_pgformat::Major;

use crate::error::ServerError;

/// The version of a server whose major is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    number: u32,
    major: Major,
}

impl ServerVersion {
    /// Reads the text of `server_version_num`, such as `170011`: the major times 10000 and the
    /// minor (before 10 there were three parts, which still makes them small numbers).
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        let number: u32 = text.trim().parse().map_err(|_| ServerError::Answer {
            what: "server_version_num",
            found: text.to_owned(),
        })?;
        match Major::from_number(number / 10_000) {
            Some(major) => Ok(Self { number, major }),
            None => Err(ServerError::UnsupportedVersion { number }),
        }
    }

    /// The major version.
    #[must_use]
    pub const fn major(self) -> Major {
        self.major
    }

    /// The minor version.
    #[must_use]
    pub const fn minor(self) -> u32 {
        self.number % 10_000
    }

    /// `server_version_num`.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// Whether this is PostgreSQL 14, where backup functions and rights bear other names.
    pub(crate) fn is_14(self) -> bool {
        self.major == Major::V14
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn known_majors_are_read() {
        for (text, major, shown) in [
            ("140023", Major::V14, "14.23"),
            ("170000", Major::V17, "17.0"),
            ("180006\n", Major::V18, "18.6"),
            // Betas and release candidates are all minor 0.
            ("190000", Major::V19, "19.0"),
        ] {
            let version = ServerVersion::parse(text).unwrap();
            assert_eq!((version.major(), version.to_string().as_str()), (major, shown));
        }
    }

    #[test]
    fn older_and_newer_majors_are_refused_by_name() {
        for (text, shown) in [("90624", "9.6.24"), ("130009", "13.9"), ("200001", "20.1")] {
            let error = ServerVersion::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(shown), "{error}");
        }
        assert_eq!(ServerVersion::parse("17.4").unwrap_err().kind(), ErrorKind::Internal);
    }
}
