//! `pgrecall list`: the backups, how far each reaches, gaps in the WAL, and sizes.

use std::time::Duration;

use pgrecall_engine::catalog::{self, BackupRow, ClusterCatalog, TimelineRow};
use pgrecall_engine::clock::Clock;
use pgrecall_engine::details::{Method, TakenFrom};
use pgrecall_engine::seen::{BRING_BACK, GO_ON};
use pgrecall_repo::format::document::LivingKey;
use pgrecall_repo::format::root::RootSuite;
use serde::Serialize;

use crate::args::ListArgs;
use crate::config::settings::Settings;
use crate::context::lineages::{self, Closed};
use crate::context::{host, repository, runtime, seen};
use crate::failure::Outcome;
use crate::output::human;
use crate::output::stdout::{self, Colour, Paint};
use crate::output::table::{Align, Cell, Table};

/// Gives the exit code: that of what does not open, and nobody has closed on purpose.
pub(crate) fn run(settings: &Settings, args: &ListArgs) -> Outcome<u8> {
    let report = runtime::run(read(settings))?;
    if args.output.json {
        stdout::print_json(&report)?;
    } else {
        stdout::print(&render(&report, Colour::of_stdout()))?;
    }
    Ok(lineages::code(&report.closed).unwrap_or(0))
}

/// Everything that `list` tells. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Report {
    url: String,
    repository_id: String,
    encrypted: bool,
    keys: Vec<LivingKey>,
    clusters: Vec<ClusterCatalog>,
    closed: Vec<Closed>,
}

async fn read(settings: &Settings) -> Outcome<Report> {
    let repository = repository::open(settings).await?;
    let encrypted = repository.root().suite != RootSuite::None;
    let keys = if encrypted { repository.key_log().await?.1.living } else { Vec::new() };
    let mut clusters = Vec::new();
    let meant = lineages::meant(settings, &repository).await?;
    for store in &meant.open {
        let mut catalog = catalog::read(store, &Clock::system(), &host::name()).await?;
        catalog.missing = seen::missing(settings, &repository, store).await?;
        clusters.push(catalog);
    }
    Ok(Report {
        url: settings.repository_url()?.to_owned(),
        repository_id: repository.root().id.to_string(),
        encrypted,
        keys,
        clusters,
        closed: meant.closed,
    })
}

fn render(report: &Report, colour: Colour) -> String {
    let mut text = format!("repository {} ({})", report.url, report.repository_id);
    text.push_str(&match (report.encrypted, report.keys.len()) {
        (false, _) => format!(", {}\n", colour.paint(Paint::Warning, "not encrypted")),
        (true, 1) => ", encrypted, 1 key\n".to_owned(),
        (true, count) => format!(", encrypted, {count} keys\n"),
    });
    if report.clusters.is_empty() && report.closed.is_empty() {
        text.push_str("\nno cluster yet\n");
    }
    for cluster in &report.clusters {
        text.push_str(&render_cluster(cluster, colour));
    }
    for closed in &report.closed {
        let paint = if closed.shredded { Paint::Faint } else { Paint::Bad };
        text.push_str(&format!("\n{}\n", colour.paint(paint, &closed.told())));
    }
    text
}

fn render_cluster(cluster: &ClusterCatalog, colour: Colour) -> String {
    let title = format!("cluster {}", cluster.cluster);
    let mut text = format!(
        "\n{} (PostgreSQL {}, system identifier {}, domain {})\n\n",
        colour.paint(Paint::Heading, &title),
        cluster.major,
        cluster.system_identifier,
        cluster.domain
    );
    if let Some(fingerprint) = &cluster.restore_key {
        text.push_str(&format!("new data is sealed for the restore key {fingerprint}\n\n"));
    }
    if cluster.backups.is_empty() && !cluster.unreadable.is_empty() {
        text.push_str("no backup that reads\n");
    } else if cluster.backups.is_empty() {
        text.push_str("no backup yet: pgrecall backup takes one\n");
    } else {
        text.push_str(&backups(&cluster.backups).render(colour));
    }
    text.push_str(&notes(cluster, colour));
    if cluster.timelines.is_empty() {
        text.push_str("\nno WAL yet: pgrecall check says whether archiving works\n");
    } else {
        text.push('\n');
        text.push_str(&timelines(&cluster.timelines).render(colour));
    }
    text
}

