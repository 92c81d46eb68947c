//! `pgrecall restore`: the plan first, then the files, then what to do next.

use std::path::{Path, PathBuf};

use pgrecall_engine::catalog::Known;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::details::BackupDetails;
use pgrecall_engine::restore::chosen::{Chosen, choose};
use pgrecall_engine::restore::execute::{
    Around, Prepared, RestoreOptions, Restored, prepare, restore,
};
use pgrecall_engine::restore::layout::{Locations, Places};
use pgrecall_engine::restore::lost::{LIST, OnLoss};
use pgrecall_engine::restore::old_wal::not_archived;
use pgrecall_engine::restore::plan::RestorePlan;
use pgrecall_engine::restore::recovery_settings::{self, ServerSettings, shell_word};
use pgrecall_engine::restore::repo_wal::RepoWal;
use pgrecall_engine::restore::target::{self, BackupChoice, Request, Target};
use pgrecall_engine::restore::target_dir::{Existing, Found, interrupted};
use pgrecall_engine::restore::wal_view::{StoredWal, WalView as _};
use pgrecall_engine::verify;
use pgrecall_pgformat::SegmentName;
use pgrecall_repo::format::document::Manifest;
use serde_json::json;

use super::plan;
use super::verify::{FILES_SHOWN, HOW_TO_NAME, files};
use crate::args::recovery::{self, Action, PlaceArgs, RestoreArgs, Role};
use crate::config::settings::Settings;
use crate::context::telling::Telling;
use crate::context::{cluster, repository, runtime, seen};
use crate::failure::{Failure, Kind, Outcome};
use crate::hint::NO_RESTORE_KEY;
use crate::output::{human, prompt, stdout};
use crate::setup::advice;
use crate::setup::recovery_config::RecoveryConfig;

/// Gives the exit code: that of something missing when zeros stand for what is lost.
pub(crate) fn run(settings: &Settings, args: &RestoreArgs) -> Outcome<u8> {
    let role = role(args)?;
    // A standby follows its primary, and another tool brings its own target: both only need a
    // backup that is consistent.
    let default = match role {
        Some(Role::Primary | Role::Copy) => Target::Latest,
        Some(Role::Standby) | None => Target::Immediate,
    };
    let request = plan::request(&args.route, default)?;
    refuse(settings, args, role, &request)?;
    let (dir, places) = (absolute(&args.dir)?, places(&args.places)?);
    runtime::run_long(|cancel| async move {
        let repository = repository::open(settings).await?;
        let cluster = cluster::stored(settings, &repository).await?;
        seen::warn_of_missing(settings, &repository, &cluster).await?;
        let Chosen { plan, manifest, wal } = make(&cluster, &request, &dir).await?;
        require_restore_keys(&cluster, &plan, &manifest, &wal).await?;
        let config = match role {
            Some(_) => {
                let domain = cluster.domain().as_str();
                Some(RecoveryConfig::plan(settings, &repository, domain, &dir)?)
            }
            None => None,
        };
        let server = role.zip(config.as_ref());
        let server = server
            .map(|(role, config)| server_settings(settings, args, role, &request.target, config))
            .transpose()?;
        let options = RestoreOptions {
            places,
            existing: if args.delta { Existing::Delta } else { Existing::Refuse },
            on_loss: if args.salvage { OnLoss::Zeros } else { OnLoss::Refuse },
            server,
            threads: settings.restore.threads,
            memory_budget_bytes: settings.restore.memory_budget_bytes,
            dir,
        };
        let prepared = prepare(&cluster, &manifest, &options).await?;
        let size = wal.stored().segment_size;
        if !args.output.json {
            stdout::print(&announce(&plan, &prepared, &options, config.as_ref(), wal.stored()))?;
        }
        if prepared.found != Found::Empty {
            confirm(&options.dir, args)?;
        }
        if let Some(config) = &config {
            config.write(prepared.owner)?;
        }
        let telling = Telling::new();
        let around = Around { clock: Clock::system(), progress: telling.progress(), cancel };
        let done = restore(&cluster, &wal, &plan, &manifest, prepared, &options, around).await;
        let done = done.map_err(|error| or_salvage(error.into(), args))?;
        drop(telling);
        if args.output.json {
            stdout::print_json(&as_json(&plan, size, &options, config.as_ref(), &done))?;
        } else {
            stdout::print(&next_steps(&done, &options, role))?;
        }
        Ok(if done.lost.is_empty() { 0 } else { Kind::Incomplete.row().code })
    })
}

