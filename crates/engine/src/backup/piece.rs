//! A piece of a file being copied: which of its pages are carried over, which are gathered into
//! patches, and which regions are stored whole.

use std::path::Path;

use pgrecall_pgformat::Lsn;
use pgrecall_repo::format::table::PieceMap;
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::keys::Keys;

use crate::backup::map_builder::MapBuilder;
use crate::backup::page_scan::{BadPage, PageContext, is_zero};
use crate::backup::reference::{OldPage, OldPiece};
use crate::backup::source::SourceFile;
use crate::error::EngineError;

/// What a chunk of data is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Bytes of a file, one after another.
    Region,
    /// Pages that changed, from here and there: few, and alike.
    Patch,
}

/// Pages that changed here and there are gathered into chunks of this length: alike as they are,
/// they take 3 % less than in chunks of 256 KiB.
pub const PATCH_BYTES: usize = 1 << 20;

/// A chunk of changed pages goes on beyond a region's length within a stretch of this length only:
/// who restores a part of the file reads few chunks of which he needs a page.
const PATCH_SPAN_BYTES: u64 = 16 << 20;

/// Stores a chunk with its name, unless it is there.
pub type StoreChunk<'a> = dyn FnMut(Content, (ChunkId, &[u8])) -> Result<(), EngineError> + 'a;

/// What stays the same for all regions of a piece.
pub struct PieceOptions<'a> {
    /// The file, for messages.
    pub path: &'a Path,
    /// The keys of page hashes.
    pub keys: &'a Keys,
    /// Bytes of a chunk.
    pub chunk_bytes: usize,
    /// How pages are judged; nothing for files that are not relations.
    pub context: Option<PageContext>,
    /// Pages that equal the reference's and are older than this were found sound when that backup
    /// was taken; nothing when it cannot be relied on.
    pub sound_before: Option<Lsn>,
    /// Which unchanged regions are compared by their chunks' ids too.
    pub recheck: Recheck,
}

/// Picks regions whose pages all equal the reference's by their 64-bit hashes: they are compared
/// once more, by the 256-bit id of their chunk. It costs a hash of a few bytes in a hundred, no
/// reading, and finds in the end what a page hash, or a bug, has wrongly taken for unchanged.
#[derive(Debug, Clone, Copy)]
pub struct Recheck {
    seed: u64,
    one_in: u64,
}

impl Recheck {
    /// One region in so many; other ones by other seeds.
    pub const fn one_in(one_in: u64, seed: u64) -> Self {
        Self { seed, one_in }
    }

    fn picks(self, region: u64) -> bool {
        region.wrapping_add(self.seed).is_multiple_of(self.one_in.max(1))
    }
}

/// Pages that changed, on their way into a chunk.
#[derive(Default)]
struct Patch {
    bytes: Vec<u8>,
    hashes: Vec<u64>,
    /// The chunk's number in the map; given with the first page.
    number: Option<u32>,
    /// Where the region of the first page begins in the piece.
    first: u64,
    /// Where that of the next page does.
    region: u64,
}

/// What becomes of a region.
enum Fate {
    /// It has no byte but zeros.
    Zeros,
    /// It is stored as a chunk, with the hashes of its pages.
    Whole(Vec<u64>),
    /// Its pages go where they belong, by their hashes and what they were before.
    Pages(Vec<(u64, Option<OldPage>)>),
}

impl Fate {
    fn whole(region: &[u8], hashes: Vec<u64>) -> Self {
        if is_zero(region) { Self::Zeros } else { Self::Whole(hashes) }
    }
}

/// A piece being copied.
pub struct PieceCopy<'a> {
    options: PieceOptions<'a>,
    map: MapBuilder,
    old: Option<OldPiece>,
    patch: Patch,
    /// Every page so far stands where it stood in the reference.
    unchanged: bool,
    bad: Vec<BadPage>,
}

/// A piece that was copied.
pub enum CopiedMap {
    /// All as in the reference: its map serves again.
    Same(PieceMap),
    /// A map of its own.
    New(MapBuilder),
}

impl<'a> PieceCopy<'a> {
    /// Begins a piece; `old` is the same piece of the reference.
    pub fn new(options: PieceOptions<'a>, old: Option<OldPiece>) -> Self {
        let page_size = options.context.map_or(0, |context| context.page_size);
        let map = MapBuilder::new(u32::try_from(page_size).unwrap_or_default());
        let unchanged = old.is_some();
        Self { options, map, old, patch: Patch::default(), unchanged, bad: Vec::new() }
    }

