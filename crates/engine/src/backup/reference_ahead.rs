//! The maps and page hashes of the reference, fetched before a thread asks for them, so that it
//! does not wait for the store piece by piece.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pgrecall_repo::RepoError;
use pgrecall_repo::backup::BackupSession;
use pgrecall_repo::format::table::{Piece, PieceMap};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::backup::copy::Unit;
use crate::backup::reference::{OldPiece, Reference, read_piece};
use crate::backup::source::SourceEntry;
use crate::error::EngineError;

/// Pieces fetched ahead. Each takes up to 200 kB: 24 bytes for each of its 8192 pages.
const AHEAD: usize = 8;

type Fetch = JoinHandle<Result<Option<OldPiece>, RepoError>>;

/// Fetches ahead, in the order of the units.
pub struct ReferenceAhead<'a> {
    session: Arc<BackupSession>,
    reference: Arc<Reference>,
    handle: Handle,
    entries: &'a [SourceEntry],
    units: &'a [Unit],
    begun: Mutex<Begun>,
}

#[derive(Default)]
struct Begun {
    /// The first unit that was not looked at.
    next: usize,
    fetches: HashMap<usize, Fetch>,
}

impl<'a> ReferenceAhead<'a> {
    /// Fetches for these units.
    pub fn new(
        session: Arc<BackupSession>,
        reference: Arc<Reference>,
        handle: Handle,
        entries: &'a [SourceEntry],
        units: &'a [Unit],
    ) -> Self {
        Self { session, reference, handle, entries, units, begun: Mutex::default() }
    }

    /// The backup that is compared with.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The old piece of a unit, and a start on those of the next units. Blocks the thread.
    ///
    /// # Errors
    /// When the store fails.
    pub fn take(&self, number: usize, page_size: u32) -> Result<Option<OldPiece>, EngineError> {
        let fetch = {
            let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            self.fetch_up_to(&mut begun, number + AHEAD, page_size);
            begun.fetches.remove(&number)
        };
        if let Some(fetch) = fetch {
            return match self.handle.block_on(fetch) {
                Ok(old) => Ok(old?),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
        }
        let Some(piece) = self.piece(number) else { return Ok(None) };
        Ok(self.handle.block_on(read_piece(&self.session, piece, page_size))?)
    }

    fn fetch_up_to(&self, begun: &mut Begun, end: usize, page_size: u32) {
        while begun.next < end.min(self.units.len()) {
            let number = begun.next;
            begun.next += 1;
            // Maps that stand in the file table ask nothing of the store.
            let Some(piece) = self.piece(number) else { continue };
            if !matches!(piece.map, PieceMap::Chunk { .. }) {
                continue;
            }
            let (session, piece) = (self.session.clone(), piece.clone());
            let fetch =
                self.handle.spawn(async move { read_piece(&session, &piece, page_size).await });
            begun.fetches.insert(number, fetch);
        }
    }

    fn piece(&self, number: usize) -> Option<&Piece> {
        let unit = self.units.get(number)?;
        self.reference.piece(&self.entries.get(unit.file)?.path, unit.piece)
    }
}

impl Drop for ReferenceAhead<'_> {
    fn drop(&mut self) {
        let begun = self.begun.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, fetch) in begun.fetches.drain() {
            fetch.abort();
        }
    }
}
