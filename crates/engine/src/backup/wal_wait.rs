//! Waiting until the WAL that a backup needs has come into the repository.

use std::path::Path;
use std::time::Duration;

use pgrecall_pgformat::timeline::History;
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentNumber};
use pgrecall_pgserver::Server;

use crate::backup::histories;
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::cluster::ClusterStore;
use crate::details::Position;
use crate::error::{EngineError, ErrorKind};
use crate::wal_place;

/// Between two looks for a segment: a local archive has it after some 50 ms, others after minutes.
const PAUSE_MIN: Duration = Duration::from_millis(8);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The segments from start to stop, each with the timeline that it is archived under: that of the
/// last byte in it that is needed.
#[must_use]
pub fn needed(
    cluster: &ClusterStore,
    start: Position,
    stop: Position,
    history: &History,
) -> Vec<SegmentName> {
    let size = cluster.facts.wal_segment_size;
    let first = SegmentNumber::containing(start.lsn, size);
    let last = SegmentNumber::ending_at(stop.lsn, size).max(first);
    let mut names = Vec::new();
    let mut number = first;
    while number <= last {
        let end = number.end(size).min(stop.lsn);
        let timeline = history.owner_of(Lsn(end.0.saturating_sub(1)));
        names.push(SegmentName { timeline, number });
        number = number.next();
    }
    names
}

/// Who fills and archives the last segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archiving {
    /// The server that is backed up.
    Itself,
    /// The primary of the standby that is backed up; it was asked to close the segment.
    Primary,
    /// The same, and nobody said where it is.
    UnknownPrimary,
}

/// What waiting takes.
pub struct Waiting<'a> {
    /// The cluster.
    pub cluster: &'a ClusterStore,
    /// The data directory of the server.
    pub pgdata: &'a Path,
    /// Where the backup began.
    pub start: Lsn,
    /// Asked about its archiver when nothing comes.
    pub server: &'a Server,
    /// Who archives.
    pub archiving: Archiving,
    /// How long without a new segment.
    pub patience: Duration,
    /// Tells how long that is.
    pub clock: &'a Clock,
    /// Ends the wait.
    pub cancel: &'a Cancel,
}

