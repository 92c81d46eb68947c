//! Copying what is needed of packs that are mostly not, so that they can go as a whole.

use std::collections::HashSet;

use futures::StreamExt as _;

use crate::chunks::{self, Buffers, Opener};
use crate::damaged_chunks::{self, ChunkNotes};
use crate::error::RepoError;
use crate::format::document::DamagedChunk;
use crate::format::frame::Opened;
use crate::format::header::Kind;
use crate::id::{ChunkId, PackId};
use crate::index::{self, Location, short};
use crate::names::Name;
use crate::pack::{ConfirmedPack, PackBuilder};
use crate::sealed_store::SealedStore;

use super::copies::Bits;
use super::live::Live;

/// Packs that one index object speaks of.
const PACKS_OF_AN_INDEX: usize = 64;

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Chunks.
    pub chunks: u64,
    /// New packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs of which not all is copied, since a chunk is bad, noted by now, or has its id from an
    /// earlier key: they are not to be retired.
    pub bad: HashSet<PackId>,
}

/// Reads under way at once, of 8 MiB at most.
const READS_AT_ONCE: usize = 4;

/// Copies the live chunks of some packs into new ones, each confirmed and indexed when this
/// returns: those of which no pack has a copy that stays. Of the others one more would make
/// garbage of another pack's. `going` are packs that do not stay, besides these. Every chunk is
/// opened, and compared with its id; it stays as compressed as it is. Chunks that have their ids
/// from an earlier id key are not copied: a pack is of one. Only then may the old packs be retired;
/// the sweep counts the copies itself.
///
/// # Errors
/// When the store fails: what was copied serves the next try.
pub async fn rewrite(
    sealed: &SealedStore,
    domain: &Name,
    packs: &HashSet<PackId>,
    going: &HashSet<PackId>,
    live: &Live,
) -> Result<Rewritten, RepoError> {
    let mut rewriter = Rewriter {
        sealed,
        domain,
        open: Vec::new(),
        confirmed: Vec::new(),
        done: Rewritten::default(),
    };
    let wanted = live_of(sealed, domain, (packs, going), live, &mut rewriter.done.bad).await?;
    let mut reads = futures::stream::iter(chunks::plan_reads(domain, wanted))
        .map(|read| async move {
            let bytes = chunks::fetch(sealed, &read).await;
            (read, bytes)
        })
        .buffered(READS_AT_ONCE);
    let mut damaged = Vec::new();
    while let Some((read, bytes)) = reads.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            // Another collector was faster, or it ends early.
            Err(error) if error.is_damage() || error.is_not_found() => {
                rewriter.done.bad.insert(read.pack.id);
                continue;
            }
            Err(error) => return Err(error),
        };
        let opener = Opener::new(sealed, &read, &bytes);
        if let Err(error) = opener.require_key() {
            tracing::info!("{error}: its pack stays");
            rewriter.done.bad.insert(read.pack.id);
            continue;
        }
        let mut buffers = Buffers::default();
        for (chunk, location) in &read.chunks {
            let full = match opener.open_packed((chunk, location), &mut buffers) {
                Ok(packed) => rewriter.add(read.pack.kind, *chunk, &packed)?,
                Err(error) => {
                    tracing::error!(%chunk, pack = %read.pack.id, %error, "a chunk is bad");
                    // With its key it may be whole, and a note holds for ever.
                    if !matches!(error, RepoError::KeysMissing { .. }) {
                        damaged.push(DamagedChunk { pack: read.pack.id, chunk: *chunk });
                    }
                    rewriter.done.bad.insert(read.pack.id);
                    None
                }
            };
            if let Some(full) = full {
                rewriter.put(full).await?;
            }
        }
    }
    damaged_chunks::note(sealed, domain, damaged, Vec::new(), "read by a collection".into())
        .await?;
    rewriter.finish().await
}

async fn live_of(
    sealed: &SealedStore,
    domain: &Name,
    (packs, going): (&HashSet<PackId>, &HashSet<PackId>),
    live: &Live,
    others: &mut HashSet<PackId>,
) -> Result<Vec<(ChunkId, Location)>, RepoError> {
    let marked = index::read_markers(sealed, domain).await?;
    let damaged = ChunkNotes::read(sealed, domain).await?.all()?;
    let listed = index::list_packs_by_kind(sealed, domain).await?;
    let mut wanted: Vec<(ChunkId, Location)> = Vec::new();
    let mut seen = HashSet::new();
    let mut stays = Bits::of(live.len());
    index::each_entry(sealed, domain, |pack, entry| {
        let Some(position) = live.position(&short(&entry.chunk)) else { return };
        if !packs.contains(&pack.id) {
            let there = listed.get(&pack.id).is_some_and(|(_, size)| *size == pack.size);
            let note = DamagedChunk { pack: pack.id, chunk: entry.chunk };
            let goes = going.contains(&pack.id) || marked.contains(&pack.id);
            if there && !goes && !damaged.contains(&note) {
                stays.set(position);
            }
            return;
        }
        if pack.sealing.id_generation != sealed.keys().id_generation() {
            others.insert(pack.id);
        } else if seen.insert(entry.chunk) {
            wanted.push((entry.chunk, Location::of(pack, entry)));
        }
    })
    .await?;
    // The sweep looks again: where such a copy goes meanwhile, the pack stays.
    wanted.retain(|(chunk, _)| {
        !live.position(&short(chunk)).is_some_and(|position| stays.get(position))
    });
    Ok(wanted)
}

struct Rewriter<'a> {
    sealed: &'a SealedStore,
    domain: &'a Name,
    /// One pack of each kind at most.
    open: Vec<(Kind, PackBuilder)>,
    confirmed: Vec<ConfirmedPack>,
    done: Rewritten,
}

impl Rewriter<'_> {
    /// Adds a chunk as it is packed already; gives the pack that is full with it.
    fn add(
        &mut self,
        kind: Kind,
        chunk: ChunkId,
        packed: &Opened<'_>,
    ) -> Result<Option<PackBuilder>, RepoError> {
        let place = match self.open.iter().position(|(of, _)| *of == kind) {
            Some(place) => place,
            None => {
                self.open.push((kind, PackBuilder::new(self.sealed, self.domain, kind)?));
                self.open.len() - 1
            }
        };
        let Some((_, builder)) = self.open.get_mut(place) else { return Ok(None) };
        builder.add_packed(chunk, packed)?;
        self.done.chunks += 1;
        Ok(builder.is_full(packed.payload.len()).then(|| self.open.swap_remove(place).1))
    }

    async fn put(&mut self, builder: PackBuilder) -> Result<(), RepoError> {
        if builder.is_empty() {
            return Ok(());
        }
        let pack = builder.finish()?.put(self.sealed).await?;
        self.done.packs += 1;
        self.done.bytes += pack.pack.size;
        self.confirmed.push(pack);
        if self.confirmed.len() >= PACKS_OF_AN_INDEX {
            self.put_index().await?;
        }
        Ok(())
    }

    async fn put_index(&mut self) -> Result<(), RepoError> {
        if !self.confirmed.is_empty() {
            index::put_index(self.sealed, self.domain, &self.confirmed).await?;
            self.confirmed.clear();
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Rewritten, RepoError> {
        for (_, builder) in std::mem::take(&mut self.open) {
            self.put(builder).await?;
        }
        self.put_index().await?;
        Ok(self.done)
    }
}
