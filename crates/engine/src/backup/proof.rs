//! That the data directory is the server's: a standby on the same host, or a copy that was started,
//! has the same system identifier.

use std::path::Path;
use std::time::Duration;

use pgrecall_pgformat::Lsn;
use pgrecall_pgformat::control::{ClusterState, ControlFile};
use pgrecall_pgserver::{PostmasterFile, RecoveryState, RunningBackup, ServerInfo, ServerInstance};

use crate::backup::run::BackupRequest;
use crate::error::{EngineError, ErrorKind};

/// Tries of a read of `pg_control` that may meet a write.
const CONTROL_TRIES: u32 = 20;

/// `postmaster.pid` has the time at which the process began, the server tells when it was ready to
/// work: with huge pages to fill, minutes may lie between.
const START_SECS_APART_MAX: i64 = 600;

/// Reads `pg_control`; a torn read shows in its CRC and is tried again.
///
/// # Errors
/// When it cannot be read, or stays torn.
pub async fn read_control(
    read: impl Fn() -> Result<Vec<u8>, EngineError>,
) -> Result<(Vec<u8>, ControlFile), EngineError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let bytes = read()?;
        match ControlFile::decode(&bytes) {
            Ok(control) => return Ok((bytes, control)),
            Err(source) if tries >= CONTROL_TRIES => {
                return Err(EngineError::Postgres { path: "global/pg_control".into(), source });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Before anything is started: the server is of the cluster that is meant.
///
/// # Errors
/// `Invalid` when it is another's.
pub fn check_server(request: &BackupRequest, info: &ServerInfo) -> Result<(), EngineError> {
    let ours = request.cluster.facts.system_identifier;
    if info.system_identifier != ours {
        return Err(EngineError::refused(
            ErrorKind::Invalid,
            format!(
                "the server at {} has system identifier {}, and the data directory {} has {ours}",
                request.server.address(),
                info.system_identifier,
                request.pgdata.display()
            ),
        )
        .hint("Check host and port: another cluster answers there."));
    }
    if !info.settings.full_page_writes && info.state == RecoveryState::Primary {
        // pg_backup_start: "doPageWrites" is true while a backup runs (xlog.c).
        request.progress.note(
            "full_page_writes is off: the server writes whole pages while this backup runs, but \
             a backup from a standby would be refused",
        );
    }
    Ok(())
}

/// After the start: the directory is the one that this very server works in.
///
/// # Errors
/// `Invalid` when another server's, or none's.
pub async fn check_directory(
    pgdata: &Path,
    running: &RunningBackup,
    control: &ControlFile,
) -> Result<(), EngineError> {
    let server = running.server();
    let address = server.address().to_owned();
    let file = read_postmaster_file(pgdata)?;
    let problem = problem_of_state(control, running.state(), running.start_lsn());
    if problem.is_some()
        && running.state() == RecoveryState::Standby
        && server.info().await?.state == RecoveryState::Primary
    {
        let message = "the standby was promoted during the backup, which is void";
        return Err(
            EngineError::refused(ErrorKind::Conflict, message).hint("Start the backup again.")
        );
    }
    let problem = match problem {
        Some(problem) => Some(problem),
        None => problem_of_instance(file.as_ref(), server.instance().await?),
    };
    let Some(problem) = problem else { return Ok(()) };
    Err(EngineError::refused(
        ErrorKind::Invalid,
        format!(
            "{} is not the data directory of the server at {address}: {problem}",
            pgdata.display()
        ),
    )
    .hint(
        "A standby and a copy have the same system identifier: check --pgdata, and the host and \
         port of the server.",
    ))
}

fn read_postmaster_file(pgdata: &Path) -> Result<Option<PostmasterFile>, EngineError> {
    let path = pgdata.join("postmaster.pid");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(PostmasterFile::parse(&text)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::file("read", path, error)),
    }
}

/// What its `pg_control` must say once `pg_backup_start` has answered: its checkpoint (or
/// restartpoint) is the backup's, or a later one (`do_pg_backup_start`, xlog.c).
fn problem_of_state(control: &ControlFile, state: RecoveryState, start_lsn: Lsn) -> Option<String> {
    let expected = match state {
        RecoveryState::Primary => ClusterState::InProduction,
        RecoveryState::Standby => ClusterState::InArchiveRecovery,
    };
    if control.state != expected {
        return Some(format!(
            "its pg_control says {:?}, and the server is {}",
            control.state,
            match state {
                RecoveryState::Primary => "a primary",
                RecoveryState::Standby => "a standby",
            }
        ));
    }
    let redo = control.checkpoint.redo;
    (redo < start_lsn).then(|| {
        format!("its last checkpoint starts at {redo}, before this backup's at {start_lsn}")
    })
}

fn problem_of_instance(file: Option<&PostmasterFile>, server: ServerInstance) -> Option<String> {
    let Some(file) = file else { return Some("no server runs in it (no postmaster.pid)".into()) };
    if file.port != server.port {
        let (here, there) = (file.port, server.port);
        return Some(format!("its postmaster.pid names port {here}, the server's is {there}"));
    }
    let apart = server.started_unix_secs - file.started_unix_secs;
    (apart.abs() > START_SECS_APART_MAX).then(|| {
        format!("its postmaster.pid names a server that was started {apart} s before this one")
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn control() -> ControlFile {
        let bytes = include_bytes!("../../../../tests/fixtures/pg/17/pg_control");
        ControlFile::decode(bytes).unwrap()
    }

    const OLD: &[u8] = include_bytes!("../../../../tests/fixtures/pg/16/pg_control");
    const NEW: &[u8] = include_bytes!("../../../../tests/fixtures/pg/17/pg_control");

    /// What a reader may see of a control file while it is written.
    fn torn() -> Vec<u8> {
        [&NEW[..150], &OLD[150..]].concat()
    }

    #[tokio::test]
    async fn a_torn_control_file_is_read_until_it_is_whole() {
        let reads = [torn(), [&OLD[..150], &NEW[150..]].concat(), NEW[..150].to_vec()];
        let count = Cell::new(0);
        let (bytes, control) = read_control(|| {
            count.set(count.get() + 1);
            Ok(reads.get(count.get() - 1).cloned().unwrap_or(NEW.to_vec()))
        })
        .await
        .unwrap();
        assert_eq!(count.get(), 4);
        assert!(bytes == NEW, "the bytes that were decoded are the ones that are kept");
        assert_eq!(control, ControlFile::decode(NEW).unwrap());
    }

    #[tokio::test]
    async fn a_control_file_that_stays_torn_is_an_error_that_names_it() {
        let count = Cell::new(0);
        let error = read_control(|| {
            count.set(count.get() + 1);
            Ok(torn())
        })
        .await
        .unwrap_err();
        assert_eq!(count.get(), CONTROL_TRIES);
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("global/pg_control"), "{error}");
        // One that cannot be read at all is no torn one.
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        let gone = Cell::new(Some(EngineError::file("read", "global/pg_control", gone)));
        let error = read_control(|| Err(gone.take().expect("one try"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_control_file_must_be_a_running_servers_at_or_after_the_start() {
        let running = ControlFile { state: ClusterState::InProduction, ..control() };
        let redo = running.checkpoint.redo;
        let primary =
            |control: &ControlFile, lsn| problem_of_state(control, RecoveryState::Primary, lsn);
        assert_eq!(primary(&running, redo), None);
        assert_eq!(primary(&running, Lsn(redo.0 - 8)), None);
        assert!(primary(&running, Lsn(redo.0 + 8)).unwrap().contains("last checkpoint"));
        // A standby's directory on the primary's host.
        let standby = ControlFile { state: ClusterState::InArchiveRecovery, ..control() };
        assert!(primary(&standby, redo).unwrap().contains("primary"));
        assert_eq!(problem_of_state(&standby, RecoveryState::Standby, redo), None);
        assert!(problem_of_state(&running, RecoveryState::Standby, redo).is_some());
    }

    #[test]
    fn the_postmaster_file_must_be_of_this_very_server() {
        let file = PostmasterFile::parse("42\n/data\n1000\n5433\n/run\n*\n").unwrap();
        let server = |port, started_unix_secs| ServerInstance { port, started_unix_secs };
        assert_eq!(problem_of_instance(Some(&file), server(5433, 1003)), None);
        assert!(problem_of_instance(Some(&file), server(5432, 1003)).is_some());
        assert!(problem_of_instance(Some(&file), server(5433, 9000)).is_some());
        assert!(problem_of_instance(None, server(5433, 1003)).is_some());
    }
}
