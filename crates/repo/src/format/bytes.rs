//! Reading and writing little-endian numbers, varints and byte strings, with every length checked
//! before it is believed.

use crate::error::FormatError;

/// Reads values from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    consumed: u64,
}

impl<'a> Reader<'a> {
    /// Starts at the slice's beginning.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, consumed: 0 }
    }

    /// Bytes not yet read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes read so far.
    #[must_use]
    pub const fn consumed(&self) -> u64 {
        self.consumed
    }

    /// True at the end.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], FormatError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(FormatError::Truncated {
                what,
                needed: wide(len),
                found: wide(self.rest.len()),
            });
        };
        self.rest = rest;
        self.consumed = self.consumed.saturating_add(wide(len));
        Ok(head)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N)?);
        Ok(array)
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    /// A little-endian 16-bit number.
    ///
    /// # Errors
    /// When fewer than two bytes are left.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// A little-endian 32-bit number.
    ///
    /// # Errors
    /// When fewer than four bytes are left.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A little-endian 64-bit number.
    ///
    /// # Errors
    /// When fewer than eight bytes are left.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A varint: seven bits a byte, low bits first, the high bit set on all but the last.
    ///
    /// # Errors
    /// When it does not end, or exceeds 64 bits.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FormatError::Unexpected {
            what,
            expected: "a varint of at most 64 bits".into(),
            found: "more".into(),
        })
    }

    /// A varint that counts things of at least `size_min` bytes each in what is left: a count that
    /// cannot be true is refused before memory is taken for it.
    ///
    /// # Errors
    /// When the count cannot be true, or the varint is malformed.
    pub fn count(&mut self, what: &'static str, size_min: usize) -> Result<usize, FormatError> {
        let count = self.varint(what)?;
        let room = wide(self.rest.len() / size_min.max(1));
        let small = usize::try_from(count).ok().filter(|_| count <= room);
        small.ok_or(FormatError::TooLarge { what, limit: room, found: count })
    }

    /// A byte string with its length as a varint in front.
    ///
    /// # Errors
    /// When it is longer than what is left or than `limit`.
    pub fn string(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], FormatError> {
        let len = self.count(what, 1)?;
        if len > limit {
            return Err(FormatError::TooLarge { what, limit: wide(limit), found: wide(len) });
        }
        self.take(what, len)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// When something is.
    pub fn end(&self, what: &'static str) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(FormatError::Unexpected {
            what,
            expected: "its end".into(),
            found: format!("{} more bytes", self.rest.len()),
        })
    }
}

/// A length in memory as a 64-bit number.
#[must_use]
pub fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A 32-bit number as a length in memory.
#[must_use]
pub fn narrow(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends a byte string with its length in front.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, wide(bytes.len()));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint("value").unwrap(), value);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn endless_varints_and_impossible_counts_are_refused() {
        assert!(Reader::new(&[0xff; 20]).varint("value").is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).count("things", 32).is_err());
        assert!(Reader::new(&[5, 1, 2]).string("name", 10).is_err());
        assert!(Reader::new(&[2, 1, 2]).string("name", 1).is_err());
    }
}
