//! WAL that expires while backups run, those of a standby that lags among them: they may start
//! below what is being deleted.

use crate::search::{Model, Steps};
use crate::set::Set;

/// Segments are numbered from 1; all of them are there at the beginning.
const SEGMENTS: u8 = 4;
/// Backups: two are there, two are taken.
const BACKUPS: usize = 4;
/// The first that is taken.
const TAKEN: u8 = 2;
/// Hosts that expire.
const HOSTS: usize = 2;
/// Requests on their way at once.
const LATE: usize = 2;

/// A rule of WAL's removal, which can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalRule {
    /// A backup compares where it starts with the floor in the log.
    FloorCompared,
    /// It reads the floor once its intent is there.
    FloorReadAfterIntent,
    /// It reads the floor once its start is there. Later than needed: nothing breaks without.
    FloorReadAfterStart,
    /// Expiry writes the floor into the log before it deletes.
    FloorWrittenFirst,
    /// It deletes nothing at or above the floor in the log, whatever it finds afterwards.
    DeletesBelowFloor,
    /// It lists intents again once the floor is in the log.
    IntentsListedAgain,
    /// It lists manifests after the intents, for what was committed meanwhile.
    ManifestsListedLast,
    /// A backup that has not said where it starts keeps all WAL. Nothing breaks without, but the
    /// backup would find itself below the floor, and fail.
    SilentKeepsAll,
    /// A start that was not answered is put again until it is there. Nothing breaks without: who
    /// is silent keeps all WAL.
    StartConfirmed,
}

/// Hosts and bounds.
#[derive(Debug, Clone, Copy)]
pub struct Wal {
    /// The rule that is broken.
    pub without: Option<WalRule>,
    /// Backups that are taken, each from any segment on.
    pub backups: u8,
    /// Runs of each host that expires.
    pub runs: [u8; HOSTS],
    /// Requests that arrive late.
    pub late: u8,
    /// Backups taken for dead.
    pub sentences: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Request {
    PutStart(u8),
    PutManifest(u8),
    DeleteIntent(u8),
    DeleteSegment(u8),
}

/// The highest entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Log {
    number: u8,
    expired: Set,
    floor: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum BackupStep {
    #[default]
    PutIntent,
    /// Against [`WalRule::FloorReadAfterIntent`]: the floor was read before.
    PutIntentLate,
    /// `pg_backup_start` says from where on WAL is needed.
    Start,
    PutStart,
    ReadFloor,
    /// All WAL from the start on is to be there.
    CheckWal,
    PutManifest,
    ReadLog,
    /// Its objects go.
    EndIntent,
    EndStart,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Backup {
    step: BackupStep,
    start: u8,
    /// The floor, where it was read early.
    floor: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum ExpiryStep {
    #[default]
    Idle,
    ReadLog,
    ReadIntents,
    PutLog,
    ReadAgain,
    DeleteManifests,
    ListIntents,
    ListManifests,
    DeleteWal,
}

/// A host that expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Expiry {
    step: ExpiryStep,
    /// Manifests listed.
    listed: Set,
    log: Log,
    victims: Set,
    /// Segments from here on stay.
    cut: u8,
    runs: u8,
}

/// All there is to know at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    segments: Set,
    manifests: Set,
    tombstones: Set,
    intents: Set,
    starts: Set,
    log: Log,
    backups: [Backup; BACKUPS],
    hosts: [Expiry; HOSTS],
    late: [Option<Request>; LATE],
    left: u8,
    sentences: u8,
}

impl State {
    fn valid(&self) -> Set {
        self.manifests.minus(self.log.expired)
    }

    fn starts_of(&self, backups: Set) -> impl Iterator<Item = u8> {
        backups.iter().map(|b| self.backups[usize::from(b)].start)
    }

    fn apply(&mut self, request: Request) {
        match request {
            Request::PutStart(b) => self.starts.add(b),
            Request::PutManifest(b) => {
                if !self.tombstones.has(b) {
                    self.manifests.add(b);
                }
            }
            Request::DeleteIntent(b) => self.intents.remove(b),
            Request::DeleteSegment(segment) => self.segments.remove(segment),
        }
    }

