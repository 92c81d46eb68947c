//! `pgrecall repair`: a plan of what can be mended, printed, and carried out.

use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::catalog::{self, missing};
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::giving_up;
use pgrecall_engine::progress::Progress;
use pgrecall_engine::seen::BRING_BACK;
use pgrecall_engine::verify::finding::VerifyReport;
use pgrecall_engine::verify::lost_moments::LostMoments;
use pgrecall_engine::verify::touched::TouchedFile;
use pgrecall_engine::verify::{self, Depth, Notes, VerifyOptions, Which};
use pgrecall_repo::ErrorKind;
use pgrecall_repo::id::BackupId;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::repair::{self, Left, Quarantined, RepairPlan, Repaired, What};
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::SealedStore;
use serde::Serialize;

use super::{hold, verify as verify_command};
use crate::args::repair::RepairArgs;
use crate::config::settings::Settings;
use crate::context::{cluster, host, repository, runtime, seen};
use crate::failure::{Kind, Outcome};
use crate::output::prompt;
use crate::output::stdout::{self, Colour};

/// Gives the exit code: that of the gravest thing that is left as it is.
pub(crate) fn run(settings: &Settings, args: &RepairArgs) -> Outcome<u8> {
    let (report, mut done, touched) = runtime::run(async {
        let repository = repository::open(settings).await?;
        let work = Work::of(settings, &repository, args).await?;
        let plan = work.plan().await?;
        let report = Report::of(work.domain().to_string(), &plan, args.dry_run);
        let lost = work.lost().await?;
        if !args.output.json {
            stdout::print(&render(&report))?;
            stdout::print(&told_touched(&lost))?;
        }
        let done = if args.dry_run || plan.is_empty() {
            None
        } else {
            if let Some(question) = question(&plan) {
                prompt::confirm(&question, args.confirm.yes)?;
            }
            Some(work.carry_out(&plan).await?)
        };
        // What was done is told in any case.
        let touched = match lost {
            Some(lost) => Ok(vec![Touched { told: String::new(), ..lost }]),
            None => touched(&repository, work.domain()).await,
        };
        Ok::<_, crate::failure::Failure>((report, done, touched))
    })?;
    let mut report = report;
    let stayed = done.as_mut().map(|done| std::mem::take(&mut done.stayed)).unwrap_or_default();
    let stayed: Vec<Stays> = stayed.iter().map(Stays::of).collect();
    if !args.output.json {
        stdout::print(&stayed.iter().map(Stays::told).collect::<String>())?;
    }
    report.left.extend(stayed);
    let left = report.left.iter().map(|left| left.failed_as);
    let code = left.min_by_key(|kind| *kind != Kind::Corrupt).map_or(0, |kind| kind.row().code);
    let (touched, code) = match touched {
        Ok(touched) => (touched, code),
        Err(failure) => {
            let why = failure.chain.join(": ");
            tracing::error!("what cannot be had is not known: {why}; run `pgrecall verify`");
            (Vec::new(), if code == 0 { failure.kind.row().code } else { code })
        }
    };
    let report = Report { done: done.map(Done::of), touched, ..report };
    if args.output.json {
        stdout::print_json(&report)?;
        return Ok(code);
    }
    if let Some(done) = &report.done {
        stdout::print(&told(done))?;
    }
    stdout::print(&told_touched(&report.touched))?;
    Ok(code)
}

/// What is to be done.
enum Work {
    /// What stands in the way of a domain is mended.
    Mend(SealedStore, Name),
    /// A backup that is lost in part is given up.
    GiveUp(ClusterStore, BackupId),
}

impl Work {
    async fn of(settings: &Settings, repository: &Repository, args: &RepairArgs) -> Outcome<Self> {
        let Some(beginning) = &args.give_up else {
            let (sealed, domain) = domain(settings, repository).await?;
            return Ok(Self::Mend(sealed, domain));
        };
        let cluster = cluster::stored(settings, repository).await?;
        seen::require_nothing_missing(settings, repository, &cluster).await?;
        let (known, unreadable) = catalog::backups(&cluster).await?;
        let mut ids: Vec<BackupId> = known.iter().map(|backup| backup.manifest.backup).collect();
        ids.extend(unreadable.iter().map(|row| row.id));
        let missing = missing::find(&cluster.sealed, cluster.domain()).await?;
        ids.extend(missing.iter().filter(|lost| lost.at == cluster.at).map(|lost| lost.id));
        let id = hold::meant(&ids, beginning, "pgrecall list shows the backups.")?;
        Ok(Self::GiveUp(cluster, id))
    }

    fn domain(&self) -> &Name {
        match self {
            Self::Mend(_, domain) => domain,
            Self::GiveUp(cluster, _) => cluster.domain(),
        }
    }

    async fn plan(&self) -> Outcome<RepairPlan> {
        Ok(match self {
            Self::Mend(sealed, domain) => {
                let mut plan = repair::look(sealed, domain).await?;
                plan.left.extend(missing_backups(sealed, domain).await?);
                plan
            }
            Self::GiveUp(cluster, id) => giving_up::plan(cluster, *id).await?,
        })
    }

