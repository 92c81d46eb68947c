//! `pgrecall.json`: the object that makes a place a repository. In the clear, without secrets, put
//! last by `init` and never changed.

use serde::{Deserialize, Serialize};

use crate::error::FormatError;
use crate::format::header::{self, Suite};
use crate::id::{KeyId, RepositoryId};

/// The root object is at most this long.
pub const ROOT_BYTES_MAX: u64 = 64 << 10;

/// The repository version. Version 1 was never released, and is refused.
pub const VERSION: u32 = 2;

/// What a program must know to read a repository. Unknown names are refused.
pub const FEATURES: &[&str] = &[];

const MARK: &str = "pgrecall repository";

/// The root object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Always "pgrecall repository".
    pub format: String,
    /// The repository's version.
    pub version: u32,
    /// Features that a reader must know.
    pub features: Vec<String>,
    /// The repository.
    pub id: RepositoryId,
    /// Whether its objects are encrypted, and how.
    pub suite: RootSuite,
    /// When it was made, RFC 3339; for people.
    pub created: String,
    /// The key that it was made with; the only one that opens it until `keys/log/0` exists.
    pub first_key: Option<KeyId>,
}

/// A crypto suite by its name in the root object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootSuite {
    /// AES-256-GCM.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// In the clear.
    #[serde(rename = "none")]
    None,
}

impl RootSuite {
    /// The suite of sealed objects.
    #[must_use]
    pub const fn suite(self) -> Suite {
        match self {
            Self::Aes256Gcm => Suite::Aes256Gcm,
            Self::None => Suite::Clear,
        }
    }

    /// For messages.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "encrypted (aes-256-gcm)",
            Self::None => "in the clear (none)",
        }
    }
}

impl Root {
    /// A root for a new repository.
    #[must_use]
    pub fn new(id: RepositoryId, suite: RootSuite, created: String) -> Self {
        Self {
            format: MARK.into(),
            version: VERSION,
            features: Vec::new(),
            id,
            suite,
            created,
            first_key: None,
        }
    }

    /// Its bytes. Wrapped keys are bound to them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a root object.
    ///
    /// # Errors
    /// When it is no root object, or of a version or with a feature that is unknown here.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        // A newer version may have other fields: ask for the version alone first.
        #[derive(Deserialize)]
        struct Versioned {
            format: String,
            version: u32,
            #[serde(default)]
            features: Vec<String>,
        }
        let what = "pgrecall.json";
        let malformed =
            |error: serde_json::Error| FormatError::Document { what, reason: error.to_string() };
        let outline: Versioned = serde_json::from_slice(bytes).map_err(malformed)?;
        if outline.format != MARK {
            return Err(FormatError::Unexpected {
                what,
                expected: format!("the format {MARK:?}"),
                found: format!("{:?}", outline.format),
            });
        }
        header::supported("the repository", outline.version.into(), VERSION.into())?;
        let unknown = outline.features.iter().find(|name| !FEATURES.contains(&name.as_str()));
        if let Some(feature) = unknown {
            return Err(FormatError::UnknownFeature {
                what: "the repository",
                feature: feature.clone(),
            });
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn roots_round_trip_and_other_versions_are_told() {
        let id = RepositoryId::from_bytes([1; 16]);
        let root = Root::new(id, RootSuite::Aes256Gcm, "2026-11-22T00:00:00Z".into());
        let text = String::from_utf8(root.encode()).unwrap();
        assert_eq!(Root::decode(text.as_bytes()).unwrap(), root);
        for (from, to, kind) in [
            ("\"version\": 2", "\"version\": 3", ErrorKind::Unsupported),
            ("\"version\": 2", "\"version\": 1", ErrorKind::Unsupported),
            ("\"version\": 2", "\"version\": 0", ErrorKind::Corrupt),
            ("\"features\": []", "\"features\": [\"x\"]", ErrorKind::Unsupported),
            ("pgrecall repository", "something else", ErrorKind::Corrupt),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert_eq!(Root::decode(changed.as_bytes()).unwrap_err().kind(), kind);
        }
    }
}
