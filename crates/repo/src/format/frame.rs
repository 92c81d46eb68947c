//! Frames: sealed pieces of an object, each with its length in front.
//!
//! A frame is `length (u32)`, then that many sealed bytes: codec, plain length, payload, and a
//! 16-byte tag. The nonce is the frame's number, its section and a mark on the last one, so frames
//! can be neither reordered nor cut off; the associated data name the object, so objects cannot be
//! swapped.

use std::borrow::Cow;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit, Tag};
use aes_gcm::{Aes256Gcm, Nonce};
use xxhash_rust::xxh3::Xxh3;
use zeroize::Zeroizing;

use crate::error::FormatError;
use crate::format::bytes::{Reader, narrow, wide};
use crate::format::header::{Kind, Suite, VERSION, byte_enum};
use crate::format::layout;
use crate::id::ChunkId;

/// Bytes of the length in front of a frame.
pub const PREFIX_BYTES: usize = 4;

/// Bytes that sealing adds to a payload, the prefix not counted.
pub const SEAL_BYTES: usize = 5 + TAG_BYTES;

const TAG_BYTES: usize = 16;

/// No frame's plaintext is longer than this.
pub const FRAME_PLAIN_BYTES_MAX: u32 = 16 << 20;

/// No frame is longer than this: zstd's worst case on the longest plaintext fits.
pub const FRAME_BYTES_MAX: u32 = FRAME_PLAIN_BYTES_MAX + (1 << 17);

byte_enum!(
    /// How a frame's payload becomes its plaintext.
    Codec, "codec", {
        /// As it is.
        Stored = 0,
        /// One zstd frame (RFC 8878).
        Zstd = 1,
    }
);

/// Which part of an object a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The contents.
    Body,
    /// What can be read without the contents.
    Trailer,
}

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its part of the object.
    pub section: Section,
    /// Its number there, from 0.
    pub number: u64,
    /// Whether another follows in this section.
    pub last: Last,
    /// The chunk that it holds, in packs: a frame opens only as the chunk that it was sealed as.
    pub chunk: Option<ChunkId>,
}

/// Whether a frame is the last of its section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Another follows, or may.
    No,
    /// None follows.
    Yes,
}

impl Place {
    /// A body frame.
    #[must_use]
    pub const fn body(number: u64, last: Last) -> Self {
        Self { section: Section::Body, number, last, chunk: None }
    }

    /// A chunk's frame in a pack, of which none is marked as the last: their directory counts them.
    #[must_use]
    pub const fn chunk(number: u64, chunk: ChunkId) -> Self {
        Self { section: Section::Body, number, last: Last::No, chunk: Some(chunk) }
    }

    /// The one frame of a trailer.
    #[must_use]
    pub const fn trailer() -> Self {
        Self { section: Section::Trailer, number: 0, last: Last::Yes, chunk: None }
    }

    fn nonce(self) -> [u8; 12] {
        let mut nonce = [0; 12];
        let (number, rest) = nonce.split_at_mut(8);
        number.copy_from_slice(&self.number.to_le_bytes());
        let section = match self.section {
            Section::Body => 0,
            Section::Trailer => 1,
        };
        let last = match self.last {
            Last::No => 0,
            Last::Yes => 1,
        };
        if let [s, l, ..] = rest {
            (*s, *l) = (section, last);
        }
        nonce
    }
}

/// Seals and opens the frames of one object.
pub struct FrameCipher {
    cipher: Cipher,
    associated: Vec<u8>,
}

enum Cipher {
    Clear,
    Aes(Box<Aes256Gcm>),
}

impl std::fmt::Debug for FrameCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameCipher")
    }
}

/// A frame that has been opened: the payload still has to be inflated.
#[derive(Debug)]
pub struct Opened<'a> {
    /// How the payload becomes the plaintext.
    pub codec: Codec,
    /// Bytes of the plaintext, at most [`FRAME_PLAIN_BYTES_MAX`].
    pub plain_len: u32,
    /// The payload.
    pub payload: &'a [u8],
}

