//! Merging index objects (M): few large ones instead of many small ones, without entries of packs
//! that are gone.

use std::collections::HashMap;
use std::sync::Arc;

use pgrecall_store::Key;

use crate::error::RepoError;
use crate::format::index::{IndexEntry, IndexPack, PACKS_MAX};
use crate::id::PackId;
use crate::index::{self, IndexObject};
use crate::names::Name;
use crate::sealed_store::SealedStore;

use super::usage::IndexUse;

/// Entries of a merged object at most, about: 64 MB.
const ENTRIES_MAX: usize = 1 << 20;

/// Packs that a merged object speaks of at most: a reader takes four times as many.
const PACKS_OF_AN_OBJECT_MAX: usize = 1 << 14;
const _: () = assert!(PACKS_OF_AN_OBJECT_MAX <= PACKS_MAX as usize);

/// Bytes of objects that are merged at once: bounds memory.
const MERGED_BYTES_MAX: u64 = 256 << 20;

/// Objects of less are small: many of them are one request each, for everybody.
const SMALL_BYTES: u64 = 16 << 20;

/// Small objects that are few enough to be left alone.
const SMALL_FEW: usize = 8;

/// What a merge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Objects that were read and are gone.
    pub before: u64,
    /// Objects that took their place.
    pub after: u64,
    /// Entries that were left out: their packs are gone.
    pub stale: u64,
}

/// The index objects that it pays to merge: small ones if there are many, and those of which a
/// quarter speaks of packs that are gone.
#[must_use]
pub fn worth_merging(index: &[IndexUse]) -> Vec<&IndexUse> {
    let small = |object: &IndexUse| object.size < SMALL_BYTES;
    let many = index.iter().filter(|object| small(object)).count() > SMALL_FEW;
    let stale = |object: &IndexUse| object.stale > 0 && object.stale * 4 >= object.entries;
    index.iter().filter(|object| stale(object) || (many && small(object))).collect()
}

/// Merges these index objects, so many at once as fit into memory.
///
/// # Errors
/// When the store fails; stale and double entries harm nobody.
pub async fn merge_index(
    sealed: &SealedStore,
    domain: &Name,
    objects: &[&IndexUse],
) -> Result<Merged, RepoError> {
    let mut merged = Merged::default();
    let mut rest = objects;
    while !rest.is_empty() {
        let mut bytes = 0_u64;
        let fits = rest.iter().take_while(|object| {
            bytes = bytes.saturating_add(object.size);
            bytes <= MERGED_BYTES_MAX
        });
        let (part, later) = rest.split_at(fits.count().max(1));
        let names: Vec<&Key> = part.iter().map(|object| &object.name).collect();
        let done = merge(sealed, domain, &names).await?;
        merged.before += done.before;
        merged.after += done.after;
        merged.stale += done.stale;
        rest = later;
    }
    Ok(merged)
}

async fn merge(sealed: &SealedStore, domain: &Name, names: &[&Key]) -> Result<Merged, RepoError> {
    // M1: read, and remember the names of what was read.
    let objects = read(sealed, names).await?;
    // M2: packs are listed after.
    let listed = index::list_packs(sealed, domain).await?;
    let is_there = |pack: &IndexPack| listed.contains_key(&pack.id);
    let stale = objects.iter().flat_map(|(_, object)| {
        let gone = |entry: &&IndexEntry| object.pack(entry).is_none_or(|pack| !is_there(pack));
        object.entries.iter().filter(gone)
    });
    let stale = stale.count() as u64;
    // M3: entries whose packs are listed, retired ones included.
    let mut after = 0;
    for (packs, entries) in layers(&objects, is_there, PACKS_OF_AN_OBJECT_MAX) {
        let name = index::put_entries(sealed, domain, &packs, entries).await?;
        // What took the place of others has to read before they go. One that is gone was read, and
        // merged in its turn.
        match index::read_object(sealed, &name).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => after += 1,
        }
    }
    for (name, _) in &objects {
        sealed.store().delete(name).await?;
    }
    Ok(Merged { before: objects.len() as u64, after, stale })
}

