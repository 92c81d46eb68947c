//! `pgrecall check`: proves the whole path of a segment from the server into the repository and
//! back, tries what the store promises, and says what to mend.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::verify::archiving::{self, Arrived, NotArrived};
use pgrecall_pgserver::{ArchiveMode, RecoveryState, Server, ServerInfo, WalLevel};
use pgrecall_repo::random::SharedRandom;

use super::check_report::{Report, render};
use super::check_repository::check_repository;
use crate::args::CheckArgs;
use crate::config::settings::Settings;
use crate::context::{cluster, runtime, server};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::human;
use crate::output::stdout::{self, Colour};
use crate::setup::{account, advice, recovery_config};

/// How long a segment may take from the switch into the repository.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// How long fetching it back may take.
const FETCH_MAX: Duration = Duration::from_secs(60);

/// Gives the exit code: that of the first failure, which later ones often follow from.
pub(crate) fn run(settings: &Settings, args: &CheckArgs) -> Outcome<u8> {
    let report = runtime::run(async {
        let mut report = Report { passed: true, restore_command: None, lines: Vec::new() };
        check(settings, &mut report).await?;
        Ok::<_, Failure>(report)
    })?;
    if args.output.json {
        stdout::print_json(&report)?;
    } else {
        stdout::print(&render(&report, Colour::of_stdout()))?;
    }
    let first = report.lines.iter().find_map(|line| line.failed_as);
    Ok(first.map_or(0, |kind| kind.row().code))
}

async fn check(settings: &Settings, report: &mut Report) -> Outcome<()> {
    let pgdata = cluster::pgdata(settings)?;
    check_file(settings, report);
    let cluster = check_repository(settings, report).await;
    let server = check_server(settings, &pgdata, report).await;
    let (Some(cluster), Some((server, info))) = (cluster, server) else { return Ok(()) };
    if info.state == RecoveryState::Standby {
        report.warn(
            "archiving",
            "NOT TRIED: the server is a standby and closes no segment of its own, so nothing was \
             archived and nothing was fetched",
            "Run pgrecall check on the primary: only there the path of a segment can be proven.",
        );
        return Ok(());
    }
    let archived = match archiving::prove(&server, &cluster, &Clock::system(), ARRIVAL_MAX).await {
        Ok(Ok(arrived)) => arrived,
        Ok(Err(missing)) => {
            not_arrived(&missing, &info, settings, report);
            return Ok(());
        }
        Err(error) => {
            report.failure("archiving", &error.into());
            return Ok(());
        }
    };
    if let Err(reason) = same_as_in_pg_wal(&pgdata, &cluster, &archived) {
        report.fail(
            "archiving",
            Kind::Conflict,
            reason,
            "Another server archives into this cluster's place: find out which one is the true \
             primary, stop the other, and see pgrecall wal resolve.",
        );
        return Ok(());
    }
    let took = human::duration(archived.took);
    let object = &archived.object;
    report.pass("archiving", format!("{} arrived {took} after the switch", archived.file));
    tracing::debug!(%object, "the segment is there");
    if let Some(missing) = cluster.sealed.keys().new_data_locked() {
        report.warn(
            "fetch",
            format!(
                "NOT TRIED: data is sealed for the restore key {}, which is not here; the digest of \
                 what is stored is that of the segment",
                missing.fingerprint()
            ),
            "Run pgrecall verify --read-data, and restore now and then, where the restore key is.",
        );
        return Ok(());
    }
    check_fetch(settings, &pgdata, &cluster, &archived, report).await
}

/// What comes from flags or variables counts for this call only: PostgreSQL's calls do not have it.
fn check_file(settings: &Settings, report: &mut Report) {
    let file = settings.resolved.file.display().to_string();
    let unseen: Vec<String> =
        recovery_config::unseen(settings).iter().map(|item| item.setting.path()).collect();
    if unseen.is_empty() {
        report.pass("settings", file);
        return;
    }
    let found = format!(
        "{file}, and from flags or the environment: {}. PostgreSQL does not see these when it \
         calls pgrecall",
        unseen.join(", ")
    );
    report.warn("settings", found, "Put them into the file.");
}