/// What to do where the backup is not whole.
fn or_salvage(failure: Failure, args: &RestoreArgs) -> Failure {
    if args.salvage || !matches!(failure.kind, Kind::Corrupt | Kind::Incomplete) {
        return failure;
    }
    let hint = match args.delta {
        true => "restore --salvage, into an empty directory, brings what is left of this backup.",
        false => "restore --salvage brings what is left of this backup, and tells what is lost.",
    };
    failure
        .hint(
            "An older backup that is whole may get to the same moment, by more WAL: `pgrecall \
             verify` says which are, and --backup ID takes it.",
        )
        .hint(hint)
}

/// Refuses what contradicts the role.
fn refuse(
    settings: &Settings,
    args: &RestoreArgs,
    role: Option<Role>,
    request: &Request,
) -> Outcome<()> {
    if role == Some(Role::Standby) && !matches!(request.target, Target::Immediate | Target::Latest)
    {
        let message = "a standby follows its primary and stops at no target";
        return Err(Failure::new(Kind::Usage, message)
            .hint("Leave the target out, or restore with --as copy."));
    }
    if role == Some(Role::Standby) && args.action.is_some() {
        let message = "a standby follows its primary: there is no target for --action to act at";
        return Err(Failure::new(Kind::Usage, message)
            .hint("Leave --action out, or restore with --as copy."));
    }
    if settings.repository.s3.as_of.is_some() && matches!(role, Some(Role::Primary | Role::Standby))
    {
        let message = "what is restored from a bucket's past cannot go on in that bucket";
        return Err(Failure::new(Kind::Usage, message).hint(
            "Restore with --as copy, and let it archive into a new repository: docs/s3-policy.md.",
        ));
    }
    Ok(())
}

/// Refuses before a byte is written what could not be read: files of the backup, or the first and
/// last WAL of each stretch.
async fn require_restore_keys(
    cluster: &ClusterStore,
    plan: &RestorePlan,
    manifest: &Manifest,
    wal: &RepoWal<'_>,
) -> Outcome<()> {
    let keys = cluster.sealed.keys();
    if keys.restore_keys_missing().is_empty() {
        return Ok(());
    }
    let known = Known { manifest: manifest.clone(), details: BackupDetails::of(manifest)? };
    let mut wanted = verify::restore_keys_wanted(cluster, &known).await?;
    // Each writer goes over to new keys in its own time, and once.
    for range in &plan.segments {
        for number in [range.first, range.last] {
            let name = SegmentName { timeline: range.timeline, number };
            wanted.extend(wal.locked(name).await?);
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let message = format!(
        "what this restore needs is sealed for the restore key {}, which is not here",
        wanted.into_iter().collect::<Vec<_>>().join(" and ")
    );
    Err(Failure::new(Kind::Denied, message).hint(NO_RESTORE_KEY))
}

/// The plan; after an interruption that with the backup whose files are there in part.
async fn make<'a>(cluster: &'a ClusterStore, request: &Request, dir: &Path) -> Outcome<Chosen<'a>> {
    if request.backup == BackupChoice::Best
        && let Some(marker) = interrupted(dir, cluster.facts.system_identifier)
    {
        let mut same = request.clone();
        same.backup = BackupChoice::Prefix(marker.backup.to_string());
        // It may be gone by now, or the target another one.
        if let Ok(made) = choose(cluster, &same).await {
            return Ok(made);
        }
    }
    choose(cluster, request).await.map_err(plan::failure)
}

