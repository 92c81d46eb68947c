//! Index objects: chunk id → pack, frame, offset, lengths, sorted by chunk id.
//!
//! Body frame 0 is the head: a table of packs, a fence table (the first id, place and length of
//! each block) and a Bloom filter; frames 1… are the blocks. A lookup reads the head once and then
//! one block.

use crate::error::FormatError;
use crate::format::bytes::{Reader, narrow, wide};
use crate::format::header::{KeyClass, KeyMethod, Kind, Sealing, Suite};
use crate::format::layout;
use crate::id::{ChunkId, PackId};

/// Entries in a full block.
pub const BLOCK_ENTRIES: usize = 512;

/// Packs named by one index object at most.
pub const PACKS_MAX: u32 = 1 << 16;

/// Blocks of one index object at most: 2^25 chunks, 8 TiB at 256 KiB a chunk.
pub const BLOCKS_MAX: u32 = 1 << 16;

/// A pack that an index object speaks of, with all that opening one of its frames takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPack {
    /// The pack.
    pub id: PackId,
    /// Bytes of the whole object.
    pub size: u64,
    /// Data or metadata.
    pub kind: Kind,
    /// Which key opens it.
    pub sealing: Sealing,
}

/// One chunk's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The chunk.
    pub chunk: ChunkId,
    /// Its pack, by position in the object's pack table.
    pub pack: u32,
    /// Its frame's number in the pack.
    pub frame: u32,
    /// Where its frame starts in the pack, at the length prefix.
    pub offset: u32,
    /// Bytes of its sealed frame, the prefix not counted.
    pub sealed_len: u32,
    /// Bytes of its plaintext.
    pub plain_len: u32,
    /// Keyed hash of the sealed frame.
    pub check: u64,
}

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The first chunk id in the block.
    pub first: ChunkId,
    /// Entries in it.
    pub entries: u32,
    /// Where its frame starts, counted from the end of the head's frame, at the length prefix.
    pub offset: u32,
    /// Bytes of its frame, the prefix included.
    pub len: u32,
}

/// The head of an index object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexHead {
    /// The packs spoken of.
    pub packs: Vec<IndexPack>,
    /// The blocks, by first chunk id.
    pub fences: Vec<Fence>,
    /// Tells most absent ids without reading a block.
    pub filter: Filter,
}

impl IndexHead {
    /// The block in which `chunk` stands if it stands anywhere.
    #[must_use]
    pub fn block_of(&self, chunk: &ChunkId) -> Option<usize> {
        self.fences.partition_point(|fence| fence.first <= *chunk).checked_sub(1)
    }

    /// Encodes the head: pack table, fence table, filter.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&count(self.packs.len()).to_le_bytes());
        for pack in &self.packs {
            encode_pack(pack, &mut out);
        }
        out.extend_from_slice(&count(self.fences.len()).to_le_bytes());
        for fence in &self.fences {
            out.extend_from_slice(fence.first.as_bytes());
            for value in [fence.entries, fence.offset, fence.len] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        out.extend_from_slice(&count(self.filter.words.len()).to_le_bytes());
        for word in &self.filter.words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Decodes a head.
    ///
    /// # Errors
    /// When it is cut short, has a count above its limit, or its fences are not in order.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let pack_count = counted(&mut reader, "pack count", PACKS_MAX, layout::INDEX_PACK.size())?;
        let mut packs = Vec::with_capacity(pack_count);
        for _ in 0..pack_count {
            packs.push(decode_pack(&mut reader)?);
        }
        let blocks = counted(&mut reader, "block count", BLOCKS_MAX, layout::INDEX_FENCE.size())?;
        let mut fences: Vec<Fence> = Vec::with_capacity(blocks);
        for _ in 0..blocks {
            let fence = Fence {
                first: ChunkId::from_bytes(reader.array("first chunk id")?),
                entries: reader.u32("entries")?,
                offset: reader.u32("block offset")?,
                len: reader.u32("block length")?,
            };
            if fences.last().is_some_and(|before| before.first >= fence.first) {
                return Err(FormatError::Unexpected {
                    what: "fence table",
                    expected: "chunk ids in order".into(),
                    found: fence.first.to_string(),
                });
            }
            fences.push(fence);
        }
        let words = counted(&mut reader, "filter words", u32::MAX, 8)?;
        let words = (0..words).map(|_| reader.u64("filter")).collect::<Result<_, _>>()?;
        reader.end("index head")?;
        Ok(Self { packs, fences, filter: Filter { words } })
    }
}