    fn later(&mut self, request: Request) {
        if let Some(place) = self.late.iter_mut().find(|place| place.is_none()) {
            *place = Some(request);
        }
        self.late.sort_unstable();
    }
}

/// The segments that a backup needs from its start on.
fn needs(start: u8) -> Set {
    Set::below(SEGMENTS + 1).minus(Set::below(start))
}

impl Wal {
    fn holds(&self, rule: WalRule) -> bool {
        self.without != Some(rule)
    }

    /// A request that is answered, or on its way without an answer.
    fn send(
        state: &State,
        request: Request,
        steps: &mut Steps<State>,
        who: &str,
        answered: impl Fn(&mut State),
        unknown: impl Fn(&mut State),
    ) {
        let mut next = *state;
        next.apply(request);
        answered(&mut next);
        steps.push(next, || format!("{who}: {request:?}"));
        if state.left > 0 {
            let mut next = *state;
            next.left -= 1;
            next.later(request);
            unknown(&mut next);
            steps.push(next, || format!("{who}: {request:?}: unknown, on its way"));
        }
    }

    fn backup(&self, state: &State, id: u8, steps: &mut Steps<State>) {
        let at = usize::from(id);
        let me = state.backups[at];
        let who = format!("B{id}");
        let mut next = *state;
        let go = |state: &mut State, step| state.backups[at].step = step;
        match me.step {
            BackupStep::PutIntent if !self.holds(WalRule::FloorReadAfterIntent) => {
                next.backups[at].floor = state.log.floor;
                go(&mut next, BackupStep::PutIntentLate);
                steps.push(next, || format!("{who}: the floor is {}", state.log.floor));
            }
            BackupStep::PutIntent | BackupStep::PutIntentLate => {
                next.intents.add(id);
                go(&mut next, BackupStep::Start);
                steps.push(next, || format!("{who}: puts its intent"));
            }
            BackupStep::Start => {
                for start in 1..=SEGMENTS {
                    let mut next = *state;
                    next.backups[at].start = start;
                    if !self.holds(WalRule::FloorReadAfterStart) {
                        next.backups[at].floor = state.log.floor;
                    }
                    go(&mut next, BackupStep::PutStart);
                    steps.push(next, || format!("{who}: starts at segment {start}"));
                }
            }
            BackupStep::PutStart => {
                let answered = |s: &mut State| go(s, BackupStep::ReadFloor);
                let unknown = |s: &mut State| {
                    if !self.holds(WalRule::StartConfirmed) {
                        go(s, BackupStep::ReadFloor);
                    }
                };
                Self::send(state, Request::PutStart(id), steps, &who, answered, unknown);
            }
            BackupStep::ReadFloor => self.read_floor(state, id, steps),
            _ => self.finish(state, id, steps),
        }
    }

    fn read_floor(&self, state: &State, id: u8, steps: &mut Steps<State>) {
        let me = state.backups[usize::from(id)];
        let early =
            !self.holds(WalRule::FloorReadAfterIntent) || !self.holds(WalRule::FloorReadAfterStart);
        let floor = if early { me.floor } else { state.log.floor };
        let fits = me.start >= floor || !self.holds(WalRule::FloorCompared);
        let mut next = *state;
        next.backups[usize::from(id)].floor = 0;
        next.backups[usize::from(id)].step =
            if fits { BackupStep::CheckWal } else { BackupStep::EndIntent };
        steps.push(next, || format!("B{id}: the floor is {floor}: {fits}"));
    }

    fn finish(&self, state: &State, id: u8, steps: &mut Steps<State>) {
        let at = usize::from(id);
        let me = state.backups[at];
        let who = format!("B{id}");
        let mut next = *state;
        let go = |state: &mut State, step| state.backups[at].step = step;
        match me.step {
            BackupStep::CheckWal => {
                let whole = needs(me.start).within(state.segments);
                go(&mut next, if whole { BackupStep::PutManifest } else { BackupStep::EndIntent });
                steps.push(next, || format!("{who}: all its WAL is there: {whole}"));
            }
            BackupStep::PutManifest => {
                let fenced = state.tombstones.has(id);
                let answered = |s: &mut State| {
                    go(s, if fenced { BackupStep::EndIntent } else { BackupStep::ReadLog });
                };
                Self::send(state, Request::PutManifest(id), steps, &who, answered, |_| {});
            }
            BackupStep::ReadLog => {
                go(&mut next, BackupStep::EndIntent);
                let told = !state.log.expired.has(id);
                steps.push(next, || format!("{who}: reads the log: committed: {told}"));
            }
            BackupStep::EndIntent => {
                let answered = |s: &mut State| go(s, BackupStep::EndStart);
                Self::send(state, Request::DeleteIntent(id), steps, &who, answered, |_| {});
            }
            BackupStep::EndStart => {
                next.starts.remove(id);
                go(&mut next, BackupStep::Done);
                steps.push(next, || format!("{who}: its start goes"));
            }
            _ => {}
        }
    }

