//! What happens next.

use std::collections::{BTreeMap, BTreeSet};

mod steps;

use crate::chance::Chance;
use crate::request::{Fate, ProcessId, Request, Sends};
use crate::world::{Medium, World};

use steps::{Place, Step};

/// How the next request is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// Any request that waits, each as likely as any other.
    Random,
    /// Every process, and every late request, has a priority, and the highest goes on until it
    /// falls to the bottom at one of a few places: what takes few but certain changes of turn is
    /// found soon (Burckhardt et al., A randomized scheduler with probabilistic guarantees of
    /// finding bugs, 2010).
    Priority {
        /// How often a priority falls.
        changes: u32,
        /// Within so many requests that can change something: each of them ends a step.
        within: u64,
    },
    /// Priorities as well. They fall at kinds of steps, which are as many in a long run as in a
    /// short one, and not only before changes: what was listed may be out of date before the next
    /// thing is. Who falls need not fall behind those that have fallen before, and some come late.
    Places {
        /// How often a priority falls, at most.
        most: u32,
        /// Before a process's how-manieth listing of a kind one may fall, at most.
        looks: u32,
        /// How often, in a thousand, who began first is ahead, and not whom chance prefers: a scene
        /// may name its processes in the order that leads furthest.
        in_order: u64,
    },
}

/// How rough a run is: in a thousand.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    answer_lost: u64,
    late: u64,
    refused: u64,
    doubled: u64,
    /// A process dies.
    pub crash: u64,
    /// A process stands still for long.
    pub pause: u64,
    /// A part of names whose requests fail more often than others.
    focus: Option<&'static str>,
}

/// What weather may fall on: what it takes for a fault in one certain place to be likely.
const FOCUSES: [&str; 6] = ["/intents/", "/retired/", "/backups/", "/packs/", "/expired/", "wal/"];

impl Weather {
    /// Calm, fresh or rough.
    #[must_use]
    pub fn draw(chance: &mut Chance, medium: Medium, focus: Option<&'static str>) -> Self {
        let rough = match chance.below(4) {
            0 => 0,
            1 => 5,
            2 => 20,
            _ => 60,
        };
        let mut part = |most: u64| if rough == 0 { 0 } else { chance.below(rough * most / 10 + 1) };
        let mut weather = Self {
            answer_lost: part(8),
            late: part(6),
            refused: part(12),
            doubled: part(6),
            crash: part(3),
            pause: part(4),
            focus: None,
        };
        if focus.is_some() {
            weather.focus = focus;
        } else if chance.happens(500) {
            weather.focus = Some(FOCUSES[chance.place(FOCUSES.len())]);
        }
        if medium == Medium::Directory {
            let calm = Self { answer_lost: 0, late: 0, refused: 0, doubled: 0, ..weather };
            weather = Self { focus: None, ..calm };
        }
        weather
    }

    /// Faults only where they fall on purpose.
    #[must_use]
    pub const fn calm(focus: Option<&'static str>) -> Self {
        Self { answer_lost: 0, late: 0, refused: 0, doubled: 0, crash: 0, pause: 0, focus }
    }

    /// What becomes of a request.
    pub fn fate(&self, chance: &mut Chance, request: &Request) -> Fate {
        if matches!(request, Request::Sync(_)) {
            return Fate::Done;
        }
        let in_focus = self.focus.is_some_and(|part| request.changes() && request.names(part));
        let rough = Self { answer_lost: 80, late: 350, refused: 50, doubled: 100, ..*self };
        let weather = if in_focus { rough } else { *self };
        let mut left = chance.below(1000);
        let mut is = |part: u64| {
            let hit = left < part;
            left = left.saturating_sub(part);
            hit
        };
        if is(weather.refused) {
            Fate::Refused
        } else if is(weather.answer_lost) && request.changes() {
            Fate::AnswerLost
        } else if is(weather.late) && request.changes() {
            Fate::Late
        } else if is(weather.doubled) && request.may_double() {
            Fate::Doubled
        } else {
            Fate::Done
        }
    }
}

/// What can happen to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A waiting one, by its place.
    Parked(usize),
    /// A late one arrives.
    Late(usize),
    /// A late one is lost.
    Lost(usize),
    /// Nobody can go on.
    Nobody,
}

/// Chooses whose turn it is.
#[derive(Debug)]
pub struct Turns {
    scheduler: Scheduler,
    processes: BTreeMap<ProcessId, u64>,
    lates: BTreeMap<u64, u64>,
    /// Changes before which the priority of whoever has the turn falls.
    falls: BTreeSet<u64>,
    /// Places before which it does.
    places: Vec<Place>,
    /// Whether who began first is ahead.
    in_order: bool,
    /// How often each has come to each kind of step.
    reached: BTreeMap<(ProcessId, Step), u32>,
    /// Requests that are in there.
    counted: BTreeSet<u64>,
    bottom: u64,
    /// How often, in a thousand, a process stands still before it changes something: the moments
    /// around changes are those that matter.
    hold: u64,
    /// Processes that stand still, until an event.
    pauses: BTreeMap<ProcessId, u64>,
    events: u64,
    changes: u64,
}

/// Priorities start above those that fall.
const FALLEN_MAX: u64 = 1 << 20;

