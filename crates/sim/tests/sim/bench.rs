//! What is run, and on what.

use std::io::Write as _;

use pgrecall_sim::actors::Command;
use pgrecall_sim::database::WalFolder;
use pgrecall_sim::planted::Plant;
use pgrecall_sim::run::{History, Outcome, Scene, Settings, run};
use pgrecall_sim::schedule::Scheduler;
use pgrecall_sim::world::{Medium, Telling};

/// Everything that the product does, some of it more often.
fn everything() -> Vec<Command> {
    use Command::{
        Archive, Backup, ChangeKeys, Collect, Expire, Gc, Hold, Restore, Rotate, StandbyBackup,
        Verify,
    };
    let often = [Backup, Collect, Gc, Expire].repeat(3);
    let seldom =
        [StandbyBackup, Restore, Verify, ChangeKeys, Rotate, Archive, StandbyBackup, Hold, Hold];
    often.into_iter().chain(seldom).collect()
}

/// A run of everything, in any order; one in eight over a directory whose host loses power.
pub(crate) fn random(seed: u64) -> Settings {
    let medium = match seed % 8 {
        5 => Medium::Directory,
        _ => Medium::Remote,
    };
    Settings {
        seed,
        plant: None,
        scheduler: Scheduler::Random,
        medium,
        commands: everything(),
        history: History::Any,
        focus: None,
        calm: false,
        budget: 14,
        at_once: 4,
        telling: Telling::Digest,
    }
}

/// A few commands at once over some history, by priorities.
pub(crate) fn priority(seed: u64) -> Settings {
    use Command::{Backup, Collect, Expire, Gc};
    Settings {
        scheduler: Scheduler::Priority { changes: 4, within: 40 },
        commands: vec![Backup, Backup, Collect, Collect, Gc, Expire],
        budget: 5,
        at_once: 5,
        ..random(seed)
    }
}

/// Three or four at once, by priorities, where the wrong thing is about to happen.
pub(crate) fn deep(seed: u64) -> Settings {
    let at_once = 3 + seed % 2;
    Settings {
        scheduler: Scheduler::Priority { changes: 3, within: 24 },
        history: History::Ripe,
        budget: u32::try_from(at_once).unwrap(),
        at_once: usize::try_from(at_once).unwrap(),
        ..priority(seed)
    }
}

/// The same, in any order.
pub(crate) fn ripe(seed: u64) -> Settings {
    Settings { scheduler: Scheduler::Random, budget: 6, at_once: 4, ..deep(seed) }
}

/// A few commands at once where a certain thing is about to go wrong, by priorities that fall where
/// it matters.
pub(crate) fn scene(scene: Scene, seed: u64) -> Settings {
    let commands = scene.cast(seed);
    Settings {
        scheduler: scene.scheduler(),
        history: History::Scene(scene),
        budget: u32::try_from(commands.len()).unwrap(),
        at_once: commands.len(),
        calm: seed % 5 != 4,
        focus: scene.focus(),
        medium: Medium::Remote,
        commands,
        ..random(seed)
    }
}

/// Any of the scenes.
pub(crate) fn scenes(seed: u64) -> Settings {
    let all = Scene::ALL;
    let which = usize::try_from(seed).unwrap() % all.len();
    scene(all[which], seed / all.len() as u64)
}

/// The scene in which a bug is to be found.
pub(crate) fn scene_of(plant: Plant) -> Option<Scene> {
    Some(match plant {
        Plant::IntentsBeforeMarker | Plant::IntentBeforeTombstone => Scene::Unneeded,
        Plant::OwnVerdict | Plant::MarkerNamedAfterPack => Scene::Doomed,
        Plant::PacksBeforeMarkers => Scene::Copies,
        Plant::PackSentAgain => Scene::Echo,
        Plant::WinnerDeletes => Scene::Freed,
        Plant::IndependentExpiries => Scene::Twins,
        Plant::UnknownMarker => Scene::Astray,
        Plant::HoldsLookedAtOnce | Plant::HoldNotReadAgain => Scene::Held,
        _ => return None,
    })
}

/// The same with a bug, and with the commands that it concerns.
pub(crate) fn with(plant: Plant, settings: Settings) -> Settings {
    use Command::{
        Archive, Backup, ChangeKeys, Collect, Expire, Hold, Restore, StandbyBackup, Verify,
    };
    let commands = match plant {
        Plant::KeyLogLost => vec![ChangeKeys],
        Plant::ExistsNotSynced => vec![Archive, Backup],
        Plant::StopInsteadOfStart | Plant::WalNotAwaited => vec![Backup, Archive, Expire],
        Plant::IntentsIgnored | Plant::FloorIgnored => vec![StandbyBackup, Expire, Expire],
        Plant::IndependentExpiries | Plant::WinnerDeletes => vec![Backup, Expire, Expire],
        Plant::HoldsLookedAtOnce | Plant::HoldNotReadAgain => {
            vec![Backup, Backup, Expire, Hold, Expire, Hold]
        }
        Plant::IndexReadOnce => vec![Backup, Collect, Restore, Verify, Collect, Expire],
        _ => vec![Backup, Collect, Backup, Collect, Collect, Expire],
    };
    let medium = match plant {
        Plant::ExistsNotSynced => Medium::Directory,
        _ => Medium::Remote,
    };
    let focus = match plant {
        Plant::UnknownMarker => Some("/retired/"),
        Plant::UnknownIntent => Some("/intents/"),
        Plant::GivesUpItsIntent => Some("/backups/"),
        Plant::PackSentAgain => Some("/packs/"),
        _ => None,
    };
    let settings = Settings { plant: Some(plant), ..settings };
    match settings.history {
        History::Scene(_) => settings,
        History::Any | History::Ripe => Settings { commands, medium, focus, ..settings },
    }
}

/// The same, with `gc` as it is shipped wherever collections are made of its steps.
pub(crate) fn by_gc(settings: Settings) -> Settings {
    let commands = settings.commands.into_iter();
    let commands = commands.map(|command| match command {
        Command::Collect => Command::Gc,
        other => other,
    });
    Settings { commands: commands.collect(), ..settings }
}

/// Runs on this thread, with a clock that stands still while anybody can go on.
pub(crate) fn simulate(settings: &Settings, wal: &WalFolder) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, run(settings, wal))
}

/// Runs it and prints every event.
pub(crate) fn replay(settings: &Settings, wal: &WalFolder) -> Outcome {
    let settings = Settings { telling: Telling::Full, ..settings.clone() };
    let outcome = simulate(&settings, wal);
    for line in &outcome.told {
        print(line);
    }
    outcome
}

pub(crate) fn print(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
