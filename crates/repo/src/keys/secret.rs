//! 256 bits that nobody may see, and what is derived from them.

use std::fmt;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::FormatError;
use crate::random::SharedRandom;

/// 256 secret bits.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<[u8; 32]>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// New random bits.
    #[must_use]
    pub fn random(random: &SharedRandom) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill(&mut *bytes);
        Self(Arc::new(bytes))
    }

    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    pub(super) fn expose(&self) -> &Zeroizing<[u8; 32]> {
        &self.0
    }

    pub(super) fn from_hex(what: &'static str, text: &str) -> Result<Self, FormatError> {
        let bytes = Zeroizing::new(HEXLOWER.decode(text.as_bytes()).unwrap_or_default());
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| FormatError::Unexpected {
            what,
            expected: "64 hex digits".into(),
            found: format!("{} characters", text.len()),
        })?;
        Ok(Self::from_bytes(bytes))
    }

    pub(super) fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0[..])
    }
}

/// HKDF-SHA-256 (RFC 5869).
#[expect(clippy::expect_used, reason = "it fails beyond 255 hashes alone: that does not compile")]
pub(super) fn derive<const N: usize>(key: &Secret, salt: &[u8], info: &[u8]) -> [u8; N] {
    const { assert!(N <= 255 * 32) };
    let mut out = [0; N];
    Hkdf::<Sha256>::new(Some(salt), &key.expose()[..])
        .expand(info, &mut out)
        .expect("the length is within HKDF's limit");
    out
}
