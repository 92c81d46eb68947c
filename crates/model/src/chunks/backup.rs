//! Steps B1 to B10: a backup.

use super::store::{Answer, Copies, Ending, Request};
use super::{Chunks, Out, Rule, State};
use crate::set::Set;

/// Where a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) enum BackupStep {
    /// B1.
    #[default]
    PutIntent,
    /// Against [`Rule::IntentFirst`]: everything was read before.
    PutIntentLate,
    /// B2 (or B3 first, against [`Rule::MarkersFirst`]).
    ReadFirst,
    /// B3 (or B2).
    ReadSecond,
    /// B4.
    ListPacks,
    /// B5.
    PutPack,
    /// G2: whether the pack is there after all.
    LookForPack,
    /// B6.
    PutIndex,
    /// B7.
    CheckPacks,
    /// B8.
    PutManifest,
    /// B8: what has the name.
    ReadName,
    /// B9.
    ReadLog,
    /// B10, committed.
    EndCommitted,
    /// B10, fenced.
    EndFenced,
    /// Told "committed", or never begun.
    Done,
    /// Died, fenced or given up.
    Dead,
}

/// A backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Backup {
    pub(super) step: BackupStep,
    /// Markers that were read, or the index against [`Rule::MarkersFirst`].
    first: Set,
    /// The index that was read.
    second: Set,
    /// Copies that are noted as bad.
    damaged: Copies,
    /// Packs that are referred to.
    refers: Set,
    /// Chunks to be stored.
    absent: Set,
    /// Pack names that were used up.
    pub(super) names: u8,
    /// The pack that waits for its index object.
    unindexed: Option<u8>,
    /// Whether the manifest was sent without an answer.
    in_doubt: bool,
}

impl Backup {
    pub(super) const fn ended() -> Self {
        Self {
            step: BackupStep::Done,
            first: Set::NONE,
            second: Set::NONE,
            damaged: Copies(0),
            refers: Set::NONE,
            absent: Set::NONE,
            names: 0,
            unindexed: None,
            in_doubt: false,
        }
    }

    const fn died() -> Self {
        Self { step: BackupStep::Dead, ..Self::ended() }
    }

    pub(super) const fn has_ended(&self) -> bool {
        matches!(self.step, BackupStep::Done | BackupStep::Dead)
    }

    pub(super) const fn is_under_way(&self) -> bool {
        !self.has_ended() && !matches!(self.step, BackupStep::PutIntent)
    }
}

/// Pack names of a backup: two each.
const NAMES: u8 = 2;

impl Chunks {
    pub(super) fn backup(&self, state: &State, number: usize, out: &mut Out<'_>) {
        let me = state.backups[number];
        if me.has_ended() {
            return;
        }
        let id = number as u8 + 1;
        let who = format!("B{id}");
        if state.budget.deaths > 0 && me.step != BackupStep::PutIntent {
            let mut next = *state;
            next.budget.deaths -= 1;
            next.backups[number] = Backup::died();
            out.step(next, || format!("{who} dies"));
        }
        let run = Run { model: self, state, number, id, who: &who };
        run.step(me, out);
    }
}

/// One step of one backup.
struct Run<'a> {
    model: &'a Chunks,
    state: &'a State,
    number: usize,
    id: u8,
    who: &'a str,
}

