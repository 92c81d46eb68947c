//! Notes of chunks found bad, and the look at old packs before a commit.

use futures::StreamExt as _;

use crate::chunks;
use crate::damaged_chunks;
use crate::error::{FormatError, RepoError};
use crate::format::document::DamagedChunk;
use crate::format::index::IndexPack;
use crate::id::ChunkId;
use crate::index;
use crate::names::{self, ClusterRef, Name};
use crate::sealed_store::SealedStore;

/// Packs looked at at once.
const PACKS_AT_ONCE: usize = 4;

/// Notes chunks found bad, so that the next backup stores them again.
///
/// # Errors
/// When the store does not confirm the note.
pub async fn report_damage(
    sealed: &SealedStore,
    at: &ClusterRef,
    chunks: Vec<DamagedChunk>,
    found: String,
) -> Result<(), RepoError> {
    damaged_chunks::note(sealed, &at.domain, chunks, Vec::new(), found).await
}

/// Reads chunks back out of the packs that a backup refers to them in. Where one is bad its whole
/// pack is read. Gives what is bad, and of it the first error.
///
/// # Errors
/// When the store fails.
pub(super) async fn read_back(
    sealed: &SealedStore,
    domain: &Name,
    sample: Vec<(IndexPack, Vec<ChunkId>)>,
) -> Result<Option<(RepoError, Vec<DamagedChunk>)>, RepoError> {
    let mut packs = futures::stream::iter(sample)
        .map(|(pack, chunks)| async move {
            let found = find_bad(sealed, domain, &pack, &chunks).await;
            (pack, found)
        })
        .buffer_unordered(PACKS_AT_ONCE);
    let (mut first, mut damaged) = (None, Vec::new());
    while let Some((pack, found)) = packs.next().await {
        let Some((error, chunks)) = found? else { continue };
        first.get_or_insert(error);
        damaged.extend(chunks.into_iter().map(|chunk| DamagedChunk { pack: pack.id, chunk }));
    }
    Ok(first.map(|error| (error, damaged)))
}

async fn find_bad(
    sealed: &SealedStore,
    domain: &Name,
    pack: &IndexPack,
    chunks: &[ChunkId],
) -> Result<Option<(RepoError, Vec<ChunkId>)>, RepoError> {
    let directory = match index::read_directory(sealed, domain, pack.kind, pack.id).await {
        Ok(directory) => directory,
        Err(error) if error.is_damage() => return Ok(Some((error, chunks.to_vec()))),
        Err(error) => return Err(error),
    };
    let mut places = directory.locations();
    let chosen = places.iter().filter(|(chunk, _)| chunks.contains(chunk)).cloned().collect();
    let mut bad = chunks::find_bad(sealed, domain, chosen).await?;
    let there = |chunk: &&ChunkId| !places.iter().any(|(id, _)| id == *chunk);
    bad.extend(chunks.iter().filter(there));
    if bad.is_empty() {
        return Ok(None);
    }
    places.retain(|(chunk, _)| !chunks.contains(chunk));
    let what = "a chunk that was read back before the commit";
    let error = RepoError::format(
        names::pack(domain, pack.kind, pack.id),
        FormatError::Unauthentic { what },
    );
    bad.extend(chunks::find_bad(sealed, domain, places).await?);
    Ok(Some((error, bad)))
}