impl FrameCipher {
    /// A cipher for the object `name` of `kind`, in `domain` (empty for none).
    #[must_use]
    pub fn new(
        suite: Suite,
        key: &Zeroizing<[u8; 32]>,
        kind: Kind,
        domain: &str,
        name: &str,
    ) -> Self {
        let cipher = match suite {
            Suite::Clear => Cipher::Clear,
            Suite::Aes256Gcm => Cipher::Aes(Box::new(Aes256Gcm::new((&**key).into()))),
        };
        let mut associated = Vec::with_capacity(8 + domain.len() + name.len());
        associated.extend_from_slice(&VERSION.to_le_bytes());
        associated.extend_from_slice(&[kind.byte(), suite.byte()]);
        let domain_len = u32::try_from(domain.len()).unwrap_or(u32::MAX);
        associated.extend_from_slice(&domain_len.to_le_bytes());
        associated.extend_from_slice(domain.as_bytes());
        associated.extend_from_slice(name.as_bytes());
        Self { cipher, associated }
    }

    /// Appends one frame and gives the range of `out` that holds its sealed bytes, the prefix not
    /// included.
    ///
    /// # Errors
    /// When the payload or the plaintext is longer than a frame may be.
    pub fn seal(
        &self,
        out: &mut Vec<u8>,
        place: Place,
        codec: Codec,
        plain_len: usize,
        payload: &[u8],
    ) -> Result<std::ops::Range<usize>, FormatError> {
        let plain = within("frame plaintext", plain_len, FRAME_PLAIN_BYTES_MAX)?;
        let sealed = within("frame", payload.len().saturating_add(SEAL_BYTES), FRAME_BYTES_MAX)?;
        out.reserve(payload.len() + SEAL_BYTES + PREFIX_BYTES);
        out.extend_from_slice(&sealed.to_le_bytes());
        let start = out.len();
        out.push(codec.byte());
        out.extend_from_slice(&plain.to_le_bytes());
        out.extend_from_slice(payload);
        let text = out.get_mut(start..).unwrap_or_default();
        let tag = self.encrypt(place, text)?;
        out.extend_from_slice(&tag);
        Ok(start..out.len())
    }

    /// Opens one frame's sealed bytes (without the prefix), using `scratch` for the plain ones.
    ///
    /// # Errors
    /// When it does not authenticate, or says of itself what cannot be.
    pub fn open<'a>(
        &self,
        place: Place,
        sealed: &[u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Opened<'a>, FormatError> {
        let text_len = sealed.len().checked_sub(TAG_BYTES).ok_or(FormatError::Truncated {
            what: "frame",
            needed: wide(SEAL_BYTES),
            found: wide(sealed.len()),
        })?;
        let (text, tag) = sealed.split_at_checked(text_len).unwrap_or_default();
        scratch.resize(text_len, 0);
        self.decrypt(place, text, tag, scratch)?;
        let mut reader = Reader::new(scratch);
        let codec = Codec::from_byte(reader.u8("codec")?)?;
        let plain_len = reader.u32("plain length")?;
        if plain_len > FRAME_PLAIN_BYTES_MAX {
            return Err(FormatError::TooLarge {
                what: "frame plaintext",
                limit: FRAME_PLAIN_BYTES_MAX.into(),
                found: plain_len.into(),
            });
        }
        let payload = reader.rest();
        if codec == Codec::Stored && payload.len() != narrow(plain_len) {
            return Err(FormatError::Unexpected {
                what: "length of a stored frame",
                expected: plain_len.to_string(),
                found: payload.len().to_string(),
            });
        }
        Ok(Opened { codec, plain_len, payload })
    }

