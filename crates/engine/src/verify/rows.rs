//! Where every chunk of a domain is, in some 28 bytes a chunk, and which of them backups refer to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use pgrecall_repo::chunks::{self, ReadRange};
use pgrecall_repo::damaged_chunks::UnreadNote;
use pgrecall_repo::format::document::DamagedChunk;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::index::{IndexEntry, IndexPack};
use pgrecall_repo::id::{ChunkId, PackId};
use pgrecall_repo::index::Location;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::object::Proof;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{FormatError, RepoError};
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
    /// Whether the index says so, and not the pack alone.
    indexed: bool,
    /// Whether it was read, or is about to be.
    taken: bool,
    /// Why it does not count, once it was found bad.
    bad: Option<Cause>,
}

pub(super) fn short(chunk: &ChunkId) -> Short {
    let (short, _) = chunk.as_bytes().split_at(16);
    short.try_into().unwrap_or([0; 16])
}

/// Packs that are there, and their sizes.
pub(super) type Packs = HashMap<PackId, (Kind, u64)>;

/// Every chunk that a domain's index names, in packs that are there.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    pub(super) packs: Vec<Arc<IndexPack>>,
    pub(super) numbers: HashMap<PackId, u32>,
    /// Places of metadata chunks, which are read while backups are walked.
    meta: HashMap<Short, Vec<Location>>,
    /// Packs that were there before the index was read.
    pub(super) listed: Packs,
    /// Index objects that were read, and those that do not read.
    pub(super) objects: Vec<Key>,
    pub(super) unreadable: Vec<Key>,
    noted: HashSet<DamagedChunk>,
    /// Notes of chunks that do not read.
    pub(super) unread_notes: Vec<UnreadNote>,
    /// Whether every copy is to be read, and not only those that are referred to.
    pub(super) every_copy: bool,
    /// Packs that the index names and that are not there as it says, with the number of their
    /// chunks, and which of those each chunk is in. A collection leaves many.
    pub(super) gone_packs: BTreeMap<PackId, (IndexPack, u64)>,
    pub(super) gone: HashMap<Short, PackId>,
    /// Those of which something is referred to that is nowhere else.
    pub(super) missed: BTreeSet<PackId>,
    /// Packs whose directories were asked, since the index says nothing of them, or not enough.
    pub(super) asked: Vec<(Kind, PackId)>,
    /// Whether all were, and not only those of which it says nothing.
    pub(super) asked_all: bool,
    /// Whether a chunk is referred to of which neither the index nor a pack that was asked says
    /// anything.
    pub(super) misses: bool,
    /// Whether a directory that was asked is of another version.
    pub(super) directory_of_other_version: bool,
    /// Packs whose directories did not read when they were asked, and may do so later.
    pub(super) directories_in_doubt: BTreeMap<Key, Unreadable>,
    /// Packs whose directories are damaged.
    pub(super) directories_damaged: u64,
    /// Whether an index object is of another version: what no other names may be named there.
    pub(super) index_of_other_version: bool,
    /// Whether an index object does not read that may do so later.
    pub(super) index_in_doubt: bool,
}

impl Row {
    /// Whether it counts, and nobody has read it.
    const fn is_unread(&self, every_copy: bool) -> bool {
        (self.referred || every_copy) && self.bad.is_none() && !self.taken
    }
}

/// Copies that were read.
#[derive(Debug)]
pub(super) struct Taken {
    packs: Vec<PackId>,
    copies: Vec<(Short, u32)>,
}