    /// What is lost of the backup that is given up.
    async fn lost(&self) -> Outcome<Option<Touched>> {
        let Self::GiveUp(cluster, id) = self else { return Ok(None) };
        let report = verify::verify(cluster, &options(Which::One(*id))).await?;
        let object = format!("backup {id}");
        let of_it = report.findings.iter().filter(|finding| finding.object == object);
        let found: String = of_it.map(|finding| format!("{}\n", finding.what)).collect();
        let lost = Touched::of(cluster, report);
        Ok(Some(Touched { told: format!("{found}{}", lost.told), ..lost }))
    }

    async fn carry_out(&self, plan: &RepairPlan) -> Outcome<Repaired> {
        Ok(match self {
            Self::Mend(sealed, domain) => repair::carry_out(sealed, domain, plan).await?,
            Self::GiveUp(cluster, id) => giving_up::carry_out(cluster, *id).await?,
        })
    }
}

/// Backups that only somebody who decides it can let go of.
async fn missing_backups(sealed: &SealedStore, domain: &Name) -> Outcome<Vec<Left>> {
    let missing = match missing::find(sealed, domain).await {
        Ok(missing) => missing,
        // Of the log that says which have expired: it is left, too, and told.
        Err(error) if error.is_unreadable() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let left = missing.into_iter().map(|backup| Left {
        name: names::manifest(&backup.at, backup.id),
        kind: ErrorKind::Incomplete,
        reason: format!("{}. {BRING_BACK} {}", backup.told(), backup.go_on()),
    });
    Ok(left.collect())
}

/// A look, without reading the data and without writing anything.
fn options(which: Which) -> VerifyOptions {
    VerifyOptions {
        notes: Notes::None,
        depth: Depth::Structure,
        which,
        missing: Vec::new(),
        clock: Clock::system(),
        host: host::name(),
        progress: Progress::silent(),
        cancel: Cancel::new(),
    }
}

/// The domain to work on: that of the cluster that is meant. Where that does not open, its identity
/// may be what is to be mended, and the configuration names the domain.
async fn domain(settings: &Settings, repository: &Repository) -> Outcome<(SealedStore, Name)> {
    let failure = match cluster::stored(settings, repository).await {
        Ok(cluster) => {
            seen::warn_of_missing(settings, repository, &cluster).await?;
            return Ok((cluster.sealed.clone(), cluster.domain().clone()));
        }
        Err(failure) if failure.kind == Kind::Corrupt => failure,
        Err(failure) => return Err(failure),
    };
    let names = cluster::cluster_names(settings)?;
    match repository.existing_domain(&names.domain).await {
        Ok(sealed) => {
            tracing::warn!("{}", failure.chain.join(": "));
            Ok((sealed, names.domain))
        }
        Err(_) => Err(failure),
    }
}

/// What cannot be had of each cluster of the domain, as far as is known without reading the data.
async fn touched(repository: &Repository, domain: &Name) -> Outcome<Vec<Touched>> {
    let mut touched = Vec::new();
    for name in ClusterStore::clusters(repository).await? {
        for system in ClusterStore::lineages(repository, &name).await? {
            let store = match ClusterStore::open(repository, domain, &name, system).await {
                Ok(store) => store,
                // It is in another domain.
                Err(error) if error.kind() == ErrorKind::Conflict => continue,
                Err(error) => {
                    tracing::warn!("cluster {name} ({system}) was not looked at: {error}");
                    continue;
                }
            };
            let report = verify::verify(&store, &options(Which::All)).await?;
            touched.push(Touched::of(&store, report));
        }
    }
    Ok(touched)
}

fn told_touched<'a>(clusters: impl IntoIterator<Item = &'a Touched>) -> String {
    let hurt = clusters.into_iter().filter(|cluster| !cluster.told.is_empty());
    hurt.map(|of| format!("\ncluster {} ({})\n{}", of.cluster, of.system_identifier, of.told))
        .collect()
}

/// What has to be confirmed: that backups are given up.
fn question(plan: &RepairPlan) -> Option<String> {
    let count = plan.given_up().count();
    (count > 0).then(|| {
        format!(
            "{count} backups are given up for ever: the next gc removes what only they need. If \
             what is lost can be had, by older versions of its objects or from a copy, put it back \
             first. Go on?"
        )
    })
}

/// What `repair` tells. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Report {
    domain: String,
    dry_run: bool,
    unindexed: Unindexed,
    quarantined: Vec<Moved>,
    left: Vec<Stays>,
    /// What cannot be had, once that is done.
    touched: Vec<Touched>,
    done: Option<Done>,
}

#[derive(Serialize)]
struct Touched {
    cluster: String,
    system_identifier: String,
    backups: Vec<TouchedBackup>,
    lost_moments: Vec<LostMoments>,
    #[serde(skip)]
    told: String,
}

#[derive(Serialize)]
struct TouchedBackup {
    backup: String,
    bad_files: u64,
    files: Vec<TouchedFile>,
}

