//! `pgrecall verify`: what is stored is there, and, with --read-data, is what was stored.

use pgrecall_engine::clock::Clock;
use pgrecall_engine::verify::finding::{Finding, Severity, Verdict, VerifyReport};
use pgrecall_engine::verify::{self, Depth, VerifyOptions};
use pgrecall_repo::id::BackupId;
use serde::Serialize;

use crate::args::VerifyArgs;
use crate::commands::list;
use crate::config::settings::Settings;
use crate::context::telling::Telling;
use crate::context::{host, repository, runtime};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::human;
use crate::output::stdout::{self, Colour, Paint};
use crate::output::table::{Align, Cell, Table};

/// Gives the exit code: that of damaged contents when something is damaged.
pub(crate) fn run(settings: &Settings, args: &VerifyArgs) -> Outcome<u8> {
    let report = runtime::run_long(|cancel| async move {
        let repository = repository::open(settings).await?;
        let telling = Telling::new();
        let mut report = Report { sound: true, clusters: Vec::new() };
        let stores = list::meant(settings, &repository).await?;
        let mut chosen = None;
        if let Some(text) = &args.backup {
            chosen = Some(choose(&stores, text).await?);
        }
        for (number, store) in stores.iter().enumerate() {
            let backup = match chosen {
                Some((at, id)) if at == number => Some(id),
                Some(_) => continue,
                None => None,
            };
            let options = VerifyOptions {
                depth: if args.read_data { Depth::ReadData } else { Depth::Structure },
                backup,
                clock: Clock::system(),
                host: host::name(),
                progress: telling.progress(),
                cancel: cancel.clone(),
            };
            let found = verify::verify(store, &options).await?;
            report.sound &= found.sound;
            report.clusters.push(ClusterReport {
                cluster: store.at.cluster.to_string(),
                system_identifier: store.at.lineage.clone(),
                report: found,
            });
        }
        Ok(report)
    })?;
    if args.output.json {
        stdout::print_json(&report)?;
    } else {
        stdout::print(&render(&report, Colour::of_stdout()))?;
    }
    let incomplete = report.clusters.iter().all(|cluster| cluster.report.is_only_incomplete());
    Ok(match (report.sound, incomplete) {
        (true, _) => 0,
        (false, true) => Kind::Incomplete.row().code,
        (false, false) => Kind::Corrupt.row().code,
    })
}

/// Everything that `verify` tells. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Report {
    sound: bool,
    clusters: Vec<ClusterReport>,
}

#[derive(Serialize)]
struct ClusterReport {
    cluster: String,
    system_identifier: String,
    #[serde(flatten)]
    report: VerifyReport,
}

/// The backup that `--backup` means, with the position of its cluster.
async fn choose(
    stores: &[pgrecall_engine::cluster::ClusterStore],
    text: &str,
) -> Outcome<(usize, BackupId)> {
    let mut known: Vec<(usize, BackupId, String)> = Vec::new();
    for (number, store) in stores.iter().enumerate() {
        let (backups, unreadable) = pgrecall_engine::catalog::backups(store).await?;
        known.extend(
            backups.into_iter().map(|b| (number, b.manifest.backup, b.details.ended.to_string())),
        );
        known.extend(unreadable.into_iter().map(|row| (number, row.id, String::new())));
    }
    if text == "latest" {
        known.sort_by(|a, b| a.2.cmp(&b.2));
        known.drain(..known.len().saturating_sub(1));
    } else {
        known.retain(|(_, id, _)| id.to_string().starts_with(text));
    }
    match known.as_slice() {
        [(number, id, _)] => Ok((*number, *id)),
        [] => Err(Failure::new(Kind::NotFound, format!("no backup is called {text}"))
            .hint("pgrecall list shows the backups.")),
        several => {
            let ids: Vec<String> = several.iter().map(|(_, id, _)| id.to_string()).collect();
            Err(Failure::new(Kind::Invalid, format!("several backups begin with {text}"))
                .hint(format!("Give more of the id: {}.", ids.join(", "))))
        }
    }
}

fn render(report: &Report, colour: Colour) -> String {
    let mut text = String::new();
    for cluster in &report.clusters {
        let title = format!("cluster {} ({})", cluster.cluster, cluster.system_identifier);
        text.push_str(&format!("{}\n\n", colour.paint(Paint::Heading, &title)));
        if cluster.report.backups.is_empty() {
            text.push_str("no backup to verify\n");
        } else {
            text.push_str(&verdicts(&cluster.report.backups).render(colour));
        }
        for finding in &cluster.report.findings {
            text.push_str(&told(finding, colour));
        }
        let checked = &cluster.report.checked;
        text.push_str(&format!(
            "\nchecked {} backups, {} files, {} chunks in {} packs, {} WAL segments; read {}\n\n",
            checked.backups,
            checked.entries,
            checked.chunks,
            checked.packs,
            checked.wal_segments,
            human::size(checked.read_bytes)
        ));
    }
    text.push_str(&if report.sound {
        format!("{}\n", colour.paint(Paint::Good, "sound"))
    } else {
        format!("{}\n", colour.paint(Paint::Bad, "DAMAGED: see the findings above"))
    });
    text
}

fn verdicts(verdicts: &[Verdict]) -> Table {
    let mut table = Table::new(&[
        ("BACKUP", Align::Left),
        ("TAKEN", Align::Left),
        ("RESTORABLE", Align::Left),
        ("WAL UNTIL", Align::Left),
        ("TIMELINE", Align::Right),
        ("MOMENT", Align::Left),
    ]);
    for verdict in verdicts {
        let restorable = if verdict.restorable {
            Cell::painted("yes", Paint::Good)
        } else {
            Cell::painted("NO", Paint::Bad)
        };
        let mut head = Some((verdict.backup.to_string(), verdict.ended.clone(), restorable));
        for reach in &verdict.reach {
            let (id, ended, restorable) =
                head.take().unwrap_or_else(|| (String::new(), String::new(), Cell::from("")));
            table.row([
                Cell::from(id),
                Cell::from(ended),
                restorable,
                Cell::from(reach.until_lsn.to_string()),
                Cell::from(reach.timeline.to_string()),
                Cell::from(reach.until_time.clone().unwrap_or_default()),
            ]);
        }
        if let Some((id, ended, restorable)) = head {
            table.row([Cell::from(id), Cell::from(ended), restorable]);
        }
    }
    table
}

fn told(finding: &Finding, colour: Colour) -> String {
    let (paint, mark) = match finding.severity {
        Severity::Damage => (Paint::Bad, "DAMAGE "),
        Severity::Warning => (Paint::Warning, "warning"),
        Severity::Note => (Paint::Faint, "note   "),
    };
    format!(
        "\n{} {}\n        {}\n        {}\n",
        colour.paint(paint, mark),
        finding.object,
        finding.what,
        finding.consequence
    )
}
