//! Keys that are added and removed by several hosts at once: wraps, and a log that names the
//! living ones.

use crate::search::{Model, Steps};
use crate::set::Set;

/// Numbers of entries.
const NUMBERS: usize = 6;
/// Hosts.
const HOSTS: usize = 3;

/// A rule of keys, which can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRule {
    /// Who removes a key has opened another one, and the entry before his names that.
    ProofIsLiving,
    /// The log says that a key is removed before its wrap goes.
    LogBeforeWrap,
    /// The log says that a key lives after its wrap is there.
    WrapBeforeLog,
    /// Entries of the log are never removed, so that no number is free again.
    EntriesStay,
    /// A key that the log has ever named is not added again.
    IdsNeverReturn,
}

/// What a host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Removes a key, having opened another.
    Remove {
        /// The key that goes.
        key: u8,
        /// The key that was opened.
        proof: u8,
    },
    /// Adds a key.
    Add(u8),
    /// Does nothing.
    Rest,
}

/// Hosts and bounds.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// The rule that is broken.
    pub without: Option<KeyRule>,
    /// What each host does.
    pub tasks: [Task; HOSTS],
    /// Deletes of wraps that arrive late.
    pub late: u8,
}

/// Where a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// The proof is opened, or the wrap put.
    First,
    ReadLog,
    PutLog(u8, Set),
    /// The wrap goes.
    Last,
    Done,
}

/// All there is to know at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    wraps: Set,
    entries: [Option<Set>; NUMBERS],
    /// Keys that an entry has ever named.
    named: Set,
    hosts: [Step; HOSTS],
    /// Wraps whose deletion is on its way.
    deleting: Set,
    late: u8,
}

impl State {
    fn highest(&self) -> (u8, Set) {
        let there = (0..).zip(&self.entries).filter_map(|(n, entry)| Some((n, (*entry)?)));
        there.max_by_key(|(n, _)| *n).unwrap_or_default()
    }
}

impl Keys {
    fn holds(&self, rule: KeyRule) -> bool {
        self.without != Some(rule)
    }

    fn host(&self, state: &State, host: usize, steps: &mut Steps<State>) {
        match self.tasks[host] {
            Task::Remove { key, proof } => self.remove(state, host, (key, proof), steps),
            Task::Add(key) => self.add(state, host, key, steps),
            Task::Rest => {}
        }
    }

    fn go(state: &State, host: usize, step: Step) -> State {
        let mut next = *state;
        next.hosts[host] = step;
        next
    }

    fn remove(&self, state: &State, host: usize, (key, proof): (u8, u8), steps: &mut Steps<State>) {
        let log_first = self.holds(KeyRule::LogBeforeWrap);
        match state.hosts[host] {
            Step::First => {
                let opens = state.wraps.has(proof);
                let step = match (opens, log_first) {
                    (false, _) => Step::Done,
                    (true, true) => Step::ReadLog,
                    (true, false) => Step::Last,
                };
                let next = Self::go(state, host, step);
                steps.push(next, || format!("H{host}: opens key {proof}: {opens}"));
            }
            Step::ReadLog => {
                let (number, living) = state.highest();
                let proven = living.has(proof) || !self.holds(KeyRule::ProofIsLiving);
                let step = match proven && living.has(key) {
                    true => Step::PutLog(number + 1, living.minus(Set::of(key))),
                    false => Step::Done,
                };
                let next = Self::go(state, host, step);
                steps.push(next, || format!("H{host}: reads entry {number}, living {living}"));
            }
            Step::PutLog(number, living) => {
                let won = if log_first { Step::Last } else { Step::Done };
                self.put_log(state, host, (number, living), won, steps);
            }
            Step::Last => {
                let after = if log_first { Step::Done } else { Step::ReadLog };
                let mut next = Self::go(state, host, after);
                next.wraps.remove(key);
                steps.push(next, || format!("H{host}: deletes wrap {key}"));
                if state.late > 0 {
                    let mut next = Self::go(state, host, Step::Done);
                    next.late -= 1;
                    next.deleting.add(key);
                    steps.push(next, || format!("H{host}: deletes wrap {key}: on its way, dies"));
                }
            }
            Step::Done => {}
        }
    }

    fn put_log(
        &self,
        state: &State,
        host: usize,
        (number, living): (u8, Set),
        won: Step,
        steps: &mut Steps<State>,
    ) {
        let Some(place) = state.entries.get(usize::from(number)) else { return };
        let free = place.is_none();
        let mut next = Self::go(state, host, if free { won } else { Step::ReadLog });
        if free {
            next.entries[usize::from(number)] = Some(living);
            next.named = next.named.or(living);
        }
        let told = if free { "created" } else { "exists" };
        steps.push(next, || format!("H{host}: puts entry {number}, living {living}: {told}"));
    }

    fn add(&self, state: &State, host: usize, key: u8, steps: &mut Steps<State>) {
        let wrap_first = self.holds(KeyRule::WrapBeforeLog);
        match state.hosts[host] {
            Step::First => {
                let known = state.named.has(key) && self.holds(KeyRule::IdsNeverReturn);
                let mut next = Self::go(state, host, Step::ReadLog);
                if known {
                    next.hosts[host] = Step::Done;
                } else if wrap_first {
                    next.wraps.add(key);
                }
                let told = if known { "was named before: refused" } else { "is put" };
                steps.push(next, || format!("H{host}: the wrap of key {key} {told}"));
            }
            Step::ReadLog => {
                let (number, living) = state.highest();
                let next = Self::go(state, host, Step::PutLog(number + 1, living.or(Set::of(key))));
                steps.push(next, || format!("H{host}: reads entry {number}, living {living}"));
            }
            Step::PutLog(number, living) => {
                let won = if wrap_first { Step::Done } else { Step::Last };
                self.put_log(state, host, (number, living), won, steps);
            }
            Step::Last => {
                let mut next = Self::go(state, host, Step::Done);
                next.wraps.add(key);
                steps.push(next, || format!("H{host}: puts the wrap of key {key}"));
            }
            Step::Done => {}
        }
    }
}

impl Model for Keys {
    type State = State;

    fn start(&self) -> State {
        let both = Set(0b11);
        let mut entries = [None; NUMBERS];
        entries[0] = Some(both);
        State {
            wraps: both,
            entries,
            named: both,
            hosts: self.tasks.map(|task| match task {
                Task::Rest => Step::Done,
                _ => Step::First,
            }),
            deleting: Set::NONE,
            late: self.late,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for key in state.deleting.iter() {
            let mut next = *state;
            next.deleting.remove(key);
            next.wraps.remove(key);
            steps.push(next, || format!("late: wrap {key} is deleted"));
        }
        let lowest = state.entries.iter().position(Option::is_some).unwrap_or_default();
        if !self.holds(KeyRule::EntriesStay) && lowest < usize::from(state.highest().0) {
            let mut next = *state;
            next.entries[lowest] = None;
            steps.push(next, || format!("entry {lowest} is tidied away"));
        }
        for host in 0..HOSTS {
            self.host(state, host, steps);
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        let (_, living) = state.highest();
        if living.and(state.wraps).is_empty() {
            return Some("K1: no key opens the repository any more".to_owned());
        }
        let lost = living.minus(state.wraps);
        if !lost.is_empty() {
            return Some(format!("K2: key {lost} lives and has no wrap"));
        }
        None
    }
}