impl Run<'_> {
    fn go(&self, state: &mut State, step: BackupStep) {
        let me = &mut state.backups[self.number];
        me.step = step;
        match step {
            BackupStep::Done => *me = Backup::ended(),
            BackupStep::Dead => *me = Backup::died(),
            _ => {}
        }
    }

    fn goes(&self, step: BackupStep, what: &str, out: &mut Out<'_>) {
        let mut next = *self.state;
        self.go(&mut next, step);
        out.step(next, || format!("{}: {what}", self.who));
    }

    fn step(&self, me: Backup, out: &mut Out<'_>) {
        match me.step {
            BackupStep::PutIntent => self.put_intent(out),
            BackupStep::PutIntentLate => {
                let put = Request::PutIntent(self.id);
                let answered = |s: &mut State, _| self.go(s, BackupStep::ListPacks);
                out.send(self.state, put, self.who, answered, |_| {});
            }
            BackupStep::ReadFirst => self.read_first(out),
            BackupStep::ReadSecond => self.read_second(me, out),
            BackupStep::ListPacks => {
                let there = self.state.store.present();
                let listed =
                    if self.model.holds(Rule::MarkersFirst) { there } else { Set(u8::MAX) };
                let usable = me.second.minus(me.first).and(listed);
                self.choose(usable, &format!("lists packs {there}"), out);
            }
            BackupStep::PutPack => self.put_pack(me, out),
            BackupStep::LookForPack => self.look_for_pack(me, out),
            BackupStep::PutIndex => self.put_index(me, out),
            BackupStep::CheckPacks => self.check_packs(me, out),
            BackupStep::PutManifest => self.put_manifest(me, out),
            BackupStep::ReadName => self.read_name(out),
            BackupStep::ReadLog => self.read_log(out),
            BackupStep::EndCommitted => self.end(BackupStep::Done, out),
            BackupStep::EndFenced => self.end(BackupStep::Dead, out),
            BackupStep::Done | BackupStep::Dead => {}
        }
    }

    fn put_intent(&self, out: &mut Out<'_>) {
        if self.model.holds(Rule::IntentFirst) {
            let answered = |s: &mut State, _| self.go(s, BackupStep::ReadFirst);
            let unknown = |s: &mut State| {
                if !self.model.holds(Rule::IntentConfirmed) {
                    self.go(s, BackupStep::ReadFirst);
                }
            };
            out.send(self.state, Request::PutIntent(self.id), self.who, answered, unknown);
        } else {
            let mut next = *self.state;
            let me = &mut next.backups[self.number];
            (me.first, me.second) = (self.state.store.marked(), self.state.store.indexed());
            self.go(&mut next, BackupStep::PutIntentLate);
            out.step(next, || format!("{}: reads markers and index before its intent", self.who));
        }
    }

    /// Markers, unless one cannot be read.
    fn markers(&self) -> Option<Set> {
        let store = &self.state.store;
        let whole = store.torn_markers.is_empty();
        let stops = self.model.holds(Rule::BackupStopsAtMarker);
        (whole || !stops).then(|| store.marked_readable())
    }

    fn read_first(&self, out: &mut Out<'_>) {
        let store = &self.state.store;
        if !self.model.holds(Rule::MarkersFirst) {
            let mut next = *self.state;
            next.backups[self.number].first = store.indexed();
            self.go(&mut next, BackupStep::ReadSecond);
            out.step(next, || format!("{}: reads index {}", self.who, store.indexed()));
            return;
        }
        let Some(markers) = self.markers() else {
            return self.goes(BackupStep::EndFenced, "cannot read a marker, gives up", out);
        };
        let mut next = *self.state;
        let me = &mut next.backups[self.number];
        me.first = markers;
        if self.model.holds(Rule::BackupKnowsDamage) {
            me.damaged = store.damaged;
        }
        self.go(&mut next, BackupStep::ReadSecond);
        out.step(next, || format!("{}: reads markers {markers} and damage", self.who));
    }

    fn read_second(&self, me: Backup, out: &mut Out<'_>) {
        let store = &self.state.store;
        if self.model.holds(Rule::MarkersFirst) {
            let mut next = *self.state;
            next.backups[self.number].second = store.indexed();
            self.go(&mut next, BackupStep::ListPacks);
            out.step(next, || format!("{}: reads index {}", self.who, store.indexed()));
        } else {
            let usable = me.first.minus(store.marked());
            self.choose(usable, &format!("reads markers {}", store.marked()), out);
        }
    }

    /// Every way to cover each chunk by a pack that may be referred to.
    fn choose(&self, usable: Set, why: &str, out: &mut Out<'_>) {
        let damaged = self.state.backups[self.number].damaged;
        let mut ways = vec![(Set::NONE, Set::NONE)];
        for chunk in self.model.bounds.wants[self.id as usize].iter() {
            let holders = usable.iter().filter(|pack| {
                *pack < super::PACKS
                    && self.model.contents(self.state, *pack).minus(damaged.of(*pack)).has(chunk)
            });
            let holders: Vec<u8> = holders.collect();
            ways = ways
                .into_iter()
                .flat_map(|(refers, absent)| {
                    let with = holders.iter().map(move |pack| (refers.or(Set::of(*pack)), absent));
                    let without = holders.is_empty().then(|| (refers, absent.or(Set::of(chunk))));
                    with.chain(without)
                })
                .collect();
        }
        ways.sort_unstable();
        ways.dedup();
        for (refers, absent) in ways {
            let mut next = *self.state;
            let me = &mut next.backups[self.number];
            (me.first, me.second, me.damaged) = (Set::NONE, Set::NONE, Copies(0));
            (me.refers, me.absent) = (refers, absent);
            let step = if absent.is_empty() { BackupStep::CheckPacks } else { BackupStep::PutPack };
            self.go(&mut next, step);
            out.step(next, || {
                format!("{}: {why}; refers to packs {refers}, stores chunks {absent}", self.who)
            });
        }
    }

    /// The name of its next pack.
    const fn pack(&self, me: Backup) -> u8 {
        2 + NAMES * me.names + self.number as u8
    }

    fn put_pack(&self, me: Backup, out: &mut Out<'_>) {
        if me.names >= NAMES {
            return self.goes(BackupStep::Dead, "gives up (a bound of the model)", out);
        }
        let pack = self.pack(me);
        let answered = |s: &mut State, _| self.has_pack(s, me, pack);
        let unknown = |s: &mut State| {
            if self.model.holds(Rule::PackSentOnce) {
                self.go(s, BackupStep::LookForPack);
            }
        };
        out.send(self.state, Request::PutPack(pack, me.absent), self.who, answered, unknown);
    }

    fn has_pack(&self, state: &mut State, me: Backup, pack: u8) {
        let next = &mut state.backups[self.number];
        next.refers.add(pack);
        next.names = me.names + 1;
        next.absent = Set::NONE;
        next.unindexed = Some(pack);
        next.step = BackupStep::PutIndex;
    }

    fn look_for_pack(&self, me: Backup, out: &mut Out<'_>) {
        let pack = self.pack(me);
        let mut next = *self.state;
        if self.state.store.packs[pack as usize].is_empty() {
            next.backups[self.number].names += 1;
            self.go(&mut next, BackupStep::PutPack);
            out.step(next, || format!("{}: P{pack} is not there, takes a new name", self.who));
        } else {
            self.has_pack(&mut next, me, pack);
            out.step(next, || format!("{}: P{pack} is there", self.who));
        }
    }

    fn put_index(&self, me: Backup, out: &mut Out<'_>) {
        let packs = me.unindexed.map_or(Set::NONE, Set::of);
        let answered = |s: &mut State, _| {
            s.backups[self.number].unindexed = None;
            self.go(s, BackupStep::CheckPacks);
        };
        let put = Request::PutIndex(1 + self.number as u8, packs);
        out.send(self.state, put, self.who, answered, |_| {});
    }

    fn check_packs(&self, me: Backup, out: &mut Out<'_>) {
        let store = &self.state.store;
        let there = me.refers.within(store.present());
        if there || !self.model.holds(Rule::PacksLookedAtLast) {
            return self.goes(BackupStep::PutManifest, "lists packs, all are there", out);
        }
        let mut next = *self.state;
        let fenced = store.manifests[self.id as usize] == Ending::Tombstone;
        if !fenced && !store.log.has(self.id) {
            next.harm.backup_missed_pack = true;
        }
        next.backups[self.number].refers = Set::NONE;
        self.go(&mut next, BackupStep::ReadFirst);
        out.step(next, || format!("{}: lists packs, one is missing, starts over", self.who));
    }

    fn put_manifest(&self, me: Backup, out: &mut Out<'_>) {
        if me.in_doubt && !self.model.holds(Rule::IntentStaysInDoubt) {
            self.goes(BackupStep::EndFenced, "gives up after no answer", out);
        }
        let answered = |s: &mut State, answer| {
            s.backups[self.number].in_doubt = false;
            match answer {
                Answer::Done => self.is_there(s),
                Answer::Exists if self.model.holds(Rule::ExistsIsCompared) => {
                    self.go(s, BackupStep::ReadName);
                }
                Answer::Exists => self.is_committed(s),
            }
        };
        let unknown = |s: &mut State| s.backups[self.number].in_doubt = true;
        let put = Request::PutManifest(self.id, me.refers);
        out.send(self.state, put, self.who, answered, unknown);
    }

    fn is_there(&self, state: &mut State) {
        if self.model.holds(Rule::LogReadAfterManifest) {
            self.go(state, BackupStep::ReadLog);
        } else {
            self.is_committed(state);
        }
    }

    fn is_committed(&self, state: &mut State) {
        state.told.add(self.id);
        self.go(state, BackupStep::EndCommitted);
    }

    fn read_name(&self, out: &mut Out<'_>) {
        match self.state.store.manifests[self.id as usize] {
            Ending::Free => self.goes(BackupStep::PutManifest, "the name is free again", out),
            Ending::Tombstone => self.goes(BackupStep::EndFenced, "a tombstone: fenced", out),
            Ending::Manifest => {
                let mut next = *self.state;
                self.is_there(&mut next);
                out.step(next, || format!("{}: the manifest is its own", self.who));
            }
        }
    }

    fn read_log(&self, out: &mut Out<'_>) {
        if self.state.store.log.has(self.id) {
            return self.goes(BackupStep::EndFenced, "the log names it: fenced", out);
        }
        let mut next = *self.state;
        self.is_committed(&mut next);
        out.step(next, || format!("{}: the log does not name it: COMMITTED", self.who));
    }

    fn end(&self, step: BackupStep, out: &mut Out<'_>) {
        let answered = |s: &mut State, _| self.go(s, step);
        out.send(self.state, Request::DeleteIntent(self.id), self.who, answered, |_| {});
    }
}
