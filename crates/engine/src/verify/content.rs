//! Reading every chunk that a backup refers to: each stored copy is fetched, opened and compared
//! with its id.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use pgrecall_repo::RepoError;
use pgrecall_repo::chunks::{self, ReadRange};
use pgrecall_repo::format::document::DamagedChunk;
use pgrecall_repo::id::{ChunkId, PackId};
use pgrecall_repo::index::{self, Location};
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::Key;

use super::finding::{Severity, VerifyReport};
use super::rows::{READS_AT_ONCE, Rows, location};
use crate::cancel::Cancel;
use crate::catalog::chain;
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;
use crate::unreadable::{Cause, Unreadable};

/// Chunks of one pack that are named in a finding; the others are counted.
const EXAMPLES_MAX: usize = 3;

/// What came of one read.
#[derive(Default)]
struct Opened {
    read_bytes: u64,
    bad: Vec<Copy>,
    /// Those of them that may be whole.
    unsure: Vec<(PackId, ChunkId)>,
    /// Copies whose pack is not there.
    gone: Vec<(ChunkId, PackId)>,
}

impl Opened {
    fn add(&mut self, more: Self) {
        self.read_bytes += more.read_bytes;
        self.bad.extend(more.bad);
        self.unsure.extend(more.unsure);
        self.gone.extend(more.gone);
    }
}

/// A copy, and what is wrong with it.
pub(super) type Copy = (ChunkId, PackId, Unreadable);

/// Copies that do not read, by their packs.
#[derive(Debug, Default)]
pub(super) struct Bad {
    copies: BTreeMap<PackId, BTreeMap<ChunkId, Unreadable>>,
    /// Those that a disk could not read: it may be able to again, or all of it may be gone. And
    /// those whose keys are not here. They are told, and nothing is noted that would hold for ever.
    unsure: BTreeSet<(PackId, ChunkId)>,
}

impl Bad {
    pub(super) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    fn extend(&mut self, copies: Vec<Copy>) {
        for (chunk, pack, why) in copies {
            self.copies.entry(pack).or_default().insert(chunk, why);
        }
    }

    /// Copies in packs that are listed as they should be and cannot be had.
    pub(super) fn add_gone(&mut self, copies: Vec<(ChunkId, PackId)>) {
        let why = || Unreadable::damaged("the pack is listed, and is not there to be read");
        self.extend(copies.into_iter().map(|(chunk, pack)| (chunk, pack, why())).collect());
    }

    /// They do not count.
    pub(super) fn mark(&self, rows: &mut Rows) {
        for (pack, chunks) in &self.copies {
            chunks.iter().for_each(|(chunk, why)| rows.mark_bad(chunk, *pack, why.cause));
        }
    }

    /// Whether some may be whole.
    pub(super) fn any_unsure(&self) -> bool {
        !self.unsure.is_empty()
    }

    /// Whether another version of the program reads some.
    pub(super) fn any_of_other_version(&self) -> bool {
        let mut copies = self.copies.values().flat_map(BTreeMap::values);
        copies.any(Unreadable::is_of_other_version)
    }

    /// Tells of them, and gives those that are damaged: what another version reads needs not be
    /// stored again.
    pub(super) fn tell(&self, report: &mut VerifyReport) -> Vec<DamagedChunk> {
        let mut damaged = Vec::new();
        report.unsure |= !self.unsure.is_empty();
        for (pack, chunks) in &self.copies {
            report.unsure |= chunks.values().any(|why| why.cause == Cause::OtherVersion);
            tell(*pack, chunks, report);
            let bad = chunks.iter().filter(|(chunk, why)| {
                why.cause == Cause::Damage && !self.unsure.contains(&(*pack, **chunk))
            });
            damaged.extend(bad.map(|(chunk, _)| DamagedChunk { pack: *pack, chunk: *chunk }));
        }
        damaged
    }
}

fn tell(pack: PackId, chunks: &BTreeMap<ChunkId, Unreadable>, report: &mut VerifyReport) {
    let examples: Vec<String> = chunks
        .iter()
        .take(EXAMPLES_MAX)
        .map(|(chunk, why)| format!("chunk {chunk}: {}", why.reason))
        .collect();
    let damaged = chunks.values().any(|why| why.cause == Cause::Damage);
    let cause = if damaged { Cause::Damage } else { Cause::OtherVersion };
    report.add_unreadable(
        Severity::Warning,
        format!("pack {pack}"),
        (
            &format!("{} chunks do not read: ", chunks.len()),
            &Unreadable { cause, reason: examples.join("; ") },
        ),
        "what is damaged for certain is noted, and the next backup stores it again where the source still has them; \
         backups that cannot be restored without them are listed apart",
    );
}

/// Times that the index objects are listed, since those that vanish were merged into others.
const LISTINGS_MAX: u32 = 5;

/// Reads what backups refer to.
pub(super) struct Reading<'a> {
    pub(super) sealed: &'a SealedStore,
    pub(super) domain: &'a Name,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a Cancel,
}

/// What has come of it.
struct Came<'a> {
    bad: &'a mut Bad,
    gone: Vec<(ChunkId, PackId)>,
    report: &'a mut VerifyReport,
}