    /// What is authenticated besides the bytes: the object, and the chunk.
    fn associated(&self, place: Place) -> Cow<'_, [u8]> {
        match place.chunk {
            None => Cow::Borrowed(&self.associated),
            Some(chunk) => Cow::Owned([&self.associated[..], chunk.as_bytes()].concat()),
        }
    }

    fn encrypt(&self, place: Place, text: &mut [u8]) -> Result<[u8; TAG_BYTES], FormatError> {
        let nonce = place.nonce();
        match &self.cipher {
            Cipher::Clear => Ok(checksum(&self.associated(place), &nonce, text)),
            Cipher::Aes(aes) => aes
                .encrypt_inout_detached(&Nonce::from(nonce), &self.associated(place), text.into())
                .map(Into::into)
                .map_err(|_| FormatError::Unauthentic { what: "a frame being sealed" }),
        }
    }

    /// Decrypts `text` into `plain`, which is as long.
    fn decrypt(
        &self,
        place: Place,
        text: &[u8],
        tag: &[u8],
        plain: &mut [u8],
    ) -> Result<(), FormatError> {
        let what = match place.section {
            Section::Body => "a frame of the body",
            Section::Trailer => "the trailer",
        };
        let nonce = place.nonce();
        match &self.cipher {
            Cipher::Clear if checksum(&self.associated(place), &nonce, text) == tag => {
                plain.copy_from_slice(text);
                Ok(())
            }
            Cipher::Clear => Err(FormatError::Unauthentic { what }),
            Cipher::Aes(aes) => {
                let tag = Tag::<Aes256Gcm>::try_from(tag)
                    .map_err(|_| FormatError::Unauthentic { what })?;
                let bytes = InOutBuf::new(text, plain)
                    .map_err(|_| FormatError::Unauthentic { what: "a buffer of another length" })?;
                aes.decrypt_inout_detached(
                    &Nonce::from(nonce),
                    &self.associated(place),
                    bytes,
                    &tag,
                )
                .map_err(|_| FormatError::Unauthentic { what })
            }
        }
    }
}

/// Stands in for the tag where nothing is encrypted: it finds rot and mix-ups, not attackers.
fn checksum(associated: &[u8], nonce: &[u8], text: &[u8]) -> [u8; TAG_BYTES] {
    let mut hash = Xxh3::new();
    hash.update(associated);
    hash.update(nonce);
    hash.update(text);
    hash.digest128().to_le_bytes()
}

fn within(what: &'static str, len: usize, limit: u32) -> Result<u32, FormatError> {
    u32::try_from(len).ok().filter(|len| *len <= limit).ok_or(FormatError::TooLarge {
        what,
        limit: limit.into(),
        found: wide(len),
    })
}

/// Takes the next frame's sealed bytes from the front of a section.
///
/// # Errors
/// When the bytes end early or the length is above the limit.
pub fn take<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], FormatError> {
    let len = reader.u32("frame length")?;
    if len > FRAME_BYTES_MAX {
        return Err(FormatError::TooLarge {
            what: "frame length",
            limit: FRAME_BYTES_MAX.into(),
            found: len.into(),
        });
    }
    reader.take("frame", narrow(len))
}

const _: () = assert!(layout::FRAME.size() == 5 && layout::NONCE.size() == 12);

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(suite: Suite, name: &str) -> FrameCipher {
        FrameCipher::new(suite, &Zeroizing::new([1; 32]), Kind::DataPack, "main", name)
    }

    #[test]
    fn frames_open_only_in_their_place_and_object() {
        for suite in [Suite::Clear, Suite::Aes256Gcm] {
            let mut out = Vec::new();
            let place = Place::chunk(3, ChunkId::from_bytes([8; 32]));
            let range =
                cipher(suite, "a").seal(&mut out, place, Codec::Stored, 5, b"hello").unwrap();
            let sealed = &out[range];
            let mut scratch = Vec::new();
            let opened = cipher(suite, "a").open(place, sealed, &mut scratch).unwrap();
            assert_eq!(opened.payload, b"hello");
            assert!(cipher(suite, "b").open(place, sealed, &mut scratch).is_err());
            for wrong in [
                Place { number: 4, ..place },
                Place { chunk: None, ..place },
                Place::chunk(3, ChunkId::from_bytes([9; 32])),
                Place { last: Last::Yes, ..place },
                Place { section: Section::Trailer, ..place },
            ] {
                assert!(cipher(suite, "a").open(wrong, sealed, &mut scratch).is_err());
            }
            for at in 0..sealed.len() {
                let mut bad = sealed.to_vec();
                bad[at] ^= 1;
                assert!(cipher(suite, "a").open(place, &bad, &mut scratch).is_err());
                assert!(cipher(suite, "a").open(place, &sealed[..at], &mut scratch).is_err());
            }
        }
    }

    #[test]
    fn a_frame_longer_than_the_limit_is_refused_before_it_is_read() {
        let bytes = u32::MAX.to_le_bytes();
        assert!(matches!(take(&mut Reader::new(&bytes)), Err(FormatError::TooLarge { .. })));
    }
}
