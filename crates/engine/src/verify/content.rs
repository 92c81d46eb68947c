//! Reading every chunk that a backup refers to: each stored copy is fetched, opened and compared
//! with its id.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use pgrecall_repo::RepoError;
use pgrecall_repo::chunks::{self, ReadRange};
use pgrecall_repo::format::document::DamagedChunk;
use pgrecall_repo::id::{ChunkId, PackId};
use pgrecall_repo::index::{self, Location};
use pgrecall_repo::names::Name;
use pgrecall_repo::sealed_store::SealedStore;

use super::finding::{Severity, VerifyReport};
use super::rows::{READS_AT_ONCE, Rows, is_unreadable, location};
use crate::cancel::Cancel;
use crate::catalog::chain;
use crate::error::{EngineError, ErrorKind};
use crate::progress::Progress;
use crate::unreadable::{Cause, Unreadable};

/// Chunks of one pack that are named in a finding; the others are counted.
const EXAMPLES_MAX: usize = 3;

/// What came of one read.
struct Opened {
    read_bytes: u64,
    bad: Vec<(ChunkId, PackId, Unreadable)>,
}

/// Reads all copies that backups refer to, and marks the bad ones. Whether there are any, and those
/// that are damaged.
pub(super) async fn read_all(
    sealed: &SealedStore,
    domain: &Name,
    rows: &mut Rows,
    report: &mut VerifyReport,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<(bool, Vec<DamagedChunk>), EngineError> {
    let mut bad: BTreeMap<PackId, Vec<(ChunkId, Unreadable)>> = BTreeMap::new();
    for name in rows.objects().to_vec() {
        let object = index::read_object(sealed, &name).await?;
        let mut wanted = Vec::new();
        for entry in &object.entries {
            let number = usize::try_from(entry.pack).unwrap_or(usize::MAX);
            if let Some(pack) = object.packs.get(number)
                && rows.counts(&entry.chunk, pack.id)
            {
                wanted.push((entry.chunk, location(pack, entry)));
            }
        }
        let mut opened = stream::iter(chunks::plan_reads(domain, wanted))
            .map(|range| read_range(sealed, range))
            .buffer_unordered(READS_AT_ONCE);
        while let Some(opened) = opened.next().await {
            let opened = opened?;
            cancel.check()?;
            progress.advance(opened.read_bytes);
            report.checked.read_bytes += opened.read_bytes;
            for (chunk, pack, why) in opened.bad {
                bad.entry(pack).or_default().push((chunk, why));
            }
        }
    }
    let (any, mut damaged) = (!bad.is_empty(), Vec::new());
    for (pack, chunks) in bad {
        tell(pack, &chunks, report);
        for (chunk, why) in chunks {
            rows.mark_bad(&chunk, pack, why.cause);
            // What another version reads needs not be stored again.
            if why.cause == Cause::Damage {
                damaged.push(DamagedChunk { pack, chunk });
            }
        }
    }
    Ok((any, damaged))
}

fn tell(pack: PackId, chunks: &[(ChunkId, Unreadable)], report: &mut VerifyReport) {
    let examples: Vec<String> = chunks
        .iter()
        .take(EXAMPLES_MAX)
        .map(|(chunk, why)| format!("chunk {chunk}: {}", why.reason))
        .collect();
    let damaged = chunks.iter().any(|(_, why)| why.cause == Cause::Damage);
    let cause = if damaged { Cause::Damage } else { Cause::OtherVersion };
    report.add_unreadable(
        Severity::Warning,
        format!("pack {pack}"),
        (
            &format!("{} chunks do not read: ", chunks.len()),
            &Unreadable { cause, reason: examples.join("; ") },
        ),
        "they are noted, and the next backup stores them again where the source still has them; \
         backups that cannot be restored without them are listed apart",
    );
}

async fn read_range(sealed: &SealedStore, range: ReadRange) -> Result<Opened, EngineError> {
    match chunks::fetch(sealed, &range).await {
        Ok(bytes) => {
            let sealed = sealed.clone();
            let opened = tokio::task::spawn_blocking(move || open(&sealed, &range, &bytes)).await;
            opened.map_err(|error| {
                let message = format!("a thread that opened chunks died: {error}");
                EngineError::refused(ErrorKind::Internal, message)
            })
        }
        // The whole range is lost, and nothing but the range.
        Err(error) if is_unreadable(&error) || error.is_not_found() => {
            let why = Unreadable::of(error.kind(), &error);
            let each =
                |(chunk, location): &(ChunkId, Location)| (*chunk, location.pack.id, why.clone());
            Ok(Opened { read_bytes: 0, bad: range.chunks.iter().map(each).collect() })
        }
        Err(error) => Err(error.into()),
    }
}

fn open(sealed: &SealedStore, range: &ReadRange, bytes: &[u8]) -> Opened {
    let mut opened = Opened { read_bytes: 0, bad: Vec::new() };
    let mut buffers = chunks::Buffers::default();
    let opener = chunks::Opener::new(sealed, range, bytes);
    for (chunk, location) in &range.chunks {
        match opener.prove((chunk, location), &mut buffers) {
            Ok(()) => opened.read_bytes += u64::from(location.plain_len),
            Err(error) => {
                let why = Unreadable { cause: Cause::of(error.kind()), reason: cause(&error) };
                opened.bad.push((*chunk, Arc::as_ref(&location.pack).id, why));
            }
        }
    }
    opened
}

/// What is wrong, without the object's name, which the finding has already.
fn cause(error: &RepoError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), chain)
}