/// Whether the object that arrived is this server's segment. When that is gone from `pg_wal`
/// already nothing can be said.
fn same_as_in_pg_wal(
    pgdata: &Path,
    cluster: &ClusterStore,
    archived: &Arrived,
) -> Result<(), String> {
    let Ok(bytes) = std::fs::read(pgdata.join("pg_wal").join(&archived.file)) else {
        return Ok(());
    };
    let keys = cluster.sealed.keys();
    let same = archived.stored.is_of(keys, &archived.object, &bytes);
    if same.map_err(|error| error.to_string())? {
        return Ok(());
    }
    let trailer = &archived.stored.trailer;
    Err(format!(
        "what is stored as {} is not this server's segment: {} pushed it at {}",
        archived.file, trailer.host, trailer.pushed
    ))
}

async fn check_server(
    settings: &Settings,
    pgdata: &Path,
    report: &mut Report,
) -> Option<(Server, ServerInfo)> {
    let connected = async {
        let server = Server::connect(&server::options(settings)?).await?;
        let info = server.info().await?;
        Ok::<_, Failure>((server, info))
    };
    let (server, info) = match connected.await {
        Ok(connected) => connected,
        Err(failure) => {
            report.failure("server", &failure);
            return None;
        }
    };
    let here = match cluster::control_file(pgdata) {
        Ok(control) => control.system_identifier,
        Err(failure) => {
            report.failure("server", &failure);
            return None;
        }
    };
    if here != info.system_identifier {
        report.fail(
            "server",
            Kind::Invalid,
            format!(
                "the server at {} is of the system {}, the data directory {} of {here}",
                server.address(),
                info.system_identifier,
                pgdata.display()
            ),
            "Correct host and port, or pgdata, in [[cluster]]: they speak of two clusters.",
        );
        return None;
    }
    let major = info.version.major().number();
    report.pass("server", format!("PostgreSQL {major} at {}", server.address()));
    let sound = check_settings(settings, &info, report);
    sound.then_some((server, info))
}

/// Whether a segment can arrive at all with these settings.
fn check_settings(settings: &Settings, info: &ServerInfo, report: &mut Report) -> bool {
    let found = &info.settings;
    let mut sound = true;
    if found.wal_level == WalLevel::Minimal {
        report.fail(
            "wal_level",
            Kind::Invalid,
            "wal_level is minimal: WAL has not what recovery needs",
            "Set wal_level = replica in postgresql.conf and restart PostgreSQL.",
        );
        sound = false;
    }
    if !found.full_page_writes {
        report.fail(
            "full_page_writes",
            Kind::Invalid,
            "full_page_writes is off: a backup of a running server could hold torn pages",
            "Set full_page_writes = on in postgresql.conf and reload.",
        );
    }
    sound &= check_archive_command(settings, info, report);
    if found.archive_timeout.is_none() {
        report.warn(
            "archive_timeout",
            "archive_timeout is 0: on an idle server the last commits may stay on this host for \
             hours",
            "Set archive_timeout = 60 in postgresql.conf, or as much as you can afford to lose, \
             and reload.",
        );
    }
    sound
}

/// Whether the server gives its segments to `wal push`.
fn check_archive_command(settings: &Settings, info: &ServerInfo, report: &mut Report) -> bool {
    let found = &info.settings;
    let command = own_command(settings);
    match (found.archive_mode, &found.archive_command, &found.archive_library) {
        (ArchiveMode::Off, _, _) => {
            report.fail(
                "archive_command",
                Kind::Invalid,
                "archive_mode is off: no WAL is archived",
                &format!(
                    "Set archive_mode = on and {command} in postgresql.conf, and restart \
                     PostgreSQL."
                ),
            );
            false
        }
        (_, _, Some(library)) => {
            report.fail(
                "archive_command",
                Kind::Invalid,
                format!("archive_library is {library}: archive_command is not used"),
                &format!("Set archive_library = '' and {command} in postgresql.conf, and reload."),
            );
            false
        }
        (_, Some(set), None) if calls_us(set) => {
            report.pass("archive_command", set.clone());
            true
        }
        // A script of the user's own may call it: whether segments arrive is the proof.
        (_, Some(set), None) => {
            report.warn(
                "archive_command",
                format!("archive_command does not name pgrecall wal push: {set}"),
                &format!("Unless it is a script that calls it, set {command} in postgresql.conf."),
            );
            true
        }
        (_, None, None) => {
            report.fail(
                "archive_command",
                Kind::Invalid,
                "archive_command is empty: segments pile up in pg_wal",
                &format!("Set {command} in postgresql.conf, and reload."),
            );
            false
        }
    }
}

