//! Looking for chunks of which a copy is bad, or gone.

use std::collections::HashSet;

use futures::StreamExt as _;

use super::{READS_AT_ONCE, read};
use crate::error::{ErrorKind, RepoError};
use crate::id::{ChunkId, PackId};
use crate::index::{Index, Location, Reading, Readings};
use crate::names::Name;
use crate::sealed_store::SealedStore;

/// What became of looking for a chunk.
pub(super) enum Found {
    Plain(Vec<u8>),
    /// What is wrong with the last of its copies.
    Bad(RepoError),
    Nowhere,
}

impl Found {
    fn is_of_other_version(&self) -> bool {
        matches!(self, Self::Bad(error) if error.kind() == ErrorKind::Unsupported)
    }
}

/// A chunk that is looked for.
struct Search {
    chunk: ChunkId,
    /// Packs whose copies were tried.
    tried: HashSet<PackId>,
    found: Found,
}

impl Search {
    fn of(chunk: ChunkId) -> Self {
        Self { chunk, tried: HashSet::new(), found: Found::Nowhere }
    }

    /// Reads copies until one is good.
    async fn take(
        &mut self,
        (sealed, domain): (&SealedStore, &Name),
        copies: Vec<Location>,
    ) -> Result<(), RepoError> {
        for location in copies {
            self.tried.insert(location.pack.id);
            match read(sealed, domain, &self.chunk, &location).await {
                Ok(plain) => {
                    self.found = Found::Plain(plain);
                    return Ok(());
                }
                Err(error) if error.is_damage() => {
                    let error = bad_copy(&self.chunk, &location, error);
                    // One that another version reads may be good.
                    if !self.found.is_of_other_version() {
                        self.found = Found::Bad(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tries all that one reading of the index, and packs that it does not speak of, tell of.
    async fn try_all_of(
        mut self,
        at: (&SealedStore, &Name),
        reading: &Reading,
    ) -> Result<(Self, Option<RepoError>), RepoError> {
        loop {
            let copies = match reading.more_copies(at.0, &self.chunk, &self.tried).await {
                Ok(copies) if copies.is_empty() => return Ok((self, None)),
                Ok(copies) => copies,
                Err(error) => return Ok((self, Some(error))),
            };
            self.take(at, copies).await?;
            if self.is_over() {
                return Ok((self, None));
            }
        }
    }

    const fn is_over(&self) -> bool {
        matches!(self.found, Found::Plain(_))
    }
}

/// Looks for chunks of which one copy, perhaps, was tried already. What is not found where the
/// index says, or is bad there, is looked for again where the index says another thing meanwhile
/// (R1), however many chunks that are: it is read again after the last miss.
pub(super) async fn find(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    chunks: Vec<ChunkId>,
) -> Result<Vec<(ChunkId, Found)>, RepoError> {
    let at = (sealed, domain);
    let mut all = Vec::with_capacity(chunks.len());
    let mut left: Vec<Search> = chunks.into_iter().map(Search::of).collect();
    let mut readings = Readings::of(index);
    loop {
        let reading = readings.now.clone();
        let mut tried = futures::stream::iter(std::mem::take(&mut left))
            .map(|search| search.try_all_of(at, &reading))
            .buffer_unordered(READS_AT_ONCE);
        while let Some(looked) = tried.next().await {
            let (search, error) = looked?;
            match search.is_over() {
                true => all.push((search.chunk, search.found)),
                false => {
                    readings.missed(error)?;
                    left.push(search);
                }
            }
        }
        drop(tried);
        if left.is_empty() || !readings.next(sealed).await? {
            break;
        }
    }
    for mut search in left {
        // Every pack is asked where the index knows nothing of it at all.
        if search.tried.is_empty() {
            let copies = readings.now.copies_anywhere(sealed, &search.chunk).await?;
            search.take(at, copies).await?;
        }
        all.push((search.chunk, search.found));
    }
    Ok(all)
}

fn bad_copy(chunk: &ChunkId, location: &Location, error: RepoError) -> RepoError {
    let pack = location.pack.id;
    match error.is_not_found() {
        true => tracing::info!(%chunk, %pack, "a pack is gone: other copies are looked for"),
        false => tracing::error!(%chunk, %pack, %error, "a copy of a chunk is bad"),
    }
    error
}
