//! The clear header of every sealed object: what it is, and which key opens it.

use crate::error::FormatError;
use crate::format::bytes::{Reader, narrow, wide};
use crate::format::layout;
use crate::id::Digest;

/// The first eight bytes of every sealed object.
pub const MAGIC: [u8; 8] = *b"pgrecall";

/// The version of the object format, in every header and in what every frame authenticates.
/// Version 1 was never released: there, chunks were not sealed as the chunks that they are.
pub const VERSION: u16 = 2;

/// A method field is at most this long; it has room for a public-key wrap.
pub const METHOD_FIELD_BYTES_MAX: u16 = 1024;

/// A header with its method field and CRC is at most this long: one range request holds it.
pub const HEADER_BYTES_MAX: u64 = layout::HEADER.size() + 1024 + 4;

macro_rules! byte_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal, {
        $($(#[$vdoc:meta])* $variant:ident = $value:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)* }

        impl $name {
            /// Every value with its byte.
            pub const ALL: &'static [(Self, u8)] = &[$((Self::$variant, $value),)*];

            /// The byte in the object.
            #[must_use]
            pub const fn byte(self) -> u8 {
                match self { $(Self::$variant => $value,)* }
            }

            /// From the byte in the object.
            ///
            /// # Errors
            /// When no value has this byte.
            pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
                match byte {
                    $($value => Ok(Self::$variant),)*
                    _ => Err(FormatError::Unexpected {
                        what: $what,
                        expected: "a known value".into(),
                        found: byte.to_string(),
                    }),
                }
            }
        }
    };
}
pub(crate) use byte_enum;

byte_enum!(
    /// What an object is. The kind is part of what every frame authenticates.
    Kind, "object kind", {
        /// Chunks of file contents.
        DataPack = 1,
        /// Chunks of file tables, maps and page hashes.
        MetaPack = 2,
        /// Where chunks are.
        Index = 3,
        /// A backup.
        Manifest = 4,
        /// The end of a backup that will never be one; stands under the manifest's name.
        Tombstone = 5,
        /// A backup under way.
        Intent = 6,
        /// The timeline and start LSN of a backup under way.
        Start = 7,
        /// A file of PostgreSQL's WAL archive.
        Archive = 8,
        /// A domain's keys of one epoch.
        DomainKeys = 9,
        /// The list of keys that open the repository.
        KeyLog = 10,
        /// A cluster's identity.
        Identity = 11,
        /// Chunks found bad.
        Damage = 12,
        /// What the probe found of the store.
        StoreRecord = 13,
        /// How a WAL collision was settled.
        Resolution = 14,
        /// Backups expired or ended.
        Expired = 15,
        /// Summaries of many WAL segments.
        WalSummaries = 16,
        /// Packs that a collection is about to remove.
        Retired = 17,
        /// Backups that may refer to them.
        RetiredIntents = 18,
        /// Which of them go.
        RetireVerdict = 19,
        /// That a domain's keys were deleted on purpose.
        Shredded = 20,
    }
);

byte_enum!(
    /// How frames are sealed.
    Suite, "crypto suite", {
        /// Not encrypted; a checksum stands in for the tag.
        Clear = 0,
        /// AES-256-GCM.
        Aes256Gcm = 1,
    }
);

byte_enum!(
    /// How an object's key is found.
    KeyMethod, "key method", {
        /// There is none: the suite is clear.
        None = 0,
        /// HKDF-SHA-256 of the class key and the salt.
        Hkdf = 1,
        /// Wrapped for a public key in the method field (reserved).
        PublicKey = 2,
    }
);

byte_enum!(
    /// Which of the keys opens the body.
    KeyClass, "key class", {
        /// Pages and WAL.
        Data = 1,
        /// Index, maps, hashes, manifests and trailers.
        Meta = 2,
        /// What belongs to no domain, and the domains' keys.
        Repository = 3,
    }
);

/// What a header says about keys: shared with the index, so that a frame can be opened without the
/// pack's own header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealing {
    /// How frames are sealed.
    pub suite: Suite,
    /// How the object's key is found.
    pub method: KeyMethod,
    /// Which key opens the body.
    pub class: KeyClass,
    /// The epoch of that key.
    pub epoch: u32,
    /// The generation of the id key behind digests and chunk ids.
    pub id_generation: u32,
    /// Random bytes that make the object's key its own.
    pub salt: [u8; 32],
    /// What the method needs besides.
    pub method_field: Vec<u8>,
}

/// The clear header of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: Kind,
    /// Which key opens it.
    pub sealing: Sealing,
    /// Keyed digest of the plaintext.
    pub digest: Digest,
}

