//! The searches that are made, by name: those of the protocol as it is, and those of its variants.

use crate::chunks::{Bounds, Chunks, First, Property, Variant, Watched};
use crate::expired_log::{ExpiredLog, LogRule};
use crate::keys::{KeyRule, Keys, Task};
use crate::search::{Outcome, search};
use crate::set::Set;
use crate::wal::{Wal, WalRule};

/// How long a search takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Seconds.
    Short,
    /// Minutes, and gigabytes of memory.
    Long,
}

/// What is expected of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Everything holds in every state.
    Sound,
    /// This property breaks.
    Breaks(&'static str),
}

/// A search.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its name.
    pub name: String,
    /// How long it takes.
    pub length: Length,
    /// What is expected.
    pub expected: Expected,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Chunks(Chunks),
    Log(ExpiredLog),
    Wal(Wal),
    Keys(Keys),
}

/// States of a search, at most.
const STATES_MAX: usize = 60_000_000;

impl Run {
    /// Makes the search.
    #[must_use]
    pub fn search(&self) -> Outcome {
        match &self.what {
            What::Chunks(model) => search(model, STATES_MAX),
            What::Log(model) => search(model, STATES_MAX),
            What::Wal(model) => search(model, STATES_MAX),
            What::Keys(model) => search(model, STATES_MAX),
        }
    }

