//! Proving that archiving works: a segment is closed, and waited for until it is in the repository.

use std::time::Duration;

use pgrecall_pgformat::{ArchiveName, SegmentName};
use pgrecall_pgserver::{ArchiverStatus, Server};
use pgrecall_repo::names;
use pgrecall_store::Key;

use crate::archive::trailer::{self, StoredFile};
use crate::clock::Clock;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::wal_place;

/// The name of the restore point that makes sure that there is something to archive.
const RESTORE_POINT: &str = "pgrecall check";

/// The archiver tries a file so often before it rests for a minute (`NUM_ARCHIVE_RETRIES` of
/// `pgarch.c`): nothing is gained by waiting on.
const FAILURES_MAX: u64 = 3;

/// Between two looks into the repository.
const PAUSE: Duration = Duration::from_millis(250);

/// A segment that arrived.
#[derive(Debug)]
pub struct Arrived {
    /// Its name.
    pub segment: SegmentName,
    /// Its file name.
    pub file: String,
    /// Its object.
    pub object: Key,
    /// What the object says of it.
    pub stored: StoredFile,
    /// From the switch until it was there.
    pub took: Duration,
}

/// What kept it from arriving.
#[derive(Debug)]
pub struct NotArrived {
    /// Its file name.
    pub file: String,
    /// How long it was waited for.
    pub waited: Duration,
    /// What the archiver has done since, from the server's own statistics.
    pub archiver: ArchiverStatus,
    /// Failed attempts since the switch.
    pub failures: u64,
}

/// Closes the segment that the server writes, and waits until it is in the repository.
///
/// # Errors
/// When the server or the store fails. A segment that does not arrive in `patience` is no error.
pub async fn prove(
    server: &Server,
    cluster: &ClusterStore,
    clock: &Clock,
    patience: Duration,
) -> Result<Result<Arrived, NotArrived>, EngineError> {
    let before = server.archiver_status().await.map_err(of_server)?;
    // Without a record in it the segment is not closed. A role that may not make one can still
    // switch, and does nearly always close something.
    let _ = server.create_restore_point(RESTORE_POINT).await;
    let file = server.switch_wal().await.map_err(of_server)?.closed_segment;
    let size = cluster.facts.wal_segment_size;
    let segment = SegmentName::parse(&file, size)
        .map_err(|source| EngineError::Postgres { path: file.clone(), source })?;
    let object = wal_place::object(&cluster.at, ArchiveName::Segment(segment), size)?;
    let began = clock.elapsed();
    loop {
        let took = clock.elapsed().saturating_sub(began);
        match trailer::read(&cluster.sealed, &object).await {
            Ok(stored) => return Ok(Ok(Arrived { segment, file, object, stored, took })),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let archiver = server.archiver_status().await.map_err(of_server)?;
        let failures = archiver.failed_count.saturating_sub(before.failed_count);
        if took >= patience || failures >= FAILURES_MAX {
            return Ok(Err(NotArrived { file, waited: took, archiver, failures }));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How much WAL of this cluster lies in the repository already: nothing means that archiving never
/// worked.
///
/// # Errors
/// When the store cannot list.
pub async fn has_any_wal(cluster: &ClusterStore) -> Result<bool, EngineError> {
    let below = names::cluster_prefix(&cluster.at, "wal")?;
    Ok(!cluster.sealed.list(&below).await?.is_empty())
}

fn of_server(error: pgrecall_pgserver::ServerError) -> EngineError {
    let kind = match error.kind() {
        pgrecall_pgserver::ErrorKind::Denied => ErrorKind::Denied,
        pgrecall_pgserver::ErrorKind::Unavailable => ErrorKind::Unavailable,
        pgrecall_pgserver::ErrorKind::Invalid => ErrorKind::Invalid,
        pgrecall_pgserver::ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Internal,
    };
    let hint = error.hint();
    let refused = EngineError::refused(kind, crate::catalog::chain(&error));
    match hint {
        Some(hint) => refused.hint(hint),
        None => refused,
    }
}
