//! Backups, collectors, an expiry, a merge and a reader over one domain: packs, index, manifests,
//! intents and rounds.

mod backup;
mod collector;
mod expiry;
mod merge;
mod property;
mod reader;
mod rule;
mod store;
mod variant;

use crate::search::{Model, Steps};
use crate::set::Set;

use backup::Backup;
use collector::{Collector, CollectorStep};
use expiry::Expiry;
use merge::Merge;
use reader::Reader;
pub use rule::{Bounds, First, Property, Retires, Rule, Rules, Tombstones, Watched};
use store::{Answer, PACKS};
pub use store::{Copies, Ending, Objects, Request, Round};
pub use variant::Variant;

/// Requests that are on their way at once.
const LATE: usize = 3;

/// The protocol with some rules, within bounds.
#[derive(Debug, Clone, Copy)]
pub struct Chunks {
    /// The rules that hold.
    pub rules: Rules,
    /// The bounds.
    pub bounds: Bounds,
}

/// All there is to know at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// What is in the store.
    pub store: Objects,
    /// Requests that are on their way.
    late: [Option<Request>; LATE],
    backups: [Backup; 2],
    collectors: [Collector; 2],
    expiry: Expiry,
    merge: Merge,
    reader: Reader,
    budget: Budget,
    /// Names of rounds used up.
    rounds: u8,
    /// Names of index objects used up.
    indexes: u8,
    /// Backups that somebody has decided to expire.
    expired: Set,
    /// Backups that were told "committed".
    told: Set,
    harm: Harm,
}

/// What may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    late: u8,
    lost: u8,
    deaths: u8,
    sentences: u8,
    rot: u8,
    torn: u8,
}

/// What has gone wrong at a step, and cannot be seen afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Harm {
    landed_without_pack: bool,
    backup_missed_pack: bool,
    false_alarm: bool,
    /// Backups that were there or under way when a chunk of theirs lost its last good copy.
    excused: Set,
}

impl State {
    /// A request that takes effect at any time, or never.
    fn later(&mut self, request: Request) {
        if let Some(place) = self.late.iter_mut().find(|place| place.is_none()) {
            *place = Some(request);
        }
        self.late.sort_unstable_by(|a, b| b.cmp(a));
    }
}

/// Where the steps of a state go. Two collectors are the same but for their names.
struct Out<'a> {
    steps: &'a mut Steps<State>,
}

impl Out<'_> {
    fn step(&mut self, mut state: State, words: impl FnOnce() -> String) {
        state.collectors.sort_unstable();
        self.steps.push(state, words);
    }

    /// A request: `answered` says what follows an answer, `unknown` what follows none.
    fn send(
        &mut self,
        state: &State,
        request: Request,
        who: &str,
        answered: impl Fn(&mut State, Answer),
        unknown: impl Fn(&mut State),
    ) {
        let mut next = *state;
        let answer = request.apply(&mut next);
        answered(&mut next, answer);
        self.step(next, || format!("{who}: {request} -> {}", request.told(answer)));
        if state.budget.lost > 0 {
            let mut next = *state;
            next.budget.lost -= 1;
            request.apply(&mut next);
            unknown(&mut next);
            self.step(next, || format!("{who}: {request} -> unknown (it was done)"));
        }
        if state.budget.late > 0 {
            let mut next = *state;
            next.budget.late -= 1;
            next.later(request);
            unknown(&mut next);
            self.step(next, || format!("{who}: {request} -> unknown (still on its way)"));
        }
    }
}

impl Chunks {
    /// The protocol as it is, within bounds.
    #[must_use]
    pub const fn sound(bounds: Bounds) -> Self {
        Self { rules: Rules::all(), bounds }
    }

    fn holds(&self, rule: Rule) -> bool {
        self.rules.hold(rule)
    }

    /// What is in a pack by its id, there or not: ids are never used twice.
    fn contents(&self, state: &State, pack: u8) -> Set {
        let there = state.store.packs[pack as usize];
        if !there.is_empty() {
            return there;
        }
        self.bounds.packs.get(pack as usize).copied().unwrap_or(Set(3))
    }

    /// The chunks that these backups need.
    fn needs(&self, backups: Set) -> Set {
        backups.iter().fold(Set::NONE, |all, b| all.or(self.bounds.wants[b as usize]))
    }