impl Reading<'_> {
    /// All copies that backups refer to and that have not been read yet. Those stay unread that
    /// cannot be had any more, of which it gives those whose packs are gone: a collection may have
    /// moved them.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn all(
        &self,
        rows: &mut Rows,
        bad: &mut Bad,
        report: &mut VerifyReport,
    ) -> Result<Vec<(ChunkId, PackId)>, EngineError> {
        let mut came = Came { bad, gone: Vec::new(), report };
        self.indexed(rows, &mut came).await?;
        for (kind, id) in rows.asked_and_unread() {
            self.cancel.check()?;
            match index::read_directory(self.sealed, self.domain, kind, id).await {
                Ok(directory) => self.copies(rows, directory.locations(), &mut came).await?,
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(came.gone)
    }

    /// Those that the index names. It is read once more: where each chunk is takes more room than
    /// there may be.
    async fn indexed(&self, rows: &mut Rows, came: &mut Came<'_>) -> Result<(), EngineError> {
        let (mut left, mut done) = (rows.objects.clone(), HashSet::new());
        let mut listings = 0;
        while let Some(name) = left.pop() {
            match index::read_object(self.sealed, &name).await {
                Ok(object) => {
                    let entries = object.entries.iter();
                    let copies = entries.filter_map(|entry| {
                        Some((entry.chunk, location(object.pack(entry)?, entry)))
                    });
                    self.copies(rows, copies.collect(), came).await?;
                    done.insert(name);
                }
                Err(error) if error.is_not_found() && listings < LISTINGS_MAX => {
                    listings += 1;
                    let listed = self.sealed.list(&names::indexes(self.domain)).await?;
                    let known = |name: &Key| done.contains(name) || rows.unreadable.contains(name);
                    left = listed.into_iter().map(|object| object.key).collect();
                    left.retain(|name| !known(name));
                }
                // What it names stays unread.
                Err(error) if error.is_damage() => {
                    done.insert(name);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn copies(
        &self,
        rows: &mut Rows,
        mut copies: Vec<(ChunkId, Location)>,
        came: &mut Came<'_>,
    ) -> Result<(), EngineError> {
        copies.retain(|(chunk, location)| rows.take(chunk, location.pack.id));
        let mut opened = stream::iter(chunks::plan_reads(self.domain, copies))
            .map(|range| read_range(self.sealed, self.domain, range))
            .buffer_unordered(READS_AT_ONCE);
        while let Some(opened) = opened.next().await {
            let opened = opened?;
            self.cancel.check()?;
            self.progress.advance(opened.read_bytes);
            came.report.checked.read_bytes += opened.read_bytes;
            came.bad.extend(opened.bad);
            came.bad.unsure.extend(opened.unsure);
            opened.gone.iter().for_each(|(chunk, pack)| rows.give_back(chunk, *pack));
            came.gone.extend(opened.gone);
        }
        Ok(())
    }
}

/// Reads a range. Where that fails as a whole each of its chunks is read alone: a bad sector is
/// smaller than a range.
async fn read_range(
    sealed: &SealedStore,
    domain: &Name,
    range: ReadRange,
) -> Result<Opened, EngineError> {
    let error = match chunks::fetch(sealed, &range).await {
        Ok(bytes) => return open_elsewhere(sealed, range, bytes).await,
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error.into()),
    };
    let mut opened = Opened::default();
    if error.is_not_found() || range.chunks.len() == 1 {
        opened.lose(&range, &error);
        return Ok(opened);
    }
    for copy in range.chunks {
        for alone in chunks::plan_reads(domain, vec![copy]) {
            match chunks::fetch(sealed, &alone).await {
                Ok(bytes) => opened.add(open_elsewhere(sealed, alone, bytes).await?),
                Err(error) if error.is_damage() => opened.lose(&alone, &error),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(opened)
}

impl Opened {
    /// All of a range.
    fn lose(&mut self, range: &ReadRange, error: &RepoError) {
        let why = Unreadable::of(error.kind(), error);
        for (chunk, location) in &range.chunks {
            let pack = location.pack.id;
            if error.is_not_found() {
                self.gone.push((*chunk, pack));
                continue;
            }
            if is_unsure(error) {
                self.unsure.push((pack, *chunk));
            }
            self.bad.push((*chunk, pack, why.clone()));
        }
    }
}

async fn open_elsewhere(
    sealed: &SealedStore,
    range: ReadRange,
    bytes: Bytes,
) -> Result<Opened, EngineError> {
    let sealed = sealed.clone();
    let opened = tokio::task::spawn_blocking(move || open(&sealed, &range, &bytes)).await;
    opened.map_err(|error| {
        let message = format!("a thread that opened chunks died: {error}");
        EngineError::refused(ErrorKind::Internal, message)
    })
}

fn open(sealed: &SealedStore, range: &ReadRange, bytes: &[u8]) -> Opened {
    let mut opened = Opened::default();
    let mut buffers = chunks::Buffers::default();
    let opener = chunks::Opener::new(sealed, range, bytes);
    for (chunk, location) in &range.chunks {
        match opener.prove((chunk, location), &mut buffers) {
            Ok(()) => opened.read_bytes += u64::from(location.plain_len),
            Err(error) => {
                let why = Unreadable { cause: Cause::of(error.kind()), reason: cause(&error) };
                let pack = Arc::as_ref(&location.pack).id;
                if is_unsure(&error) {
                    opened.unsure.push((pack, *chunk));
                }
                opened.bad.push((*chunk, pack, why));
            }
        }
    }
    opened
}

/// Whether what could not be read may be whole: with another disk below it, or other keys.
fn is_unsure(error: &RepoError) -> bool {
    match error {
        RepoError::Store(error) => error.is_media_error(),
        error => matches!(error, RepoError::KeysMissing { .. }),
    }
}

/// What is wrong, without the object's name, which the finding has already.
fn cause(error: &RepoError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), chain)
}
