//! How much of each pack is referred to: the guess by which packs are retired. It carries no proof;
//! the sweep looks again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use pgrecall_store::Key;

use crate::damaged_chunks::ChunkNotes;
use crate::error::RepoError;
use crate::format::document::DamagedChunk;
use crate::format::header::Kind;
use crate::format::index::{IndexEntry, IndexPack};
use crate::id::PackId;
use crate::index::{self, IndexObject, short};
use crate::names::Name;
use crate::pack::frame_len;
use crate::sealed_store::SealedStore;

use super::live::Live;

/// A pack, and how much of it is needed from it and no other pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    /// The pack.
    pub id: PackId,
    /// Data or metadata.
    pub kind: Kind,
    /// Bytes of its object.
    pub size: u64,
    /// Bytes of the frames of all its chunks, as far as the index names them.
    pub frame_bytes: u64,
    /// Chunks that are needed from it.
    pub live_chunks: u64,
    /// Bytes of their frames.
    pub live_bytes: u64,
    /// Chunks in it that were found bad.
    pub damaged_chunks: u64,
    /// Whether an index object names it: of one that none names the backup may be under way.
    pub indexed: bool,
    /// Which key its chunks have their ids from.
    pub ids: Ids,
}

/// Which key a pack's chunks have their ids from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// The one in use.
    Current,
    /// One before: they cannot be copied into a new pack.
    Earlier,
}

/// An index object, and how much of it speaks of packs that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexUse {
    /// Its name.
    pub name: Key,
    /// Its bytes.
    pub size: u64,
    /// Its entries.
    pub entries: u64,
    /// Those of packs that are not listed.
    pub stale: u64,
}

/// What is used of a domain.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Every pack that is listed and not retired, in the order of ids.
    pub packs: Vec<PackUse>,
    /// Every index object that reads.
    pub index: Vec<IndexUse>,
    /// Packs that are not there, of which a backup needs chunks that the index names nowhere else,
    /// with the number of those.
    pub lost: BTreeMap<PackId, (Kind, u64)>,
}

/// Where a live chunk is to stay: the number of a pack, and the bytes of its frame there.
#[derive(Debug, Clone, Copy)]
struct Home {
    pack: u32,
    bytes: u32,
}

/// No pack has that number.
const NOWHERE: Home = Home { pack: u32::MAX, bytes: 0 };

/// What is used of every pack that is listed and not retired. Of several copies of a chunk the one
/// in the pack of the lowest id is the one that stays; one that was found bad stays where there is
/// no other.
///
/// # Errors
/// When a marker or a note of damage cannot be read, or the store fails.
pub async fn usage(sealed: &SealedStore, domain: &Name, live: &Live) -> Result<Usage, RepoError> {
    let marked = index::read_markers(sealed, domain).await?;
    let damaged = ChunkNotes::read(sealed, domain).await?.all()?;
    let mut count = Count {
        packs: unmarked(sealed, domain, &marked).await?,
        marked,
        damaged,
        live,
        id_generation: sealed.keys().id_generation(),
        homes: vec![NOWHERE; live.len()],
        bad_homes: HashMap::new(),
        elsewhere: HashMap::new(),
        index: HashMap::new(),
    };
    index::each_object(sealed, domain, |listed, object| {
        count.add(&listed.key, listed.size, object)
    })
    .await?;
    Ok(count.finish())
}

struct Count<'a> {
    packs: Vec<PackUse>,
    marked: HashSet<PackId>,
    damaged: HashSet<DamagedChunk>,
    live: &'a Live,
    id_generation: u32,
    homes: Vec<Home>,
    /// Copies that were found bad, where no other is known: few.
    bad_homes: HashMap<usize, Home>,
    /// Live chunks that an object names in packs that are about to go, or are not there.
    elsewhere: HashMap<usize, Elsewhere>,
    index: HashMap<Key, IndexUse>,
}

/// Where else than in a pack that stays a chunk is said to be.
#[derive(Debug, Clone, Copy)]
enum Elsewhere {
    /// In one that is there.
    Listed,
    /// In one that is not.
    Gone(PackId, Kind),
}

