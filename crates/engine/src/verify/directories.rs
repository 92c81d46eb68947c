//! Reading the directory that each pack has at its end: what an index that got lost would be made
//! from again.

use futures::{StreamExt, stream};
use pgrecall_repo::RepoError;
use pgrecall_repo::format::index::IndexPack;
use pgrecall_repo::index;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::sealed_store::SealedStore;

use super::finding::{Severity, VerifyReport};
use super::rows::{READS_AT_ONCE, Rows, is_unreadable};
use crate::cancel::Cancel;
use crate::catalog::chain;
use crate::error::EngineError;

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
        let problem = match found {
            Ok(found) if found.pack != *pack => {
                Some("its header is not what the index says".into())
            }
            Ok(found) if found.entries.len() != chunks => Some(format!(
                "its directory names {} chunks, the index {chunks}",
                found.entries.len()
            )),
            Ok(_) => None,
            Err(error) if is_unreadable(&error) => Some(unreadable(&error)),
            // It is told of where its chunks are read.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(problem) = problem {
            tell(domain, pack, problem, report);
        }
    }
    Ok(())
}

fn unreadable(error: &RepoError) -> String {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), chain);
    format!("its header or its directory does not read: {cause}")
}

fn tell(domain: &Name, pack: &IndexPack, problem: String, report: &mut VerifyReport) {
    report.add(
        Severity::Warning,
        names::pack(domain, pack.kind, pack.id).as_str(),
        problem,
        "its chunks are found by the index all the same; if the index got lost too, they would be \
         lost with it",
    );
}