    /// Stores bytes that were read from `file`, where the piece starts at `start` and these at
    /// `offset` of the piece. Pages that look bad are read once more, in place.
    ///
    /// # Errors
    /// When a chunk cannot be stored, or the second read of a page fails.
    pub fn add(
        &mut self,
        file: &dyn SourceFile,
        start: u64,
        offset: u64,
        part: &mut [u8],
        store: &mut StoreChunk<'_>,
    ) -> Result<(), EngineError> {
        let size = self.options.chunk_bytes.max(1);
        let mut at = offset;
        let mut fates = Vec::with_capacity(part.len().div_ceil(size));
        for region in part.chunks_mut(size) {
            fates.push(match self.options.context {
                None => Fate::whole(region, Vec::new()),
                Some(context) => self.judge(&context, file, start, at, region)?,
            });
            at += region.len() as u64;
        }
        let whole = part.chunks(size).zip(&fates);
        let whole = whole.filter(|(_, fate)| matches!(fate, Fate::Whole(_)));
        let whole: Vec<&[u8]> = whole.map(|(region, _)| region).collect();
        // All names at once, which takes less time than one after the other.
        let mut ids = self.options.keys.chunk_ids(&whole).into_iter();
        let mut at = offset;
        for (region, fate) in part.chunks(size).zip(fates) {
            match fate {
                Fate::Zeros => self.map.zeros(region.len() as u64),
                Fate::Whole(hashes) => {
                    let id = ids.next().unwrap_or_else(|| self.options.keys.chunk_id(region));
                    self.put_whole((id, region), hashes, store)?;
                }
                Fate::Pages(pages) => {
                    self.end_patch_before(at, store)?;
                    self.put_pages(region, pages, store)?;
                }
            }
            at += region.len() as u64;
        }
        Ok(())
    }

    /// The map, and the pages that looked bad twice.
    ///
    /// # Errors
    /// When the last patch cannot be stored.
    pub fn finish(
        mut self,
        len: u64,
        store: &mut StoreChunk<'_>,
    ) -> Result<(CopiedMap, Vec<BadPage>), EngineError> {
        self.flush_patch(store)?;
        let map = match self.old {
            Some(old) if self.unchanged && old.map.len() == len => CopiedMap::Same(old.piece),
            _ => CopiedMap::New(self.map),
        };
        Ok((map, self.bad))
    }

    /// What becomes of a region of a relation.
    fn judge(
        &mut self,
        context: &PageContext,
        file: &dyn SourceFile,
        start: u64,
        offset: u64,
        region: &mut [u8],
    ) -> Result<Fate, EngineError> {
        let keys = self.options.keys;
        let first = offset / context.page_size as u64;
        let count = region.len().div_ceil(context.page_size);
        let mut hashes = Vec::with_capacity(count);
        let mut found = Vec::with_capacity(count);
        for (page, number) in region.chunks_mut(context.page_size).zip(first..) {
            let mut hash = keys.page_hash(page);
            let mut old = self.equal_to(number, page, hash);
            if !self.was_sound(page, old) {
                let at = start + number * context.page_size as u64;
                let checked = context
                    .check(file, at, page)
                    .map_err(|error| EngineError::file("read", self.options.path, error))?;
                if checked.read_again {
                    hash = keys.page_hash(page);
                    old = self.equal_to(number, page, hash);
                }
                self.bad.extend(checked.bad);
            }
            hashes.push(hash);
            found.push(old);
        }
        let region_number = offset / self.options.chunk_bytes.max(1) as u64;
        if self.options.recheck.picks(region_number) && self.is_other_chunk(region, &found) {
            tracing::warn!(
                path = %self.options.path.display(),
                first_page = first,
                "pages that seemed unchanged are not what the last backup stored: stored anew"
            );
            found.fill(None);
        }
        let changed = found.iter().filter(|old| old.is_none()).count();
        self.unchanged &= changed == 0;
        if self.old.is_none() || changed * 2 > count {
            return Ok(Fate::whole(region, hashes));
        }
        Ok(Fate::Pages(hashes.into_iter().zip(found).collect()))
    }

    /// Stores a region as a chunk.
    fn put_whole(
        &mut self,
        (id, region): (ChunkId, &[u8]),
        hashes: Vec<u64>,
        store: &mut StoreChunk<'_>,
    ) -> Result<(), EngineError> {
        store(Content::Region, (id, region))?;
        let len = u32::try_from(region.len()).unwrap_or(u32::MAX);
        let number = self.map.fresh_chunk(id, len, hashes);
        self.map.part(number, 0, len.into());
        Ok(())
    }