impl Turns {
    /// The turns of a run.
    #[must_use]
    pub fn new(scheduler: Scheduler, chance: &mut Chance) -> Self {
        let falls = match scheduler {
            Scheduler::Random | Scheduler::Places { .. } => BTreeSet::new(),
            Scheduler::Priority { changes, within } => {
                (0..changes).map(|_| 1 + chance.below(within)).collect()
            }
        };
        let places = match scheduler {
            Scheduler::Random | Scheduler::Priority { .. } => Vec::new(),
            Scheduler::Places { most, looks, .. } => {
                let falls = 1 + chance.below(most.into());
                (0..falls).map(|_| Place::draw(chance, looks)).collect()
            }
        };
        let in_order = match scheduler {
            Scheduler::Places { in_order, .. } if in_order > 0 => chance.happens(in_order),
            _ => false,
        };
        let hold = [0, 40, 150][chance.place(3)];
        Self {
            scheduler,
            hold,
            processes: BTreeMap::new(),
            lates: BTreeMap::new(),
            falls,
            places,
            in_order,
            reached: BTreeMap::new(),
            counted: BTreeSet::new(),
            bottom: FALLEN_MAX,
            pauses: BTreeMap::new(),
            events: 0,
            changes: 0,
        }
    }

    /// A process stands still for so many events.
    pub fn pause(&mut self, process: ProcessId, events: u64) {
        self.pauses.insert(process, self.events + events);
    }

    /// Everybody goes on.
    pub fn wake(&mut self) {
        self.pauses.clear();
    }

    /// Whose turn it is.
    pub fn next(&mut self, world: &mut World, chance: &mut Chance) -> Turn {
        self.events += 1;
        let events = self.events;
        self.pauses.retain(|_, until| *until > events);
        match self.scheduler {
            Scheduler::Random => self.any(world, chance),
            Scheduler::Priority { .. } | Scheduler::Places { .. } => self.highest(world, chance),
        }
    }

    fn any(&mut self, world: &mut World, chance: &mut Chance) -> Turn {
        let late = world.late().len();
        if late > 0 && chance.happens(25) {
            let place = chance.place(late);
            return if chance.happens(700) { Turn::Late(place) } else { Turn::Lost(place) };
        }
        let awake = |(_, process): &(usize, ProcessId)| !self.pauses.contains_key(process);
        let parked = world.parked().iter().map(|parked| parked.process).enumerate();
        let awake: Vec<usize> = parked.filter(awake).map(|(place, _)| place).collect();
        if awake.is_empty() {
            return Turn::Nobody;
        }
        let place = awake[chance.place(awake.len())];
        let chosen = world.parked().get(place);
        match chosen.filter(|parked| turns(&parked.request)).map(|parked| parked.process) {
            Some(process) if awake.len() > 1 && chance.happens(self.hold) => {
                self.pause(process, 20 + chance.below(300));
                self.any(world, chance)
            }
            _ => Turn::Parked(place),
        }
    }

    fn highest(&mut self, world: &mut World, chance: &mut Chance) -> Turn {
        let by_places = matches!(self.scheduler, Scheduler::Places { .. });
        let mut best: Option<(u64, Turn)> = None;
        let mut offer = |priority: u64, turn: Turn| {
            if best.is_none_or(|(highest, _)| priority > highest) {
                best = Some((priority, turn));
            }
        };
        let mut draw = |behind: u64| match by_places && chance.happens(behind) {
            true => 1 + chance.below(FALLEN_MAX),
            false => FALLEN_MAX + 1 + chance.below(1 << 30),
        };
        for (place, late) in world.late().iter().enumerate() {
            let priority = *self.lates.entry(late.number).or_insert_with(|| draw(700));
            offer(priority, Turn::Late(place));
        }
        let parked: Vec<ProcessId> = world.parked().iter().map(|parked| parked.process).collect();
        for (place, process) in parked.iter().enumerate() {
            let first = || match self.in_order {
                true => FALLEN_MAX + (1 << 30) - u64::from(process.0),
                false => draw(250),
            };
            let priority = *self.processes.entry(*process).or_insert_with(first);
            offer(priority, Turn::Parked(place));
        }
        let Some((_, turn)) = best else { return Turn::Nobody };
        if !self.falls_before(turn, world) {
            return turn;
        }
        let priority = self.fallen(chance);
        match turn {
            Turn::Parked(place) => {
                self.processes.insert(parked[place], priority);
            }
            Turn::Late(place) => {
                let number = world.late().get(place).map_or(0, |late| late.number);
                self.lates.insert(number, priority);
            }
            Turn::Lost(_) | Turn::Nobody => {}
        }
        self.highest(world, chance)
    }

    /// A priority for whoever stands back: behind all others, or behind those that have not fallen.
    fn fallen(&mut self, chance: &mut Chance) -> u64 {
        if let Scheduler::Places { .. } = self.scheduler {
            return 1 + chance.below(FALLEN_MAX);
        }
        self.bottom -= 1;
        self.bottom
    }

    /// Whether whoever has the turn stands back instead.
    fn falls_before(&mut self, turn: Turn, world: &mut World) -> bool {
        let chosen = match turn {
            Turn::Parked(place) => world.parked().get(place),
            _ => None,
        };
        if let Scheduler::Places { .. } = self.scheduler {
            let Some(chosen) = chosen else { return false };
            let Some(step) = Step::of(&chosen.request) else { return false };
            if !self.counted.insert(chosen.ticket()) {
                return false;
            }
            let number = self.reached.entry((chosen.process, step)).or_default();
            *number += 1;
            let is_here = |place: &Place| (place.step, place.number) == (step, *number);
            let Some(found) = self.places.iter().position(is_here) else { return false };
            if self.places.get(found).is_some_and(|place| !place.all) {
                self.places.swap_remove(found);
            }
            return true;
        }
        let changes = chosen.is_none_or(|chosen| turns(&chosen.request));
        self.changes += u64::from(changes);
        changes && self.falls.remove(&self.changes)
    }
}

/// Whether a request changes what others see: packs concern nobody until an index object names
/// them.
fn turns(request: &Request) -> bool {
    let is_pack = matches!(request, Request::Put(_, _, Sends::Once)) && request.names("/packs/");
    request.changes() && !is_pack
}