/// Whether an `archive_command` gives the segment's path to `wal push`.
fn calls_us(command: &str) -> bool {
    let pushes = command.contains("wal push") || command.contains("archive-push");
    pushes && command.contains("pgrecall") && command.contains("%p")
}

fn own_command(settings: &Settings) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("pgrecall"));
    advice::archive_command(&program, &settings.resolved)
}

fn not_arrived(missing: &NotArrived, info: &ServerInfo, settings: &Settings, report: &mut Report) {
    let waited = human::duration(missing.waited);
    let mut found = format!("{} did not arrive in {waited}", missing.file);
    let mend = match &missing.archiver.last_failed {
        Some(last) if missing.failures > 0 => {
            found.push_str(&format!(
                "; archive_command failed {} times since, the last time with {}",
                missing.failures, last.name
            ));
            "PostgreSQL's log has what pgrecall wal push said; run archive_command by hand as the \
             user that PostgreSQL runs as, with the path of a segment in pg_wal for %p."
                .to_owned()
        }
        _ => match &missing.archiver.last_archived {
            Some(last) => {
                found.push_str(&format!("; the last file that was archived is {}", last.name));
                format!(
                    "Either the archiver is behind (see pg_stat_archiver and \
                     pg_wal/archive_status), or archive_command puts WAL elsewhere. It should \
                     be: {}",
                    own_command(settings)
                )
            }
            None => {
                found.push_str("; the archiver has archived nothing yet");
                let shown = info.settings.archive_command.clone().unwrap_or_default();
                format!("See whether the archiver process runs, and what {shown:?} does.")
            }
        },
    };
    report.fail("archiving", Kind::Incomplete, found, &mend);
}

/// Fetches the segment as recovery would, and compares it byte by byte.
async fn check_fetch(
    settings: &Settings,
    pgdata: &Path,
    cluster: &ClusterStore,
    archived: &Arrived,
    report: &mut Report,
) -> Outcome<()> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::from_error(Kind::Internal, &error).during("finding pgrecall"))?;
    let name = &settings.cluster()?.name;
    let command = advice::restore_command(&program, &settings.resolved.file, name);
    report.restore_command = Some(format!("restore_command = '{}'", command.replace('\'', "''")));
    let folder = scratch()?;
    let target = folder.0.join(&archived.file);
    let line = fill(&command, &archived.file, &target);
    let ended = fetch(&line, pgdata).await;
    let result = match ended {
        Ok(()) => compare(pgdata, cluster, archived, &target).await,
        Err(reason) => Err((Kind::Unavailable, reason)),
    };
    match result {
        Ok(how) => report.pass("restore_command", how),
        Err((kind, reason)) => report.fail(
            "restore_command",
            kind,
            reason,
            &format!("Run it by hand in the data directory and see what it says: {line}"),
        ),
    }
    Ok(())
}

/// `restore_command` with its placeholders filled, as `BuildRestoreCommand` of PostgreSQL does.
fn fill(command: &str, file: &str, target: &Path) -> String {
    let (mut line, mut rest) = (String::new(), command);
    while let Some((before, after)) = rest.split_once('%') {
        line.push_str(before);
        rest = match after.chars().next() {
            Some('f') => {
                line.push_str(file);
                &after[1..]
            }
            Some('p') => {
                line.push_str(&target.display().to_string());
                &after[1..]
            }
            Some('%') => {
                line.push('%');
                &after[1..]
            }
            _ => {
                line.push('%');
                after
            }
        };
    }
    line + rest
}