impl Header {
    /// Appends the header, its method field and the CRC-32C of both.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let s = &self.sealing;
        out.extend_from_slice(&[self.kind.byte(), s.suite.byte(), s.method.byte(), s.class.byte()]);
        let method_len = u16::try_from(s.method_field.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&method_len.to_le_bytes());
        out.extend_from_slice(&s.epoch.to_le_bytes());
        out.extend_from_slice(&s.id_generation.to_le_bytes());
        out.extend_from_slice(&s.salt);
        out.extend_from_slice(&self.digest.0);
        out.extend_from_slice(&s.method_field);
        let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Bytes that the header takes, its method field and CRC included.
    #[must_use]
    pub fn encoded_len(&self) -> u64 {
        layout::HEADER.size() + wide(self.sealing.method_field.len()) + 4
    }

    /// Reads a header from the front of an object.
    ///
    /// # Errors
    /// When it is truncated, has another magic, another version, an unknown value or a wrong CRC.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let whole = reader.rest();
        let start = reader.consumed();
        let magic: [u8; 8] = reader.array("object header")?;
        if magic != MAGIC {
            return Err(FormatError::Unexpected {
                what: "object magic",
                expected: format!("{:02x?}", MAGIC),
                found: format!("{magic:02x?}"),
            });
        }
        let version = reader.u16("format version")?;
        if version != VERSION && is_ours(whole) {
            return Err(FormatError::Unexpected {
                what: "format version, whose CRC is that of another one",
                expected: VERSION.to_string(),
                found: version.to_string(),
            });
        }
        supported("the object", version.into(), VERSION.into())?;
        let kind = reader.u8("object kind")?;
        let suite = reader.u8("crypto suite")?;
        let method = reader.u8("key method")?;
        let class = reader.u8("key class")?;
        let method_len = reader.u16("method field length")?;
        let epoch = reader.u32("epoch")?;
        let id_generation = reader.u32("id-key generation")?;
        let salt = reader.array("salt")?;
        let digest = Digest(reader.array("digest")?);
        if method_len > METHOD_FIELD_BYTES_MAX {
            return Err(FormatError::TooLarge {
                what: "method field",
                limit: METHOD_FIELD_BYTES_MAX.into(),
                found: method_len.into(),
            });
        }
        let method_field = reader.take("method field", method_len.into())?.to_vec();
        let len = usize::try_from(reader.consumed() - start).unwrap_or(usize::MAX);
        let expected = crc32c::crc32c(whole.get(..len).unwrap_or_default());
        let found = reader.u32("header CRC")?;
        if expected != found {
            return Err(FormatError::Unexpected {
                what: "header CRC",
                expected: format!("{expected:08x}"),
                found: format!("{found:08x}"),
            });
        }
        Ok(Self {
            kind: Kind::from_byte(kind)?,
            sealing: Sealing {
                suite: Suite::from_byte(suite)?,
                method: KeyMethod::from_byte(method)?,
                class: KeyClass::from_byte(class)?,
                epoch,
                id_generation,
                salt,
                method_field,
            },
            digest,
        })
    }
}

/// Whether a header that says another version is whole with ours in its place: then rot has changed
/// the version, and the object is damaged, not of another version.
fn is_ours(whole: &[u8]) -> bool {
    let limit = usize::try_from(HEADER_BYTES_MAX).unwrap_or(usize::MAX);
    let mut header = whole.get(..limit).unwrap_or(whole).to_vec();
    let at = MAGIC.len()..MAGIC.len() + 2;
    let Some(version) = header.get_mut(at) else { return false };
    version.copy_from_slice(&VERSION.to_le_bytes());
    Header::decode(&mut Reader::new(&header)).is_ok()
}

/// Tells versions that were never released, and newer ones, from the one that is read here.
pub(crate) fn supported(what: &'static str, found: u64, known: u64) -> Result<(), FormatError> {
    match found {
        _ if found == known => Ok(()),
        0 => Err(FormatError::Unexpected {
            what: "format version",
            expected: known.to_string(),
            found: found.to_string(),
        }),
        _ if found < known => Err(FormatError::Older { what, found, known }),
        _ => Err(FormatError::Newer { what, found, known }),
    }
}

/// The clear end of an object with a trailer: where the trailer starts, counted from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Bytes of the trailer's frame, its length prefix included.
    pub trailer_len: u32,
    /// Frames in the body.
    pub body_frames: u32,
}

const TAIL_MAGIC: [u8; 4] = *b"PGRT";

impl Tail {
    /// Bytes of a tail.
    pub const LEN: u64 = layout::TAIL.size();