    /// A collector takes a backup for dead: a tombstone, then its intent goes.
    fn sentence(state: &State, steps: &mut Steps<State>) {
        if state.sentences == 0 {
            return;
        }
        for b in state.intents.iter() {
            let mut next = *state;
            if state.tombstones.has(b) || state.manifests.has(b) {
                next.intents.remove(b);
                next.sentences -= 1;
                steps.push(next, || format!("gc: the intent of B{b} goes"));
            } else {
                next.tombstones.add(b);
                steps.push(next, || format!("gc: takes B{b} for dead, puts a tombstone"));
            }
        }
    }

    /// Where the backups under way start; nothing when one has not said so.
    fn under_way(&self, state: &State) -> Option<u8> {
        let silent = state.intents.minus(state.starts);
        if !silent.is_empty() && self.holds(WalRule::SilentKeepsAll) {
            return None;
        }
        let known = state.intents.and(state.starts);
        Some(state.starts_of(known).min().unwrap_or(u8::MAX))
    }

    fn expiry(&self, state: &State, host: usize, steps: &mut Steps<State>) {
        let me = state.hosts[host];
        let mut next = *state;
        let mine = &mut next.hosts[host];
        match me.step {
            ExpiryStep::Idle => {
                if me.runs == 0 {
                    return;
                }
                *mine = Expiry {
                    runs: me.runs - 1,
                    listed: state.manifests,
                    step: ExpiryStep::ReadLog,
                    ..Expiry::default()
                };
                steps.push(next, || format!("E{host}: lists manifests {}", state.manifests));
            }
            ExpiryStep::ReadLog => {
                let valid = me.listed.minus(state.log.expired);
                for victims in (0..1 << BACKUPS).map(Set) {
                    if !victims.within(valid) || valid.minus(victims).is_empty() {
                        continue;
                    }
                    let mut next = *state;
                    let mine = &mut next.hosts[host];
                    (mine.log, mine.victims) = (state.log, victims);
                    mine.listed = valid.minus(victims);
                    mine.step = ExpiryStep::ReadIntents;
                    steps.push(next, || format!("E{host}: reads the log, expires {victims}"));
                }
            }
            ExpiryStep::ReadIntents => {
                let kept = state.starts_of(me.listed).min().unwrap_or(0);
                // A silent backup: nothing goes by this plan, and the floor stays.
                mine.cut = self.under_way(state).map_or(0, |start| start.min(kept));
                mine.step = match self.holds(WalRule::FloorWrittenFirst) {
                    true => ExpiryStep::PutLog,
                    false => ExpiryStep::ListIntents,
                };
                steps.push(next, || format!("E{host}: reads intents {}", state.intents));
            }
            ExpiryStep::PutLog => self.put_log(state, host, steps),
            _ => self.delete(state, host, steps),
        }
    }

    fn put_log(&self, state: &State, host: usize, steps: &mut Steps<State>) {
        let me = state.hosts[host];
        let mut next = *state;
        let mine = &mut next.hosts[host];
        if me.log != state.log {
            *mine = Expiry { runs: me.runs, ..Expiry::default() };
            return steps.push(next, || format!("E{host}: another has won the entry"));
        }
        next.log = Log {
            number: me.log.number + 1,
            expired: me.log.expired.or(me.victims),
            floor: me.log.floor.max(me.cut),
        };
        mine.step = match self.holds(WalRule::FloorWrittenFirst) {
            true => ExpiryStep::ReadAgain,
            false => ExpiryStep::DeleteManifests,
        };
        steps.push(next, || format!("E{host}: puts {:?}", next.log));
    }

