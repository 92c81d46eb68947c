//! `pgrecall gc`: a plan of what can be freed, printed, and carried out.

use std::collections::HashSet;

use pgrecall_engine::backup::Host;
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::collection::carry_out::{Collected, carry_out};
use pgrecall_engine::collection::dead::{DeadRule, Sightings, Waiting};
use pgrecall_engine::collection::plan::{self, CollectPlan, CollectRequest};
use pgrecall_engine::collection::policy::{Chosen, Policy};
use pgrecall_repo::id::{PackId, RepositoryId};
use serde::Serialize;

use super::gc_locks::{self, Locks, Run};
use crate::args::gc::GcArgs;
use crate::config::settings::Settings;
use crate::context::telling::Telling;
use crate::context::{cluster, host, repository, runtime, seen};
use crate::failure::{Failure, Outcome};
use crate::output::human;
use crate::output::stdout;

pub(crate) fn run(settings: &Settings, args: &GcArgs) -> Outcome<()> {
    let (planned, done, failure) = runtime::run_long(|cancel| async move {
        let repository = repository::open(settings).await?;
        let id = repository.root().id;
        let cluster = cluster::stored(settings, &repository).await?;
        seen::require_nothing_missing(settings, &repository, &cluster).await?;
        let request = match args.extend_locks {
            true => Some(gc_locks::request(&cluster).await?),
            false => None,
        };
        let (mut report, done) = collect(settings, &cluster, id, args, cancel.clone()).await?;
        let mut failure = None;
        if let Some(request) = request {
            let run = if args.dry_run { Run::Dry } else { Run::Real(&cancel) };
            let going = std::mem::take(&mut report.going);
            match gc_locks::extend(&repository, &cluster, &going, request, run).await {
                Ok(locks) => report.locks = Some(locks),
                Err(failed) => failure = Some(failed),
            }
        }
        Ok::<_, Failure>((report, done, failure))
    })?;
    if args.output.json {
        stdout::print_json(&Report { done: done.as_ref().map(Done::of), ..planned })?;
        return failure.map_or(Ok(()), Err);
    }
    // The plan is on the screen already.
    if let Some(done) = &done {
        stdout::print(&told(done))?;
    }
    if let Some(locks) = &planned.locks {
        stdout::print(&gc_locks::told(locks))?;
    }
    failure.map_or(Ok(()), Err)
}

async fn collect(
    settings: &Settings,
    cluster: &ClusterStore,
    id: RepositoryId,
    args: &GcArgs,
    cancel: Cancel,
) -> Outcome<(Report, Option<Collected>)> {
    let telling = Telling::new();
    let collection = &settings.cluster()?.collection;
    // Each domain has its own: a collection forgets backups that are under way no more.
    let seen = settings.repository.cache_dir.join(id.to_string());
    let seen = seen.join(format!("backups-seen-{}.json", cluster.domain()));
    let mut request = CollectRequest {
        policy: Policy {
            rewrite_below_percent: collection.rewrite_below_percent,
            rewrite_bytes_max: collection.rewrite_bytes_max,
        },
        dead: DeadRule {
            host: Host { name: host::name(), process: std::process::id() },
            after: Some(collection.dead_after),
            clock: Clock::system(),
        },
        sightings: Sightings::read(&seen),
        progress: telling.progress(),
        cancel,
    };
    let plan = plan::plan(&cluster.sealed, cluster.domain(), &mut request).await?;
    if let Some(missing) = cluster.sealed.keys().new_data_locked() {
        tracing::info!(
            "nothing is copied together: data is sealed for the restore key {}, which is not here",
            missing.fingerprint()
        );
    }
    let report = Report::of(&plan, args.dry_run);
    if !args.output.json {
        stdout::print(&render(&plan, args.dry_run))?;
    }
    if args.dry_run {
        return Ok((report, None));
    }
    Ok((report, Some(carry_out(&cluster.sealed, plan, &request).await?)))
}

/// What `gc` tells. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Report {
    domain: String,
    dry_run: bool,
    backups: u64,
    live_chunks: u64,
    packs: u64,
    bytes: u64,
    unused: Packs,
    rewritten: Packs,
    left: Packs,
    unindexed: Packs,
    freed_bytes: u64,
    rewrite_below_percent: u64,
    rewrite_bytes_max: u64,
    merged_index_objects: u64,
    requests: Requests,
    rounds: Vec<Round>,
    under_way: Vec<UnderWay>,
    done: Option<Done>,
    locks: Option<Locks>,
    /// Packs that nobody needs. Those that are copied may turn out bad and stay, and those that no
    /// index object names may be all that is left of a lost one.
    #[serde(skip)]
    going: HashSet<PackId>,
}

#[derive(Serialize)]
struct Packs {
    packs: u64,
    bytes: u64,
    live_bytes: u64,
}

#[derive(Serialize)]
struct Requests {
    reads: u64,
    writes: u64,
    deletes: u64,
}

#[derive(Serialize)]
struct Round {
    id: String,
    packs: u64,
    waits_for: Vec<String>,
}

#[derive(Serialize)]
struct UnderWay {
    backup: String,
    cluster: String,
    host: String,
    began: String,
    dead: Option<String>,
}

#[derive(Serialize)]
struct Done {
    removed_packs: u64,
    removed_bytes: u64,
    spared_packs: u64,
    copied_chunks: u64,
    copied_bytes: u64,
    waiting_packs: u64,
    waits_for: Vec<String>,
    ended: Vec<String>,
    folded_tombstones: u64,
    merged_objects: u64,
    index_objects: u64,
}