    /// Appends the tail.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.trailer_len.to_le_bytes());
        out.extend_from_slice(&self.body_frames.to_le_bytes());
        let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&TAIL_MAGIC);
    }

    /// Reads the tail from the end of an object, or of a part that ends where the object does.
    ///
    /// # Errors
    /// When the bytes are too few, end in something else or have a wrong CRC.
    pub fn decode(end_of_object: &[u8]) -> Result<Self, FormatError> {
        let len = usize::try_from(Self::LEN).unwrap_or(usize::MAX);
        let start = end_of_object.len().checked_sub(len).ok_or(FormatError::Truncated {
            what: "the object's tail",
            needed: Self::LEN,
            found: wide(end_of_object.len()),
        })?;
        let mut reader = Reader::new(end_of_object.get(start..).unwrap_or_default());
        let covered = crc32c::crc32c(reader.rest().get(..8).unwrap_or_default());
        let trailer_len = reader.u32("trailer length")?;
        let body_frames = reader.u32("body frames")?;
        let crc = reader.u32("tail CRC")?;
        let magic: [u8; 4] = reader.array("tail magic")?;
        if magic != TAIL_MAGIC || crc != covered {
            return Err(FormatError::Unexpected {
                what: "the object's tail (is it cut short?)",
                expected: format!("{TAIL_MAGIC:02x?} and CRC {covered:08x}"),
                found: format!("{magic:02x?} and CRC {crc:08x}"),
            });
        }
        Ok(Self { trailer_len, body_frames })
    }

    /// The trailer's frame in bytes that end where the object does, or how many are needed.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] with the number of bytes to ask for.
    pub fn trailer_frame<'a>(&self, end_of_object: &'a [u8]) -> Result<&'a [u8], FormatError> {
        let tail = usize::try_from(Self::LEN).unwrap_or(usize::MAX);
        let needed = narrow(self.trailer_len).saturating_add(tail);
        let start = end_of_object.len().checked_sub(needed).ok_or(FormatError::Truncated {
            what: "the object's trailer",
            needed: wide(needed),
            found: wide(end_of_object.len()),
        })?;
        let end = end_of_object.len().saturating_sub(tail);
        Ok(end_of_object.get(start..end).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::DataPack,
            sealing: Sealing {
                suite: Suite::Aes256Gcm,
                method: KeyMethod::Hkdf,
                class: KeyClass::Data,
                epoch: 3,
                id_generation: 1,
                salt: [9; 32],
                method_field: vec![1, 2, 3],
            },
            digest: Digest([4; 32]),
        }
    }

    #[test]
    fn headers_round_trip_and_every_flipped_byte_is_seen() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        assert_eq!(wide(bytes.len()), header().encoded_len());
        assert_eq!(Header::decode(&mut Reader::new(&bytes)).unwrap(), header());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Header::decode(&mut Reader::new(&bad)).is_err(), "byte {at}");
            assert!(Header::decode(&mut Reader::new(&bytes[..at])).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn newer_and_unreleased_versions_are_told_from_damage() {
        let decoded = |version: u16| {
            let mut bytes = Vec::new();
            header().encode(&mut bytes);
            bytes[8..10].copy_from_slice(&version.to_le_bytes());
            let covered = bytes.len() - 4;
            let crc = crc32c::crc32c(&bytes[..covered]);
            bytes[covered..].copy_from_slice(&crc.to_le_bytes());
            Header::decode(&mut Reader::new(&bytes))
        };
        assert!(matches!(decoded(VERSION + 1), Err(FormatError::Newer { .. })));
        assert!(matches!(decoded(1), Err(FormatError::Older { .. })));
        assert!(matches!(decoded(0), Err(FormatError::Unexpected { .. })));
    }

    #[test]
    fn a_version_that_rotted_is_damage() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        // Whatever follows the header.
        bytes.extend_from_slice(&[7; 5000]);
        for bit in 0..16 {
            let mut bad = bytes.clone();
            bad[8 + bit / 8] ^= 1 << (bit % 8);
            let found = Header::decode(&mut Reader::new(&bad));
            assert!(matches!(found, Err(FormatError::Unexpected { .. })), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn tails_round_trip() {
        let tail = Tail { trailer_len: 5, body_frames: 7 };
        let mut bytes = b"xxxxxhello".to_vec();
        tail.encode(&mut bytes);
        assert_eq!(Tail::decode(&bytes).unwrap(), tail);
        assert_eq!(tail.trailer_frame(&bytes).unwrap(), b"hello");
        assert!(tail.trailer_frame(&bytes[8..]).is_err());
        bytes.pop();
        assert!(Tail::decode(&bytes).is_err());
    }
}
