//! `pgrecall wal fetch`: what `restore_command` calls.

use std::io::IsTerminal as _;

use pgrecall_engine::archive::access::Access;
use pgrecall_engine::archive::fetch::{self, FetchOutcome, FetchRequest};
use pgrecall_engine::archive::patience::Patience;
use pgrecall_engine::clock::Clock;

use super::wal_access::{self, By, Reads};
use crate::args::wal::FetchArgs;
use crate::config::settings::Settings;
use crate::contract::Contract;
use crate::exit;
use crate::failure::Outcome;
use crate::output::{human, stdout};

/// Gives the exit code: 0, or the one that tells PostgreSQL "no such file".
pub(crate) fn run(settings: &Settings, args: &FetchArgs, contract: Contract) -> Outcome<u8> {
    let request = FetchRequest {
        name: args.name.clone(),
        destination: args.destination.clone(),
        asking: wal_access::around(settings, &args.destination, By::Fetch)?.find()?,
        clock: Clock::system(),
    };
    let patience = patience(settings, contract);
    let fetching = async |access: Access| fetch::fetch(&access, &request).await;
    let outcome = wal_access::run(settings, patience, Reads::Contents, fetching)?;
    let name = &request.name;
    match outcome {
        FetchOutcome::Fetched { bytes, elapsed_ms } => {
            let (size, took) = (human::size(bytes), wal_access::took(elapsed_ms));
            tell(&format!("fetched {name}: {size} in {took}"))?;
            Ok(0)
        }
        FetchOutcome::ProvenAbsent => {
            tell(&format!("{name} is not in the repository (proven)"))?;
            Ok(exit::ABSENT)
        }
    }
}

/// A standby must not be kept from streaming.
fn patience(settings: &Settings, contract: Contract) -> Patience {
    let total = settings.wal.fetch_timeout;
    let progress = match contract {
        Contract::StandbyFetch | Contract::PromotionFetch => settings.wal.standby_progress_timeout,
        Contract::Person | Contract::Push | Contract::Fetch => total,
    };
    Patience { progress, total }
}

/// PostgreSQL's log tells itself what was restored; a standby asks for what is not there yet every
/// few seconds.
fn tell(line: &str) -> Outcome<()> {
    if std::io::stdout().is_terminal() {
        return stdout::print_line(line);
    }
    tracing::debug!("{line}");
    Ok(())
}
