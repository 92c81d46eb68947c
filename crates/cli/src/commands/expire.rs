//! `pgrecall expire`: a plan by the rules, printed, and carried out.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::clock::Clock;
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::retention::expire::{Done, carry_out};
use pgrecall_engine::retention::plan::{self, ExpirePlan, ExpireRequest};
use pgrecall_engine::retention::rules::{KeepRules, Reason};
use pgrecall_engine::retention::wal::WalCut;
use serde::Serialize;

use crate::args::expire::ExpireArgs;
use crate::config::settings::{Retention, Settings};
use crate::context::telling::Telling;
use crate::context::{cluster, repository, runtime, seen};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::human;
use crate::output::stdout::{self, Colour, Paint};
use crate::output::table::{Align, Cell, Table};

/// Another host may expire at the same moment; then the plan is made anew.
const TRIES: u32 = 5;

pub(crate) fn run(settings: &Settings, args: &ExpireArgs) -> Outcome<()> {
    let outcomes = runtime::run_long(|cancel| async move {
        let request = request(&settings.cluster()?.retention, &cancel)?;
        let repository = repository::open(settings).await?;
        let cluster = cluster::stored(settings, &repository).await?;
        seen::require_nothing_missing(settings, &repository, &cluster).await?;
        let outcomes = expire(&cluster, &request, args, &cancel).await;
        // What was written down counts, whatever became of the rest.
        if !args.dry_run {
            seen::keep_log(&seen::memory(settings, &repository, &cluster), &cluster).await;
        }
        outcomes
    })?;
    if args.output.json {
        return stdout::print_json(&report(&outcomes));
    }
    match &outcomes.done {
        // The plan is on the screen already.
        Some(done) => stdout::print_line(&told(done)),
        None => Ok(()),
    }
}

/// A plan, and what came of it; nothing of that with --dry-run.
struct Outcomes {
    plan: ExpirePlan,
    done: Option<Done>,
}

/// What `expire` tells. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Report<'a> {
    cluster: &'a str,
    system_identifier: &'a str,
    dry_run: bool,
    keeps: Vec<KeptRow<'a>>,
    expires: Vec<ExpiringRow<'a>>,
    wal_below: Option<String>,
    notes: Vec<String>,
    wal_objects: u64,
    wal_bytes: u64,
    reaches_back_to: Option<&'a str>,
    will_reach_back_to: Option<&'a str>,
    removed_backups: u64,
    removed_wal_objects: u64,
    removed_wal_bytes: u64,
}

#[derive(Serialize)]
struct KeptRow<'a> {
    id: String,
    ended: &'a str,
    why: Vec<String>,
}

#[derive(Serialize)]
struct ExpiringRow<'a> {
    id: String,
    ended: &'a str,
    bytes: u64,
}

fn report(outcomes: &Outcomes) -> Report<'_> {
    let plan = &outcomes.plan;
    let done = outcomes.done.unwrap_or_default();
    let (wal_below, no_cut) = match &plan.wal {
        WalCut::Below { lsn, .. } => (Some(lsn.to_string()), None),
        WalCut::Nothing { .. } => (None, Some(wal(plan))),
    };
    let notes = plan.notes.iter().cloned().chain(no_cut).collect();
    let keeps = plan.keeps.iter().map(|row| KeptRow {
        id: row.id.to_string(),
        ended: &row.ended,
        why: row.reasons.iter().map(reason).collect(),
    });
    let expires = plan.expires.iter().map(|row| ExpiringRow {
        id: row.id.to_string(),
        ended: &row.ended,
        bytes: row.bytes,
    });
    Report {
        cluster: &plan.cluster,
        system_identifier: &plan.system_identifier,
        dry_run: outcomes.done.is_none(),
        keeps: keeps.collect(),
        expires: expires.collect(),
        wal_below,
        notes,
        wal_objects: plan.wal_objects,
        wal_bytes: plan.wal_bytes,
        reaches_back_to: plan.reaches_back_to.as_deref(),
        will_reach_back_to: plan.will_reach_back_to.as_deref(),
        removed_backups: done.manifests,
        removed_wal_objects: done.wal_objects,
        removed_wal_bytes: done.wal_bytes,
    }
}

