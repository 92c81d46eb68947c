//! `pgrecall backup`: takes one and tells what it did; damage in the source is told loudly.

use std::fmt::Write as _;

use pgrecall_engine::backup::{self, BackupReport, BackupRequest};
use pgrecall_engine::clock::Clock;
use pgrecall_engine::details::{BackupDetails, DamagedFile, Method, Position, TakenFrom};
use pgrecall_pgserver::Checkpoint;
use pgrecall_repo::codec::Level;
use serde::Serialize;

use super::backup_end;
use crate::args::BackupArgs;
use crate::config::settings::{self, Settings};
use crate::context::telling::Telling;
use crate::context::{cluster, host, repository, runtime, seen, server};
use crate::failure::Outcome;
use crate::output::human;
use crate::output::stdout::{self, Colour, Paint};
use crate::setup::config_file;

pub(crate) fn run(settings: &Settings, args: &BackupArgs) -> Outcome<()> {
    if let Some(id) = &args.end_dead {
        return backup_end::run(settings, args, id);
    }
    let (report, missing) = runtime::run_long(async |cancel| {
        let telling = Telling::new();
        let repository = repository::open(settings).await?;
        let cluster = cluster::registered(settings, &repository).await?;
        let missing = seen::warn_of_missing(settings, &repository, &cluster).await?;
        let memory = seen::memory(settings, &repository, &cluster);
        memory.require_restore_key(&cluster)?;
        let request = BackupRequest {
            cluster,
            pgdata: cluster::pgdata(settings)?,
            server: server::options(settings)?,
            primary: server::primary_options(settings)?,
            checkpoint: match settings.backup.checkpoint {
                settings::Checkpoint::Fast => Checkpoint::Fast,
                settings::Checkpoint::Spread => Checkpoint::Spread,
            },
            threads: settings.backup.threads,
            level: Level(settings.backup.compression_level),
            wal_timeout: settings.backup.wal_timeout,
            host: host::name(),
            process: std::process::id(),
            clock: Clock::system(),
            cancel,
            progress: telling.progress(),
        };
        let report = backup::run(&request).await?;
        if let Err(error) = memory.keep_backup(&report, &request.cluster).await {
            tracing::warn!(%error, "what this host has seen of the repository cannot be kept");
        }
        Ok((report, missing))
    })?;
    if args.output.json {
        return stdout::print_json(&Told::of(&report, &missing));
    }
    let colour = Colour::of_stdout();
    let mut text = summary(settings, &report, colour);
    for sentence in &missing {
        let line = format!("THE REPOSITORY HAD LESS THAN IT HAD HAD: {sentence}");
        let _ = writeln!(text, "{}", colour.paint(Paint::Bad, &line));
    }
    for sentence in &report.unread_notes {
        let line = format!("A NOTE OF DAMAGED CHUNKS DOES NOT READ: {sentence}");
        let _ = writeln!(text, "{}", colour.paint(Paint::Bad, &line));
    }
    if !report.unread_notes.is_empty() {
        let _ = writeln!(text, "What this backup shares with others may be among them. {READ_ALL}");
    }
    stdout::print(&text)
}

/// What tells again which chunks are damaged.
const READ_ALL: &str = "`pgrecall verify --read-data` reads everything again and says so; the next \
                        backup then stores it again.";

/// A backup, as programs see it.
#[derive(Serialize)]
struct Told<'a> {
    backup: String,
    began: &'a str,
    ended: String,
    elapsed_ms: u128,
    from: TakenFrom,
    method: Method,
    reference: Option<String>,
    start: Position,
    stop: Position,
    files: u64,
    bytes: u64,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    damage: &'a [DamagedFile],
    missing: &'a [String],
    unread_notes: &'a [String],
}

impl<'a> Told<'a> {
    fn of(report: &'a BackupReport, missing: &'a [String]) -> Self {
        let details = &report.details;
        Self {
            backup: report.id.to_string(),
            began: &details.began,
            ended: details.ended.to_string(),
            elapsed_ms: report.elapsed.as_millis(),
            from: details.from,
            method: details.method,
            reference: details.reference.map(|id| id.to_string()),
            start: details.start,
            stop: details.stop,
            files: details.stats.files,
            bytes: details.stats.bytes,
            read_bytes: details.stats.read_bytes,
            new_bytes: details.stats.new_bytes,
            stored_bytes: details.stats.stored_bytes,
            damage: &details.damage,
            missing,
            unread_notes: &report.unread_notes,
        }
    }
}

fn summary(settings: &Settings, report: &BackupReport, colour: Colour) -> String {
    let details = &report.details;
    let stats = &details.stats;
    let mut text = format!(
        "{} {} in {}\n",
        colour.paint(Paint::Good, "backup complete:"),
        report.id,
        human::duration(report.elapsed),
    );
    let _ = writeln!(
        text,
        "  cluster   {} in {} files; {} read",
        human::size(stats.bytes),
        stats.files,
        human::size(stats.read_bytes),
    );
    let _ = writeln!(text, "  stored    {}", stored(details));
    let _ = writeln!(
        text,
        "  WAL       needed from {} to {} on timeline {}; all of it is in the repository",
        details.start.lsn, details.stop.lsn, details.stop.timeline.0,
    );
    text.push_str(&damage(&details.damage, colour));
    let flags = config_file::finding_flags(&settings.resolved).join(" ");
    let gap = if flags.is_empty() { "" } else { " " };
    let _ = writeln!(
        text,
        "`pgrecall{gap}{flags} list` shows all backups, `pgrecall{gap}{flags} plan` how far they reach."
    );
    text
}

/// `12.0 MiB new, 4.1 MiB compressed (2.9 to 1)`
fn stored(details: &BackupDetails) -> String {
    let stats = &details.stats;
    let mut text =
        format!("{} new, {} stored", human::size(stats.new_bytes), human::size(stats.stored_bytes));
    if let Some(tenths) = (stats.new_bytes * 10).checked_div(stats.stored_bytes)
        && tenths > 10
    {
        let _ = write!(text, " ({}.{} to 1)", tenths / 10, tenths % 10);
    }
    if let Some(reference) = details.reference {
        let _ = write!(text, "; the rest is shared with {reference} and others");
    }
    text
}

fn damage(damage: &[DamagedFile], colour: Colour) -> String {
    if damage.is_empty() {
        return String::new();
    }
    let blocks: u64 = damage.iter().map(|file| file.count).sum();
    let mut text = colour.paint(
        Paint::Bad,
        &format!(
            "DAMAGED PAGES IN THE DATABASE: {blocks} in {} files. They are stored as they are; an \
             older backup may hold them whole.",
            damage.len()
        ),
    );
    text.push('\n');
    for file in damage.iter().take(20) {
        let shown: Vec<String> = file.blocks.iter().take(8).map(u32::to_string).collect();
        let more = if file.count > shown.len() as u64 { ", …" } else { "" };
        let _ =
            writeln!(text, "  {}: {} blocks ({}{more})", file.path, file.count, shown.join(", "));
    }
    if damage.len() > 20 {
        let _ = writeln!(text, "  and {} files more (see --json)", damage.len() - 20);
    }
    text.push_str(
        "Look at the server's disks and memory first; pg_amcheck and the backups before this one \
         tell what is lost.\n",
    );
    text
}
