//! The history of the timeline that a backup ends on. Recovery asks for it by name, and a server
//! archives it just once, when it is promoted: before that, perhaps, anybody listened.

use std::path::Path;

use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::{ArchiveName, Lsn, TimelineId};
use pgrecall_repo::RepoError;
use pgrecall_store::ErrorKind as StoreErrorKind;

use crate::archive::pack::Compression;
use crate::archive::push::{self, PushRequest};
use crate::backup::run::BackupRequest;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};
use crate::wal_place;

/// The history of a timeline, from the server's `pg_wal`; without ancestors when there is no file.
///
/// # Errors
/// When the file is there and does not parse.
pub fn local(pgdata: &Path, timeline: TimelineId) -> Result<History, EngineError> {
    let path = path_of(pgdata, timeline);
    match std::fs::read(&path) {
        Ok(bytes) => History::parse(timeline, &bytes)
            .map_err(|source| EngineError::Postgres { path: path.display().to_string(), source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(History::without_ancestors(timeline))
        }
        Err(error) => Err(EngineError::file("read", path, error)),
    }
}

/// The newest timeline that this one was left for, and where, by the files in `pg_wal`; only what
/// happened after a position counts: others may have gone ways of their own before.
/// A standby has the file as soon as it follows (`WalRcvFetchTimeLineHistoryFiles`, walreceiver.c).
///
/// # Errors
/// When the folder cannot be read.
pub fn left_for(
    pgdata: &Path,
    timeline: TimelineId,
    after: Lsn,
) -> Result<Option<(TimelineId, Lsn)>, EngineError> {
    let folder = pgdata.join("pg_wal");
    let fail = |error| EngineError::file("list", &folder, error);
    let mut newest = None;
    for entry in std::fs::read_dir(&folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".history"));
        let Some(number) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            continue;
        };
        // One that does not read tells nothing; it may be on its way.
        let Ok(history) = local(pgdata, TimelineId(number)) else { continue };
        let left = history.switch_point(timeline).filter(|lsn| *lsn >= after);
        newest = newest.max(left.map(|lsn| (TimelineId(number), lsn)));
    }
    Ok(newest)
}

fn path_of(pgdata: &Path, timeline: TimelineId) -> std::path::PathBuf {
    pgdata.join("pg_wal").join(format!("{timeline}.history"))
}

/// Makes sure that the repository has the history of this timeline: recovery to it dies without
/// (`rescanLatestTimeLine`, `validateRecoveryParameters` in xlogrecovery.c).
///
/// # Errors
/// `Incomplete` when it is neither there nor in `pg_wal`; `Conflict` when another one is there.
pub async fn require(request: &BackupRequest, timeline: TimelineId) -> Result<(), EngineError> {
    // The first timeline has none.
    if timeline.0 <= 1 {
        return Ok(());
    }
    let path = path_of(&request.pgdata, timeline);
    if path.exists() {
        let push = PushRequest {
            path,
            facts: request.cluster.facts.clone(),
            host: request.host.clone(),
            compression: Compression::DEFAULT,
            clock: request.clock.clone(),
        };
        push::push_open(&request.cluster, &push).await?;
        return Ok(());
    }
    if is_stored(&request.cluster, timeline).await? {
        return Ok(());
    }
    Err(EngineError::refused(
        ErrorKind::Incomplete,
        format!(
            "the backup ends on timeline {}, and its history file {timeline}.history is neither \
             in the repository nor in pg_wal: PostgreSQL could not recover to that timeline",
            timeline.0
        ),
    )
    .hint(format!(
        "Find the file (on a standby, or in an older archive), and store it: pgrecall wal push \
         {timeline}.history"
    )))
}

async fn is_stored(cluster: &ClusterStore, timeline: TimelineId) -> Result<bool, EngineError> {
    let (name, size) = (ArchiveName::History(timeline), cluster.facts.wal_segment_size);
    let object = wal_place::object(&cluster.at, name, size)?;
    match cluster.sealed.store().head(&object).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(false),
        Err(error) => Err(RepoError::from(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_left_a_timeline_after_the_beginning_counts() {
        let pgdata = tempfile::tempdir().unwrap();
        let folder = pgdata.path().join("pg_wal");
        std::fs::create_dir(&folder).unwrap();
        let left = |after| left_for(pgdata.path(), TimelineId(1), Lsn(after)).unwrap();
        assert_eq!(left(0), None);
        let put = |timeline: u32, text: &str| {
            std::fs::write(folder.join(format!("{timeline:08X}.history")), text).unwrap();
        };
        put(2, "1\t0/3000000\tno recovery target\n");
        // A copy that was recovered to an earlier moment later on.
        put(3, "1\t0/1000000\tno recovery target\n");
        std::fs::write(folder.join("00000004.history"), "on its way").unwrap();
        assert_eq!(left(0x200_0000), Some((TimelineId(2), Lsn(0x300_0000))));
        assert_eq!(left(0x300_0000), Some((TimelineId(2), Lsn(0x300_0000))));
        assert_eq!(left(0x300_0001), None);
        assert_eq!(left(0), Some((TimelineId(3), Lsn(0x100_0000))));
    }
}
