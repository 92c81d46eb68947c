//! Is the simulation worth anything? Every planted bug has to be found.

use pgrecall_sim::database::WalFolder;
use pgrecall_sim::planted::Plant;
use pgrecall_sim::run::Settings;

use super::bench::{number, print, priority, random, replay, simulate, with};

/// Seeds that are tried for a bug, unless the environment says otherwise.
const SEEDS: u64 = 300;

type Make = fn(u64) -> Settings;

const SCHEDULERS: [(&str, Make); 2] = [("random", random), ("priority", priority)];

/// How many seeds it takes to find each bug, for the table in `docs/evidence.md`:
/// `PGRECALL_SIM_PLANT` names one of them, or `all`; without it nothing is done.
#[test]
fn how_many_seeds_it_takes() {
    let Ok(only) = std::env::var("PGRECALL_SIM_PLANT") else { return };
    let wal = WalFolder::new().unwrap();
    let from = number("PGRECALL_SIM_FROM").unwrap_or(0);
    let count = number("PGRECALL_SIM_SEEDS").unwrap_or(SEEDS);
    for plant in Plant::ALL {
        if only != "all" && only != plant.name() {
            continue;
        }
        for (name, make) in SCHEDULERS {
            let settings = |seed| with(plant, make(seed));
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