async fn read(sealed: &SealedStore, names: &[&Key]) -> Result<Vec<(Key, IndexObject)>, RepoError> {
    let mut objects = Vec::with_capacity(names.len());
    for name in names {
        match index::read_object(sealed, name).await {
            Ok(read) => objects.push(((*name).clone(), read)),
            // Another merge was faster.
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_damage() => {
                index::warn_unreadable(name, &error, "an index object cannot be read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(objects)
}

type Layer = (Vec<IndexPack>, Vec<IndexEntry>);

/// The entries cut into objects, each with no more packs than that and a chunk but once: a second
/// copy, and what is in further packs, go into the next one.
fn layers(
    objects: &[(Key, IndexObject)],
    is_there: impl Fn(&IndexPack) -> bool,
    packs_max: usize,
) -> Vec<Layer> {
    let mut entries: Vec<(Arc<IndexPack>, IndexEntry)> = Vec::new();
    for (_, object) in objects {
        for entry in &object.entries {
            if let Some(pack) = object.pack(entry).filter(|pack| is_there(pack)) {
                entries.push((pack.clone(), *entry));
            }
        }
    }
    entries.sort_by_key(|(pack, entry)| (entry.chunk, pack.id));
    entries.dedup_by_key(|(pack, entry)| (entry.chunk, pack.id));
    let mut cut = Vec::new();
    while !entries.is_empty() {
        let mut layer = Builder::default();
        let mut rest = Vec::new();
        for (pack, entry) in entries {
            if layer.takes(&pack, &entry, packs_max) {
                layer.add(&pack, entry);
            } else {
                rest.push((pack, entry));
            }
        }
        cut.push((layer.packs, layer.entries));
        entries = rest;
    }
    cut
}

#[derive(Default)]
struct Builder {
    packs: Vec<IndexPack>,
    numbers: HashMap<PackId, u32>,
    entries: Vec<IndexEntry>,
}

impl Builder {
    fn takes(&self, pack: &IndexPack, entry: &IndexEntry, packs_max: usize) -> bool {
        self.entries.len() < ENTRIES_MAX
            && (self.packs.len() < packs_max || self.numbers.contains_key(&pack.id))
            && self.entries.last().is_none_or(|last| last.chunk < entry.chunk)
    }

    fn add(&mut self, pack: &Arc<IndexPack>, entry: IndexEntry) {
        let number = *self.numbers.entry(pack.id).or_insert_with(|| {
            self.packs.push(IndexPack::clone(pack));
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        });
        self.entries.push(IndexEntry { pack: number, ..entry });
    }
}

#[cfg(test)]
mod tests {
    use pgrecall_store::Key;

    use super::*;
    use crate::format::header::{KeyClass, KeyMethod, Kind, Sealing, Suite};
    use crate::id::ChunkId;

    fn pack(number: u8) -> Arc<IndexPack> {
        let sealing = Sealing {
            suite: Suite::Clear,
            method: KeyMethod::None,
            class: KeyClass::Data,
            epoch: 1,
            id_generation: 1,
            salt: [3; 32],
            method_field: Vec::new(),
        };
        let id = PackId::from_bytes([number; 16]);
        Arc::new(IndexPack { id, size: 1000, kind: Kind::DataPack, sealing })
    }

    #[test]
    fn an_object_speaks_of_no_more_packs_than_it_may_and_nothing_is_lost() {
        let mut object = IndexObject { packs: (0..10).map(pack).collect(), entries: Vec::new() };
        for chunk in 0..100_u8 {
            object.entries.push(IndexEntry {
                chunk: ChunkId::from_bytes([chunk; 32]),
                pack: u32::from(chunk % 10),
                frame: 0,
                offset: 0,
                sealed_len: 1,
                plain_len: 1,
                check: 0,
            });
        }
        let name = Key::parse("domains/main/index/x").unwrap();
        let cut = layers(&[(name, object)], |_| true, 3);
        assert!(cut.iter().all(|(packs, _)| packs.len() <= 3));
        let found = cut.iter().flat_map(|(packs, entries)| {
            entries.iter().map(|entry| (entry.chunk, packs[entry.pack as usize].id))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        let expected: Vec<_> = (0..100_u8)
            .map(|n| (ChunkId::from_bytes([n; 32]), PackId::from_bytes([n % 10; 16])))
            .collect();
        assert_eq!(found, expected);
    }
}