fn encode_pack(pack: &IndexPack, out: &mut Vec<u8>) {
    let s = &pack.sealing;
    out.extend_from_slice(pack.id.as_bytes());
    out.extend_from_slice(&pack.size.to_le_bytes());
    out.extend_from_slice(&[pack.kind.byte(), s.suite.byte(), s.method.byte(), s.class.byte()]);
    let method_len = u16::try_from(s.method_field.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&method_len.to_le_bytes());
    out.extend_from_slice(&s.epoch.to_le_bytes());
    out.extend_from_slice(&s.id_generation.to_le_bytes());
    out.extend_from_slice(&s.salt);
    out.extend_from_slice(&s.method_field);
}

fn decode_pack(reader: &mut Reader<'_>) -> Result<IndexPack, FormatError> {
    let id = PackId::from_bytes(reader.array("pack id")?);
    let size = reader.u64("pack size")?;
    let kind = Kind::from_byte(reader.u8("pack kind")?)?;
    let suite = Suite::from_byte(reader.u8("crypto suite")?)?;
    let method = KeyMethod::from_byte(reader.u8("key method")?)?;
    let class = KeyClass::from_byte(reader.u8("key class")?)?;
    let method_len = reader.u16("method field length")?;
    let epoch = reader.u32("epoch")?;
    let id_generation = reader.u32("id-key generation")?;
    let salt = reader.array("salt")?;
    let method_field = reader.take("method field", method_len.into())?.to_vec();
    let sealing = Sealing { suite, method, class, epoch, id_generation, salt, method_field };
    Ok(IndexPack { id, size, kind, sealing })
}

/// Encodes one block; the entries must be in order of their ids.
#[must_use]
pub fn encode_block(entries: &[IndexEntry]) -> Vec<u8> {
    let size = usize::try_from(layout::INDEX_ENTRY.size()).unwrap_or_default();
    let mut out = Vec::with_capacity(entries.len() * size);
    for entry in entries {
        out.extend_from_slice(entry.chunk.as_bytes());
        for value in [entry.pack, entry.frame, entry.offset, entry.sealed_len, entry.plain_len] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&entry.check.to_le_bytes());
    }
    out
}

