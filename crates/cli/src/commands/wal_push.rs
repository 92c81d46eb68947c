//! `pgrecall wal push`: what `archive_command` calls.

use std::io::IsTerminal as _;

use pgrecall_engine::archive::access::Access;
use pgrecall_engine::archive::pack::Compression;
use pgrecall_engine::archive::push::{self, PushOutcome, PushRequest, PushResult};
use pgrecall_engine::clock::Clock;
use pgrecall_repo::codec::Level;

use super::wal_access::{self, By, Reads};
use crate::args::wal::PushArgs;
use crate::config::settings::Settings;
use crate::context::host;
use crate::failure::Outcome;
use crate::output::{human, stdout};

/// More threads than this gain nothing: the digest of a segment is one chain.
const THREADS_MAX: usize = 4;

pub(crate) fn run(settings: &Settings, args: &PushArgs) -> Outcome<()> {
    let data_directory = wal_access::around(settings, &args.path, By::Push)?.require()?;
    let request = PushRequest {
        path: args.path.clone(),
        facts: data_directory.facts,
        host: host::name(),
        compression: compression(settings),
        clock: Clock::system(),
    };
    let patience = wal_access::push_patience(settings);
    let pushing = async |access: Access| push::push(&access, request).await;
    let outcome = wal_access::run(settings, patience, Reads::Nothing, pushing)?;
    tell(&outcome)
}

/// As backups compress, on few threads.
pub(crate) fn compression(settings: &Settings) -> Compression {
    let level = Level(settings.backup.compression_level);
    Compression { level, threads: settings.backup.threads.min(THREADS_MAX) }
}

/// PostgreSQL's log gets a line where something is out of the ordinary; a person gets one always.
fn tell(outcome: &PushOutcome) -> Outcome<()> {
    for damage in &outcome.damage {
        tracing::error!("{damage}");
    }
    let name = &outcome.name;
    let line = match outcome.result {
        PushResult::Created => format!(
            "archived {name}: {} stored as {} in {}",
            human::size(outcome.bytes),
            human::size(outcome.stored_bytes),
            wal_access::took(outcome.elapsed_ms)
        ),
        PushResult::AlreadyThere => {
            format!("{name} was archived before: what is stored has the same digest")
        }
        PushResult::Healed => {
            format!("{name} was archived before and had rotted: it is stored again, beside")
        }
        PushResult::Lost => format!(
            "{name} lost a collision that a person settled: this content is kept, and recovery is \
             served the other one. Is this server meant to archive still?"
        ),
    };
    if std::io::stdout().is_terminal() {
        return stdout::print_line(&line);
    }
    match outcome.result {
        PushResult::Created => tracing::debug!("{line}"),
        PushResult::AlreadyThere => tracing::info!("{line}"),
        PushResult::Healed | PushResult::Lost => tracing::warn!("{line}"),
    }
    Ok(())
}
