//! The backup that a new one is compared with: its file maps and page hashes, read piece by piece.

use std::collections::{HashMap, HashSet};

use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::control::DataChecksums;
use pgrecall_pgformat::page_check::PageChecksums;
use pgrecall_repo::RepoError;
use pgrecall_repo::backup::BackupSession;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::map::{FileMap, HashSource, MapChunk, PAGE_HASH_BYTES, Source};
use pgrecall_repo::format::table::{Entry, Piece, PieceMap};
use pgrecall_repo::id::{BackupId, ChunkId};

use crate::details::BackupDetails;
use crate::error::EngineError;

/// The pieces of every file of the reference.
#[derive(Debug)]
pub struct Reference {
    /// The backup.
    pub id: BackupId,
    /// What its manifest says.
    pub details: BackupDetails,
    files: HashMap<Vec<u8>, Vec<Piece>>,
    /// Files with damage: what was found then is looked for again.
    damaged: HashSet<Vec<u8>>,
}

impl Reference {
    /// Reads the file table of a backup.
    ///
    /// # Errors
    /// When a part of it is missing or damaged; the caller goes on without a reference, and says
    /// so.
    pub async fn read(session: &BackupSession, manifest: &Manifest) -> Result<Self, EngineError> {
        let details = BackupDetails::of(manifest)?;
        let mut files = HashMap::new();
        let keep = |entries: Vec<Entry>| -> Result<(), EngineError> {
            for entry in entries {
                if !entry.pieces().is_empty() {
                    files.insert(entry.path.as_bytes().to_vec(), entry.pieces().to_vec());
                }
            }
            Ok(())
        };
        session.each_table(manifest, keep).await?;
        let damaged = details.damage.iter().map(|file| file.path.clone().into_bytes()).collect();
        Ok(Self { id: manifest.backup, details, files, damaged })
    }

    /// Pages of this file that are as they were, and older than this, were checked and found sound
    /// when the reference was taken. Nothing when they were not checked, or not all sound.
    #[must_use]
    pub fn sound_before(&self, path: &[u8], checksums: PageChecksums) -> Option<Lsn> {
        let checked = match checksums {
            PageChecksums::Off => true,
            PageChecksums::On => matches!(self.details.data_checksums, DataChecksums::On { .. }),
        };
        (checked && !self.damaged.contains(path)).then_some(self.details.start.lsn)
    }

    /// The piece of a file that starts at `number` times the piece length.
    #[must_use]
    pub fn piece(&self, path: &[u8], number: usize) -> Option<&Piece> {
        self.files.get(path)?.get(number)
    }
}

/// A piece of the reference, ready to be compared with: for each page its hash and where its bytes
/// are.
#[derive(Debug)]
pub struct OldPiece {
    /// As the reference's file table has it.
    pub piece: PieceMap,
    /// The map.
    pub map: FileMap,
    /// By page.
    pub pages: Vec<OldPage>,
}

/// A page of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldPage {
    /// All zero.
    Zero,
    /// Part of a chunk.
    At {
        /// The chunk's number in the map.
        chunk: u32,
        /// The page's offset in it.
        offset: u32,
        /// The page's hash.
        hash: u64,
    },
    /// Nothing is known of it, or its chunk may not be referred to.
    Unknown,
}

/// Reads a piece's map and hashes and refers to every chunk that a new backup may carry over.
///
/// # Errors
/// When the store fails. Damage is no error: the pages are unknown, and are stored again.
pub async fn read_piece(
    session: &BackupSession,
    piece: &Piece,
    page_size: u32,
) -> Result<Option<OldPiece>, RepoError> {
    let plain = match &piece.map {
        PieceMap::Zeros => return Ok(None),
        PieceMap::Inline(plain) => plain.clone(),
        PieceMap::Chunk { id, .. } => match read_known(session, id).await? {
            Some(plain) => plain,
            None => return Ok(None),
        },
    };
    let Ok(map) = FileMap::decode(&plain) else { return Ok(None) };
    if map.page_size != page_size || page_size == 0 {
        return Ok(None);
    }
    let mut hashes = Vec::with_capacity(map.hash_chunks.len());
    for chunk in &map.hash_chunks {
        hashes.push(read_known(session, &chunk.id).await?.unwrap_or_default());
    }
    let usable: Vec<bool> = map.chunks.iter().map(|chunk| session.refer(&chunk.id)).collect();
    let pages = lay_out(&map, &hashes, &usable);
    Ok(Some(OldPiece { piece: piece.map.clone(), map, pages }))
}

async fn read_known(
    session: &BackupSession,
    chunk: &ChunkId,
) -> Result<Option<Vec<u8>>, RepoError> {
    match session.read_meta(chunk).await {
        Ok(plain) => Ok(plain),
        Err(
            RepoError::Corrupt { .. }
            | RepoError::KeysMissing { .. }
            | RepoError::Newer { .. }
            | RepoError::Older { .. },
        ) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which old page stands at each page of the piece.
fn lay_out(map: &FileMap, hashes: &[Vec<u8>], usable: &[bool]) -> Vec<OldPage> {
    let page_size = u64::from(map.page_size);
    let mut pages = Vec::new();
    for extent in &map.extents {
        let count = extent.len.div_ceil(page_size);
        let Source::Chunk { chunk, offset } = extent.source else {
            // A short last page of zeros hashes otherwise than a whole one: leave it unknown.
            let whole = extent.len / page_size;
            pages.extend((0..whole).map(|_| OldPage::Zero));
            pages.extend((whole..count).map(|_| OldPage::Unknown));
            continue;
        };
        let number = usize::try_from(chunk).unwrap_or(usize::MAX);
        let known = map.chunks.get(number).filter(|_| usable.get(number) == Some(&true));
        let aligned = u64::from(offset) % page_size == 0;
        for page in 0..count {
            let at = u64::from(offset) + page * page_size;
            let hash =
                known.filter(|_| aligned).and_then(|known| hash_of(known, at / page_size, hashes));
            pages.push(match (hash, u32::try_from(at)) {
                (Some(hash), Ok(offset)) => OldPage::At { chunk, offset, hash },
                _ => OldPage::Unknown,
            });
        }
    }
    pages
}

fn hash_of(chunk: &MapChunk, page: u64, hashes: &[Vec<u8>]) -> Option<u64> {
    let page = usize::try_from(page).ok()?;
    match &chunk.hashes {
        HashSource::None => None,
        HashSource::Inline(inline) => inline.get(page).copied(),
        HashSource::Shared { chunk, first } => {
            let bytes = hashes.get(usize::try_from(*chunk).ok()?)?;
            let at = (usize::try_from(*first).ok()? + page) * PAGE_HASH_BYTES;
            let hash = bytes.get(at..at + PAGE_HASH_BYTES)?;
            Some(u64::from_le_bytes(hash.try_into().ok()?))
        }
    }
}

/// Whether so little of a piece's chunks is still in use, or they have become so many, that the
/// piece is better written afresh: restore cost stays bounded, and old packs become free.
#[must_use]
pub fn is_fragmented(map: &FileMap, chunk_bytes: u32) -> bool {
    let len = map.len();
    let behind: u64 = map.chunks.iter().map(|chunk| u64::from(chunk.plain_len)).sum();
    let ideal = len.div_ceil(u64::from(chunk_bytes.max(1)));
    behind > 2 * len + u64::from(chunk_bytes) || map.chunks.len() as u64 > 2 * ideal + 16
}
