//! Readers: a verification, and a restore as far as chunks go.

use std::collections::{BTreeMap, HashSet};

use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::meanwhile::has_newer_keys;
use pgrecall_engine::progress::Progress;
use pgrecall_engine::verify::finding::Severity;
use pgrecall_engine::verify::{Depth, Notes, VerifyOptions, Which};
use pgrecall_repo::chunks;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::map::{FileMap, Source};
use pgrecall_repo::format::table::{Entry, PieceMap};
use pgrecall_repo::id::{BackupId, ChunkId};
use pgrecall_repo::index::{Index, Purpose};
use pgrecall_repo::manifests;
use pgrecall_repo::names::Name;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{ErrorKind, RepoError};

use super::{Context, Ended, chain};

/// Verifies all that is stored.
///
/// # Errors
/// When the store fails.
pub async fn verify(context: &mut Context) -> Ended {
    let options = VerifyOptions {
        notes: Notes::Written,
        depth: if context.chance.happens(300) { Depth::ReadData } else { Depth::Structure },
        which: Which::All,
        missing: Vec::new(),
        clock: context.clock.clone(),
        host: format!("host of {}", context.process),
        progress: Progress::silent(),
        cancel: Cancel::new(),
    };
    let report = pgrecall_engine::verify::verify(&context.cluster, &options)
        .await
        .map_err(|error| chain(&error))?;
    for finding in &report.findings {
        context.tell(&format!("finds in {}: {}", finding.object, finding.what));
    }
    for verdict in &report.backups {
        let own = format!("backup {}", verdict.backup);
        let of_it = report.findings.iter().find(|found| {
            // Not that its WAL is missing, which comes after it or has expired.
            found.object == own
                && found.severity == Severity::Damage
                && !found.what.starts_with("its WAL ")
        });
        if let Some(found) = of_it {
            lost(context, verdict.backup, &format!("{own}: {}", found.what)).await;
        }
    }
    Ok(format!("{} findings, {:?}", report.findings.len(), report.checked))
}

/// Whether an error says that something is not there, or is not what it should be.
fn is_loss(error: &RepoError) -> bool {
    error.is_damage() || error.kind() == ErrorKind::Incomplete
}

/// R1: who reads never says that something is lost while nothing is.
async fn lost(context: &Context, id: BackupId, said: &str) {
    let (sealed, domain) = (&context.cluster.sealed, context.cluster.domain());
    // Where nobody knows, nothing was said.
    if has_newer_keys(sealed, domain).await.unwrap_or(true) {
        return;
    }
    let mut world = context.world.lock();
    if world.oracle.valid().contains_key(&id) {
        world.oracle.violated("R1", format!("is called lost: {said}"));
    }
}

/// Restores one backup into memory.
///
/// # Errors
/// When it cannot be had; where it is valid all the same, the oracle is told.
pub async fn restore(context: &mut Context) -> Ended {
    let (sealed, domain) = (context.cluster.sealed.clone(), context.cluster.domain().clone());
    let listed = manifests::list(&sealed, &domain).await.map_err(|error| chain(&error))?;
    if listed.valid.is_empty() {
        return Ok("there is no backup".into());
    }
    let chosen = &listed.valid[context.chance.place(listed.valid.len())];
    let id = chosen.manifest.backup;
    let files = match files_of(&sealed, &domain, &chosen.manifest).await {
        Ok(files) => files,
        Err(error) => {
            let said = format!("backup {id}: {}", chain(&error));
            if is_loss(&error) {
                lost(context, id, &said).await;
            }
            return Err(said);
        }
    };
    let mut world = context.world.lock();
    let truth = world.oracle.valid().get(&id).map(|truth| truth.files.clone());
    if truth.is_some_and(|truth| truth != files) {
        world.oracle.violated("S1", format!("backup {id} restores to other bytes"));
    }
    Ok(format!("backup {id}: {} files", files.len()))
}

/// The files of a backup, read from its chunks.
///
/// # Errors
/// When one cannot be read.
pub async fn files_of(
    sealed: &SealedStore,
    domain: &Name,
    manifest: &Manifest,
) -> Result<BTreeMap<String, Vec<u8>>, RepoError> {
    let index = Index::open(sealed, domain, Purpose::Read).await?;
    let mut entries: Vec<Entry> = Vec::new();
    manifests::each_table(sealed, domain, &index, &manifest.tables, |part| {
        entries.extend(part);
        Ok::<(), RepoError>(())
    })
    .await?;
    let mut files = BTreeMap::new();
    for entry in &entries {
        let mut bytes = Vec::new();
        for piece in entry.pieces() {
            let encoded = match &piece.map {
                PieceMap::Inline(encoded) => encoded.clone(),
                PieceMap::Chunk { id, .. } => read_one(sealed, domain, &index, *id).await?,
                PieceMap::Zeros => continue,
            };
            // A map that does not read is no map, and the bytes are not the right ones.
            let map = FileMap::decode(&encoded).unwrap_or_default();
            read_map(sealed, domain, &index, &map, &mut bytes).await?;
        }
        files.insert(entry.path.to_string(), bytes);
    }
    Ok(files)
}

async fn read_one(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    id: ChunkId,
) -> Result<Vec<u8>, RepoError> {
    let mut read = chunks::read_many(sealed, domain, index, &HashSet::from([id])).await?;
    Ok(read.remove(&id).unwrap_or_default())
}

async fn read_map(
    sealed: &SealedStore,
    domain: &Name,
    index: &Index,
    map: &FileMap,
    bytes: &mut Vec<u8>,
) -> Result<(), RepoError> {
    let wanted: HashSet<ChunkId> = map.chunks.iter().map(|chunk| chunk.id).collect();
    let read = chunks::read_many(sealed, domain, index, &wanted).await?;
    for extent in &map.extents {
        let Source::Chunk { chunk, offset } = extent.source else { continue };
        let chunk = usize::try_from(chunk).ok().and_then(|place| map.chunks.get(place));
        let plain = chunk.and_then(|chunk| read.get(&chunk.id));
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
        let part = plain.and_then(|plain| plain.get(offset..offset.saturating_add(len)));
        bytes.extend_from_slice(part.unwrap_or_default());
    }
    Ok(())
}
