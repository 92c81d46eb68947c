//! Is the simulation worth anything? Every planted bug has to be found.

use std::ops::Range;

use pgrecall_sim::database::WalFolder;
use pgrecall_sim::planted::Plant;
use pgrecall_sim::run::Settings;

use super::bench::{
    by_gc, deep, number, print, priority, random, replay, ripe, scene, scene_of, scenes, simulate,
    with,
};

/// Seeds that are tried for a bug, unless the environment says otherwise.
const SEEDS: u64 = 300;

/// Bugs that random runs find soon: a change that makes the simulation blind is seen by these. The
/// seeds that find them move with every request that the product sends more or less, so they are
/// looked for, and not written down.
const SHALLOW: [Plant; 7] = [
    Plant::IndexReadOnce,
    Plant::MarkerNotLookedAt,
    Plant::ExpiredWithoutLog,
    Plant::ExistsIsCommitted,
    Plant::NoWaiting,
    Plant::MergeDropsRetired,
    Plant::WalNotAwaited,
];

/// Seeds within which they are found: several times what it takes.
const SHALLOW_SEEDS: u64 = 120;

#[test]
fn what_is_planted_near_the_surface_is_found() {
    let wal = WalFolder::new().unwrap();
    for plant in SHALLOW {
        let caught = |seed| simulate(&with(plant, random(seed)), &wal).violation.is_some();
        assert!((0..SHALLOW_SEEDS).any(caught), "{} is not found", plant.name());
    }
}

/// Bugs that are found soon where `gc` as it is shipped collects.
const SHALLOW_BY_GC: [Plant; 6] = [
    Plant::MarkerNotLookedAt,
    Plant::NoListNoIntents,
    Plant::NoWaiting,
    Plant::CopyInRetiredPack,
    Plant::MergeDropsRetired,
    Plant::CopyNotIndexed,
];

/// Seeds within which they are found: X6 takes some 150 on an average.
const SHALLOW_SEEDS_BY_GC: u64 = 1000;

#[test]
fn what_is_planted_in_a_shipped_collection_is_found() {
    let wal = WalFolder::new().unwrap();
    for plant in SHALLOW_BY_GC {
        let caught = |seed| simulate(&by_gc(with(plant, random(seed))), &wal).violation.is_some();
        assert!((0..SHALLOW_SEEDS_BY_GC).any(caught), "{} is not found", plant.name());
    }
}

/// Bugs that take a scene of their own, and are found there soon.
const DEEP: [Plant; 7] = [
    Plant::UnknownMarker,
    Plant::IntentBeforeTombstone,
    Plant::PackSentAgain,
    Plant::IndependentExpiries,
    Plant::WinnerDeletes,
    Plant::HoldsLookedAtOnce,
    Plant::HoldNotReadAgain,
];

/// Seeds within which they are found: several times what it takes on an average. They are counted
/// from one where none of them takes long today.
const DEEP_SEEDS: Range<u64> = 2000..12_000;

#[test]
fn what_is_planted_deep_is_found_in_its_scene() {
    let wal = WalFolder::new().unwrap();
    for plant in DEEP {
        let caught = |seed| simulate(&in_its_scene(plant, seed), &wal).violation.is_some();
        assert!(DEEP_SEEDS.clone().any(caught), "{} is not found", plant.name());
    }
}

type Make = fn(Plant, u64) -> Settings;

const SCHEDULERS: [(&str, Make); 7] = [
    ("random", |plant, seed| with(plant, random(seed))),
    ("ripe", |plant, seed| with(plant, ripe(seed))),
    ("priority", |plant, seed| with(plant, priority(seed))),
    ("deep", |plant, seed| with(plant, deep(seed))),
    ("scene", in_its_scene),
    ("gc", |plant, seed| by_gc(with(plant, random(seed)))),
    ("gc-scene", |plant, seed| by_gc(in_its_scene(plant, seed))),
];

/// In its own scene, or in any where it has none.
fn in_its_scene(plant: Plant, seed: u64) -> Settings {
    with(plant, scene_of(plant).map_or_else(|| scenes(seed), |which| scene(which, seed)))
}

/// How many seeds it takes to find each bug, for the table in `docs/evidence.md`:
/// `PGRECALL_SIM_PLANT` names some of them, or `all`; without it nothing is done.
#[test]
fn how_many_seeds_it_takes() {
    let Ok(only) = std::env::var("PGRECALL_SIM_PLANT") else { return };
    let wal = WalFolder::new().unwrap();
    let from = number("PGRECALL_SIM_FROM").unwrap_or(0);
    let count = number("PGRECALL_SIM_SEEDS").unwrap_or(SEEDS);
    for plant in Plant::ALL {
        if only != "all" && !only.split(',').any(|name| name == plant.name()) {
            continue;
        }
        let scheduler = std::env::var("PGRECALL_SIM_SCHEDULER").ok();
        for (name, make) in SCHEDULERS {
            if scheduler.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            let settings = |seed| make(plant, seed);
            if let Some(seed) = number("PGRECALL_SIM_SEED") {
                let outcome = replay(&settings(seed), &wal);
                print(&format!("{} {name} {seed}: {:?}", plant.name(), outcome.violation));
                continue;
            }
            let found = (from..from + count).find_map(|seed| {
                let violation = simulate(&settings(seed), &wal).violation?;
                Some((seed, violation))
            });
            let told = match found {
                Some((seed, violation)) => {
                    format!("{} seeds | {seed} | {violation}", seed - from + 1)
                }
                None => format!("none of {count}"),
            };
            print(&format!("| {} | {} | {name} | {told}", plant.name(), plant.words()));
        }
    }
}
