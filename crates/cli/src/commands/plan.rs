//! `pgrecall plan`: what a restore would do, or why it cannot work.

use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use pgrecall_engine::restore::chosen::{Chosen, choose};
use pgrecall_engine::restore::execute::places;
use pgrecall_engine::restore::plan::{Estimate, RestorePlan, Stop};
use pgrecall_engine::restore::refusal::{PlanError, show};
use pgrecall_engine::restore::target::{BackupChoice, Bound, Request, Target};
use pgrecall_engine::restore::wal_view::WalView as _;
use pgrecall_pgformat::xact::TransactionEnd;
use pgrecall_pgformat::{SegmentName, SegmentSize, TimelineId, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::restore;
use crate::args::recovery::{PlanArgs, RouteArgs};
use crate::config::settings::Settings;
use crate::context::{cluster, repository, runtime, seen};
use crate::failure::{Failure, Kind, Outcome};
use crate::moment;
use crate::output::stdout::{self, Colour};
use crate::output::table::{Align, Cell, Table};
use crate::output::{human, prompt};

pub(crate) fn run(settings: &Settings, args: &PlanArgs) -> Outcome<()> {
    let request = request(&args.route, Target::Latest)?;
    runtime::run(async {
        let repository = repository::open(settings).await?;
        let cluster = cluster::stored(settings, &repository).await?;
        seen::warn_of_missing(settings, &repository, &cluster).await?;
        let Chosen { plan, manifest, wal } = choose(&cluster, &request).await.map_err(failure)?;
        // Which directory it will be does not matter to them.
        let told = restore::places(&args.places)?;
        let layout = places(&cluster, &manifest, Path::new("/DIR"), &told).await?;
        let size = wal.stored().segment_size;
        if args.output.json {
            return stdout::print_json(&as_json(&plan, size));
        }
        let mut text = as_text(&plan, size);
        for root in &layout.roots {
            let link = String::from_utf8_lossy(&root.link);
            text.push_str(&format!("{link} in {}\n", root.to.display()));
        }
        text.push_str(
            "\nTo do it: pgrecall restore DIR --as copy|primary|standby, with the same target.\n",
        );
        stdout::print(&text)
    })
}

/// What a middling host and store do; orders of magnitude are what a person wants to know.
const COPY_BYTES_PER_SECOND: u64 = 200 << 20;
/// Replay runs on one processor, and mostly waits for pages.
const REPLAY_BYTES_PER_SECOND: u64 = 50 << 20;

/// How long it may take, by bytes and those rates.
#[derive(Serialize)]
struct Time {
    copy_seconds: u64,
    replay_seconds: u64,
}

impl Time {
    fn of(estimate: &Estimate) -> Self {
        Self {
            copy_seconds: estimate.file_bytes.div_ceil(COPY_BYTES_PER_SECOND),
            replay_seconds: estimate.wal_bytes.div_ceil(REPLAY_BYTES_PER_SECOND),
        }
    }
}

pub(crate) fn failure(error: PlanError) -> Failure {
    pgrecall_engine::EngineError::from(error).into()
}

/// What the arguments ask for; `default` when they name no target.
pub(crate) fn request(route: &RouteArgs, default: Target) -> Outcome<Request> {
    let target = &route.target;
    let has_edge = target.to_time.is_some() || target.to_lsn.is_some() || target.to_xid.is_some();
    if route.exclusive && !has_edge {
        let message = "--exclusive stops before a target, and none is given";
        return Err(Failure::new(Kind::Usage, message)
            .hint("Give --to-time, --to-lsn or --to-xid with it."));
    }
    let wanted = if let Some(text) = &target.to_time {
        Target::Time(time(text)?)
    } else if let Some(text) = &target.to_lsn {
        Target::Lsn(text.parse().map_err(|error| {
            Failure::from_error(Kind::Usage, &error).during(format!("--to-lsn {text}"))
        })?)
    } else if let Some(xid) = target.to_xid {
        // WAL has the low 32 bits; the rest counts how often they have wrapped round.
        Target::Xid(u32::try_from(xid & u64::from(u32::MAX)).unwrap_or_default())
    } else if let Some(name) = &target.to_name {
        Target::Name(name.clone())
    } else if target.to_immediate {
        Target::Immediate
    } else if target.to_latest {
        Target::Latest
    } else {
        default
    };
    let backup = match route.backup.as_deref() {
        None => BackupChoice::Best,
        Some("latest") => BackupChoice::Latest,
        Some(prefix) => BackupChoice::Prefix(prefix.to_owned()),
    };
    Ok(Request {
        target: wanted,
        bound: if route.exclusive { Bound::Exclusive } else { Bound::Inclusive },
        timeline: route.timeline.map(TimelineId),
        backup,
    })
}

fn time(text: &str) -> Outcome<Timestamp> {
    Ok(Timestamp::from_unix_micros(moment_of(text)?.as_microsecond()))
}

/// A time as people write it; one without a zone is asked for on a terminal.
///
/// # Errors
/// When it is none, or has no zone and nobody can be asked.
pub(super) fn moment_of(text: &str) -> Outcome<jiff::Timestamp> {
    let parsed = moment::parse(text)?;
    let local = TimeZone::system();
    if prompt::is_possible() {
        let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
        let mut input = BufReader::new(stdin);
        moment::settle(parsed, &local, Some((&mut input, &mut stderr)))
    } else {
        moment::settle(parsed, &local, None)
    }
}

/// For people.
pub(crate) fn as_text(plan: &RestorePlan, size: SegmentSize) -> String {
    let details = &plan.backup.details;
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let mut row = |name: &'static str, value: String| {
        table.row([Cell::from(name.to_owned()), Cell::from(value)]);
    };
    row("target", target(&plan.target));
    row("backup", format!("{} of {}", plan.backup.id, human::moment(details.ended)));
    row(
        "files",
        format!("{} entries, {}", plan.backup.entries, human::size(plan.estimate.file_bytes)),
    );
    let path: Vec<String> = plan
        .path
        .iter()
        .map(|span| {
            let end = span.end.map(|end| end.to_string()).unwrap_or_default();
            format!("timeline {}: {} to {end}", span.timeline.0, span.start)
        })
        .collect();
    row("replay", path.join(", then "));
    row("wal", segments(plan, size));
    row("stop", stop(plan));
    row("timeline", plan.timeline.0.to_string());
    if let Some(last) = plan.last_kept {
        row("last kept", transaction(last));
    }
    if let Some(first) = plan.first_left_out {
        row("first left out", transaction(first));
    }
    row("requests", format!("about {}", plan.estimate.requests));
    let time = Time::of(&plan.estimate);
    row(
        "time",
        format!(
            "an estimate: {} to copy (at {}/s), then {} to replay (at {}/s); the store, the disk \
             and what the WAL does decide",
            human::duration(Duration::from_secs(time.copy_seconds)),
            human::size(COPY_BYTES_PER_SECOND),
            human::duration(Duration::from_secs(time.replay_seconds)),
            human::size(REPLAY_BYTES_PER_SECOND),
        ),
    );
    let rendered = table.render(Colour::of_stdout());
    // The columns need no headings.
    let mut text: String = rendered
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    for note in &plan.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn target(target: &Target) -> String {
    match target {
        Target::Time(time) => show(*time),
        Target::Lsn(lsn) => format!("LSN {lsn}"),
        Target::Xid(xid) => format!("transaction {xid}"),
        Target::Name(name) => format!("restore point {name}"),
        Target::Immediate => "the end of the backup".into(),
        Target::Latest => "the end of the stored WAL".into(),
    }
}

fn segments(plan: &RestorePlan, size: SegmentSize) -> String {
    let name = |timeline, number| SegmentName { timeline, number }.file_name(size);
    let first = plan.segments.first().map(|range| name(range.timeline, range.first));
    let last = plan.segments.last().map(|range| name(range.timeline, range.last));
    format!(
        "{} segments, {} to {} ({})",
        plan.segment_count,
        first.unwrap_or_default(),
        last.unwrap_or_default(),
        human::size(plan.estimate.wal_bytes)
    )
}

fn stop(plan: &RestorePlan) -> String {
    match plan.stop {
        Stop::Lsn { lsn, bound: Bound::Exclusive } => format!("before the record at LSN {lsn}"),
        Stop::Lsn { lsn, bound: Bound::Inclusive } => format!("after the record at LSN {lsn}"),
        Stop::Consistency { lsn, .. } => {
            format!("as soon as the backup is consistent, at LSN {lsn}")
        }
    }
}

fn transaction(end: TransactionEnd) -> String {
    let what = if end.outcome.is_commit() { "commit" } else { "abort" };
    format!("{what} of transaction {} at {} (LSN {})", end.xid, show(end.time), end.lsn)
}

/// For programs.
pub(crate) fn as_json(plan: &RestorePlan, size: SegmentSize) -> Value {
    let transaction = |end: Option<TransactionEnd>| {
        end.map(|end| {
            json!({
                "lsn": end.lsn,
                "xid": end.xid,
                "time": show(end.time),
                "outcome": end.outcome,
            })
        })
    };
    let name = |timeline, number| SegmentName { timeline, number }.file_name(size);
    let segments: Vec<Value> = plan
        .segments
        .iter()
        .map(|range| {
            json!({
                "timeline": range.timeline.0,
                "first": name(range.timeline, range.first),
                "last": name(range.timeline, range.last),
            })
        })
        .collect();
    let seeds: Vec<Value> = plan
        .seeds
        .iter()
        .map(|seed| {
            json!({
                "wanted": seed.wanted.file_name(size),
                "stored": seed.stored.file_name(size),
            })
        })
        .collect();
    json!({
        "target": target(&plan.target),
        "backup": {
            "id": plan.backup.id,
            "began": plan.backup.details.began,
            "ended": plan.backup.details.ended,
            "start": plan.backup.details.start,
            "stop": plan.backup.details.stop,
        },
        "stop": plan.stop,
        "timeline": plan.timeline.0,
        "path": plan.path,
        "segments": segments,
        "segment_count": plan.segment_count,
        "placed_in_pg_wal": seeds,
        "last_kept": transaction(plan.last_kept),
        "first_left_out": transaction(plan.first_left_out),
        "estimate": plan.estimate,
        "estimated_time": Time::of(&plan.estimate),
        "notes": plan.notes,
    })
}