impl Touched {
    fn of(store: &ClusterStore, report: VerifyReport) -> Self {
        let told = verify_command::touched(&report, Colour::of_stdout());
        let hurt = report.backups.into_iter().filter(|backup| !backup.restorable);
        let backups = hurt.map(|backup| TouchedBackup {
            backup: backup.backup.to_string(),
            bad_files: backup.bad_files,
            files: backup.touched,
        });
        Self {
            cluster: store.at.cluster.to_string(),
            system_identifier: store.at.lineage.clone(),
            backups: backups.collect(),
            lost_moments: report.lost_moments,
            told,
        }
    }
}

#[derive(Serialize)]
struct Unindexed {
    packs: u64,
    chunks: u64,
}

#[derive(Serialize)]
struct Moved {
    object: String,
    kind: &'static str,
    reason: String,
    /// The backup that is given up, and its cluster.
    backup: Option<String>,
    cluster: Option<String>,
}

#[derive(Serialize)]
struct Stays {
    object: String,
    reason: String,
    #[serde(skip)]
    failed_as: Kind,
}

#[derive(Serialize)]
struct Done {
    indexed_packs: u64,
    indexed_chunks: u64,
    index_objects: u64,
    quarantined_objects: u64,
}

impl Report {
    fn of(domain: String, plan: &RepairPlan, dry_run: bool) -> Self {
        Self {
            domain,
            dry_run,
            unindexed: Unindexed {
                packs: plan.reindexed.len() as u64,
                chunks: plan.reindexed.iter().map(|pack| pack.chunks).sum(),
            },
            quarantined: plan.quarantined.iter().map(Moved::of).collect(),
            left: plan.left.iter().map(Stays::of).collect(),
            touched: Vec::new(),
            done: None,
        }
    }
}

impl Stays {
    fn of(left: &Left) -> Self {
        let failed_as = match left.kind {
            ErrorKind::Unsupported => Kind::Unsupported,
            ErrorKind::Incomplete => Kind::Incomplete,
            _ => Kind::Corrupt,
        };
        Self { object: left.name.to_string(), reason: left.reason.clone(), failed_as }
    }

    fn told(&self) -> String {
        let how = match self.failed_as {
            Kind::Incomplete => "is missing",
            _ => "stays as it is",
        };
        format!("{} {how}\n    {}\n", self.object, self.reason)
    }
}

impl Moved {
    fn of(object: &Quarantined) -> Self {
        let kind = match object.what {
            What::Manifest { .. } => "manifest",
            What::MissingManifest { .. } => "missing_manifest",
            What::Index => "index",
            What::DamageNote => "damage_note",
            What::Identity { .. } => "identity",
            What::Pack { .. } => "pack",
        };
        let (backup, cluster) = match &object.what {
            What::Manifest { at, backup } | What::MissingManifest { at, backup } => {
                (Some(backup.to_string()), Some(at.cluster.to_string()))
            }
            What::Identity { at } => (None, Some(at.cluster.to_string())),
            _ => (None, None),
        };
        let (object, reason) = (object.name.to_string(), object.reason.clone());
        Self { object, kind, reason, backup, cluster }
    }

    fn meaning(&self) -> String {
        match (self.kind, &self.backup, &self.cluster) {
            (_, Some(backup), Some(cluster)) => {
                format!("backup {backup} of cluster {cluster} is given up")
            }
            ("index", ..) => "what the packs hold is put into the index before".to_owned(),
            ("identity", ..) => {
                "the next `pgrecall backup` on its server writes it again".to_owned()
            }
            ("damage_note", ..) => "another stands for it, since all was read again".to_owned(),
            _ => {
                "nobody knows what was in it: verify tells which backups lack something".to_owned()
            }
        }
    }
}

impl Done {
    fn of(done: Repaired) -> Self {
        Self {
            indexed_packs: done.packs,
            indexed_chunks: done.chunks,
            index_objects: done.index_objects,
            quarantined_objects: done.moved,
        }
    }
}

fn render(report: &Report) -> String {
    let mut text = format!("domain {}\n", report.domain);
    let Unindexed { packs, chunks } = report.unindexed;
    if packs > 0 {
        text.push_str(&format!(
            "{packs} packs with {chunks} chunks are not in the index, or not whole: they are put \
             into it again\n"
        ));
    }
    for object in &report.quarantined {
        let how = match object.kind {
            "missing_manifest" => "is missing",
            _ => "is moved to quarantine/",
        };
        let (name, reason) = (&object.object, &object.reason);
        text.push_str(&format!("{name} {how}\n    {reason}\n    {}\n", object.meaning()));
    }
    for left in &report.left {
        text.push_str(&left.told());
    }
    if packs == 0 && report.quarantined.is_empty() {
        text.push_str("nothing to mend\n");
    }
    text
}

fn told(done: &Done) -> String {
    format!(
        "\n{} packs with {} chunks are in the index again; {} objects were moved to quarantine/\n\
         Now run `pgrecall verify --read-data`: it tells what can be restored.\n",
        done.indexed_packs, done.indexed_chunks, done.quarantined_objects
    )
}
