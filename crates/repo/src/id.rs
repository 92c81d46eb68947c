//! Names that are never used twice: 128 random bits for objects, 256-bit keyed hashes for chunks.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, HEXLOWER, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::FormatError;
use crate::random::SharedRandom;

/// RFC 4648 base32, lower case and without padding: fit for file systems that fold case.
#[expect(clippy::expect_used, reason = "the alphabet is a constant: any use of it is its test")]
pub(crate) static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("the alphabet has 32 distinct symbols")
});

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A new one, never seen before.
            #[must_use]
            pub fn random(random: &SharedRandom) -> Self {
                Self(random.bytes())
            }

            /// From its 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&BASE32.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = FormatError;

            fn from_str(text: &str) -> Result<Self, FormatError> {
                BASE32
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| FormatError::Unexpected {
                        what: $what,
                        expected: "26 characters of a-z and 2-7".into(),
                        found: format!("{text:?}"),
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

random_id!(
    /// One repository. Clients pin it.
    RepositoryId, "repository id"
);
random_id!(
    /// One try at a backup; a try that starts over takes a new one.
    BackupId, "backup id"
);
random_id!(
    /// One pack.
    PackId, "pack id"
);
random_id!(
    /// One index object.
    IndexId, "index id"
);
random_id!(
    /// One key that opens the repository.
    KeyId, "key id"
);
random_id!(
    /// One round of collection.
    RoundId, "round id"
);
random_id!(
    /// One note of chunks found bad.
    DamageId, "damage id"
);

/// A chunk's name: HMAC-SHA-256 of its plaintext under the domain's id key. Equal data has equal
/// ids within a domain, and tells an outsider nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId([u8; 32]);

impl ChunkId {
    /// From its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

impl FromStr for ChunkId {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        HEXLOWER
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| FormatError::Unexpected {
                what: "chunk id",
                expected: "64 hex digits".into(),
                found: format!("{text:?}"),
            })
    }
}

impl Serialize for ChunkId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChunkId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Keyed digest of an object's plaintext, in its clear header: whoever put the object knows it
/// again without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let id = PackId::from_bytes([0xa5; 16]);
        assert_eq!(id.to_string().len(), 26);
        assert_eq!(id.to_string().parse::<PackId>().unwrap(), id);
        assert!("short".parse::<PackId>().is_err());
        assert!("A5A5A5A5A5A5A5A5A5A5A5A5A5".parse::<PackId>().is_err());
        let chunk = ChunkId::from_bytes([7; 32]);
        assert_eq!(chunk.to_string().parse::<ChunkId>().unwrap(), chunk);
    }
}
