//! Compression: the only C code of this crate, kept out of `format`.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::error::FormatError;
use crate::format::bytes::{narrow, wide};
use crate::format::frame::{Codec, FRAME_PLAIN_BYTES_MAX, Opened};

/// A zstd level. Level 1 is the default: on PostgreSQL pages level 3 gains 1–10 % in size for 0.6
/// to 0.8 of the speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub i32);

impl Default for Level {
    fn default() -> Self {
        Self(1)
    }
}

type Compressors = Vec<(Level, Compressor<'static>)>;

thread_local! {
    // A context is half a megabyte to set up: one for each level that a thread uses.
    static COMPRESSORS: RefCell<Compressors> = const { RefCell::new(Vec::new()) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses into `out` (cleared first) and says how; plaintext that does not shrink by an eighth
/// is not worth inflating at restore, and is left as it is with `out` empty.
pub fn compress(plain: &[u8], level: Level, out: &mut Vec<u8>) -> Codec {
    out.clear();
    if plain.len() < 64 {
        return Codec::Stored;
    }
    let compressed = COMPRESSORS.with_borrow_mut(|known| {
        let place = match known.iter().position(|(at, _)| *at == level) {
            Some(place) => place,
            None => {
                known.push((level, Compressor::new(level.0).ok()?));
                known.len() - 1
            }
        };
        let (_, compressor) = known.get_mut(place)?;
        out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        compressor.compress_to_buffer(plain, out).ok()
    });
    match compressed {
        Some(len) if len < plain.len() - plain.len() / 8 => Codec::Zstd,
        _ => {
            out.clear();
            Codec::Stored
        }
    }
}

/// Inflates a frame's payload into `out` (cleared first).
///
/// # Errors
/// When the payload does not inflate to exactly the length it states.
pub fn inflate(opened: &Opened<'_>, out: &mut Vec<u8>) -> Result<(), FormatError> {
    let plain_len = narrow(opened.plain_len.min(FRAME_PLAIN_BYTES_MAX));
    out.clear();
    match opened.codec {
        Codec::Stored => {
            out.extend_from_slice(opened.payload);
            Ok(())
        }
        Codec::Zstd => {
            out.reserve(plain_len);
            let found = DECOMPRESSOR.with_borrow_mut(|slot| {
                let decompressor = match slot {
                    Some(decompressor) => decompressor,
                    None => slot.insert(Decompressor::new()?),
                };
                // A vector is written within its capacity, without being filled with zeros first.
                decompressor.decompress_to_buffer(opened.payload, out)
            });
            match found {
                Ok(len) if len == plain_len => Ok(()),
                Ok(len) => Err(FormatError::Unexpected {
                    what: "inflated length",
                    expected: wide(plain_len).to_string(),
                    found: wide(len).to_string(),
                }),
                Err(error) => Err(FormatError::Inflate { reason: error.to_string() }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shrinks_is_compressed_and_comes_back() {
        let plain = vec![7_u8; 100_000];
        let mut packed = Vec::new();
        assert_eq!(compress(&plain, Level::default(), &mut packed), Codec::Zstd);
        let mut out = b"before".to_vec();
        let opened = Opened { codec: Codec::Zstd, plain_len: 100_000, payload: &packed };
        inflate(&opened, &mut out).unwrap();
        assert_eq!(out, plain);
        let lying = Opened { codec: Codec::Zstd, plain_len: 99_999, payload: &packed };
        assert!(inflate(&lying, &mut Vec::new()).is_err());
        let lying = Opened { codec: Codec::Zstd, plain_len: 99_999, payload: &packed };
        assert!(inflate(&lying, &mut Vec::with_capacity(1 << 20)).is_err());
        let lying = Opened { codec: Codec::Zstd, plain_len: 100_001, payload: &packed };
        assert!(inflate(&lying, &mut Vec::new()).is_err());
    }

    #[test]
    fn what_does_not_shrink_is_stored() {
        let noise: Vec<u8> = (0..4096_u64)
            .flat_map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()).to_le_bytes())
            .collect();
        let mut out = Vec::new();
        assert_eq!(compress(&noise, Level::default(), &mut out), Codec::Stored);
        assert!(out.is_empty());
    }
}
