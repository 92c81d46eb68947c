//! The log of expired backups as a log: numbers, late puts, entries that are tidied away, hosts
//! that expire and hosts that hold a backup at once.

use crate::search::{Model, Steps};
use crate::set::Set;

/// Numbers of entries.
const NUMBERS: usize = 8;
/// Requests on their way at once.
const LATE: usize = 3;
/// Hosts.
const HOSTS: usize = 4;

/// A rule of the log, which can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRule {
    /// E2: one numbered log; else removals that know nothing of each other.
    OneLog,
    /// E3: who has won a number reads the highest entry again, and deletes what that names.
    HighestHolds,
    /// Holds stand in the same log; else beside it.
    HoldsInTheLog,
    /// Who has put a hold reads the highest entry again before he says so.
    HoldReadAgain,
}

/// Hosts and bounds.
#[derive(Debug, Clone, Copy)]
pub struct ExpiredLog {
    /// The rule that is broken.
    pub without: Option<LogRule>,
    /// Hosts that expire a backup.
    pub expiring: u8,
    /// Hosts that hold one.
    pub holding: u8,
    /// Requests that arrive late.
    pub late: u8,
}

/// An entry: what has expired, and what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Entry {
    expired: Set,
    held: Set,
}

/// Where a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    /// Manifests were listed.
    Listed(Set),
    /// An entry is to be put.
    Put(u8, Entry),
    /// It was put: the highest is read again.
    Won(u8, Entry),
    Done,
}

/// All there is to know at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    manifests: Set,
    entries: [Option<Entry>; NUMBERS],
    /// Holds, where they stand beside the log.
    holds: Set,
    late: [Option<(u8, Entry)>; LATE],
    left: u8,
    hosts: [Step; HOSTS],
    /// Backups whose holds were told to be good.
    promised: Set,
}

const BACKUPS: Set = Set(0b111);

impl State {
    fn highest(&self) -> (u8, Entry) {
        let there = (0..).zip(&self.entries).filter_map(|(n, entry)| Some((n, (*entry)?)));
        there.max_by_key(|(n, _)| *n).unwrap_or_default()
    }

    fn put(&mut self, number: u8, entry: Entry) -> bool {
        let place = &mut self.entries[usize::from(number)];
        let free = place.is_none();
        place.get_or_insert(entry);
        free
    }

    fn later(&mut self, number: u8, entry: Entry) {
        if let Some(place) = self.late.iter_mut().find(|place| place.is_none()) {
            *place = Some((number, entry));
        }
        self.late.sort_unstable();
    }
}

impl ExpiredLog {
    fn holds(&self, rule: LogRule) -> bool {
        self.without != Some(rule)
    }

    fn expires(&self, host: usize) -> bool {
        host < usize::from(self.expiring)
    }

    fn host(&self, state: &State, host: usize, steps: &mut Steps<State>) {
        let mut next = *state;
        match state.hosts[host] {
            Step::Idle => {
                next.hosts[host] = Step::Listed(state.manifests);
                steps.push(next, || format!("H{host}: lists manifests {}", state.manifests));
            }
            Step::Listed(manifests) => self.choose(state, host, manifests, steps),
            Step::Put(number, entry) => self.put(state, host, (number, entry), steps),
            Step::Won(number, entry) => self.won(state, host, (number, entry), steps),
            Step::Done => {}
        }
    }

    fn choose(&self, state: &State, host: usize, manifests: Set, steps: &mut Steps<State>) {
        let (number, top) = state.highest();
        let valid = manifests.minus(top.expired);
        let held = if self.holds(LogRule::HoldsInTheLog) { top.held } else { state.holds };
        for b in valid.iter() {
            let one = Set::of(b);
            let mut entry = top;
            if self.expires(host) {
                if valid.minus(one).is_empty() || held.has(b) {
                    continue;
                }
                entry.expired.add(b);
            } else {
                entry.held.add(b);
            }
            let mut next = *state;
            next.hosts[host] = Step::Put(number + 1, entry);
            let what = if self.expires(host) { "expire" } else { "hold" };
            steps.push(next, || format!("H{host}: on entry {number}, decides to {what} B{b}"));
        }
    }