    fn arrivals(&self, state: &State, out: &mut Out<'_>) {
        for (place, request) in state.late.iter().enumerate() {
            let Some(request) = *request else { continue };
            if place > 0 && state.late[place - 1] == Some(request) {
                continue;
            }
            let mut next = *state;
            next.late[place] = None;
            next.late.sort_unstable_by(|a, b| b.cmp(a));
            let answer = request.apply(&mut next);
            out.step(next, || format!("late: {request} -> {}", request.told(answer)));
        }
    }

    /// A copy is found bad, while no collection is under way: what is found while one is can come
    /// too late for it.
    fn finds(&self, state: &State, out: &mut Out<'_>) {
        let quiet = state.store.marked().is_empty()
            && state.collectors.iter().all(|c| c.step == CollectorStep::Idle);
        if state.budget.rot == 0 || !quiet {
            return;
        }
        for pack in state.store.present().iter() {
            for chunk in state.store.packs[pack as usize].minus(state.store.damaged.of(pack)).iter()
            {
                let mut next = *state;
                next.budget.rot -= 1;
                next.store.damaged.add(pack, chunk);
                // Was it the last good one, nobody can help who is there or has begun.
                let begun = (1..).zip(&state.backups).filter(|(_, b)| b.is_under_way());
                let begun = begun.fold(Set::NONE, |all, (b, _)| all.or(Set::of(b)));
                if !self.has_good_copy(&next, chunk) {
                    next.harm.excused = next.harm.excused.or(state.store.valid()).or(begun);
                }
                out.step(next, || format!("verify: notes chunk {chunk} in pack P{pack} as bad"));
            }
        }
    }

    fn has_good_copy(&self, state: &State, chunk: u8) -> bool {
        let good = |pack: u8| {
            state.store.packs[pack as usize].minus(state.store.damaged.of(pack)).has(chunk)
        };
        (0..PACKS).any(good)
    }

    /// An object cannot be read from now on.
    fn tears(&self, state: &State, out: &mut Out<'_>) {
        if state.budget.torn == 0 {
            return;
        }
        let mut tear = |mark: &dyn Fn(&mut Objects), what: String| {
            let mut next = *state;
            next.budget.torn -= 1;
            mark(&mut next.store);
            out.step(next, || format!("{what} cannot be read from now on"));
        };
        for (b, ending) in (0..).zip(&state.store.manifests) {
            if *ending == Ending::Manifest && !state.store.torn_manifests.has(b) {
                tear(&|store| store.torn_manifests.add(b), format!("manifest B{b}"));
            }
        }
        for (r, round) in (0..).zip(&state.store.rounds) {
            if !round.marker.is_empty() && !state.store.torn_markers.has(r) {
                tear(&|store| store.torn_markers.add(r), format!("marker R{r}"));
            }
            if round.list.is_some() && !state.store.torn_lists.has(r) {
                tear(&|store| store.torn_lists.add(r), format!("list R{r}"));
            }
        }
    }
}

impl Model for Chunks {
    type State = State;

    fn start(&self) -> State {
        let bounds = &self.bounds;
        let mut store = Objects::default();
        store.packs[..2].copy_from_slice(&bounds.packs);
        store.indexes[0] = store.present().or(bounds.stale);
        if bounds.first == First::There {
            store.manifests[0] = Ending::Manifest;
        }
        let mut state = State {
            store,
            late: [None; LATE],
            backups: [Backup::default(); 2],
            collectors: bounds.runs.map(Collector::with),
            expiry: Expiry::with(bounds.expiries),
            merge: Merge::with(bounds.merges),
            reader: Reader::with(bounds.reads),
            budget: Budget {
                late: bounds.late,
                lost: bounds.lost,
                deaths: bounds.deaths,
                sentences: bounds.sentences,
                rot: bounds.rot,
                torn: bounds.torn,
            },
            rounds: 0,
            indexes: 3,
            expired: Set::NONE,
            told: Set::NONE,
            harm: Harm::default(),
        };
        for backup in state.backups.iter_mut().skip(bounds.backups.into()) {
            *backup = Backup::ended();
        }
        state.collectors.sort_unstable();
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        let mut out = Out { steps };
        self.arrivals(state, &mut out);
        self.finds(state, &mut out);
        self.tears(state, &mut out);
        for number in 0..self.bounds.backups {
            self.backup(state, number.into(), &mut out);
        }
        for number in 0..2 {
            self.collector(state, number, &mut out);
        }
        self.expiry(state, &mut out);
        self.merge(state, &mut out);
        self.reader(state, &mut out);
    }

    fn broken(&self, state: &State) -> Option<String> {
        self.harm_of(state)
    }

    fn stuck(&self, state: &State) -> Option<String> {
        self.remains_of(state).or_else(|| self.waits_of(state))
    }
}
