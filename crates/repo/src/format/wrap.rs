//! `keys/<key-id>`: the repository key, wrapped by one key of a host or a person. JSON in the
//! clear; all of it is authenticated by the wrap.

use serde::{Deserialize, Serialize};

use crate::error::FormatError;
use crate::id::KeyId;

/// A wrap object is at most this long.
pub const WRAP_BYTES_MAX: u64 = 16 << 10;

const VERSION: u32 = 1;

/// The repository key wrapped by one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrap {
    /// Version of this object.
    pub version: u32,
    /// The key that opens it.
    pub id: KeyId,
    /// For people: which host or person has the key.
    pub label: String,
    /// When it was added, RFC 3339; for people.
    pub added: String,
    /// SHA-256 of `pgrecall.json`, in hex: a wrap that lost the race of two `init`s opens nothing.
    pub root_sha256: String,
    /// How the wrapping key comes about.
    pub method: WrapMethod,
    /// 32 bytes of salt, in hex.
    pub salt: String,
    /// 12 bytes of nonce, in hex.
    pub nonce: String,
    /// The sealed repository key (32 bytes) and its tag (16), in hex.
    pub wrapped: String,
}

/// How a wrapping key comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum WrapMethod {
    /// HKDF-SHA-256 of the 256 bits in a key file.
    KeyFile,
    /// Argon2id (RFC 9106) of a passphrase.
    Passphrase {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
}

impl WrapMethod {
    /// The parameters for a new passphrase: RFC 9106's second recommendation.
    pub const PASSPHRASE: Self = Self::Passphrase { memory_kib: 64 << 10, passes: 3, lanes: 4 };

    /// For tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::KeyFile => "key file",
            Self::Passphrase { .. } => "passphrase",
        }
    }
}

impl Wrap {
    /// A new one, its sealed part still empty.
    #[must_use]
    pub fn outline(id: KeyId, label: String, added: String, method: WrapMethod) -> Self {
        Self {
            version: VERSION,
            id,
            label,
            added,
            root_sha256: String::new(),
            method,
            salt: String::new(),
            nonce: String::new(),
            wrapped: String::new(),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a wrap and holds its parameters against their bounds: whoever can write to the store
    /// must not be able to make us spend a terabyte of memory, or next to none.
    ///
    /// # Errors
    /// When it is malformed, newer or out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let what = "a wrapped key";
        let wrap: Self = serde_json::from_slice(bytes)
            .map_err(|error| FormatError::Document { what, reason: error.to_string() })?;
        if wrap.version != VERSION {
            let (found, known) = (wrap.version.into(), VERSION.into());
            return Err(FormatError::Newer { what, found, known });
        }
        if let WrapMethod::Passphrase { memory_kib, passes, lanes } = wrap.method {
            let sound = (19 << 10..=1 << 20).contains(&memory_kib)
                && (1..=16).contains(&passes)
                && (1..=16).contains(&lanes);
            if !sound {
                return Err(FormatError::Unexpected {
                    what: "Argon2id parameters",
                    expected: "19 MiB to 1 GiB, 1 to 16 passes, 1 to 16 lanes".into(),
                    found: format!("{memory_kib} KiB, {passes} passes, {lanes} lanes"),
                });
            }
        }
        Ok(wrap)
    }

    /// What the wrap authenticates besides the key: every other field.
    #[must_use]
    pub fn associated(&self) -> Vec<u8> {
        let open = Self { nonce: String::new(), wrapped: String::new(), ..self.clone() };
        serde_json::to_vec(&open).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_bounds_are_refused() {
        let id = KeyId::from_bytes([1; 16]);
        let mut wrap = Wrap::outline(id, "host".into(), "now".into(), WrapMethod::PASSPHRASE);
        assert_eq!(Wrap::decode(&wrap.encode()).unwrap(), wrap);
        for (memory_kib, passes, lanes) in
            [(1, 3, 4), (u32::MAX, 3, 4), (65536, 0, 4), (65536, 3, 0)]
        {
            wrap.method = WrapMethod::Passphrase { memory_kib, passes, lanes };
            assert!(Wrap::decode(&wrap.encode()).is_err());
        }
    }
}