/// Runs it as PostgreSQL will: in the data directory, with its user's environment and not with
/// the caller's.
async fn fetch(line: &str, pgdata: &Path) -> Result<(), String> {
    let output = tokio::process::Command::new("/bin/sh")
        .args(["-c", line])
        .current_dir(pgdata)
        .env_clear()
        .envs(account::bare_environment())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(FETCH_MAX, output)
        .await
        .map_err(|_| format!("it did not end in {}", human::duration(FETCH_MAX)))?
        .map_err(|error| format!("it could not be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().last().unwrap_or_default();
    Err(format!("it ended with {}: {said}", output.status))
}

/// Compares the fetched file with the one in `pg_wal`, or, where that is gone already, with the
/// keyed digest that the push has left.
async fn compare(
    pgdata: &Path,
    cluster: &ClusterStore,
    archived: &Arrived,
    target: &Path,
) -> Result<String, (Kind, String)> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|error| (Kind::Unavailable, format!("reading {}: {error}", path.display())))
    };
    let fetched = read(target)?;
    let same = archived.stored.is_of(cluster.sealed.keys(), &archived.object, &fetched);
    let as_pushed = same.map_err(|error| (Kind::Corrupt, error.to_string()))?;
    let original = std::fs::read(pgdata.join("pg_wal").join(&archived.file)).ok();
    judge(&archived.file, &fetched, as_pushed, original.as_deref())
}

/// What the comparison of a fetched file gives; `original` is the one in `pg_wal`, if it is still
/// there.
fn judge(
    file: &str,
    fetched: &[u8],
    as_pushed: bool,
    original: Option<&[u8]>,
) -> Result<String, (Kind, String)> {
    if !as_pushed {
        let reason = format!("{file} came back with other contents than were pushed");
        return Err((Kind::Corrupt, reason));
    }
    match original {
        Some(bytes) if bytes == fetched => {
            Ok(format!("{file} came back, {} bytes alike", fetched.len()))
        }
        Some(_) => Err((Kind::Corrupt, format!("{file} came back different from pg_wal's"))),
        None => Ok(format!("{file} came back as it was pushed")),
    }
}

/// A folder that goes away with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scratch() -> Outcome<Scratch> {
    let random = SharedRandom::system().bytes::<8>();
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = std::env::temp_dir().join(format!("pgrecall-check-{name}"));
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(&path)
        .map_err(|error| {
            Failure::from_error(Kind::Unavailable, &error)
                .during(format!("making the folder {}", path.display()))
        })?;
    Ok(Scratch(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_as_postgresql_does() {
        let line = fill("/x \"100%%\" wal fetch %f %p %q", "F", Path::new("/t/F"));
        assert_eq!(line, "/x \"100%\" wal fetch F /t/F %q");
    }

    #[test]
    fn what_comes_back_must_be_what_was_pushed_and_what_the_server_has() {
        let judged = |as_pushed, original| judge("F", b"abc", as_pushed, original);
        assert_eq!(judged(true, Some(b"abc")), Ok("F came back, 3 bytes alike".to_owned()));
        assert_eq!(judged(true, None), Ok("F came back as it was pushed".to_owned()));
        for (as_pushed, original, words) in [
            (false, Some(&b"abc"[..]), "other contents than were pushed"),
            (true, Some(b"abd"), "different from pg_wal's"),
        ] {
            let (kind, reason) = judged(as_pushed, original).unwrap_err();
            assert!(kind == Kind::Corrupt && reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn a_command_that_does_not_push_by_pgrecall_is_told() {
        assert!(calls_us("/usr/bin/pgrecall --config /x wal push %p"));
        assert!(calls_us("pgrecall archive-push \"%p\""));
        assert!(!calls_us("cp %p /archive/%f"));
        assert!(!calls_us("pgrecall wal push"));
    }
}
