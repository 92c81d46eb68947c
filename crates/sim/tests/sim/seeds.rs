//! Runs of the product as it is: nothing may be violated.

use pgrecall_sim::database::WalFolder;
use pgrecall_sim::run::Settings;

use super::bench::{deep, number, print, priority, random, replay, ripe, scenes, simulate};

/// Seeds, unless the environment says otherwise.
const SEEDS: u64 = 200;

fn run_seeds(share: u64, settings: impl Fn(u64) -> Settings) {
    let wal = WalFolder::new().unwrap();
    if let Some(seed) = number("PGRECALL_SIM_SEED") {
        let outcome = replay(&settings(seed), &wal);
        assert_eq!(outcome.violation, None, "seed {seed}");
        return;
    }
    let from = number("PGRECALL_SIM_FROM").unwrap_or(0);
    let count = number("PGRECALL_SIM_SEEDS").unwrap_or(SEEDS) / share;
    let mut bad = Vec::new();
    let mut events = 0;
    for seed in from..from + count {
        let outcome = simulate(&settings(seed), &wal);
        events += outcome.events;
        if let Some(violation) = outcome.violation {
            print(&format!("seed {seed}: {violation}"));
            bad.push(seed);
        }
    }
    print(&format!("{count} seeds from {from}, {events} events"));
    assert!(bad.is_empty(), "seeds that violate something: {bad:?}");
}

#[test]
fn random_seeds() {
    run_seeds(4, random);
}

#[test]
fn ripe_seeds() {
    run_seeds(4, ripe);
}

#[test]
fn priority_seeds() {
    run_seeds(4, priority);
}

#[test]
fn deep_seeds() {
    run_seeds(4, deep);
}

#[test]
fn scene_seeds() {
    run_seeds(2, scenes);
}

/// Otherwise no seed could be replayed.
#[test]
fn one_seed_is_one_run() {
    let wal = WalFolder::new().unwrap();
    for settings in (0..6)
        .map(random)
        .chain((0..6).map(priority))
        .chain((0..6).map(deep))
        .chain((0..6).map(ripe))
        .chain((0..12).map(scenes))
    {
        let (first, second) = (simulate(&settings, &wal), simulate(&settings, &wal));
        assert_eq!(first.digest, second.digest, "{settings:?}");
    }
}
