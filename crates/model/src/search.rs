//! Breadth first over every interleaving. Whole states are compared, so that the result is exact
//! and a trace is as short as can be.

use std::fmt;
use std::hash::{Hash, Hasher};

/// Something that takes steps, and what must hold after each.
pub trait Model {
    /// All there is to know at one moment.
    type State: Copy + Eq + Hash;

    /// Where it begins.
    fn start(&self) -> Self::State;

    /// Every step that can be next.
    fn steps(&self, state: &Self::State, steps: &mut Steps<Self::State>);

    /// What does not hold in a state.
    fn broken(&self, state: &Self::State) -> Option<String>;

    /// What could not be brought about any more from a state: asked once of each.
    fn stuck(&self, _state: &Self::State) -> Option<String> {
        None
    }
}

/// The steps that can be next, with words for them when a trace is told.
#[derive(Debug)]
pub struct Steps<S> {
    next: Vec<(S, String)>,
    words: Words,
}

/// Whether steps are put into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    Wanted,
    LeftOut,
}

impl<S> Steps<S> {
    /// Steps with words.
    #[must_use]
    pub const fn told() -> Self {
        Self { next: Vec::new(), words: Words::Wanted }
    }

    const fn silent() -> Self {
        Self { next: Vec::new(), words: Words::LeftOut }
    }

    /// One more.
    pub fn push(&mut self, state: S, words: impl FnOnce() -> String) {
        let words = if self.words == Words::Wanted { words() } else { String::new() };
        self.next.push((state, words));
    }

    /// All of them.
    #[must_use]
    pub fn into_all(self) -> Vec<(S, String)> {
        self.next
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: u64,
    /// The longest of the shortest ways to a state.
    pub depth: u16,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} steps, depth {}", self.states, self.steps, self.depth)
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything holds in every state.
    Sound(Size),
    /// Something does not.
    Broken {
        /// What.
        what: String,
        /// The steps that lead there, one a line.
        trace: Vec<String>,
        /// States looked at.
        states: usize,
    },
    /// There were more states than allowed; up to there everything holds.
    Unfinished(Size),
}

/// Looks at every state that can be reached, `states_max` of them at most.
#[must_use]
pub fn search<M: Model>(model: &M, states_max: usize) -> Outcome {
    let mut seen = Seen::new(model.start());
    let mut at = 0;
    let mut steps = 0;
    while let Some(state) = seen.states.get(at).copied() {
        if let Some(what) = model.stuck(&state) {
            return seen.told(model, at, what);
        }
        let mut next = Steps::silent();
        model.steps(&state, &mut next);
        for (state, _) in next.next {
            steps += 1;
            let Some(new) = seen.add(state, at) else { continue };
            if let Some(what) = model.broken(&state) {
                return seen.told(model, new, what);
            }
        }
        at += 1;
        if seen.states.len() > states_max {
            return Outcome::Unfinished(seen.size(steps));
        }
    }
    Outcome::Sound(seen.size(steps))
}

/// States by number, with the one that each was reached from.
struct Seen<S> {
    states: Vec<S>,
    from: Vec<u32>,
    depths: Vec<u16>,
    /// Open addressing: numbers of states.
    table: Vec<u32>,
}

const NOBODY: u32 = u32::MAX;

impl<S: Copy + Eq + Hash> Seen<S> {
    fn new(start: S) -> Self {
        let table = vec![NOBODY; 1 << 16];
        let mut seen = Self { states: Vec::new(), from: Vec::new(), depths: Vec::new(), table };
        seen.add(start, 0);
        seen
    }

    /// The number of a state that was not there.
    fn add(&mut self, state: S, from: usize) -> Option<usize> {
        let mut slot = self.slot(&state);
        while let Some(number) = self.number_in(slot) {
            if self.states[number] == state {
                return None;
            }
            slot = (slot + 1) & (self.table.len() - 1);
        }
        let number = self.states.len();
        self.table[slot] = u32::try_from(number).expect("fewer states than a u32 counts");
        self.states.push(state);
        self.from.push(u32::try_from(from).unwrap_or(NOBODY));
        self.depths.push(if number == 0 { 0 } else { self.depths[from] + 1 });
        if self.states.len() * 2 > self.table.len() {
            self.grow();
        }
        Some(number)
    }

    fn grow(&mut self) {
        self.table = vec![NOBODY; self.table.len() * 2];
        for (number, state) in (0..).zip(&self.states) {
            let mut slot = self.slot(state);
            while self.table[slot] != NOBODY {
                slot = (slot + 1) & (self.table.len() - 1);
            }
            self.table[slot] = number;
        }
    }

    fn slot(&self, state: &S) -> usize {
        let mut hasher = Mixer { hash: 0x9E37_79B9_7F4A_7C15, word: 0, bytes: 0 };
        state.hash(&mut hasher);
        hasher.finish() as usize & (self.table.len() - 1)
    }

    fn number_in(&self, slot: usize) -> Option<usize> {
        Some(self.table[slot]).filter(|number| *number != NOBODY).map(|number| number as usize)
    }

    fn size(&self, steps: u64) -> Size {
        let depth = self.depths.last().copied().unwrap_or_default();
        Size { states: self.states.len(), steps, depth }
    }

    fn told<M: Model<State = S>>(&self, model: &M, mut at: usize, what: String) -> Outcome {
        let mut way = vec![at];
        while at != 0 {
            at = self.from[at] as usize;
            way.push(at);
        }
        way.reverse();
        let mut trace = Vec::new();
        for pair in way.windows(2) {
            let mut steps = Steps::told();
            model.steps(&self.states[pair[0]], &mut steps);
            let to = self.states[pair[1]];
            let step = steps.next.into_iter().find(|(state, _)| *state == to);
            trace.push(step.map_or_else(String::new, |(_, words)| words));
        }
        Outcome::Broken { what, trace, states: self.states.len() }
    }
}

/// Fast, and good enough: states are compared whole.
struct Mixer {
    hash: u64,
    /// Bytes that wait until there are eight.
    word: u64,
    bytes: u32,
}

impl Mixer {
    const fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.hash ^= self.hash >> 32;
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mut last = Self { ..*self };
        last.mix(self.word);
        last.hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53) ^ (last.hash >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }

    fn write_u8(&mut self, byte: u8) {
        self.word = self.word << 8 | u64::from(byte);
        self.bytes += 1;
        if self.bytes == 8 {
            self.mix(self.word);
            (self.word, self.bytes) = (0, 0);
        }
    }

    fn write_isize(&mut self, number: isize) {
        // The discriminant of an enum: small.
        self.write_u8(number as u8);
    }

    fn write_usize(&mut self, number: usize) {
        // The length of an array: always the same.
        self.write_u8(number as u8);
    }
}