/// Decodes one block of an object with `packs` packs.
///
/// # Errors
/// When it is not a whole number of entries, out of order, or names a pack that is not there.
pub fn decode_block(bytes: &[u8], packs: usize) -> Result<Vec<IndexEntry>, FormatError> {
    let size = usize::try_from(layout::INDEX_ENTRY.size()).unwrap_or(1);
    let mut reader = Reader::new(bytes);
    let mut entries: Vec<IndexEntry> = Vec::with_capacity(bytes.len() / size);
    while !reader.is_empty() {
        let entry = IndexEntry {
            chunk: ChunkId::from_bytes(reader.array("chunk id")?),
            pack: reader.u32("pack")?,
            frame: reader.u32("frame number")?,
            offset: reader.u32("frame offset")?,
            sealed_len: reader.u32("sealed length")?,
            plain_len: reader.u32("plain length")?,
            check: reader.u64("frame check")?,
        };
        let in_order = entries.last().is_none_or(|before| before.chunk < entry.chunk);
        if !in_order || narrow(entry.pack) >= packs {
            return Err(FormatError::Unexpected {
                what: "index entry",
                expected: format!("ids in order and a pack below {packs}"),
                found: format!("chunk {} in pack {}", entry.chunk, entry.pack),
            });
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// A Bloom filter over chunk ids. Ids are keyed hashes already: four 32-bit words of the id are
/// the four positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    words: Vec<u64>,
}

impl Filter {
    const BITS_PER_ENTRY: u64 = 10;

    /// A filter over these ids: about 1 % of absent ids pass.
    pub fn build<'a>(ids: impl ExactSizeIterator<Item = &'a ChunkId>) -> Self {
        let bits = (wide(ids.len()) * Self::BITS_PER_ENTRY).max(64);
        let words = usize::try_from(bits.div_ceil(64)).unwrap_or(1);
        let mut filter = Self { words: vec![0; words] };
        for id in ids {
            for bit in filter.bits(id) {
                let (word, mask) = Self::place(bit);
                if let Some(word) = filter.words.get_mut(word) {
                    *word |= mask;
                }
            }
        }
        filter
    }

    /// False when the id is surely absent.
    #[must_use]
    pub fn may_hold(&self, id: &ChunkId) -> bool {
        self.bits(id).into_iter().all(|bit| {
            let (word, mask) = Self::place(bit);
            self.words.get(word).is_some_and(|word| word & mask != 0)
        })
    }

    fn bits(&self, id: &ChunkId) -> [u64; 4] {
        let bits = (wide(self.words.len()) * 64).max(1);
        let mut positions = [0; 4];
        let (words, _) = id.as_bytes().as_chunks::<4>();
        for (position, word) in positions.iter_mut().zip(words) {
            *position = u64::from(u32::from_le_bytes(*word)) % bits;
        }
        positions
    }

    fn place(bit: u64) -> (usize, u64) {
        (usize::try_from(bit / 64).unwrap_or(usize::MAX), 1 << (bit % 64))
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn counted(
    reader: &mut Reader<'_>,
    what: &'static str,
    limit: u32,
    size_min: u64,
) -> Result<usize, FormatError> {
    let found = reader.u32(what)?;
    let room = wide(reader.rest().len()) / size_min.max(1);
    if found > limit || u64::from(found) > room {
        let limit = u64::from(limit).min(room);
        return Err(FormatError::TooLarge { what, limit, found: found.into() });
    }
    Ok(narrow(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8) -> IndexEntry {
        IndexEntry {
            chunk: ChunkId::from_bytes([n; 32]),
            pack: 0,
            frame: n.into(),
            offset: 4,
            sealed_len: 5,
            plain_len: 6,
            check: 7,
        }
    }

    fn head() -> IndexHead {
        let sealing = Sealing {
            suite: Suite::Clear,
            method: KeyMethod::None,
            class: KeyClass::Data,
            epoch: 1,
            id_generation: 2,
            salt: [3; 32],
            method_field: vec![1],
        };
        let pack =
            IndexPack { id: PackId::from_bytes([1; 16]), size: 9, kind: Kind::DataPack, sealing };
        let fence =
            |n| Fence { first: ChunkId::from_bytes([n; 32]), entries: 1, offset: 0, len: 8 };
        let ids: Vec<_> = (0..3).map(|n| ChunkId::from_bytes([n; 32])).collect();
        IndexHead {
            packs: vec![pack],
            fences: vec![fence(1), fence(5)],
            filter: Filter::build(ids.iter()),
        }
    }

    #[test]
    fn heads_round_trip_and_find_blocks() {
        let head = head();
        let bytes = head.encode();
        assert_eq!(IndexHead::decode(&bytes).unwrap(), head);
        assert_eq!(head.block_of(&ChunkId::from_bytes([0; 32])), None);
        assert_eq!(head.block_of(&ChunkId::from_bytes([4; 32])), Some(0));
        assert_eq!(head.block_of(&ChunkId::from_bytes([5; 32])), Some(1));
        for at in 0..bytes.len() {
            assert!(IndexHead::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn blocks_round_trip_in_order_only() {
        let bytes = encode_block(&[entry(1), entry(2)]);
        assert_eq!(decode_block(&bytes, 1).unwrap().len(), 2);
        assert!(decode_block(&bytes, 0).is_err());
        assert!(decode_block(&bytes[1..], 1).is_err());
        assert!(decode_block(&encode_block(&[entry(2), entry(1)]), 1).is_err());
    }

    #[test]
    fn filters_know_what_they_were_given() {
        let ids: Vec<_> = (0..1000_u64)
            .map(|n| {
                let mut id = [0; 32];
                for (at, part) in id.chunks_exact_mut(8).enumerate() {
                    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&n.to_le_bytes(), at as u64);
                    part.copy_from_slice(&hash.to_le_bytes());
                }
                ChunkId::from_bytes(id)
            })
            .collect();
        let filter = Filter::build(ids[..500].iter());
        assert!(ids[..500].iter().all(|id| filter.may_hold(id)));
        let wrong = ids[500..].iter().filter(|id| filter.may_hold(id)).count();
        assert!(wrong < 50, "{wrong} of 500 absent ids pass");
    }
}
