//! Where every chunk of a domain is, in some 28 bytes a chunk, and which of them backups refer to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use pgrecall_repo::chunks::{self, ReadRange};
use pgrecall_repo::format::document::DamagedChunk;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::index::{IndexEntry, IndexPack};
use pgrecall_repo::id::{ChunkId, PackId};
use pgrecall_repo::index::{self, IndexObject, Location, Purpose};
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::object::Proof;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{ErrorKind, FormatError, RepoError};
use pgrecall_store::Key;

use super::finding::{Severity, VerifyReport};
use crate::catalog::chain;
use crate::error::EngineError;
use crate::unreadable::{Cause, Unreadable};

/// Reads of packs under way at once.
pub(super) const READS_AT_ONCE: usize = 4;

type Short = [u8; 16];

/// One copy of a chunk. Chunk ids are keyed hashes: two that share their first 16 bytes do not
/// occur.
#[derive(Debug, Clone, Copy)]
struct Row {
    id: Short,
    pack: u32,
    plain_len: u32,
    referred: bool,
    /// Why it does not count, once it was found bad.
    bad: Option<Cause>,
}

fn short(chunk: &ChunkId) -> Short {
    let (short, _) = chunk.as_bytes().split_at(16);
    short.try_into().unwrap_or([0; 16])
}

/// Every chunk that a domain's index names, in packs that are there.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    packs: Vec<Arc<IndexPack>>,
    numbers: HashMap<PackId, u32>,
    /// Places of metadata chunks, which are read while backups are walked.
    meta: HashMap<Short, Location>,
    objects: Vec<Key>,
    noted: HashSet<DamagedChunk>,
    /// Chunks of packs that the index names and that are not there.
    gone: HashSet<Short>,
    /// Whether there are packs that no index object which reads speaks of.
    packs_unnamed: bool,
    /// Whether an index object is of another version: what no other names may be named there.
    index_of_other_version: bool,
}

/// What is known of a chunk that a map refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is there.
    There,
    /// No pack that is there holds it.
    Missing,
    /// All copies were read and are bad.
    Bad,
    /// Another version of the program wrote it, or the index that names it.
    OtherVersion,
    /// It has another length.
    OtherLength(u32),
}

