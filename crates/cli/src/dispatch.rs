//! From parsed arguments to a command: which settings it needs, and who runs it.

use std::cell::Cell;

use crate::args::wal::WalCommand;
use crate::args::{Cli, Command, Common};
use crate::commands;
use crate::config::resolve::{self, ClusterNeed, Flag, Request, Surroundings};
use crate::config::settings::{Settings, StandbyOnError};
use crate::contract::Contract;
use crate::failure::Outcome;
use crate::logging;
use crate::setup::owner;

/// Runs the command and gives its exit code. `contract` changes when the settings say that a
/// standby is to stop on errors.
pub(crate) fn run(cli: Cli, contract: &Cell<Contract>) -> Outcome<u8> {
    match &cli.command {
        Command::Completions(args) => return commands::completions::run(args.shell).map(|()| 0),
        Command::Man(args) => return commands::man::run(&args.dir).map(|()| 0),
        _ => {}
    }
    let (flags, cluster) = needs(&cli.command);
    let mut settings = load(&cli.common, flags, cluster)?;
    settings.system_id = system_id(&cli.command);
    if contract.get() == Contract::StandbyFetch
        && settings.wal.standby_on_error == StandbyOnError::Stop
    {
        contract.set(Contract::Fetch);
    }
    // PostgreSQL waits for these: a vault that hangs may not cost more than a store that does.
    let within = match contract.get() {
        Contract::Person => settings.secrets_within,
        Contract::Push => settings.wal.push_progress_timeout,
        Contract::Fetch => settings.wal.fetch_timeout,
        Contract::StandbyFetch | Contract::PromotionFetch => settings.wal.standby_progress_timeout,
    };
    settings.secrets_within = settings.secrets_within.min(within);
    crate::plant_panic("late");
    if for_the_owner(&cli.command) {
        let pgdata = settings.cluster.as_ref().and_then(|cluster| cluster.pgdata.as_deref());
        owner::go_on_as_owner(pgdata)?;
    }
    match &cli.command {
        Command::Init(args) => commands::init::run(&settings, args).map(|()| 0),
        Command::Backup(args) => commands::backup::run(&settings, args).map(|()| 0),
        Command::Key(command) => commands::key::run(&settings, command).map(|()| 0),
        Command::Config(args) => commands::config::run(&settings, args).map(|()| 0),
        Command::Wal(WalCommand::Push(args)) | Command::ArchivePush(args) => {
            commands::wal_push::run(&settings, args).map(|()| 0)
        }
        Command::Wal(WalCommand::Fetch(args)) | Command::ArchiveGet(args) => {
            commands::wal_fetch::run(&settings, args, contract.get())
        }
        Command::Wal(WalCommand::Resolve(args)) => {
            commands::wal_resolve::run(&settings, args).map(|()| 0)
        }
        Command::Plan(args) => commands::plan::run(&settings, args).map(|()| 0),
        Command::Restore(args) => commands::restore::run(&settings, args),
        Command::List(args) => commands::list::run(&settings, args),
        Command::Verify(args) => commands::verify::run(&settings, args),
        Command::Check(args) => commands::check::run(&settings, args),
        Command::Expire(args) => commands::expire::run(&settings, args).map(|()| 0),
        Command::Gc(args) => commands::gc::run(&settings, args).map(|()| 0),
        Command::Repair(args) => commands::repair::run(&settings, args),
        Command::Hold(command) => commands::hold::run(&settings, command).map(|()| 0),
        Command::Completions(_) | Command::Man(_) => Ok(0),
    }
}

/// Commands that write into the repository or speak to the server, and so belong to the user who
/// owns the data directory. The others only read, write where the caller says, or, as `init` and
/// `key` do, hand over what they have made.
fn for_the_owner(command: &Command) -> bool {
    match command {
        Command::Wal(WalCommand::Push(_) | WalCommand::Resolve(_))
        | Command::ArchivePush(_)
        | Command::Check(_)
        | Command::Backup(_)
        | Command::Expire(_)
        | Command::Gc(_)
        | Command::Repair(_)
        | Command::Hold(_)
        | Command::Verify(_) => true,
        Command::Wal(WalCommand::Fetch(_))
        | Command::ArchiveGet(_)
        | Command::List(_)
        | Command::Plan(_)
        | Command::Key(_)
        | Command::Init(_)
        | Command::Restore(_)
        | Command::Config(_)
        | Command::Completions(_)
        | Command::Man(_) => false,
    }
}

fn needs(command: &Command) -> (Vec<Flag>, ClusterNeed) {
    match command {
        Command::Init(args) => (args.flags(), ClusterNeed::OneOrNew),
        Command::Backup(args) => (args.flags(), ClusterNeed::One),
        Command::Restore(args) => (args.flags(), ClusterNeed::One),
        Command::Expire(args) => (args.flags(), ClusterNeed::One),
        Command::Gc(args) => (args.flags(), ClusterNeed::One),
        Command::Wal(WalCommand::Push(_) | WalCommand::Fetch(_) | WalCommand::Resolve(_))
        | Command::ArchivePush(_)
        | Command::ArchiveGet(_)
        | Command::Check(_)
        | Command::Hold(_)
        | Command::Repair(_)
        | Command::Plan(_) => (Vec::new(), ClusterNeed::One),
        Command::List(_)
        | Command::Verify(_)
        | Command::Key(_)
        | Command::Config(_)
        | Command::Completions(_)
        | Command::Man(_) => (Vec::new(), ClusterNeed::IfClear),
    }
}

/// The lineage asked for, by commands that read what may be another cluster's than the one here.
fn system_id(command: &Command) -> Option<u64> {
    match command {
        Command::List(args) => args.lineage.system_id,
        Command::Plan(args) => args.lineage.system_id,
        Command::Restore(args) => args.lineage.system_id,
        Command::Verify(args) => args.lineage.system_id,
        Command::Expire(args) => args.lineage.system_id,
        Command::Gc(args) => args.lineage.system_id,
        Command::Repair(args) => args.lineage.system_id,
        Command::Hold(command) => command.lineage().system_id,
        Command::Backup(args) => args.system_id,
        Command::Wal(_)
        | Command::ArchivePush(_)
        | Command::ArchiveGet(_)
        | Command::Check(_)
        | Command::Key(_)
        | Command::Init(_)
        | Command::Config(_)
        | Command::Completions(_)
        | Command::Man(_) => None,
    }
}

fn load(common: &Common, more: Vec<Flag>, cluster: ClusterNeed) -> Outcome<Settings> {
    let mut flags = common.flags();
    flags.extend(more);
    let request = Request { config: common.config.clone(), flags, cluster };
    let resolved = resolve::resolve(&request, &Surroundings::of_process()?)?;
    let settings = Settings::from_resolved(resolved)?;
    logging::start(&settings.log);
    for warning in &settings.resolved.warnings {
        tracing::warn!("{warning}");
    }
    Ok(settings)
}