/// Who says that a copy is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// An index object.
    Index,
    /// The pack itself.
    Pack,
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
    /// Rows of no chunks yet; these copies do not count.
    pub(super) fn without(noted: HashSet<DamagedChunk>) -> Self {
        Self { noted, ..Self::default() }
    }

    /// Takes one copy in.
    pub(super) fn add(
        &mut self,
        pack: &Arc<IndexPack>,
        (chunk, plain_len): (ChunkId, u32),
        from: From,
        location: impl FnOnce() -> Location,
    ) {
        let number = *self.numbers.entry(pack.id).or_insert_with(|| {
            self.packs.push(pack.clone());
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        });
        let noted = self.noted.contains(&DamagedChunk { pack: pack.id, chunk });
        let bad = noted.then_some(Cause::Damage);
        let id = short(&chunk);
        let indexed = from == From::Index;
        let row = Row { id, pack: number, plain_len, referred: false, indexed, taken: false, bad };
        self.rows.push(row);
        if pack.kind == Kind::MetaPack && !noted {
            let copies = self.meta.entry(id).or_default();
            if copies.iter().all(|known| known.pack.id != pack.id) {
                copies.push(location());
            }
        }
    }

    /// Each copy once, in order.
    pub(super) fn sort(&mut self) {
        // What is known of a copy by the index stays.
        self.rows.sort_unstable_by_key(|row| (row.id, row.pack, !row.indexed, row.plain_len));
        self.rows.dedup_by_key(|row| (row.id, row.pack));
        self.rows.shrink_to_fit();
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
            match self.gone.get(&short(chunk)) {
                Some(pack) => drop(self.missed.insert(*pack)),
                None => self.misses = true,
            }
            // Lost with its pack, unless it is in one that only another version can read.
            return match self.index_of_other_version && self.directory_of_other_version {
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

    /// Takes a copy that is to be read, if it is: it is referred to, not known to be bad, and
    /// nobody has taken it.
    pub(super) fn take(&mut self, chunk: &ChunkId, pack: PackId) -> bool {
        let Some(&number) = self.numbers.get(&pack) else { return false };
        let (range, every) = (self.range(short(chunk)), self.every_copy);
        let copies = self.rows.get_mut(range).unwrap_or_default();
        let wanted = |row: &&mut Row| row.pack == number && row.is_unread(every);
        let taken = copies.iter_mut().find(wanted);
        taken.map(|row| row.taken = true).is_some()
    }

    /// A copy that was taken and could not be read: its pack was not there.
    pub(super) fn give_back(&mut self, chunk: &ChunkId, pack: PackId) {
        let Some(&number) = self.numbers.get(&pack) else { return };
        let range = self.range(short(chunk));
        let copies = self.rows.get_mut(range).unwrap_or_default();
        copies.iter_mut().filter(|row| row.pack == number).for_each(|row| row.taken = false);
    }

    /// What was read, to be remembered while the index is read again.
    pub(super) fn into_taken(self) -> Taken {
        let Self { rows, packs, .. } = self;
        let taken = rows.into_iter().filter(|row| row.taken);
        let packs = packs.iter().map(|pack| pack.id).collect();
        Taken { packs, copies: taken.map(|row| (row.id, row.pack)).collect() }
    }

    /// What was read of these need not be read again.
    pub(super) fn take_over(&mut self, before: &Taken) {
        for (id, pack) in &before.copies {
            let pack = before.packs.get(*pack as usize);
            let number = pack.and_then(|pack| self.numbers.get(pack)).copied();
            let range = self.range(*id);
            let copies = self.rows.get_mut(range).unwrap_or_default();
            copies
                .iter_mut()
                .filter(|row| Some(row.pack) == number)
                .for_each(|row| row.taken = true);
        }
    }

    /// Whether a copy that counts has not been read.
    pub(super) fn any_unread(&self) -> bool {
        self.rows.iter().any(|row| row.is_unread(self.every_copy))
    }

    /// The packs that were asked what is in them, and of which something is to be read.
    pub(super) fn asked_and_unread(&self) -> Vec<(Kind, PackId)> {
        let unread = self.rows.iter().filter(|row| row.is_unread(self.every_copy));
        let unread: HashSet<u32> = unread.map(|row| row.pack).collect();
        let is_unread =
            |id: &PackId| self.numbers.get(id).is_some_and(|number| unread.contains(number));
        self.asked.iter().filter(|(_, id)| is_unread(id)).copied().collect()
    }

    /// Tells of chunks that backups refer to and that are found by what packs say of themselves
    /// alone.
    pub(super) fn report_unindexed(&self, domain: &Name, report: &mut VerifyReport) {
        let mut packs = BTreeSet::new();
        let mut chunks: u64 = 0;
        for copies in self.rows.chunk_by(|one, other| one.id == other.id) {
            let used = copies.iter().filter(|row| row.referred && row.bad.is_none());
            if copies.iter().all(|row| !row.indexed) {
                chunks += u64::from(used.clone().next().is_some());
                packs.extend(used.map(|row| row.pack));
            }
        }
        let first = packs.first().and_then(|number| self.packs.get(*number as usize));
        let Some(first) = first else { return };
        let name = names::pack(domain, first.kind, first.id);
        let others = match packs.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        report.add(
            Severity::Warning,
            names::indexes(domain).to_string(),
            format!(
                "no index object that reads names {chunks} chunks that backups need: they were \
                 found in pack {name}{others} themselves"
            ),
            "a restore finds them so, too, pack by pack, and a backup stores them again: \
             `pgrecall repair` makes the index anew",
        );
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
            match self.meta.get(&short(chunk)).and_then(|copies| copies.first()) {
                Some(location) => located.push((*chunk, location.clone())),
                None => {
                    let (chunk_text, domain) = (chunk.to_string(), domain.to_string());
                    let error = RepoError::ChunkMissing { chunk: chunk_text, domain, pack: None };
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
                Err(error) if error.is_damage() => {
                    for (chunk, _) in &range.chunks {
                        read.insert(*chunk, Err(again(&range, &error)));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.read_other_copies(sealed, domain, &mut read).await?;
        Ok(read)
    }

    /// What could not be read together, alone, and from other copies.
    async fn read_other_copies(
        &self,
        sealed: &SealedStore,
        domain: &Name,
        read: &mut HashMap<ChunkId, Result<Vec<u8>, RepoError>>,
    ) -> Result<(), EngineError> {
        for (chunk, plain) in read.iter_mut().filter(|(_, plain)| plain.is_err()) {
            let copies = self.meta.get(&short(chunk)).map(Vec::as_slice).unwrap_or_default();
            for location in copies {
                match chunks::read(sealed, domain, chunk, location).await {
                    Ok(found) => *plain = Ok(found),
                    Err(error) if error.is_damage() => continue,
                    Err(error) => return Err(error.into()),
                }
                break;
            }
        }
        Ok(())
    }
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

/// Whether bytes cannot be read (a bad sector, too), rather than a store that fails.
pub(super) fn is_unreadable(error: &RepoError) -> bool {
    error.is_damage() && !error.is_not_found()
}