    fn put(&self, state: &State, host: usize, at: (u8, Entry), steps: &mut Steps<State>) {
        let (number, entry) = at;
        let mut next = *state;
        if usize::from(number) >= NUMBERS {
            return;
        }
        if !self.expires(host) && !self.holds(LogRule::HoldsInTheLog) {
            next.holds = next.holds.or(entry.held);
            next.hosts[host] = Step::Won(number, entry);
            return steps.push(next, || format!("H{host}: puts hold {}", entry.held));
        }
        if !self.holds(LogRule::OneLog) {
            // A removal is a name of its own, and what is expired their union.
            let top = next.highest();
            let union = Entry { expired: top.1.expired.or(entry.expired), held: top.1.held };
            next.entries[usize::from(top.0)] = Some(union);
            next.hosts[host] = Step::Won(number, entry);
            return steps.push(next, || format!("H{host}: puts expired {}", entry.expired));
        }
        let created = next.put(number, entry);
        let mine = created || next.entries[usize::from(number)] == Some(entry);
        next.hosts[host] = if mine { Step::Won(number, entry) } else { Step::Idle };
        let told = if created { "created" } else { "exists" };
        steps.push(next, || format!("H{host}: puts entry {number} {entry:?}: {told}"));
        if state.left > 0 {
            let mut next = *state;
            next.left -= 1;
            next.later(number, entry);
            steps.push(next, || format!("H{host}: puts entry {number} {entry:?}: unknown"));
            next.hosts[host] = Step::Done;
            steps.push(next, || format!("H{host}: puts entry {number} {entry:?}: unknown, dies"));
        }
    }

    fn won(&self, state: &State, host: usize, at: (u8, Entry), steps: &mut Steps<State>) {
        let (_, entry) = at;
        let (_, top) = state.highest();
        let mut next = *state;
        next.hosts[host] = Step::Done;
        if self.expires(host) {
            let highest = self.holds(LogRule::HighestHolds);
            let names = if highest { top.expired } else { entry.expired };
            next.manifests = state.manifests.minus(names);
            return steps.push(next, || format!("H{host}: deletes manifests {names}"));
        }
        let held = if self.holds(LogRule::HoldsInTheLog) { top.held } else { state.holds };
        let read = self.holds(LogRule::HoldReadAgain);
        let good = if read { entry.held.and(held).minus(top.expired) } else { entry.held };
        next.promised = state.promised.or(good);
        steps.push(next, || format!("H{host}: says that {good} is held"));
    }
}

impl Model for ExpiredLog {
    type State = State;

    fn start(&self) -> State {
        let mut hosts = [Step::Done; HOSTS];
        for host in hosts.iter_mut().take((self.expiring + self.holding).into()) {
            *host = Step::Idle;
        }
        let mut entries = [None; NUMBERS];
        entries[0] = Some(Entry::default());
        State {
            manifests: BACKUPS,
            entries,
            holds: Set::NONE,
            late: [None; LATE],
            left: self.late,
            hosts,
            promised: Set::NONE,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for (place, late) in state.late.iter().enumerate() {
            let Some((number, entry)) = *late else { continue };
            let mut next = *state;
            next.late[place] = None;
            next.late.sort_unstable();
            let created = next.put(number, entry);
            let told = if created { "lands" } else { "is refused" };
            steps.push(next, || format!("late: entry {number} {entry:?} {told}"));
        }
        let lowest = state.entries.iter().position(Option::is_some).unwrap_or_default();
        if lowest < usize::from(state.highest().0) {
            let mut next = *state;
            next.entries[lowest] = None;
            steps.push(next, || format!("entry {lowest} is tidied away"));
        }
        for host in 0..HOSTS {
            self.host(state, host, steps);
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        let (_, top) = state.highest();
        let gone = BACKUPS.minus(state.manifests).minus(top.expired);
        if self.holds(LogRule::OneLog) && !gone.is_empty() {
            return Some(format!("S5: manifest B{gone} went, and the log does not name it"));
        }
        if state.manifests.minus(top.expired).is_empty() {
            return Some("S4: no backup is left".to_owned());
        }
        let lost = state.promised.and(top.expired);
        if !lost.is_empty() {
            return Some(format!("H1: B{lost} was said to be held, and has expired"));
        }
        None
    }
}
