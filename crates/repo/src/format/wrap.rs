//! `keys/<key-id>`: the repository key, wrapped by one key of a host, a person or a service. JSON
//! in the clear; all of it is authenticated by the wrap.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::error::FormatError;
use crate::id::KeyId;

/// A wrap object is at most this long.
pub const WRAP_BYTES_MAX: u64 = 16 << 10;

/// What a service has encrypted is at most this long, and so is the name of its key.
pub const SERVICE_BYTES_MAX: usize = 4096;

const VERSION: u32 = 1;

/// The methods that this version knows, as `kind` names them.
const KINDS: [&str; 3] = ["key-file", "passphrase", "kms"];

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// HKDF-SHA-256 of 256 bits that a key management service has encrypted.
    Kms {
        /// The full name of the service's key.
        key: String,
        /// What it has made of the 256 bits, in hex.
        blob: String,
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
            Self::Kms { .. } => "kms",
        }
    }

    fn require_sound(&self) -> Result<(), FormatError> {
        match self {
            Self::KeyFile => Ok(()),
            Self::Passphrase { memory_kib, passes, lanes } => {
                let sound = (19 << 10..=1 << 20).contains(memory_kib)
                    && (1..=16).contains(passes)
                    && (1..=16).contains(lanes);
                sound.then_some(()).ok_or_else(|| FormatError::Unexpected {
                    what: "Argon2id parameters",
                    expected: "19 MiB to 1 GiB, 1 to 16 passes, 1 to 16 lanes".into(),
                    found: format!("{memory_kib} KiB, {passes} passes, {lanes} lanes"),
                })
            }
            Self::Kms { key, blob } => {
                let len = HEXLOWER.decode_len(blob.len()).unwrap_or_default();
                let fits = 1..=SERVICE_BYTES_MAX;
                let sound = fits.contains(&key.len())
                    && fits.contains(&len)
                    && HEXLOWER.decode(blob.as_bytes()).is_ok();
                sound.then_some(()).ok_or_else(|| FormatError::Unexpected {
                    what: "what a key management service has encrypted",
                    expected: format!("1 to {SERVICE_BYTES_MAX} bytes in hex, and a key's name"),
                    found: format!("{} characters, and a name of {} bytes", blob.len(), key.len()),
                })
            }
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
        let wrap: Self =
            serde_json::from_slice(bytes).map_err(|error| unreadable(what, bytes, &error))?;
        if wrap.version != VERSION {
            let (found, known) = (wrap.version.into(), VERSION.into());
            return Err(FormatError::Newer { what, found, known });
        }
        wrap.method.require_sound()?;
        Ok(wrap)
    }

    /// What the wrap authenticates besides the key: every other field.
    #[must_use]
    pub fn associated(&self) -> Vec<u8> {
        let open = Self { nonce: String::new(), wrapped: String::new(), ..self.clone() };
        serde_json::to_vec(&open).unwrap_or_default()
    }
}

/// Tells what a newer version has written from what is broken.
fn unreadable(what: &'static str, bytes: &[u8], error: &serde_json::Error) -> FormatError {
    #[derive(Deserialize)]
    struct Outline {
        version: u64,
        method: Method,
    }
    #[derive(Deserialize)]
    struct Method {
        kind: String,
    }
    match serde_json::from_slice::<Outline>(bytes) {
        Ok(outline) if outline.version > VERSION.into() => {
            FormatError::Newer { what, found: outline.version, known: VERSION.into() }
        }
        Ok(Outline { method, .. }) if !KINDS.contains(&method.kind.as_str()) => {
            FormatError::UnknownFeature { what, feature: format!("the method {}", method.kind) }
        }
        _ => FormatError::Document { what, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_method_of_a_newer_version_is_told_from_damage() {
        let id = KeyId::from_bytes([1; 16]);
        let wrap = Wrap::outline(id, "host".into(), "now".into(), WrapMethod::KeyFile);
        let text = String::from_utf8(wrap.encode()).unwrap();
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{text}");
            Wrap::decode(text.replace(from, to).as_bytes()).unwrap_err()
        };
        let error = with("\"key-file\"", "\"quantum\"");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("the method quantum"), "{error}");
        let error = with("\"salt\"", "\"pepper\"");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(with("\"version\": 1", "\"version\": 2").kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn what_a_service_has_encrypted_is_held_to_its_bounds() {
        let id = KeyId::from_bytes([1; 16]);
        let decode = |key: &str, blob: &str| {
            let method = WrapMethod::Kms { key: key.into(), blob: blob.into() };
            let wrap = Wrap::outline(id, "host".into(), "now".into(), method);
            (Wrap::decode(&wrap.encode()), wrap)
        };
        let (read, wrap) = decode("arn:aws:kms:x:1:key/2", "00ff");
        assert_eq!(read.unwrap(), wrap);
        let long = "ab".repeat(SERVICE_BYTES_MAX + 1);
        for (key, blob) in [("", "00"), ("k", ""), ("k", "0"), ("k", "zz"), ("k", &long)] {
            assert_eq!(decode(key, blob).0.unwrap_err().kind(), ErrorKind::Corrupt, "{key}");
        }
        assert!(decode(&long, "00").0.is_err());
        let most = "ab".repeat(SERVICE_BYTES_MAX);
        let wrap = decode(&"k".repeat(SERVICE_BYTES_MAX), &most).1;
        assert!(wrap.encode().len() as u64 <= WRAP_BYTES_MAX);
    }

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
