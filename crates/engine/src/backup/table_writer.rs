//! Writing the file table: entries in order of paths, cut into chunks at paths that a hash picks,
//! so that a file that comes or goes changes one chunk and not all that follow.

use pgrecall_repo::format::document::TableChunk;
use pgrecall_repo::format::table::{self, ENTRIES_MAX, Entry};
use pgrecall_repo::keys::Keys;

use crate::backup::copy::Copier;
use crate::error::EngineError;

/// One path in so many begins a chunk.
const CUT_MASK: u64 = 31;

/// And one in so many where there are more files than this: each chunk takes room in the manifest.
const CUT_MASK_OF_MANY: u64 = 127;
const MANY: usize = 100_000;

/// Stores the table's chunks and gives their list for the manifest.
///
/// # Errors
/// When the store fails.
pub fn write(
    copier: &Copier,
    keys: &Keys,
    entries: &[Entry],
) -> Result<Vec<TableChunk>, EngineError> {
    let mask = if entries.len() > MANY { CUT_MASK_OF_MANY } else { CUT_MASK };
    let mut tables = Vec::new();
    let mut start = 0;
    for at in 1..=entries.len() {
        let cut = match entries.get(at) {
            None => true,
            Some(entry) => {
                keys.page_hash(entry.path.as_bytes()) & mask == 0 || at - start >= ENTRIES_MAX
            }
        };
        if !cut {
            continue;
        }
        let part = entries.get(start..at).unwrap_or_default();
        let plain = table::encode(part);
        let id = copier.store_meta(&plain)?;
        tables.push(TableChunk {
            first: part.first().map(|entry| entry.path.to_string()).unwrap_or_default(),
            entries: part.len() as u64,
            id,
            plain_len: u32::try_from(plain.len()).unwrap_or(u32::MAX),
        });
        start = at;
    }
    Ok(tables)
}