    fn put_pages(
        &mut self,
        region: &[u8],
        pages: Vec<(u64, Option<OldPage>)>,
        store: &mut StoreChunk<'_>,
    ) -> Result<(), EngineError> {
        let size = self.options.context.map_or(1, |context| context.page_size);
        for (page, (hash, old)) in region.chunks(size).zip(pages) {
            self.add_page(page, hash, old, store)?;
        }
        Ok(())
    }

    /// Whether a region seems to be a chunk of the reference, whole and in order, and is another.
    fn is_other_chunk(&self, region: &[u8], found: &[Option<OldPage>]) -> bool {
        let Some(old) = &self.old else { return false };
        let Some(Some(OldPage::At { chunk: number, .. })) = found.first() else { return false };
        let chunk = usize::try_from(*number).ok().and_then(|at| old.map.chunks.get(at));
        let Some(chunk) = chunk.filter(|chunk| chunk.plain_len as usize == region.len()) else {
            return false;
        };
        let size = self.options.context.map_or(1, |context| context.page_size);
        let in_order = found.iter().enumerate().all(|(at, page)| {
            matches!(page, Some(OldPage::At { chunk, offset, .. })
                if chunk == number && *offset as usize == at * size)
        });
        in_order && self.options.keys.chunk_id(region) != chunk.id
    }

    /// The old page that this one equals, if there is one.
    fn equal_to(&self, number: u64, page: &[u8], hash: u64) -> Option<OldPage> {
        let pages = &self.old.as_ref()?.pages;
        match pages.get(usize::try_from(number).ok()?) {
            Some(at @ OldPage::At { hash: was, .. }) if *was == hash => Some(*at),
            Some(OldPage::Zero) if self.is_zero_page(page) => Some(OldPage::Zero),
            _ => None,
        }
    }

    fn is_zero_page(&self, page: &[u8]) -> bool {
        let size = self.options.context.map_or(0, |context| context.page_size);
        page.len() == size && is_zero(page)
    }

    /// Whether the same bytes were judged already, when the reference was taken.
    fn was_sound(&self, page: &[u8], old: Option<OldPage>) -> bool {
        match old {
            None | Some(OldPage::Unknown) => false,
            Some(OldPage::Zero) => true,
            Some(OldPage::At { .. }) => {
                let lsn = pgrecall_pgformat::page_check::page_lsn(page);
                lsn.zip(self.options.sound_before).is_some_and(|(lsn, before)| lsn < before)
            }
        }
    }

    /// Points an unchanged page where it was, and gathers a changed one.
    fn add_page(
        &mut self,
        page: &[u8],
        hash: u64,
        old: Option<OldPage>,
        store: &mut StoreChunk<'_>,
    ) -> Result<(), EngineError> {
        let len = page.len() as u64;
        match (old, &self.old) {
            (Some(OldPage::At { chunk, offset, .. }), Some(old)) => {
                self.map.carry(&old.map, chunk, offset, len);
                return Ok(());
            }
            (Some(_), _) => {
                self.map.zeros(len);
                return Ok(());
            }
            (None, _) if self.is_zero_page(page) => {
                self.map.zeros(len);
                return Ok(());
            }
            (None, _) => {}
        }
        if self.patch.bytes.len() + page.len() > PATCH_BYTES {
            self.flush_patch(store)?;
        }
        if self.patch.number.is_none() {
            self.patch.first = self.patch.region;
        }
        let number = *self.patch.number.get_or_insert_with(|| self.map.reserve());
        let at = u32::try_from(self.patch.bytes.len()).unwrap_or(u32::MAX);
        self.map.part(number, at, len);
        self.patch.bytes.extend_from_slice(page);
        self.patch.hashes.push(hash);
        Ok(())
    }

    /// Before the region at `at`, a patch that is long enough and began far behind is stored.
    fn end_patch_before(&mut self, at: u64, store: &mut StoreChunk<'_>) -> Result<(), EngineError> {
        let is_far = at.saturating_sub(self.patch.first) >= PATCH_SPAN_BYTES;
        if is_far && self.patch.bytes.len() >= self.options.chunk_bytes {
            self.flush_patch(store)?;
        }
        self.patch.region = at;
        Ok(())
    }

    fn flush_patch(&mut self, store: &mut StoreChunk<'_>) -> Result<(), EngineError> {
        let Some(number) = self.patch.number.take() else { return Ok(()) };
        let id = self.options.keys.chunk_id(&self.patch.bytes);
        store(Content::Patch, (id, &self.patch.bytes))?;
        let len = u32::try_from(self.patch.bytes.len()).unwrap_or(u32::MAX);
        self.map.settle(number, id, len, std::mem::take(&mut self.patch.hashes));
        self.patch.bytes.clear();
        Ok(())
    }
}