    fn delete(&self, state: &State, host: usize, steps: &mut Steps<State>) {
        let me = state.hosts[host];
        let mut next = *state;
        let mine = &mut next.hosts[host];
        let first = self.holds(WalRule::FloorWrittenFirst);
        match me.step {
            ExpiryStep::ReadAgain => {
                mine.log = state.log;
                mine.step = ExpiryStep::DeleteManifests;
                steps.push(next, || format!("E{host}: reads {:?}", state.log));
            }
            ExpiryStep::DeleteManifests => {
                next.manifests = state.manifests.minus(state.log.expired);
                mine.step = if first { ExpiryStep::ListIntents } else { ExpiryStep::Idle };
                steps.push(next, || format!("E{host}: deletes {}", state.log.expired));
            }
            ExpiryStep::ListIntents => {
                // Planned for those that the plan keeps; looked at again for the others.
                let kept = state.starts_of(me.listed).min().unwrap_or(0);
                let live = self.under_way(state).map_or(0, |start| start.min(kept));
                mine.cut = if self.holds(WalRule::IntentsListedAgain) { live } else { me.cut };
                mine.step = ExpiryStep::ListManifests;
                if !self.holds(WalRule::ManifestsListedLast) {
                    mine.step = ExpiryStep::DeleteWal;
                    self.bound(mine);
                }
                steps.push(next, || format!("E{host}: lists intents {}", state.intents));
            }
            ExpiryStep::ListManifests => {
                let kept = state.starts_of(state.manifests.minus(me.victims)).min();
                mine.cut = mine.cut.min(kept.unwrap_or(0));
                self.bound(mine);
                mine.step = ExpiryStep::DeleteWal;
                steps.push(next, || format!("E{host}: lists manifests {}", state.manifests));
            }
            ExpiryStep::DeleteWal => self.delete_wal(state, host, steps),
            _ => {}
        }
    }

    fn bound(&self, host: &mut Expiry) {
        let first = self.holds(WalRule::FloorWrittenFirst);
        if first && self.holds(WalRule::DeletesBelowFloor) {
            host.cut = host.cut.min(host.log.floor);
        }
    }

    fn delete_wal(&self, state: &State, host: usize, steps: &mut Steps<State>) {
        let me = state.hosts[host];
        let Some(segment) = state.segments.and(Set::below(me.cut.min(7))).first() else {
            let mut next = *state;
            let mine = &mut next.hosts[host];
            if self.holds(WalRule::FloorWrittenFirst) {
                *mine = Expiry { runs: me.runs, ..Expiry::default() };
            } else {
                mine.step = ExpiryStep::PutLog;
            }
            return steps.push(next, || format!("E{host}: no WAL is left to delete"));
        };
        let who = format!("E{host}");
        let request = Request::DeleteSegment(segment);
        Self::send(
            state,
            request,
            steps,
            &who,
            |_| {},
            |s| {
                s.hosts[host] = Expiry { runs: me.runs, ..Expiry::default() };
            },
        );
    }
}

impl Model for Wal {
    type State = State;

    fn start(&self) -> State {
        let mut backups = [Backup::default(); BACKUPS];
        let there = |start| Backup { step: BackupStep::Done, start, floor: 0 };
        (backups[0], backups[1]) = (there(1), there(3));
        for backup in backups.iter_mut().skip((TAKEN + self.backups).into()) {
            backup.step = BackupStep::Done;
        }
        State {
            segments: needs(1),
            manifests: Set(0b11),
            tombstones: Set::NONE,
            intents: Set::NONE,
            starts: Set::NONE,
            log: Log::default(),
            backups,
            hosts: self.runs.map(|runs| Expiry { runs, ..Expiry::default() }),
            late: [None; LATE],
            left: self.late,
            sentences: self.sentences,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for (place, late) in state.late.iter().enumerate() {
            let Some(request) = *late else { continue };
            let mut next = *state;
            next.late[place] = None;
            next.late.sort_unstable();
            next.apply(request);
            steps.push(next, || format!("late: {request:?}"));
        }
        for id in TAKEN..TAKEN + self.backups {
            self.backup(state, id, steps);
        }
        Self::sentence(state, steps);
        for host in 0..HOSTS {
            self.expiry(state, host, steps);
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        for b in state.valid().iter() {
            let lacks = needs(state.backups[usize::from(b)].start).minus(state.segments);
            if !lacks.is_empty() {
                return Some(format!("W1: backup B{b} lacks segments {lacks}"));
            }
        }
        if state.valid().is_empty() {
            return Some("S4: no backup is left".to_owned());
        }
        None
    }
}
