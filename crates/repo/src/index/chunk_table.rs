//! What a backup may refer to.

use super::rows::{PackNumbers, Rows, Short, short};
use super::{Index, Location};
use crate::error::RepoError;
use crate::format::header::Kind;
use crate::format::index::IndexPack;
use crate::id::ChunkId;
use crate::sealed_store::SealedStore;

/// Which chunks a backup may refer to: 20 bytes for each data chunk of the domain, and 36 for each
/// metadata chunk, whose place has to be known.
#[derive(Debug, Default)]
pub struct ChunkTable {
    /// Sorted by id.
    rows: Vec<(Short, u32)>,
    packs: PackNumbers,
    /// An incremental backup reads tables, maps and hashes of the one before.
    meta: Rows,
}

impl ChunkTable {
    /// Reads the whole index.
    ///
    /// # Errors
    /// As [`Index::each`].
    pub async fn read(sealed: &SealedStore, index: &Index) -> Result<Self, RepoError> {
        let mut table = Self::default();
        index
            .each(sealed, |pack, entry| {
                let number = table.packs.number(pack);
                table.rows.push((short(&entry.chunk), number));
                if pack.kind == Kind::MetaPack {
                    table.meta.add(pack, entry);
                }
            })
            .await?;
        table.rows.sort_unstable();
        table.rows.dedup_by_key(|row| row.0);
        table.rows.shrink_to_fit();
        table.meta = table.meta.sorted();
        Ok(table)
    }

    /// The number of the chunk's pack, when a backup may refer to it.
    #[must_use]
    pub fn find(&self, chunk: &ChunkId) -> Option<u32> {
        let wanted = short(chunk);
        let at = self.rows.binary_search_by_key(&wanted, |row| row.0).ok()?;
        self.rows.get(at).map(|row| row.1)
    }

    /// Where a metadata chunk is: the copy in the pack that [`find`](Self::find) gives.
    #[must_use]
    pub fn meta(&self, chunk: &ChunkId) -> Option<Location> {
        let pack = self.pack(self.find(chunk)?)?;
        self.meta.copies(chunk).find(|location| location.pack.id == pack.id)
    }

    /// A pack by its number.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<&IndexPack> {
        self.packs.pack(number).map(std::sync::Arc::as_ref)
    }

    /// Packs that the table speaks of.
    #[must_use]
    pub fn pack_count(&self) -> usize {
        self.packs.len()
    }

    /// Chunks in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