async fn expire(
    cluster: &ClusterStore,
    request: &ExpireRequest,
    args: &ExpireArgs,
    cancel: &Cancel,
) -> Outcome<Outcomes> {
    let telling = Telling::new();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let plan = plan::plan(cluster, request).await?;
        if !args.output.json {
            stdout::print(&render(&plan, args.dry_run, Colour::of_stdout()))?;
        }
        if args.dry_run {
            return Ok(Outcomes { plan, done: None });
        }
        match carry_out(cluster, &plan, &telling.progress(), cancel).await {
            Ok(done) => return Ok(Outcomes { plan, done: Some(done) }),
            Err(error)
                if error.kind() == pgrecall_engine::ErrorKind::Conflict && attempt < TRIES =>
            {
                tracing::warn!("{error}: making a new plan");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn request(retention: &Retention, cancel: &Cancel) -> Outcome<ExpireRequest> {
    let span = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    let zone = TimeZone::get(&retention.time_zone).map_err(|error| {
        Failure::from_error(Kind::Configuration, &error).during("cluster.retention.time_zone")
    })?;
    Ok(ExpireRequest {
        rules: KeepRules {
            last: retention.keep_last,
            within: retention.keep_within.map(span),
            window: retention.keep_window.map(span),
            daily: retention.keep_daily,
            weekly: retention.keep_weekly,
            monthly: retention.keep_monthly,
            yearly: retention.keep_yearly,
        },
        zone,
        clock: Clock::system(),
        cancel: cancel.clone(),
    })
}

fn render(plan: &ExpirePlan, dry_run: bool, colour: Colour) -> String {
    let mut table = Table::new(&[
        ("BACKUP", Align::Left),
        ("ENDED", Align::Left),
        ("", Align::Left),
        ("WHY", Align::Left),
    ]);
    let mut rows: Vec<(&str, [Cell; 4])> = Vec::new();
    for row in &plan.keeps {
        let reasons: Vec<String> = row.reasons.iter().map(reason).collect();
        rows.push((
            &row.ended,
            [
                Cell::from(row.id.to_string()),
                Cell::from(human::moment_text(&row.ended)),
                Cell::painted("stays", Paint::Good),
                Cell::from(reasons.join(", ")),
            ],
        ));
    }
    for row in &plan.expires {
        rows.push((
            &row.ended,
            [
                Cell::from(row.id.to_string()),
                Cell::from(human::moment_text(&row.ended)),
                Cell::painted("goes", Paint::Bad),
                Cell::from("no rule keeps it"),
            ],
        ));
    }
    rows.sort_by_key(|(ended, _)| *ended);
    for (_, cells) in rows {
        table.row(cells);
    }
    let mut text = table.render(colour);
    for note in &plan.notes {
        text.push_str(&format!("\n{note}\n"));
    }
    text.push_str(&format!("\n{}\n", wal(plan)));
    let back = plan.will_reach_back_to.as_deref();
    text.push_str(&match back {
        Some(moment) => format!("afterwards one can go back in time to {moment}\n"),
        None => "afterwards one cannot go back in time: no backup can be restored\n".to_owned(),
    });
    if dry_run {
        text.push_str("nothing was removed: this is a dry run\n");
    }
    text
}

fn wal(plan: &ExpirePlan) -> String {
    match &plan.wal {
        WalCut::Nothing { why } => format!("no WAL goes: {why}"),
        WalCut::Below { .. } if plan.wal_objects == 0 => "no WAL goes: all of it is needed".into(),
        WalCut::Below { lsn, .. } => format!(
            "{} WAL files before {lsn} go, {} stored",
            plan.wal_objects,
            human::size(plan.wal_bytes)
        ),
    }
}

fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Last { place: 1 } => "the newest".into(),
        Reason::Last { place } => format!("number {place} of the newest"),
        Reason::Within => "young".into(),
        Reason::Window => "leads into the window".into(),
        Reason::Newest { of } => format!("the newest of {of}"),
        Reason::NewerThanGood => "newer than the newest good one".into(),
        Reason::Held { reason } => format!("held: {reason}"),
        Reason::LastGood => "the last good one".into(),
    }
}

fn told(done: &Done) -> String {
    format!(
        "{} backups and {} WAL files ({}) are gone",
        done.manifests,
        done.wal_objects,
        human::size(done.wal_bytes)
    )
}