fn as_json(
    plan: &RestorePlan,
    size: pgrecall_pgformat::SegmentSize,
    options: &RestoreOptions,
    config: Option<&RecoveryConfig>,
    done: &Restored,
) -> serde_json::Value {
    json!({
        "plan": plan::as_json(plan, size),
        "dir": options.dir,
        "config": config.map(RecoveryConfig::path),
        "files": done.copied.files,
        "bytes": done.copied.bytes,
        "written_bytes": done.copied.written_bytes,
        "removed": done.removed,
        "lost": done.lost,
        "notes": done.notes,
        "old_pg_wal": done.old_wal.as_ref().map(|old| &old.at),
        "not_archived": done.old_wal.as_ref().map(|old| &old.not_archived),
    })
}

/// What the result is to be; asked on a terminal, required elsewhere.
fn role(args: &RestoreArgs) -> Outcome<Option<Role>> {
    if args.files_only {
        return Ok(None);
    }
    if let Some(role) = args.role {
        return Ok(Some(role));
    }
    let missing = || {
        Failure::new(Kind::Usage, "nobody has said what the restored server is to be")
            .hint("--as copy: a second server to look at, which never archives.")
            .hint("--as primary: it takes the old server's place and goes on archiving.")
            .hint("--as standby: it follows a primary.")
    };
    if !prompt::is_possible() {
        return Err(missing());
    }
    let mut answer = String::new();
    eprint_question("What is it to be: copy, primary or standby? ")?;
    std::io::stdin().read_line(&mut answer).map_err(|error| {
        Failure::from_error(Kind::Unavailable, &error).during("asking what it is to be")
    })?;
    match answer.trim() {
        "copy" => Ok(Some(Role::Copy)),
        "primary" => Ok(Some(Role::Primary)),
        "standby" => Ok(Some(Role::Standby)),
        _ => Err(missing()),
    }
}

fn eprint_question(text: &str) -> Outcome<()> {
    use std::io::Write as _;
    let mut stderr = std::io::stderr();
    stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush())
        .map_err(|error| Failure::from_error(Kind::Unavailable, &error).during("asking a question"))
}

fn confirm(dir: &Path, args: &RestoreArgs) -> Outcome<()> {
    // Without a terminal --delta itself is the word.
    if !prompt::is_possible() {
        return Ok(());
    }
    let question = format!("Write over what is in {}?", dir.display());
    prompt::confirm(&question, args.yes)
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        Failure::from_error(Kind::Usage, &error).during(path.display().to_string())
    })
}

pub(super) fn places(args: &PlaceArgs) -> Outcome<Places> {
    Ok(Places {
        tablespaces: args.tablespace_map.clone(),
        waldir: args.waldir.as_deref().map(absolute).transpose()?,
        locations: match args.locations {
            Some(recovery::Locations::Original) => Locations::Original,
            None => Locations::AsTold,
        },
    })
}

fn server_settings(
    settings: &Settings,
    args: &RestoreArgs,
    role: Role,
    wanted: &Target,
    config: &RecoveryConfig,
) -> Outcome<ServerSettings> {
    let action = match (args.action, wanted) {
        (Some(Action::Pause), _) => target::Action::Pause,
        (Some(Action::Promote), _) | (None, Target::Latest) => target::Action::Promote,
        (Some(Action::Shutdown), _) => target::Action::Shutdown,
        (None, _) => target::Action::Pause,
    };
    let role = match role {
        Role::Primary => recovery_settings::Role::Primary,
        Role::Copy => recovery_settings::Role::Copy,
        Role::Standby => recovery_settings::Role::Standby,
    };
    let program = std::env::current_exe().map_err(|error| {
        Failure::from_error(Kind::Internal, &error).during("finding this program's path")
    })?;
    let cluster = &settings.cluster()?.name;
    let restore_command = advice::restore_command(&program, config.path(), cluster);
    Ok(ServerSettings { role, action, restore_command })
}

