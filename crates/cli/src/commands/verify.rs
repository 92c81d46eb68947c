//! `pgrecall verify`: what is stored is there, and, with --read-data, is what was stored.

use pgrecall_engine::catalog;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::seen as memory;
use pgrecall_engine::verify::finding::{Finding, Nature, Severity, Verdict, VerifyReport};
use pgrecall_engine::verify::lost_moments::LostMoments;
use pgrecall_engine::verify::touched::TouchedFile;
use pgrecall_engine::verify::{self, Depth, EXPIRED, Notes, VerifyOptions, Which};
use pgrecall_repo::id::BackupId;
use pgrecall_repo::repository::Repository;
use serde::Serialize;

use crate::args::VerifyArgs;
use crate::config::settings::Settings;
use crate::context::lineages::{self, Closed, Lineages};
use crate::context::telling::Telling;
use crate::context::{host, repository, runtime, seen};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::human;
use crate::output::stdout::{self, Colour, Paint};
use crate::output::table::{Align, Cell, Table};

/// Gives the exit code: that of damaged contents when something is damaged.
pub(crate) fn run(settings: &Settings, args: &VerifyArgs) -> Outcome<u8> {
    let report = runtime::run_long(|cancel| async move {
        let repository = repository::open(settings).await?;
        let telling = Telling::new();
        let Lineages { open: stores, closed } = lineages::meant(settings, &repository).await?;
        let mut report = Report::of(closed);
        let chosen = match args.backup.as_deref() {
            None => Chosen::OfEach(Which::All),
            Some("latest") => Chosen::OfEach(Which::Newest),
            Some(beginning) => choose(&stores, beginning)
                .await
                .map_err(|failure| report.closed.iter().fold(failure, also_closed))?,
        };
        let expected = expected(&stores, args.expect_at_least.as_deref()).await?;
        if let (Some(what), true) = (&expected, stores.is_empty()) {
            // There is no cluster to tell it of.
            return Err(Failure::new(Kind::Corrupt, what.clone()));
        }
        if matches!(chosen, Chosen::One { .. }) {
            report = Report::of(Vec::new());
        }
        for (number, store) in stores.iter().enumerate() {
            let which = match chosen {
                Chosen::OfEach(which) => which,
                Chosen::One { of, backup } if of == number => Which::One(backup),
                Chosen::One { .. } => continue,
            };
            let options = VerifyOptions {
                notes: Notes::Written,
                depth: if args.read_data { Depth::ReadData } else { Depth::Structure },
                which,
                missing: missing(settings, &repository, store, expected.as_deref()).await?,
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
            Chosen::One { .. } if nothing => Err(expired()),
            Chosen::OfEach(Which::Newest) if nothing && report.left_out() => Err(expired()),
            Chosen::OfEach(Which::Newest) if nothing => Err(no_backup("latest")),
            _ => Ok(report),
        }
    })?;
    if args.output.json {
        stdout::print_json(&report)?;
    } else {
        stdout::print(&render(&report, Colour::of_stdout()))?;
    }
    Ok(report.code())
}

/// Everything that `verify` tells. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Report {
    sound: bool,
    clusters: Vec<ClusterReport>,
    closed: Vec<Closed>,
}

impl Report {
    fn of(closed: Vec<Closed>) -> Self {
        Self { sound: lineages::code(&closed).is_none(), clusters: Vec::new(), closed }
    }

    /// The exit code: that of the gravest finding, a cluster that does not open among them.
    fn code(&self) -> u8 {
        let kind = match self.gravest() {
            Some(Nature::Wrong) => Kind::Corrupt,
            other => match (lineages::code(&self.closed), other) {
                (Some(code), _) => return code,
                (None, Some(Nature::Missing)) => Kind::Incomplete,
                (None, Some(_)) => Kind::Unsupported,
                (None, None) => return 0,
            },
        };
        kind.row().code
    }