fn backups(rows: &[BackupRow]) -> Table {
    let mut table = Table::new(&[
        ("BACKUP", Align::Left),
        ("TAKEN", Align::Left),
        ("AGE", Align::Right),
        ("REACHES", Align::Left),
        ("TIMELINE", Align::Right),
        ("SIZE", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
        ("HOW", Align::Left),
        ("STATE", Align::Left),
    ]);
    for row in rows {
        let mut reaches = row.reach.iter();
        let first = reaches.next();
        table.row([
            Cell::from(short(&row.id.to_string())),
            Cell::from(human::moment_text(&row.ended)),
            Cell::from(age(row.age_s)),
            Cell::from(
                first
                    .map(|reach| until(&reach.until_time, reach.until_lsn.to_string()))
                    .unwrap_or_default(),
            ),
            Cell::from(first.map(|reach| reach.timeline.to_string()).unwrap_or_default()),
            Cell::from(human::size(row.bytes)),
            Cell::from(human::size(row.new_bytes)),
            Cell::from(human::size(row.stored_bytes)),
            Cell::from(how(row)),
            state(row),
        ]);
        for reach in reaches {
            table.row([
                Cell::from(""),
                Cell::from(""),
                Cell::from(""),
                Cell::from(until(&reach.until_time, reach.until_lsn.to_string())),
                Cell::from(reach.timeline.to_string()),
            ]);
        }
    }
    table
}

/// Enough of an id for `--backup`.
fn short(id: &str) -> String {
    id.chars().take(10).collect()
}

fn age(age_s: i64) -> String {
    let seconds = u64::try_from(age_s).unwrap_or(0);
    human::duration(Duration::from_secs(seconds))
}

fn until(time: &Option<String>, lsn: String) -> String {
    time.as_deref().map_or(lsn, human::moment_text)
}

fn how(row: &BackupRow) -> String {
    let method = match row.method {
        Method::Full => "full",
        Method::Scan => "incremental",
    };
    match row.from {
        TakenFrom::Primary => method.to_owned(),
        TakenFrom::Standby => format!("{method}, from a standby"),
    }
}

fn state(row: &BackupRow) -> Cell {
    if !row.wal_complete {
        return Cell::painted("WAL is missing or damaged: cannot be restored", Paint::Bad);
    }
    if row.broken.is_some() {
        return Cell::painted("not whole: see verify", Paint::Bad);
    }
    if row.damaged_blocks > 0 {
        let text = format!("{} pages damaged in the source", row.damaged_blocks);
        return Cell::painted(text, Paint::Warning);
    }
    Cell::painted("good", Paint::Good)
}

fn notes(cluster: &ClusterCatalog, colour: Colour) -> String {
    let mut text = String::new();
    for sentence in &cluster.missing {
        let line = format!("THE REPOSITORY HAS LESS THAN IT HAD: {sentence}");
        text.push_str(&format!("{}\n", colour.paint(Paint::Bad, &line)));
    }
    if !cluster.missing.is_empty() {
        text.push_str(&format!("{BRING_BACK}\n{GO_ON}\n"));
    }
    for row in &cluster.missing_backups {
        let line = format!("backup {} is missing: {}", row.id, row.reason);
        let line = colour.paint(Paint::Bad, &line);
        text.push_str(&format!("{line}\n{BRING_BACK} {}\n", row.go_on));
    }
    for row in &cluster.unreadable {
        let line = format!("backup {} does not read: {}", row.id, row.reason);
        text.push_str(&format!("{}\n", colour.paint(Paint::Bad, &line)));
    }
    for problem in &cluster.wal_problems {
        text.push_str(&format!("{}\n", colour.paint(Paint::Bad, problem)));
    }
    for row in &cluster.under_way {
        let age = row.age_s.map(age).unwrap_or_else(|| "?".to_owned());
        let line = format!(
            "backup {} under way on {} (process {}) for {age}",
            short(&row.id.to_string()),
            row.host,
            row.process
        );
        match &row.looks_dead {
            Some(why) => {
                let line = format!("{line}; it looks dead: {why}");
                text.push_str(&format!("{}\n", colour.paint(Paint::Warning, &line)));
            }
            None => text.push_str(&format!("{line}\n")),
        }
    }
    if cluster.damaged_chunks > 0 {
        let line = format!(
            "{} chunks were found damaged; the next backup stores them again. See pgrecall verify.",
            cluster.damaged_chunks
        );
        text.push_str(&format!("{}\n", colour.paint(Paint::Warning, &line)));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

fn timelines(rows: &[TimelineRow]) -> Table {
    let mut table = Table::new(&[
        ("TIMELINE", Align::Right),
        ("WAL FROM", Align::Left),
        ("TO", Align::Left),
        ("SEGMENTS", Align::Right),
        ("STORED", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for row in rows {
        let fork =
            row.forked_from.map(|at| format!("left timeline {} at {}", at.timeline.0, at.lsn));
        for (number, range) in row.ranges.iter().enumerate() {
            let first = number == 0;
            table.row([
                Cell::from(if first { row.timeline.to_string() } else { String::new() }),
                Cell::from(range.first.clone()),
                Cell::from(range.last.clone()),
                Cell::from(if first { row.segments.to_string() } else { String::new() }),
                Cell::from(if first { human::size(row.stored_bytes) } else { String::new() }),
                match (first, &fork) {
                    (true, Some(fork)) => Cell::from(fork.clone()),
                    (true, None) => Cell::from(""),
                    (false, _) => Cell::painted("after a gap", Paint::Bad),
                },
            ]);
        }
    }
    table
}
