//! `pgrecall wal resolve`: shows the contents that share one WAL file's name, and settles which of
//! them recovery is served.

use std::path::PathBuf;

use pgrecall_engine::archive::push::PushRequest;
use pgrecall_engine::archive::resolve::{self, Choice, Content, Contents, Local};
use pgrecall_engine::clock::Clock;
use serde::Serialize;

use super::wal_access::{self, By, Reads};
use super::wal_push;
use crate::args::wal::ResolveArgs;
use crate::config::settings::Settings;
use crate::context::host;
use crate::failure::Outcome;
use crate::output::stdout::{Colour, Paint};
use crate::output::table::{Align, Cell, Table};
use crate::output::{human, prompt, stdout};

pub(crate) fn run(settings: &Settings, args: &ResolveArgs) -> Outcome<()> {
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from(&args.segment));
    let local = if args.file.is_some() { Local::File } else { Local::None };
    let request = PushRequest {
        facts: wal_access::around(settings, &path, By::Push)?.require()?.facts,
        path,
        host: host::name(),
        compression: wal_push::compression(settings),
        clock: Clock::system(),
    };
    let patience = wal_access::push_patience(settings);
    if let Some(choice) = choice(args) {
        let question = format!(
            "Recovery will be served the content {}… of {} from now on, and this cannot be taken \
             back. Settle it?",
            choice.digest, args.segment
        );
        prompt::confirm(&question, args.confirm.yes)?;
        let settled = wal_access::run(settings, patience, Reads::Contents, async |access| {
            resolve::resolve(&access, &args.segment, &request, local, &choice).await
        })?;
        return tell(&settled, args);
    }
    let contents = wal_access::run(settings, patience, Reads::Contents, async |access| {
        resolve::contents(&access, &args.segment, &request, local).await
    })?;
    tell(&contents, args)
}

fn choice(args: &ResolveArgs) -> Option<Choice> {
    let digest = args.keep.as_ref()?.to_ascii_lowercase();
    let reason = args.reason.clone().unwrap_or_default();
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    Some(Choice { digest, reason, by: user.unwrap_or_else(|_| "somebody".into()) })
}

fn tell(contents: &Contents, args: &ResolveArgs) -> Outcome<()> {
    if args.output.json {
        return stdout::print_json(&report(contents));
    }
    let columns = [
        ("DIGEST", Align::Left),
        ("WHERE", Align::Left),
        ("HOST", Align::Left),
        ("PUSHED", Align::Left),
        ("TIMELINES", Align::Left),
        ("RECORDS END AT", Align::Left),
        ("LAST COMMIT", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for content in &contents.all {
        table.row(row(content, args));
    }
    let mut text = format!("Contents of {}:\n\n", contents.name);
    text.push_str(&table.render(Colour::of_stdout()));
    text.push('\n');
    for (object, why) in &contents.unreadable {
        text.push_str(&format!("{object} does not read, and stays where it is: {why}\n"));
    }
    match &contents.settled {
        Some(settled) => {
            text.push_str(&format!("Settled by {}: {}\n", settled.by, settled.reason));
        }
        None if contents.all.len() < 2 && contents.unreadable.is_empty() => {
            text.push_str(
                "There is one content only. Show the other with --file PATH, on the host that has \
                 it.\n",
            );
        }
        None => text.push_str(&format!(
            "To settle it: pgrecall wal resolve {}{} --keep DIGEST --reason TEXT\n",
            contents.name,
            args.file
                .as_ref()
                .map_or_else(String::new, |path| format!(" --file {}", path.display()))
        )),
    }
    stdout::print(&text)
}

fn row(content: &Content, args: &ResolveArgs) -> Vec<Cell> {
    let place = match (&content.object, content.holds) {
        (_, true) => Cell::painted("repository, served", Paint::Good),
        (Some(_), false) => Cell::from("repository, kept"),
        (None, false) => {
            let path = args.file.as_ref().map(|path| path.display().to_string());
            Cell::from(path.unwrap_or_default())
        }
    };
    let pushed = if content.object.is_some() { content.trailer.pushed.clone() } else { "-".into() };
    vec![
        Cell::from(resolve::short(&content.digest)),
        place,
        Cell::from(content.trailer.host.clone()),
        Cell::from(pushed),
        Cell::from(content.trailer.timelines()),
        Cell::from(end(content).unwrap_or_else(|| "-".into())),
        Cell::from(last_commit(content).unwrap_or_else(|| "-".into())),
    ]
}

fn end(content: &Content) -> Option<String> {
    Some(content.trailer.summary.as_ref()?.last_record_end?.to_string())
}

fn last_commit(content: &Content) -> Option<String> {
    let last = content.trailer.summary.as_ref()?.transactions.last?;
    let time = jiff::Timestamp::from_microsecond(last.time.to_unix_micros()).ok()?;
    Some(human::moment(time))
}

#[derive(Serialize)]
struct Report {
    name: String,
    contents: Vec<ContentReport>,
    unreadable: Vec<UnreadableReport>,
    settled: Option<SettledReport>,
}

#[derive(Serialize)]
struct ContentReport {
    digest: String,
    /// Null for a local file that is not stored.
    object: Option<String>,
    served: bool,
    host: String,
    /// Null for a local file that is not stored.
    pushed: Option<String>,
    timelines: Vec<u32>,
    records_end_lsn: Option<String>,
    last_commit_time: Option<String>,
}

#[derive(Serialize)]
struct UnreadableReport {
    object: String,
    reason: String,
}

#[derive(Serialize)]
struct SettledReport {
    object: String,
    reason: String,
    by: String,
}

fn report(contents: &Contents) -> Report {
    let one = |content: &Content| ContentReport {
        digest: content.digest.to_string(),
        object: content.object.as_ref().map(ToString::to_string),
        served: content.holds,
        host: content.trailer.host.clone(),
        pushed: content.object.as_ref().map(|_| content.trailer.pushed.clone()),
        timelines: content
            .trailer
            .summary
            .iter()
            .flat_map(|summary| summary.timelines.iter().map(|start| start.timeline.0))
            .collect(),
        records_end_lsn: end(content),
        last_commit_time: last_commit(content),
    };
    Report {
        name: contents.name.clone(),
        contents: contents.all.iter().map(one).collect(),
        unreadable: contents
            .unreadable
            .iter()
            .map(|(object, reason)| UnreadableReport {
                object: object.to_string(),
                reason: reason.clone(),
            })
            .collect(),
        settled: contents.settled.as_ref().map(|settled| SettledReport {
            object: settled.object.clone(),
            reason: settled.reason.clone(),
            by: settled.by.clone(),
        }),
    }
}