    /// Whether what was found is what was expected.
    #[must_use]
    pub fn is_as_expected(&self, outcome: &Outcome) -> bool {
        match (self.expected, outcome) {
            (Expected::Sound, Outcome::Sound(_)) => true,
            (Expected::Breaks(property), Outcome::Broken { what, .. }) => what.contains(property),
            _ => false,
        }
    }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Run> {
    let mut runs = Vec::new();
    runs.extend(sound_chunks());
    runs.extend(Variant::ALL.into_iter().map(variant));
    runs.extend(logs());
    runs.extend(wals());
    runs.extend(keys());
    runs
}

fn run(name: &str, length: Length, expected: Expected, what: What) -> Run {
    Run { name: name.to_owned(), length, expected, what }
}

fn variant(variant: Variant) -> Run {
    let model = Chunks { rules: variant.rules(), bounds: variant.bounds() };
    let length = if variant.is_near() { Length::Short } else { Length::Long };
    run(variant.name(), length, Expected::Breaks(variant.breaks()), What::Chunks(model))
}

fn sound_chunks() -> impl Iterator<Item = Run> {
    use Length::{Long, Short};
    let small = Bounds::small();
    let one = Set(1);
    let commits = Watched::usual().with(Property::Commits);
    let gone = Bounds { first: First::Gone, watched: commits, ..small };
    let quiet = Bounds { sentences: 0, ..small };
    let copies = Bounds { packs: [one, one], ..quiet };
    let bounds = [
        ("one-backup-two-collectors", Short, small),
        ("faults", Short, Bounds { late: 1, lost: 1, deaths: 1, runs: [2, 0], ..gone }),
        ("two-backups", Short, Bounds { backups: 2, runs: [2, 0], ..small }),
        ("damage", Short, Bounds { rot: 1, runs: [2, 1], ..copies }),
        ("torn", Short, Bounds { torn: 1, runs: [2, 1], ..quiet }),
        ("reader", Short, Bounds { reads: 1, runs: [2, 1], ..quiet }),
        ("two-backups-two-collectors", Long, Bounds { backups: 2, runs: [2, 1], ..small }),
        (
            "faults-two-collectors",
            Long,
            Bounds { late: 1, lost: 1, deaths: 1, runs: [2, 1], ..gone },
        ),
        ("two-late", Long, Bounds { late: 2, deaths: 1, runs: [3, 0], ..gone }),
        ("merge", Long, Bounds { merges: 1, ..small }),
        ("damage-two-collectors", Long, Bounds { rot: 1, deaths: 1, ..copies }),
        ("torn-two-collectors", Long, Bounds { torn: 1, late: 1, runs: [2, 1], ..small }),
        ("reader-merge", Long, Bounds { reads: 1, merges: 1, runs: [3, 0], expiries: 2, ..quiet }),
        ("reader-two-copies", Long, Bounds { reads: 1, runs: [2, 2], ..copies }),
    ];
    bounds.into_iter().map(|(name, length, bounds)| {
        run(name, length, Expected::Sound, What::Chunks(Chunks::sound(bounds)))
    })
}

fn logs() -> impl Iterator<Item = Run> {
    use Expected::{Breaks, Sound};
    use Length::{Long, Short};
    let log = |without, expiring, holding, late| {
        What::Log(ExpiredLog { without, expiring, holding, late })
    };
    let runs = [
        ("log", Short, Sound, log(None, 3, 0, 2)),
        ("log-hold", Short, Sound, log(None, 2, 1, 2)),
        ("log-four", Long, Sound, log(None, 4, 0, 3)),
        ("log-two-holds", Long, Sound, log(None, 2, 2, 1)),
        ("E1", Short, Breaks("S4"), log(Some(LogRule::OneLog), 3, 0, 0)),
        ("E2", Short, Breaks("S5"), log(Some(LogRule::HighestHolds), 3, 0, 2)),
        ("H1a", Short, Breaks("H1"), log(Some(LogRule::HoldsInTheLog), 1, 1, 0)),
        ("H1b", Short, Breaks("H1"), log(Some(LogRule::HoldReadAgain), 2, 1, 1)),
    ];
    runs.into_iter().map(|(name, length, expected, what)| run(name, length, expected, what))
}

fn wals() -> impl Iterator<Item = Run> {
    use Expected::{Breaks, Sound};
    use Length::{Long, Short};
    use WalRule as Rule;
    let wal = |without, backups, runs, late, sentences| {
        What::Wal(Wal { without, backups, runs, late, sentences })
    };
    let broken = |rule| wal(Some(rule), 1, [1, 1], 0, 0);
    let runs = [
        ("wal", Short, Sound, wal(None, 1, [1, 1], 0, 0)),
        ("wal-two-backups", Short, Sound, wal(None, 2, [2, 0], 0, 0)),
        ("wal-late", Long, Sound, wal(None, 1, [1, 1], 1, 1)),
        ("wal-again", Long, Sound, wal(None, 1, [2, 1], 0, 1)),
        ("W1a", Short, Breaks("W1"), broken(Rule::FloorCompared)),
        ("W1b", Short, Breaks("W1"), broken(Rule::FloorReadAfterIntent)),
        ("W1c", Short, Breaks("W1"), broken(Rule::FloorWrittenFirst)),
        ("W1d", Short, Breaks("W1"), wal(Some(Rule::DeletesBelowFloor), 2, [1, 0], 0, 0)),
        ("W1e", Short, Breaks("W1"), broken(Rule::IntentsListedAgain)),
        ("W1f", Short, Breaks("W1"), broken(Rule::ManifestsListedLast)),
        ("wal-floor-before-start", Short, Sound, broken(Rule::FloorReadAfterStart)),
        ("wal-silent", Short, Sound, broken(Rule::SilentKeepsAll)),
        ("wal-start-in-doubt", Long, Sound, wal(Some(Rule::StartConfirmed), 1, [1, 1], 1, 1)),
    ];
    runs.into_iter().map(|(name, length, expected, what)| run(name, length, expected, what))
}

fn keys() -> impl Iterator<Item = Run> {
    use Expected::{Breaks, Sound};
    use Length::Short;
    let first = Task::Remove { key: 0, proof: 1 };
    let second = Task::Remove { key: 1, proof: 0 };
    let keys = |without, last| What::Keys(Keys { without, tasks: [first, second, last], late: 1 });
    let new = Task::Add(2);
    let runs = [
        ("keys", Short, Sound, keys(None, new)),
        ("keys-again", Short, Sound, keys(None, Task::Add(0))),
        ("K1", Short, Breaks("K1"), keys(Some(KeyRule::ProofIsLiving), new)),
        ("K2a", Short, Breaks("K2"), keys(Some(KeyRule::LogBeforeWrap), new)),
        ("K2b", Short, Breaks("K2"), keys(Some(KeyRule::WrapBeforeLog), new)),
        ("K2c", Short, Breaks("K2"), keys(Some(KeyRule::EntriesStay), new)),
        ("K2d", Short, Breaks("K2"), keys(Some(KeyRule::IdsNeverReturn), Task::Add(0))),
    ];
    runs.into_iter().map(|(name, length, expected, what)| run(name, length, expected, what))
}
