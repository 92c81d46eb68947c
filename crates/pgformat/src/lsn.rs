//! Positions in the WAL: `XLogRecPtr`, printed as PostgreSQL prints `pg_lsn`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{FileKind, FormatError, excerpt};
use crate::version::Major;

/// A log sequence number: a byte position in the WAL of a cluster. 0 is no position
/// (`InvalidXLogRecPtr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// No position at all; PostgreSQL's `InvalidXLogRecPtr`.
    pub const INVALID: Self = Self(0);
    /// The last position there can be.
    pub const MAX: Self = Self(u64::MAX);

    /// Whether this is a position (anything but 0).
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// `None` for PostgreSQL's invalid position.
    #[must_use]
    pub const fn valid(self) -> Option<Self> {
        if self.is_valid() { Some(self) } else { None }
    }

    /// The position `bytes` further on, or nothing beyond the last one.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The position `bytes` further on, at most [`Lsn::MAX`].
    #[must_use]
    pub const fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// The position `bytes` further back, at least 0.
    #[must_use]
    pub const fn saturating_sub(self, bytes: u64) -> Self {
        Self(self.0.saturating_sub(bytes))
    }

    /// Bytes from `earlier` to here; 0 if `earlier` is later.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The position rounded up to a multiple of 8, where records start (`MAXALIGN`); at most the
    /// last such one.
    #[must_use]
    pub const fn align_up(self) -> Self {
        match self.0.checked_add(7) {
            Some(sum) => Self(sum & !7),
            None => Self(!7),
        }
    }

    /// As servers of this major write it into files: from 19 on always with eight digits after the
    /// slash (`%X/%08X`).
    #[must_use]
    pub fn text_of(self, major: Major) -> String {
        if major >= Major::V19 {
            format!("{:X}/{:08X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
        } else {
            self.to_string()
        }
    }

    /// How far into a block of `size_bytes` (a power of two) this position lies.
    #[must_use]
    pub(crate) const fn offset_in(self, size_bytes: u64) -> u64 {
        self.0 & size_bytes.wrapping_sub(1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = FormatError;

    /// Reads `X/Y`, one to eight hexadecimal digits each, as `pg_lsn_in` does.
    fn from_str(text: &str) -> Result<Self, FormatError> {
        let read = || {
            let (high, low) = text.split_once('/')?;
            Some(Self(u64::from(hex_word(high)?) << 32 | u64::from(hex_word(low)?)))
        };
        read().ok_or_else(|| FormatError::Text {
            file: FileKind::Lsn,
            expected: "two numbers of one to eight hexadecimal digits with a slash between",
            found: excerpt(text),
        })
    }
}

/// One to eight hexadecimal digits, without sign or space.
fn hex_word(text: &str) -> Option<u32> {
    let plain = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Lsn;
    use crate::version::Major;

    #[test]
    fn prints_and_reads_as_postgresql_does() {
        for (text, value) in [
            ("0/0", 0),
            ("0/1", 1),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse::<Lsn>().unwrap(), Lsn(value));
            assert_eq!(Lsn(value).to_string(), text);
            let json = serde_json::to_string(&Lsn(value)).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Lsn>(&json).unwrap(), Lsn(value));
        }
        assert_eq!("0a/0000000b".parse::<Lsn>().unwrap(), Lsn(0x0A_0000_000B));
        assert_eq!(Lsn(0x0A_0000_000B).text_of(Major::V18), "A/B");
        assert_eq!(Lsn(0x0A_0000_000B).text_of(Major::V19), "A/0000000B");
    }

    #[test]
    fn refuses_what_postgresql_refuses() {
        for text in
            ["", "/", "0", "0/", "/0", "G/0", "0/123456789", "+1/0", " 1/0", "1/0 ", "1/0/0"]
        {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn aligns_up_without_overflow() {
        assert_eq!(Lsn(0).align_up(), Lsn(0));
        assert_eq!(Lsn(1).align_up(), Lsn(8));
        assert_eq!(Lsn(8).align_up(), Lsn(8));
        assert_eq!(Lsn(u64::MAX).align_up(), Lsn(u64::MAX - 7));
    }
}
