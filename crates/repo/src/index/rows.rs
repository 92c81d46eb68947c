//! Where the chunks of a domain are: sorted rows of 36 bytes a copy.

use std::collections::HashMap;
use std::sync::Arc;

use super::Location;
use crate::format::index::{IndexEntry, IndexPack};
use crate::id::{ChunkId, PackId};
use crate::pack::ConfirmedPack;

/// The first half of a chunk id. Ids are keyed hashes: two that share it do not occur.
pub(crate) type Short = [u8; 16];

pub(crate) fn short(chunk: &ChunkId) -> Short {
    let (short, _) = chunk.as_bytes().split_at(16);
    short.try_into().unwrap_or([0; 16])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: Short,
    pack: u32,
    frame: u32,
    offset: u32,
    sealed_len: u32,
    plain_len: u32,
}

/// Packs by number: rows name them in four bytes.
#[derive(Debug, Default)]
pub(crate) struct PackNumbers {
    packs: Vec<Arc<IndexPack>>,
    numbers: HashMap<PackId, u32>,
}

impl PackNumbers {
    pub(crate) fn number(&mut self, pack: &Arc<IndexPack>) -> u32 {
        *self.numbers.entry(pack.id).or_insert_with(|| {
            self.packs.push(pack.clone());
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(crate) fn pack(&self, number: u32) -> Option<&Arc<IndexPack>> {
        self.packs.get(usize::try_from(number).ok()?)
    }

    pub(crate) fn len(&self) -> usize {
        self.packs.len()
    }

    pub(crate) fn holds(&self, pack: &PackId) -> bool {
        self.numbers.contains_key(pack)
    }
}

/// Every copy of every chunk, to be looked up by id once it is sorted.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    rows: Vec<Row>,
    packs: PackNumbers,
}

impl Rows {
    pub(crate) fn add(&mut self, pack: &Arc<IndexPack>, entry: &IndexEntry) {
        self.rows.push(Row {
            id: short(&entry.chunk),
            pack: self.packs.number(pack),
            frame: entry.frame,
            offset: entry.offset,
            sealed_len: entry.sealed_len,
            plain_len: entry.plain_len,
        });
    }

    pub(crate) fn add_pack(&mut self, pack: &ConfirmedPack) {
        for (chunk, location) in pack.locations() {
            self.rows.push(Row {
                id: short(&chunk),
                pack: self.packs.number(&location.pack),
                frame: location.frame,
                offset: location.offset,
                sealed_len: location.sealed_len,
                plain_len: location.plain_len,
            });
        }
    }

    /// Sorts what was added, which lookups need.
    pub(crate) fn sorted(mut self) -> Self {
        self.rows.sort_unstable();
        self.rows.dedup_by_key(|row| (row.id, row.pack));
        self.rows.shrink_to_fit();
        self
    }

    /// The copies of a chunk.
    pub(crate) fn copies(&self, chunk: &ChunkId) -> impl Iterator<Item = Location> {
        let id = short(chunk);
        let start = self.rows.partition_point(|row| row.id < id);
        let rest = self.rows.get(start..).unwrap_or_default();
        rest.iter().take_while(move |row| row.id == id).filter_map(|row| {
            let pack = self.packs.pack(row.pack)?.clone();
            let (frame, offset) = (row.frame, row.offset);
            let (sealed_len, plain_len) = (row.sealed_len, row.plain_len);
            Some(Location { pack, frame, offset, sealed_len, plain_len, check: None })
        })
    }

    /// Whether any chunk of this pack was added.
    pub(crate) fn names(&self, pack: &PackId) -> bool {
        self.packs.holds(pack)
    }
}