impl Rows {
    /// Reads notes of damage, the index, then lists packs.
    pub(super) async fn read(
        sealed: &SealedStore,
        domain: &Name,
        report: &mut VerifyReport,
    ) -> Result<Self, EngineError> {
        let noted = index::read_damage(sealed, domain, Purpose::Read).await?;
        let mut rows = Self { noted, ..Self::default() };
        let mut gone: BTreeMap<PackId, (IndexPack, u64)> = BTreeMap::new();
        // Packs of listed manifests were there before these; those that come later are of backups
        // that are not looked at.
        let listed = index::list_packs(sealed, domain).await?;
        for name in sealed.list(&names::indexes(domain)).await? {
            let name = name.key;
            match index::read_object(sealed, &name).await {
                Ok(object) => rows.add(&listed, &object, &mut gone),
                Err(error) if is_unreadable(&error) => {
                    let why = Unreadable::of(error.kind(), &error);
                    rows.index_of_other_version |= why.cause == Cause::OtherVersion;
                    report.add_unreadable(
                        Severity::Warning,
                        name.as_str(),
                        ("the index object does not read: ", &why),
                        "what only it names cannot be found; its packs still hold a directory each",
                    );
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            rows.objects.push(name);
        }
        rows.packs_unnamed =
            listed.keys().any(|pack| !rows.numbers.contains_key(pack) && !gone.contains_key(pack));
        rows.rows.sort_unstable_by_key(|row| (row.id, row.pack, row.plain_len));
        rows.rows.dedup_by_key(|row| (row.id, row.pack));
        rows.rows.shrink_to_fit();
        report_gone(sealed, domain, gone, report).await?;
        Ok(rows)
    }

    fn add(
        &mut self,
        listed: &HashMap<PackId, u64>,
        object: &IndexObject,
        gone: &mut BTreeMap<PackId, (IndexPack, u64)>,
    ) {
        for entry in &object.entries {
            let number = usize::try_from(entry.pack).unwrap_or(usize::MAX);
            let Some(pack) = object.packs.get(number) else { continue };
            if listed.get(&pack.id) == Some(&pack.size) {
                self.add_entry(pack, entry);
            } else {
                gone.entry(pack.id).or_insert_with(|| (IndexPack::clone(pack), 0)).1 += 1;
                self.gone.insert(short(&entry.chunk));
            }
        }
    }

    fn add_entry(&mut self, pack: &Arc<IndexPack>, entry: &IndexEntry) {
        let number = *self.numbers.entry(pack.id).or_insert_with(|| {
            self.packs.push(pack.clone());
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        });
        let noted = self.noted.contains(&DamagedChunk { pack: pack.id, chunk: entry.chunk });
        let bad = noted.then_some(Cause::Damage);
        let id = short(&entry.chunk);
        let plain_len = entry.plain_len;
        self.rows.push(Row { id, pack: number, plain_len, referred: false, bad });
        if pack.kind == Kind::MetaPack && !noted {
            self.meta.entry(id).or_insert_with(|| location(pack, entry));
        }
    }

    /// The copies of a chunk.
    fn range(&self, id: Short) -> std::ops::Range<usize> {
        let start = self.rows.partition_point(|row| row.id < id);
        let copies = self.rows.get(start..).unwrap_or_default();
        start..start + copies.iter().take_while(|row| row.id == id).count()
    }

    /// A backup refers to this chunk: is it there?
    pub(super) fn refer(&mut self, chunk: &ChunkId, plain_len: u32) -> Presence {
        let range = self.range(short(chunk));
        let Some(copies) = self.rows.get_mut(range).filter(|copies| !copies.is_empty()) else {
            // Lost with its pack, unless moved to one that only another version's index names.
            let is_lost = !self.packs_unnamed && self.gone.contains(&short(chunk));
            return match self.index_of_other_version && !is_lost {
                true => Presence::OtherVersion,
                false => Presence::Missing,
            };
        };
        let mut presence = Presence::Bad;
        for row in copies {
            row.referred = true;
            presence = match (row.bad, presence) {
                (None, _) if row.plain_len == plain_len => Presence::There,
                (None, Presence::Bad) => Presence::OtherLength(row.plain_len),
                (Some(Cause::OtherVersion), Presence::Bad) => Presence::OtherVersion,
                (_, before) => before,
            };
        }
        presence
    }

    /// A copy was read and is bad, or cannot be judged.
    pub(super) fn mark_bad(&mut self, chunk: &ChunkId, pack: PackId, cause: Cause) {
        let Some(&number) = self.numbers.get(&pack) else { return };
        let range = self.range(short(chunk));
        let copies = self.rows.get_mut(range).unwrap_or_default();
        copies.iter_mut().filter(|row| row.pack == number).for_each(|row| row.bad = Some(cause));
    }

    /// Whether this copy counts: it is referred to and not known to be bad.
    pub(super) fn counts(&self, chunk: &ChunkId, pack: PackId) -> bool {
        let Some(&number) = self.numbers.get(&pack) else { return false };
        let copies = self.rows.get(self.range(short(chunk))).unwrap_or_default();
        copies.iter().any(|row| row.pack == number && row.referred && row.bad.is_none())
    }

    /// The index objects that were read.
    pub(super) fn objects(&self) -> &[Key] {
        &self.objects
    }

    /// Distinct chunks that backups refer to, and packs that hold them.
    pub(super) fn referred(&self) -> (u64, u64) {
        let mut packs = vec![false; self.packs.len()];
        let (mut chunks, mut last) = (0, None);
        for row in self.rows.iter().filter(|row| row.referred) {
            if last != Some(row.id) {
                chunks += 1;
            }
            last = Some(row.id);
            let slot = usize::try_from(row.pack).ok().and_then(|number| packs.get_mut(number));
            if let Some(slot) = slot {
                *slot = true;
            }
        }
        (chunks, u64::try_from(packs.iter().filter(|held| **held).count()).unwrap_or(u64::MAX))
    }

    /// The packs that hold a chunk that backups refer to, with the number of chunks that the index
    /// names in each.
    pub(super) fn packs_in_use(&self) -> Vec<(&IndexPack, usize)> {
        let mut packs = vec![(0, false); self.packs.len()];
        for row in &self.rows {
            let slot = usize::try_from(row.pack).ok().and_then(|number| packs.get_mut(number));
            if let Some((chunks, in_use)) = slot {
                *chunks += 1;
                *in_use |= row.referred;
            }
        }
        let counted = self.packs.iter().zip(packs);
        counted.filter(|(_, (_, used))| *used).map(|(pack, (count, _))| (&**pack, count)).collect()
    }

    /// Reads metadata chunks. One that is missing or damaged has its own error; a store that fails
    /// ends it all.
    pub(super) async fn read_meta(
        &self,
        sealed: &SealedStore,
        domain: &Name,
        wanted: &[ChunkId],
    ) -> Result<HashMap<ChunkId, Result<Vec<u8>, RepoError>>, EngineError> {
        let mut read = HashMap::new();
        let mut located = Vec::new();
        for chunk in wanted {
            match self.meta.get(&short(chunk)) {
                Some(location) => located.push((*chunk, location.clone())),
                None => {
                    let (chunk_text, domain) = (chunk.to_string(), domain.to_string());
                    let error = RepoError::ChunkMissing { chunk: chunk_text, domain };
                    read.insert(*chunk, Err(error));
                }
            }
        }
        let reads = chunks::plan_reads(domain, located);
        let mut fetched = stream::iter(reads)
            .map(|read| async move { (chunks::fetch(sealed, &read).await, read) })
            .buffered(READS_AT_ONCE);
        while let Some((bytes, range)) = fetched.next().await {
            match bytes {
                Ok(bytes) => open_all(sealed, &range, &bytes, &mut read),
                Err(error) if is_unreadable(&error) || error.is_not_found() => {
                    for (chunk, _) in &range.chunks {
                        read.insert(*chunk, Err(again(&range, &error)));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(read)
    }
}

/// Tells of packs that the index names and that are not there as it says, unless they are newer
/// than the first listing.
async fn report_gone(
    sealed: &SealedStore,
    domain: &Name,
    gone: BTreeMap<PackId, (IndexPack, u64)>,
    report: &mut VerifyReport,
) -> Result<(), EngineError> {
    if gone.is_empty() {
        return Ok(());
    }
    let listed = index::list_packs(sealed, domain).await?;
    for (id, (pack, chunks)) in gone {
        let found = listed.get(&id);
        if found == Some(&pack.size) {
            continue;
        }
        let what = match found {
            None => "the pack is not there".to_owned(),
            Some(size) => format!("the pack has {size} bytes, the index says {}", pack.size),
        };
        let name = names::pack(domain, pack.kind, id);
        let consequence = format!(
            "its {chunks} chunks cannot be had from it; backups that need \
                                   one of them are listed apart"
        );
        report.add(Severity::Note, name.as_str(), what, consequence);
    }
    Ok(())
}

fn open_all(
    sealed: &SealedStore,
    range: &ReadRange,
    bytes: &[u8],
    read: &mut HashMap<ChunkId, Result<Vec<u8>, RepoError>>,
) {
    let opener = chunks::Opener::new(sealed, range, bytes);
    let mut buffers = chunks::Buffers::default();
    for (chunk, location) in &range.chunks {
        let opened = opener.open((chunk, location), Proof::Hash, &mut buffers);
        read.insert(*chunk, opened.map(<[u8]>::to_vec));
    }
}

/// One error for each chunk of a range.
fn again(range: &ReadRange, error: &RepoError) -> RepoError {
    let source = FormatError::Document { what: "the pack", reason: chain(error) };
    let object = range.name.to_string();
    match Cause::of(error.kind()) {
        Cause::Damage => RepoError::Corrupt { object, source },
        Cause::OtherVersion => RepoError::Newer { object, source },
    }
}

pub(super) fn location(pack: &Arc<IndexPack>, entry: &IndexEntry) -> Location {
    Location {
        pack: pack.clone(),
        frame: entry.frame,
        offset: entry.offset,
        sealed_len: entry.sealed_len,
        plain_len: entry.plain_len,
        check: Some(entry.check),
    }
}

/// Whether bytes cannot be read, rather than a store that fails.
pub(super) fn is_unreadable(error: &RepoError) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}
