//! Reading the directory that each pack has at its end: what an index that got lost would be made
//! from again.

use futures::{StreamExt, stream};
use pgrecall_repo::RepoError;
use pgrecall_repo::index;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::sealed_store::SealedStore;

use super::finding::{Severity, VerifyReport};
use super::rows::{READS_AT_ONCE, Rows, is_unreadable};
use crate::cancel::Cancel;
use crate::catalog::chain;
use crate::error::EngineError;
use crate::unreadable::{Cause, Unreadable};

/// Reads the directories of all packs that backups refer to, and compares them with the index.
pub(super) async fn read_all(
    sealed: &SealedStore,
    domain: &Name,
    rows: &Rows,
    report: &mut VerifyReport,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    let mut read = stream::iter(rows.packs_in_use())
        .map(|(pack, chunks)| async move {
            let found = index::read_directory(sealed, domain, pack.kind, pack.id).await;
            (pack, chunks, found)
        })
        .buffer_unordered(READS_AT_ONCE);
    while let Some((pack, chunks, found)) = read.next().await {
        cancel.check()?;
        let why = match found {
            Ok(found) if found.pack != *pack => {
                Unreadable::damaged("its header is not what the index says")
            }
            Ok(found) if found.entries.len() != chunks => Unreadable::damaged(format!(
                "its directory names {} chunks, the index {chunks}",
                found.entries.len()
            )),
            Ok(_) => continue,
            Err(error) if is_unreadable(&error) => unreadable(&error),
            // It is told of where its chunks are read.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        report.add_unreadable(
            Severity::Warning,
            names::pack(domain, pack.kind, pack.id).as_str(),
            ("", &why),
            "its chunks are found by the index all the same; if the index got lost too, they \
             would be lost with it",
        );
    }
    Ok(())
}

fn unreadable(error: &RepoError) -> Unreadable {
    let why = std::error::Error::source(error).map_or_else(|| error.to_string(), chain);
    let reason = format!("its header or its directory does not read: {why}");
    Unreadable { cause: Cause::of(error.kind()), reason }
}