    /// Whether a backup was left out, since it has expired meanwhile.
    fn left_out(&self) -> bool {
        let mut findings = self.clusters.iter().flat_map(|of| &of.report.findings);
        findings.any(|finding| finding.what == EXPIRED)
    }

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

/// What is said of a backup that should be there, where it is neither there nor expired.
async fn expected(stores: &[ClusterStore], id: Option<&str>) -> Outcome<Option<String>> {
    let Some(text) = id else { return Ok(None) };
    let id: BackupId = text.parse().map_err(|_| {
        Failure::new(Kind::Usage, format!("--expect-at-least {text}: this is no backup's id"))
            .hint("It wants the whole id, as `pgrecall backup --json` tells it.")
    })?;
    for store in stores {
        if memory::is_known(store, id).await? {
            return Ok(None);
        }
    }
    Ok(Some(format!("backup {id}, which was to be expected, is neither there nor expired")))
}

/// What should be there and is not: what this host has seen, and what was expected.
async fn missing(
    settings: &Settings,
    repository: &Repository,
    store: &ClusterStore,
    expected: Option<&str>,
) -> Outcome<Vec<String>> {
    let mut missing = seen::missing(settings, repository, store).await?;
    missing.extend(expected.map(str::to_owned));
    Ok(missing)
}

/// It may be a backup of a cluster that does not open.
fn also_closed(failure: Failure, closed: &Closed) -> Failure {
    failure.hint(format!("Not looked at: {}.", closed.told()))
}

fn expired() -> Failure {
    Failure::new(Kind::Conflict, "the backup that was to be verified has expired since this began")
        .hint("pgrecall list shows the backups.")
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
        text.push_str(&touched(&cluster.report, colour));
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
    for closed in &report.closed {
        let (paint, mark) =
            if closed.shredded { (Paint::Faint, "note   ") } else { (Paint::Bad, "DAMAGE ") };
        text.push_str(&format!("{} {}\n\n", colour.paint(paint, mark), closed.told()));
    }
    let (paint, verdict) = match report.gravest() {
        None if !report.sound => (Paint::Bad, "NOT KNOWN: a cluster does not open; see above"),
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

/// Files of a backup that are named; `--json` has more.
pub(super) const FILES_SHOWN: usize = 20;

/// How to tell which table a file belongs to.
pub(super) const HOW_TO_NAME: &str = "\
In base/DATABASE/FILENODE both are numbers: SELECT datname FROM pg_database WHERE oid = DATABASE, and in that
database SELECT pg_filenode_relation(0, FILENODE), tell the names.
";

/// The first files of which something cannot be had, a line for each.
pub(super) fn files(touched: &[TouchedFile]) -> String {
    touched.iter().take(FILES_SHOWN).map(|file| format!("  {}\n", file.text())).collect()
}

/// Which files, relations and moments cannot be had.
pub(super) fn touched(report: &VerifyReport, colour: Colour) -> String {
    let mut text = String::new();
    for verdict in report.backups.iter().filter(|verdict| verdict.bad_files > 0) {
        let title = format!("what cannot be had of backup {}", verdict.backup);
        text.push_str(&format!("\n{}\n", colour.paint(Paint::Heading, &title)));
        text.push_str(&files(&verdict.touched));
        let more = verdict.bad_files.saturating_sub(FILES_SHOWN as u64);
        if more > 0 {
            text.push_str(&format!("  and {more} files more; --json has more of them\n"));
        }
    }
    if report.backups.iter().flat_map(|verdict| &verdict.touched).any(|f| f.relation.is_some()) {
        text.push_str(HOW_TO_NAME);
    }
    if !report.lost_moments.is_empty() {
        let title = "moments that no backup leads to any more";
        text.push_str(&format!("\n{}\n", colour.paint(Paint::Heading, title)));
    }
    for lost in &report.lost_moments {
        text.push_str(&format!("  {}\n", moments(lost)));
    }
    text
}

fn moments(lost: &LostMoments) -> String {
    let place = |lsn: &str, time: Option<&str>| match time {
        Some(time) => format!("{} ({lsn})", human::moment_text(time)),
        None => lsn.to_owned(),
    };
    let after = place(&lost.after_lsn.to_string(), lost.after.as_deref());
    let until = match &lost.until_lsn {
        Some(lsn) => format!(" until {}", place(&lsn.to_string(), lost.until.as_deref())),
        None => " on".to_owned(),
    };
    format!("timeline {}: from {after}{until}", lost.timeline.0)
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