impl Waiting<'_> {
    /// Waits for all of these segments.
    ///
    /// # Errors
    /// `Incomplete` when one does not come, with what the archiver says about it.
    pub async fn wait(&self, segments: &[SegmentName]) -> Result<(), EngineError> {
        let size = self.cluster.facts.wal_segment_size;
        for segment in segments {
            let name = ArchiveName::Segment(*segment);
            let object = wal_place::object(&self.cluster.at, name, size)?;
            let began = self.clock.elapsed();
            let mut pause = PAUSE_MIN;
            loop {
                match self.cluster.sealed.store().head(&object).await {
                    Ok(_) => break,
                    Err(error) if error.kind() == pgrecall_store::ErrorKind::NotFound => {}
                    Err(error) => return Err(pgrecall_repo::RepoError::from(error).into()),
                }
                self.cancel.check()?;
                self.refuse_left(*segment)?;
                if self.clock.elapsed().saturating_sub(began) >= self.patience {
                    return Err(self.timed_out(&segment.file_name(size)).await);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 4 / 3).min(PAUSE_MAX);
            }
        }
        Ok(())
    }

    /// When the server that a standby follows is promoted, the segment in which the timeline before
    /// is left stays as it is: the new timeline's has its content.
    fn refuse_left(&self, segment: SegmentName) -> Result<(), EngineError> {
        if self.archiving == Archiving::Itself {
            return Ok(());
        }
        let size = self.cluster.facts.wal_segment_size;
        match histories::left_for(self.pgdata, segment.timeline, self.start)? {
            Some((timeline, lsn)) if lsn < segment.number.end(size) => {
                let message = format!(
                    "what this standby follows was promoted while it was backed up: timeline {} \
                     went on as {} at {lsn}, and nobody completes WAL segment {}, which the backup \
                     ends in; it is not committed",
                    segment.timeline.0,
                    timeline.0,
                    segment.file_name(size)
                );
                let hint = "Start the backup again: what was copied is in the repository, and the \
                            next try is quick.";
                Err(EngineError::refused(ErrorKind::Incomplete, message).hint(hint))
            }
            _ => Ok(()),
        }
    }

    async fn timed_out(&self, segment: &str) -> EngineError {
        let mut message = format!(
            "WAL segment {segment} did not arrive within {} s: without it the backup could not be \
             made consistent, so it is not committed",
            self.patience.as_secs()
        );
        let mut hints = Vec::new();
        if let Ok(status) = self.server.archiver_status().await {
            match (&status.last_failed, &status.last_archived) {
                (Some(failed), archived)
                    if archived.as_ref().is_none_or(|archived| archived.time < failed.time) =>
                {
                    message.push_str(&format!(
                        "; the server's last try to archive, of {}, failed ({} failures so far)",
                        failed.name, status.failed_count
                    ));
                    hints.push(
                        "The server's log has what archive_command printed; `pgrecall check` \
                         tries the whole path."
                            .to_owned(),
                    );
                }
                (_, Some(archived)) if is_at_or_after(&archived.name, segment) => {
                    message.push_str(&format!(
                        "; by its own account the server has archived it (the last one: {})",
                        archived.name
                    ));
                    hints.push(
                        "archive_command succeeds without storing anything in this repository as \
                         this cluster's: set it to `pgrecall wal push %p` (see `pgrecall check`)."
                            .to_owned(),
                    );
                }
                (_, Some(archived)) => {
                    message.push_str(&format!("; the last one archived was {}", archived.name));
                    hints.push(
                        "If WAL is written faster than it is archived, wait longer \
                         (--wal-timeout); what was copied is in the repository, and the next try \
                         is quick."
                            .to_owned(),
                    );
                }
                (_, None) if self.archiving != Archiving::Itself => {
                    message.push_str("; the server is a standby, whose primary archives");
                    hints.push(self.archiving.hint().to_owned());
                }
                (_, None) => {
                    message.push_str("; the server has archived nothing since it started");
                    hints.push(
                        "Set archive_mode = on and archive_command to `pgrecall wal push %p` (see \
                         `pgrecall check`), and restart the server."
                            .to_owned(),
                    );
                }
            }
        }
        EngineError::Refused { kind: ErrorKind::Incomplete, message, hints }
    }
}

impl Archiving {
    /// Where to look when a standby waits in vain.
    const fn hint(self) -> &'static str {
        match self {
            Self::UnknownPrimary => {
                "Say in [cluster.primary] where the primary is, so that it is asked to close the \
                 segment; one that writes much fills it by itself (--wal-timeout)."
            }
            Self::Primary | Self::Itself => {
                "The primary's log has what archive_command printed; `pgrecall check` there tries \
                 the whole path."
            }
        }
    }
}

/// Whether an archived file tells that this segment was archived: it is it, or a later one of its
/// timeline, or the backup history file that begins in one. They are archived in order of their
/// names (`pgarch_readyXlog`, pgarch.c).
fn is_at_or_after(archived: &str, segment: &str) -> bool {
    let whole = archived.len() == segment.len() || archived.ends_with(".backup");
    whole && archived.get(..8) == segment.get(..8) && archived >= segment
}

#[cfg(test)]
mod tests {
    use super::is_at_or_after;

    #[test]
    fn only_segments_of_the_same_timeline_tell_that_it_was_archived() {
        let segment = "00000002000000010000000A";
        for archived in
            [segment, "0000000200000002000000FF", "00000002000000010000000A.00000028.backup"]
        {
            assert!(is_at_or_after(archived, segment), "{archived}");
        }
        for archived in [
            "000000020000000100000009",
            "000000020000000100000009.00000028.backup",
            "00000003000000020000000A",
            "00000003.history",
            "00000002000000010000000A.partial",
        ] {
            assert!(!is_at_or_after(archived, segment), "{archived}");
        }
    }
}
