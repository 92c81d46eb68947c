//! `pgrecall hold`: backups that people keep from expiring.

use jiff::Timestamp;
use pgrecall_engine::catalog;
use pgrecall_engine::catalog::order;
use pgrecall_engine::catalog::wal::StoredWal;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::retention::hold::{self, is_in_force};
use pgrecall_engine::seen::Memory;
use pgrecall_repo::format::document::Hold;
use pgrecall_repo::id::BackupId;
use serde::Serialize;

use super::plan;
use crate::args::hold::{AddArgs, HoldCommand, ListArgs, RemoveArgs};
use crate::config::settings::Settings;
use crate::context::{cluster, host, repository, runtime, seen};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::stdout::{self, Colour};
use crate::output::table::{Align, Cell, Table};

pub(crate) fn run(settings: &Settings, command: &HoldCommand) -> Outcome<()> {
    runtime::run(async {
        let repository = repository::open(settings).await?;
        let cluster = cluster::stored(settings, &repository).await?;
        let memory = seen::memory(settings, &repository, &cluster);
        match command {
            HoldCommand::Add(args) => {
                seen::warn_of_missing(settings, &repository, &cluster).await?;
                add(&cluster, args, &memory).await
            }
            HoldCommand::List(args) => {
                seen::warn_of_missing(settings, &repository, &cluster).await?;
                list(&cluster, args).await
            }
            HoldCommand::Remove(args) => {
                seen::require_nothing_missing(settings, &repository, &cluster).await?;
                remove(&cluster, args, &memory).await
            }
        }
    })
}

/// A hold as it is told. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Row<'a> {
    backup: String,
    reason: &'a str,
    until: Option<&'a str>,
    by: &'a str,
    in_force: bool,
}

impl<'a> Row<'a> {
    fn of(hold: &'a Hold) -> Self {
        Self {
            backup: hold.backup.to_string(),
            reason: &hold.reason,
            until: hold.until.as_deref(),
            by: &hold.by,
            in_force: is_in_force(hold, Timestamp::now()),
        }
    }
}

async fn add(cluster: &ClusterStore, args: &AddArgs, memory: &Memory) -> Outcome<()> {
    if args.reason.trim().is_empty() {
        return Err(Failure::new(Kind::Usage, "the reason is empty")
            .hint("Say why the backup is held: whoever removes the hold will want to know."));
    }
    let until = args.until.as_deref().map(until).transpose()?;
    let (known, unreadable) = catalog::backups(cluster).await?;
    let stored = StoredWal::read(cluster).await?;
    let newest = order::newest_backup(&known, &stored);
    let backup = match (args.backup.as_str(), newest, unreadable.first()) {
        ("latest", _, Some(row)) => {
            let message = format!(
                "nobody knows which backup is the latest: the manifest of {} does not read",
                row.id
            );
            return Err(Failure::new(row.why().cause.kind().into(), message)
                .hint("Give the id of the backup that is meant; `pgrecall list` shows them."));
        }
        ("latest", Some(latest), None) => latest,
        (beginning, _, _) => {
            // A hold also keeps `repair` from giving up a backup whose manifest does not read.
            let mut ids: Vec<BackupId> = unreadable.iter().map(|row| row.id).collect();
            ids.extend(known.iter().map(|backup| backup.manifest.backup));
            meant(&ids, beginning, "pgrecall list shows the backups.")?
        }
    };
    let reason = args.reason.clone();
    let by = format!("{} at {}", host::name(), host::now());
    let new = Hold { backup, reason, until: until.map(|until| until.to_string()), by };
    hold::add(cluster, &new).await?;
    seen::keep_log(memory, cluster).await;
    if args.output.json {
        return stdout::print_json(&Row::of(&new));
    }
    stdout::print_line(&match &new.until {
        Some(until) => format!("backup {backup} is held until {until}"),
        None => format!("backup {backup} is held until the hold is removed"),
    })
}

/// When a hold ends: in time to come, or it would hold nothing.
fn until(text: &str) -> Outcome<Timestamp> {
    let until = plan::moment_of(text)?;
    if until <= Timestamp::now() {
        return Err(Failure::new(Kind::Usage, format!("the time \"{text}\" has passed")));
    }
    Ok(until)
}

/// The one of these whose id begins like this.
pub(super) fn meant(known: &[BackupId], beginning: &str, hint: &str) -> Outcome<BackupId> {
    let fits = |id: &&BackupId| id.to_string().starts_with(beginning);
    let fitting: Vec<&BackupId> = known.iter().filter(fits).collect();
    match fitting.as_slice() {
        [only] if !beginning.is_empty() => Ok(**only),
        [] => Err(Failure::new(Kind::NotFound, format!("no such backup: {beginning}")).hint(hint)),
        several => {
            let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
            let message = format!("several backups begin with \"{beginning}\"");
            Err(Failure::new(Kind::Invalid, message)
                .hint(format!("Give more of the id: {}.", ids.join(", "))))
        }
    }
}

async fn list(cluster: &ClusterStore, args: &ListArgs) -> Outcome<()> {
    #[derive(Serialize)]
    struct Report<'a> {
        domain: String,
        holds: Vec<Row<'a>>,
    }
    let holds = hold::holds(cluster).await?;
    let report =
        Report { domain: cluster.domain().to_string(), holds: holds.iter().map(Row::of).collect() };
    if args.output.json {
        return stdout::print_json(&report);
    }
    if report.holds.is_empty() {
        return stdout::print_line("no backup is held");
    }
    let mut table = Table::new(&[
        ("BACKUP", Align::Left),
        ("UNTIL", Align::Left),
        ("BY", Align::Left),
        ("WHY", Align::Left),
    ]);
    for row in &report.holds {
        let until = match (row.until, row.in_force) {
            (None, _) => "it is removed".to_owned(),
            (Some(until), true) => until.to_owned(),
            (Some(until), false) => format!("{until} (over)"),
        };
        table.row(
            [row.backup.clone(), until, row.by.to_owned(), row.reason.to_owned()].map(Cell::from),
        );
    }
    stdout::print(&table.render(Colour::of_stdout()))
}

async fn remove(cluster: &ClusterStore, args: &RemoveArgs, memory: &Memory) -> Outcome<()> {
    #[derive(Serialize)]
    struct Removed {
        backup: String,
    }
    let holds = hold::holds(cluster).await?;
    let held: Vec<BackupId> = holds.iter().map(|hold| hold.backup).collect();
    let backup = meant(&held, &args.backup, "pgrecall hold list shows what is held.")?;
    hold::remove(cluster, backup).await?;
    seen::keep_log(memory, cluster).await;
    if args.output.json {
        return stdout::print_json(&Removed { backup: backup.to_string() });
    }
    stdout::print_line(&format!("backup {backup} is held no more; the rules decide on it again"))
}