impl Packs {
    fn of(chosen: &Chosen) -> Self {
        let packs = chosen.packs.len() as u64;
        Self { packs, bytes: chosen.bytes, live_bytes: chosen.live_bytes }
    }
}

impl Report {
    fn of(plan: &CollectPlan, dry_run: bool) -> Self {
        let round = |round: &plan::OpenRound| Round {
            id: round.id.to_string(),
            packs: round.packs,
            waits_for: texts(&round.waits_for),
        };
        let under_way = |waiting: &Waiting| UnderWay {
            backup: waiting.live.intent.backup.to_string(),
            cluster: waiting.at.cluster.to_string(),
            host: waiting.live.intent.host.clone(),
            began: waiting.live.intent.began.clone(),
            dead: waiting.dead.as_ref().map(ToString::to_string),
        };
        let choice = &plan.choice;
        Self {
            domain: plan.domain.to_string(),
            dry_run,
            backups: plan.backups,
            live_chunks: plan.live_chunks,
            packs: plan.packs,
            bytes: plan.bytes,
            unused: Packs::of(&choice.unused),
            rewritten: Packs::of(&choice.rewritten),
            left: Packs::of(&choice.left),
            unindexed: Packs::of(&choice.unindexed),
            freed_bytes: plan.freed_bytes(),
            rewrite_below_percent: plan.policy.rewrite_below_percent,
            rewrite_bytes_max: plan.policy.rewrite_bytes_max,
            merged_index_objects: plan.merged.len() as u64,
            requests: Requests {
                reads: plan.requests.reads,
                writes: plan.requests.writes,
                deletes: plan.requests.deletes,
            },
            rounds: plan.rounds.iter().map(round).collect(),
            under_way: plan.under_way.iter().map(under_way).collect(),
            done: None,
            locks: None,
            going: choice.unused.packs.iter().copied().collect(),
        }
    }
}

impl Done {
    fn of(done: &Collected) -> Self {
        Self {
            removed_packs: done.removed_packs,
            removed_bytes: done.removed_bytes,
            spared_packs: done.spared_packs,
            copied_chunks: done.copied_chunks,
            copied_bytes: done.copied_bytes,
            waiting_packs: done.waiting_packs,
            waits_for: texts(&done.waits_for),
            ended: texts(&done.ended),
            folded_tombstones: done.folded_tombstones,
            merged_objects: done.merged_objects,
            index_objects: done.index_objects,
        }
    }
}

fn texts(ids: &[impl ToString]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn render(plan: &CollectPlan, dry_run: bool) -> String {
    let mut text = format!(
        "domain {}: {} in {} packs; {} backups refer to {} chunks\n",
        plan.domain,
        human::size(plan.bytes),
        plan.packs,
        plan.backups,
        plan.live_chunks
    );
    for waiting in &plan.under_way {
        let intent = &waiting.live.intent;
        let what = match &waiting.dead {
            Some(dead) => format!("is taken for dead: {dead}"),
            None => "is under way".into(),
        };
        text.push_str(&format!(
            "backup {} of {} on {}, begun {}, {what}\n",
            intent.backup, waiting.at.cluster, intent.host, intent.began
        ));
    }
    for round in &plan.rounds {
        let waits = match round.waits_for.as_slice() {
            [] => "is swept now".to_owned(),
            ids => format!("waits for {}", texts(ids).join(", ")),
        };
        text.push_str(&format!(
            "an earlier collection has retired {} packs, which {waits}\n",
            round.packs
        ));
    }
    text.push_str(&chosen(plan));
    if !plan.merged.is_empty() {
        text.push_str(&format!("{} index objects are merged\n", plan.merged.len()));
    }
    let requests = plan.requests;
    text.push_str(&format!(
        "{} will be free; about {} reads, {} writes and {} deletes\n",
        human::size(plan.freed_bytes()),
        requests.reads,
        requests.writes,
        requests.deletes
    ));
    if dry_run {
        text.push_str("nothing was changed: this is a dry run\n");
    }
    text
}

fn chosen(plan: &CollectPlan) -> String {
    let (choice, policy) = (&plan.choice, plan.policy);
    let mut text = String::new();
    let mut line = |chosen: &Chosen, what: String| {
        if !chosen.packs.is_empty() {
            text.push_str(&format!(
                "{} packs ({}) {what}\n",
                chosen.packs.len(),
                human::size(chosen.bytes)
            ));
        }
    };
    line(&choice.unused, "go: no backup refers to them".into());
    let needed = human::size(choice.rewritten.live_bytes);
    let most = policy.rewrite_below_percent;
    line(
        &choice.rewritten,
        format!("go after the {needed} needed of them are copied (at most {most} % is needed)"),
    );
    let unneeded = human::size(choice.left.bytes.saturating_sub(choice.left.live_bytes));
    line(&choice.left, format!("stay although {unneeded} of them are not needed"));
    line(&choice.unindexed, "stay: they may belong to a backup under way".into());
    text
}

fn told(done: &Collected) -> String {
    let mut text = format!(
        "{} packs ({}) are gone; {} chunks were copied ({})\n",
        done.removed_packs,
        human::size(done.removed_bytes),
        done.copied_chunks,
        human::size(done.copied_bytes)
    );
    if done.spared_packs > 0 {
        text.push_str(&format!("{} packs turned out to be needed, and stay\n", done.spared_packs));
    }
    for id in &done.ended {
        text.push_str(&format!("backup {id} is ended, and can never be committed\n"));
    }
    if done.waiting_packs > 0 {
        text.push_str(&format!(
            "{} packs are retired and go by a later run, once {} has ended\n",
            done.waiting_packs,
            texts(&done.waits_for).join(", ")
        ));
    }
    text
}
