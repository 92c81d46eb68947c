//! `pgrecall verify`: what is stored is there, and, with --read-data, is what was stored.

use pgrecall_engine::catalog;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::verify::finding::{Finding, Nature, Severity, Verdict, VerifyReport};
use pgrecall_engine::verify::{self, Depth, VerifyOptions, Which};
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
        let chosen = match args.backup.as_deref() {
            None => Chosen::OfEach(Which::All),
            Some("latest") => Chosen::OfEach(Which::Newest),
            Some(beginning) => choose(&stores, beginning).await?,
        };
        for (number, store) in stores.iter().enumerate() {
            let which = match chosen {
                Chosen::OfEach(which) => which,
                Chosen::One { of, backup } if of == number => Which::One(backup),
                Chosen::One { .. } => continue,
            };
            let options = VerifyOptions {
                depth: if args.read_data { Depth::ReadData } else { Depth::Structure },
                which,
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
        let nothing = report.sound && report.backups() == 0;
        match chosen {
            Chosen::OfEach(Which::Newest) if nothing => Err(no_backup("latest")),
            _ => Ok(report),
        }
    })?;
    if args.output.json {
        stdout::print_json(&report)?;
    } else {
        stdout::print(&render(&report, Colour::of_stdout()))?;
    }
    Ok(report.gravest().map_or(0, |gravest| {
        let kind = match gravest {
            Nature::Wrong => Kind::Corrupt,
            Nature::Missing => Kind::Incomplete,
            Nature::OtherVersion => Kind::Unsupported,
        };
        kind.row().code
    }))
}

/// Everything that `verify` tells. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Report {
    sound: bool,
    clusters: Vec<ClusterReport>,
}

impl Report {
    fn backups(&self) -> usize {
        self.clusters.iter().map(|cluster| cluster.report.backups.len()).sum()
    }

    fn gravest(&self) -> Option<Nature> {
        let each = self.clusters.iter().filter_map(|cluster| cluster.report.gravest());
        each.min_by_key(|nature| nature.rank())
    }
}

#[derive(Serialize)]
struct ClusterReport {
    cluster: String,
    system_identifier: String,
    #[serde(flatten)]
    report: VerifyReport,
}

/// What `--backup` means.
#[derive(Clone, Copy)]
enum Chosen {
    /// These of each cluster.
    OfEach(Which),
    /// One backup, of the cluster in this place.
    One { of: usize, backup: BackupId },
}

/// The backup whose id begins like this.
async fn choose(stores: &[ClusterStore], beginning: &str) -> Outcome<Chosen> {
    let mut known: Vec<(usize, BackupId)> = Vec::new();
    for (number, store) in stores.iter().enumerate() {
        let (backups, unreadable) = catalog::backups(store).await?;
        known.extend(backups.into_iter().map(|backup| (number, backup.manifest.backup)));
        known.extend(unreadable.into_iter().map(|row| (number, row.id)));
    }
    known.retain(|(_, id)| id.to_string().starts_with(beginning));
    match known.as_slice() {
        [(of, backup)] => Ok(Chosen::One { of: *of, backup: *backup }),
        [] => Err(no_backup(beginning)),
        several => {
            let ids: Vec<String> = several.iter().map(|(_, id)| id.to_string()).collect();
            let message = format!("several backups begin with {beginning}");
            Err(Failure::new(Kind::Invalid, message)
                .hint(format!("Give more of the id: {}.", ids.join(", "))))
        }
    }
}

fn no_backup(called: &str) -> Failure {
    Failure::new(Kind::NotFound, format!("no backup is called {called}"))
        .hint("pgrecall list shows the backups.")
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
    let (paint, verdict) = match report.gravest() {
        None => (Paint::Good, "sound"),
        Some(Nature::Wrong) => (Paint::Bad, "DAMAGED: see the findings above"),
        Some(Nature::Missing) => (Paint::Bad, "INCOMPLETE: see the findings above"),
        Some(Nature::OtherVersion) => {
            (Paint::Bad, "NOT KNOWN: another version of pgrecall wrote some of it; see above")
        }
    };
    text.push_str(&format!("{}\n", colour.paint(paint, verdict)));
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
        let mut head =
            Some((verdict.backup.to_string(), human::moment_text(&verdict.ended), restorable));
        for reach in &verdict.reach {
            let (id, ended, restorable) =
                head.take().unwrap_or_else(|| (String::new(), String::new(), Cell::from("")));
            table.row([
                Cell::from(id),
                Cell::from(ended),
                restorable,
                Cell::from(reach.until_lsn.to_string()),
                Cell::from(reach.timeline.to_string()),
                Cell::from(reach.until_time.as_deref().map(human::moment_text).unwrap_or_default()),
            ]);
        }
        if let Some((id, ended, restorable)) = head {
            table.row([Cell::from(id), Cell::from(ended), restorable]);
        }
    }
    table
}

fn told(finding: &Finding, colour: Colour) -> String {
    let (paint, mark) = match (finding.severity, finding.nature) {
        (Severity::Damage, Nature::OtherVersion) => (Paint::Bad, "UNKNOWN"),
        (Severity::Damage, _) => (Paint::Bad, "DAMAGE "),
        (Severity::Warning, _) => (Paint::Warning, "warning"),
        (Severity::Note, _) => (Paint::Faint, "note   "),
    };
    format!(
        "\n{} {}\n        {}\n        {}\n",
        colour.paint(paint, mark),
        finding.object,
        finding.what,
        finding.consequence
    )
}