fn announce(
    plan: &RestorePlan,
    prepared: &Prepared,
    options: &RestoreOptions,
    config: Option<&RecoveryConfig>,
    stored: &StoredWal,
) -> String {
    let mut text = plan::as_text(plan, stored.segment_size);
    text.push_str(&format!("\ninto {}\n", options.dir.display()));
    match config {
        Some(RecoveryConfig::New { path, .. }) => text.push_str(&format!(
            "restore_command reads {}, which is written now: no file says all that is in force\n",
            path.display()
        )),
        Some(RecoveryConfig::InForce(path)) => {
            text.push_str(&format!("restore_command reads {}\n", path.display()));
        }
        None => {}
    }
    for root in &prepared.layout.roots {
        let link = String::from_utf8_lossy(&root.link).into_owned();
        text.push_str(&format!("{link} in {}\n", root.to.display()));
    }
    for note in &prepared.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    if prepared.found != Found::Empty {
        let waiting = not_archived(&options.dir.join("pg_wal"), stored);
        if !waiting.is_empty() {
            text.push_str(&unarchived(&options.dir.join("pg_wal"), &waiting));
        }
    }
    text.push('\n');
    text
}

fn unarchived(at: &Path, waiting: &[String]) -> String {
    let mut text = format!(
        "WARNING: {} WAL files in {} were never archived and may hold the last commits. They are \
         kept. To store them, so that a restore can use them:\n",
        waiting.len(),
        at.display()
    );
    for name in waiting.iter().take(20) {
        let path = at.join(name);
        text.push_str(&format!("  pgrecall wal push {}\n", shell_word(&path.to_string_lossy())));
    }
    if waiting.len() > 20 {
        text.push_str(&format!("  and {} more\n", waiting.len() - 20));
    }
    text
}

/// What zeros stand for.
fn lost(done: &Restored, options: &RestoreOptions) -> String {
    if done.lost.is_empty() {
        return String::new();
    }
    let bytes = done.lost.iter().map(|file| file.lost_bytes).sum();
    let mut text = format!(
        "\nLOST: {} of {} files are not in the repository any more. Zeros stand in their place:\n",
        human::size(bytes),
        done.lost.len()
    );
    text.push_str(&files(&done.lost));
    let more = done.lost.len().saturating_sub(FILES_SHOWN);
    if more > 0 {
        text.push_str(&format!("  and {more} files more\n"));
    }
    if done.lost.iter().any(|file| file.relation.is_some()) {
        text.push_str(HOW_TO_NAME);
        text.push_str(
            "Tables have lost the rows of those blocks, unless WAL brings them back; rebuild every \
             index of theirs.\n",
        );
    }
    text.push_str(&format!("All of it is in {}.\n\n", options.dir.join(LIST).display()));
    text
}

fn next_steps(done: &Restored, options: &RestoreOptions, role: Option<Role>) -> String {
    let dir = options.dir.display();
    let mut text = format!(
        "Restored {} files, {} ({} written).\n",
        done.copied.files,
        human::size(done.copied.bytes),
        human::size(done.copied.written_bytes)
    );
    text.push_str(&lost(done, options));
    for note in &done.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    if let Some(old) = &done.old_wal {
        text.push_str(&format!("The WAL that was there is now in {}.\n", old.at.display()));
        if !old.not_archived.is_empty() {
            text.push_str(&unarchived(&old.at, &old.not_archived));
        }
    }
    text.push_str("\nNext:\n");
    match role {
        None => text.push_str(
            "  No recovery settings were written: recovery.signal (or standby.signal) and \
             restore_command are the other tool's.\n",
        ),
        Some(Role::Standby) => text.push_str(&format!(
            "  set primary_conninfo in {dir}/postgresql.auto.conf\n  pg_ctl -D {dir} start\n"
        )),
        Some(Role::Primary | Role::Copy) => {
            let port = if role == Some(Role::Copy) { " -o '-p 5433'" } else { "" };
            text.push_str(&format!("  pg_ctl -D {dir}{port} start\n"));
            text.push_str("  psql -c 'select pg_is_in_recovery(), pg_last_wal_replay_lsn()'\n");
            if options.server.as_ref().is_some_and(|s| s.action == target::Action::Pause) {
                text.push_str(
                    "  look around; then psql -c 'select pg_wal_replay_resume()' makes it \
                     writable, on a new timeline\n",
                );
            }
        }
    }
    text
}