impl Count<'_> {
    fn add(&mut self, name: &Key, size: u64, object: &IndexObject) {
        // By number in the object: entries are in the order of chunks, so that packs take turns.
        let place = |pack: &Arc<IndexPack>| {
            let found = self.packs.binary_search_by_key(&pack.id, |used| used.id).ok();
            found.filter(|at| self.packs.get(*at).is_some_and(|used| used.size == pack.size))
        };
        let places: Vec<Option<usize>> = object.packs.iter().map(place).collect();
        for (place, pack) in places.iter().zip(&object.packs) {
            if let Some(used) = place.and_then(|at| self.packs.get_mut(at)) {
                used.indexed = true;
                if pack.sealing.id_generation != self.id_generation {
                    used.ids = Ids::Earlier;
                }
            }
        }
        let mut stale = 0;
        for entry in &object.entries {
            let Some(pack) = object.pack(entry) else { continue };
            match usize::try_from(entry.pack).ok().and_then(|n| places.get(n).copied().flatten()) {
                Some(at) => self.add_entry(at, pack.id, entry),
                // Of another size than it says, or about to go: a merge keeps what is there.
                None if self.is_listed(pack) => self.note(entry, Elsewhere::Listed),
                None => {
                    stale += 1;
                    self.note(entry, Elsewhere::Gone(pack.id, pack.kind));
                }
            }
        }
        let entries = object.entries.len() as u64;
        self.index.insert(name.clone(), IndexUse { name: name.clone(), size, entries, stale });
    }

    fn add_entry(&mut self, at: usize, pack: PackId, entry: &IndexEntry) {
        let bytes = frame_len(entry.sealed_len);
        if let Some(used) = self.packs.get_mut(at) {
            // Two objects may name it, where a merge was interrupted.
            used.frame_bytes = (used.frame_bytes + bytes).min(used.size);
        }
        let Some(position) = self.live.position(&short(&entry.chunk)) else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let here = Home { pack: u32::try_from(at).unwrap_or(u32::MAX), bytes };
        let note = DamagedChunk { pack, chunk: entry.chunk };
        if !self.damaged.is_empty() && self.damaged.contains(&note) {
            self.bad_homes.insert(position, here);
        } else if let Some(home) = self.homes.get_mut(position)
            && here.pack < home.pack
        {
            *home = here;
        }
    }

    fn note(&mut self, entry: &IndexEntry, elsewhere: Elsewhere) {
        let Some(position) = self.live.position(&short(&entry.chunk)) else { return };
        if self.homes.get(position).is_some_and(|home| home.pack == NOWHERE.pack) {
            let known = self.elsewhere.entry(position).or_insert(elsewhere);
            if let Elsewhere::Listed = elsewhere {
                *known = elsewhere;
            }
        }
    }

    fn is_listed(&self, pack: &IndexPack) -> bool {
        self.marked.contains(&pack.id)
            || self.packs.binary_search_by_key(&pack.id, |used| used.id).is_ok()
    }

    fn finish(mut self) -> Usage {
        for note in &self.damaged {
            if let Ok(at) = self.packs.binary_search_by_key(&note.pack, |used| used.id)
                && let Some(used) = self.packs.get_mut(at)
            {
                used.damaged_chunks += 1;
            }
        }
        for (position, bad) in self.bad_homes {
            if let Some(home) = self.homes.get_mut(position)
                && home.pack == NOWHERE.pack
            {
                *home = bad;
            }
        }
        for home in &self.homes {
            let at = usize::try_from(home.pack).unwrap_or(usize::MAX);
            if let Some(used) = self.packs.get_mut(at) {
                used.live_chunks += 1;
                used.live_bytes += u64::from(home.bytes);
            }
        }
        let mut lost: BTreeMap<PackId, (Kind, u64)> = BTreeMap::new();
        for (position, elsewhere) in self.elsewhere {
            let nowhere = self.homes.get(position).is_some_and(|home| home.pack == NOWHERE.pack);
            if let (Elsewhere::Gone(pack, kind), true) = (elsewhere, nowhere) {
                lost.entry(pack).or_insert((kind, 0)).1 += 1;
            }
        }
        let mut index: Vec<IndexUse> = self.index.into_values().collect();
        index.sort_by(|a, b| a.name.cmp(&b.name));
        Usage { packs: self.packs, index, lost }
    }
}

/// Every pack that is listed and not retired, in the order of ids, not used yet.
async fn unmarked(
    sealed: &SealedStore,
    domain: &Name,
    marked: &HashSet<PackId>,
) -> Result<Vec<PackUse>, RepoError> {
    let listed = index::list_packs_by_kind(sealed, domain).await?;
    let listed = listed.into_iter().filter(|(id, _)| !marked.contains(id));
    let mut uses: Vec<PackUse> = listed
        .map(|(id, (kind, size))| PackUse {
            id,
            kind,
            size,
            frame_bytes: 0,
            live_chunks: 0,
            live_bytes: 0,
            damaged_chunks: 0,
            indexed: false,
            ids: Ids::Current,
        })
        .collect();
    uses.sort_unstable_by_key(|used| used.id);
    Ok(uses)
}
