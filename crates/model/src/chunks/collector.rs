//! Steps R and S: retiring packs, and sweeping a round. Two hosts, each with some runs left; a run
//! does one thing: it retires, sweeps a round, ends a backup taken for dead, or tidies.

use super::store::{Answer, Copies, Ending, PACKS, ROUNDS, Request};
use super::{Chunks, Out, Retires, Rule, State, Tombstones};
use crate::set::Set;

/// Where a collector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) enum CollectorStep {
    #[default]
    Idle,
    /// R1.
    PutMarker,
    /// G2: whether it is there after all.
    LookForMarker,
    /// R2.
    ListIntents,
    /// R3.
    PutList,
    /// S1.
    AwaitIntents,
    /// S1: a listed backup is taken for dead.
    PutTombstone,
    /// S1, after the tombstone.
    DeleteIntent,
    /// S2.
    ReadManifests,
    /// S3.
    ReadMarkers,
    /// S4.
    ReadIndex,
    /// S5.
    ListPacks,
    /// S6.
    PutVerdict,
    /// S7.
    LookAtMarker,
    /// S8.
    DeletePacks,
    /// S9.
    DeleteMarker,
    /// S10.
    DeleteList,
    /// S11.
    DeleteVerdict,
    /// S12: a backup on no list is taken for dead.
    PutStrayTombstone,
    /// S12, after the tombstone.
    DeleteStrayIntent,
    /// S12: the tombstone's id goes into the log.
    FoldTombstone,
    /// S12: the tombstone, or an expired manifest, goes.
    DeleteManifest,
}

/// A collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Collector {
    pub(super) step: CollectorStep,
    round: u8,
    /// Packs to retire or delete, or intents to put on the list.
    what: Set,
    /// Live chunks, or (against [`Rule::IntentsListedAfterMarker`]) the intents.
    live: Set,
    /// Packs whose copies do not count.
    without: Set,
    /// Copies that were found bad.
    damaged: Copies,
    backup: u8,
    runs: u8,
}

impl Collector {
    pub(super) fn with(runs: u8) -> Self {
        Self { runs, ..Self::default() }
    }
}

impl Chunks {
    pub(super) fn collector(&self, state: &State, number: usize, out: &mut Out<'_>) {
        let me = state.collectors[number];
        let who = if number == 0 { "gcA" } else { "gcB" };
        let run = Run { model: self, state, number, who };
        if state.budget.deaths > 0 && me.step != CollectorStep::Idle {
            let mut next = *state;
            next.budget.deaths -= 1;
            run.end(&mut next);
            out.step(next, || format!("{who} dies at {:?}", me.step));
        }
        run.step(me, out);
    }

    /// The packs of a round that may go, by live chunks, packs listed, and packs whose copies do
    /// not count.
    pub(super) fn dead(
        &self,
        state: &State,
        round: Set,
        live: Set,
        listed: Set,
        (without, damaged): (Set, Copies),
    ) -> Set {
        let mut dead = Set::NONE;
        for pack in round.and(listed).iter() {
            let needed = state.store.packs[pack as usize].and(live);
            let counted: Set = if self.holds(Rule::CopiesUnmarked) {
                listed.minus(without).minus(Set::of(pack))
            } else {
                // The lowest copy is to stay.
                listed.minus(Set::of(pack)).minus(round.minus(Set::below(pack)))
            };
            let copies = counted.iter().filter(|other| *other < PACKS).fold(Set::NONE, |all, p| {
                let contents = match self.holds(Rule::CopiesUnmarked) {
                    true => self.contents(state, p),
                    false => state.store.packs[p as usize],
                };
                all.or(contents.minus(damaged.of(p)))
            });
            if needed.within(copies) {
                dead.add(pack);
            }
        }
        dead
    }
}

/// One step of one collector.
struct Run<'a> {
    model: &'a Chunks,
    state: &'a State,
    number: usize,
    who: &'a str,
}

impl Run<'_> {
    fn holds(&self, rule: Rule) -> bool {
        self.model.holds(rule)
    }

    fn go(&self, state: &mut State, step: CollectorStep) {
        state.collectors[self.number].step = step;
    }

    fn end(&self, state: &mut State) {
        let me = &mut state.collectors[self.number];
        *me = Collector::with(me.runs);
    }

    fn ends(&self, why: String, out: &mut Out<'_>) {
        let mut next = *self.state;
        self.end(&mut next);
        out.step(next, || format!("{}: {why}", self.who));
    }

    fn goes(&self, step: CollectorStep, what: String, out: &mut Out<'_>) {
        let mut next = *self.state;
        self.go(&mut next, step);
        out.step(next, || format!("{}: {what}", self.who));
    }

    fn step(&self, me: Collector, out: &mut Out<'_>) {
        let send = |request: Request, step: Option<CollectorStep>, out: &mut Out<'_>| {
            let answered = |s: &mut State, _| match step {
                Some(step) => self.go(s, step),
                None => self.end(s),
            };
            out.send(self.state, request, self.who, answered, |_| {});
        };
        let (r, b) = (me.round, me.backup);
        match me.step {
            CollectorStep::Idle => self.begin(me, out),
            CollectorStep::PutMarker => self.put_marker(me, out),
            CollectorStep::LookForMarker => self.look_for_marker(me, out),
            CollectorStep::ListIntents => self.list_intents(out),
            CollectorStep::PutList => send(Request::PutList(r, me.what), None, out),
            CollectorStep::AwaitIntents => self.await_intents(me, out),
            CollectorStep::PutTombstone => {
                send(Request::PutTombstone(b), Some(CollectorStep::DeleteIntent), out);
            }
            CollectorStep::DeleteIntent => {
                let answered = |s: &mut State, _| {
                    s.collectors[self.number].backup = 0;
                    self.go(s, CollectorStep::AwaitIntents);
                };
                out.send(self.state, Request::DeleteIntent(b), self.who, answered, |_| {});
            }
            CollectorStep::ReadManifests => self.read_manifests(me, out),
            CollectorStep::ReadMarkers => self.read_markers(me, out),
            CollectorStep::ReadIndex => self.read_index(out),
            CollectorStep::ListPacks => self.list_packs(me, out),
            CollectorStep::PutVerdict => self.put_verdict(me, out),
            CollectorStep::LookAtMarker => self.look_at_marker(me, out),
            CollectorStep::DeletePacks => self.delete_packs(me, out),
            CollectorStep::DeleteMarker => {
                send(Request::DeleteMarker(r), Some(CollectorStep::DeleteList), out);
            }
            CollectorStep::DeleteList => {
                let next = self.holds(Rule::OneVerdict).then_some(CollectorStep::DeleteVerdict);
                send(Request::DeleteList(r), next, out);
            }
            CollectorStep::DeleteVerdict => send(Request::DeleteVerdict(r), None, out),
            CollectorStep::PutStrayTombstone => {
                send(Request::PutTombstone(b), Some(CollectorStep::DeleteStrayIntent), out);
            }
            CollectorStep::DeleteStrayIntent => send(Request::DeleteIntent(b), None, out),
            CollectorStep::FoldTombstone => {
                send(Request::PutLog(b), Some(CollectorStep::DeleteManifest), out);
            }
            CollectorStep::DeleteManifest => send(Request::DeleteManifest(b), None, out),
        }
    }

    /// One run begins: every thing that it may do.
    fn begin(&self, me: Collector, out: &mut Out<'_>) {
        if me.runs == 0 {
            return;
        }
        self.begin_round(out);
        for r in 0..ROUNDS as u8 {
            self.take_up_round(r, out);
        }
        for (b, ending) in (0..).zip(&self.state.store.manifests) {
            self.take_up_backup(b, *ending, out);
        }
    }

    fn begins(&self, what: String, out: &mut Out<'_>, with: impl Fn(&mut State, &mut Collector)) {
        let mut next = *self.state;
        let mut me = next.collectors[self.number];
        me.runs -= 1;
        with(&mut next, &mut me);
        next.collectors[self.number] = me;
        out.step(next, || format!("{}: {what}", self.who));
    }

    fn begin_round(&self, out: &mut Out<'_>) {
        let state = self.state;
        let random = self.holds(Rule::MarkerNamedOnce);
        let round = if random { state.rounds } else { 0 };
        let taken = !random && !state.store.rounds[0].marker.is_empty();
        if usize::from(round) >= ROUNDS || taken {
            return;
        }
        for packs in self.candidates() {
            self.begins(format!("will retire packs {packs}"), out, |next, me| {
                (me.round, me.what, me.step) = (round, packs, CollectorStep::PutMarker);
                if !self.holds(Rule::IntentsListedAfterMarker) {
                    me.live = state.store.intents;
                }
                if random {
                    next.rounds += 1;
                }
            });
        }
    }

    /// Sets of packs that may be retired together.
    fn candidates(&self) -> Vec<Set> {
        let store = &self.state.store;
        let there = store.present();
        if self.model.bounds.retires == Retires::Anything {
            let mut sets: Vec<Set> = there.iter().map(Set::of).collect();
            if there.len() > 1 {
                sets.push(there);
            }
            return sets;
        }
        let live = self.model.needs(store.valid());
        let free = there.minus(store.marked());
        let unused = free.iter().filter(|pack| store.packs[*pack as usize].and(live).is_empty());
        let unused = unused.fold(Set::NONE, |all, pack| all.or(Set::of(pack)));
        let mut sets = Vec::new();
        if !unused.is_empty() {
            sets.push(unused);
        }
        for pack in free.minus(unused).iter() {
            let others = free.minus(Set::of(pack));
            let copies = others.iter().fold(Set::NONE, |all, p| all.or(store.packs[p as usize]));
            if store.packs[pack as usize].and(live).within(copies) {
                sets.push(Set::of(pack));
            }
        }
        sets
    }

    fn take_up_round(&self, r: u8, out: &mut Out<'_>) {
        let round = self.state.store.rounds[r as usize];
        let begins = |step: CollectorStep, what: &str, out: &mut Out<'_>| {
            self.begins(format!("round R{r}: {what}"), out, |_, me| {
                (me.round, me.step) = (r, step);
                if step == CollectorStep::LookAtMarker {
                    me.what = round.verdict.unwrap_or_default();
                }
            });
        };
        if round.marker.is_empty() {
            if round.list.is_some() {
                begins(CollectorStep::DeleteList, "a list without a marker", out);
            } else if round.verdict.is_some() {
                begins(CollectorStep::DeleteVerdict, "a verdict without a marker", out);
            }
            return;
        }
        match (round.list, round.verdict) {
            (None, _) if self.holds(Rule::ListMadeUp) => {
                begins(CollectorStep::ListIntents, "a marker without a list", out);
            }
            (None, _) => {
                begins(CollectorStep::ReadManifests, "a marker without a list: nobody on it", out);
            }
            (Some(_), Some(_)) => begins(CollectorStep::LookAtMarker, "has a verdict", out),
            (Some(_), None) if self.holds(Rule::LivenessLast) => {
                begins(CollectorStep::AwaitIntents, "sweeps it", out);
            }
            (Some(_), None) => begins(CollectorStep::ReadManifests, "sweeps it", out),
        }
    }

    fn take_up_backup(&self, b: u8, ending: Ending, out: &mut Out<'_>) {
        let state = self.state;
        let begins = |step: CollectorStep, what: &str, out: &mut Out<'_>| {
            self.begins(format!("{what} B{b}"), out, |next, me| {
                (me.backup, me.step) = (b, step);
                if what.starts_with("takes") {
                    next.budget.sentences -= 1;
                }
            });
        };
        if state.store.intents.has(b) && state.budget.sentences > 0 {
            let step = match self.holds(Rule::TombstoneFirst) {
                true => CollectorStep::PutStrayTombstone,
                false => CollectorStep::DeleteStrayIntent,
            };
            begins(step, "takes for dead", out);
        }
        if ending == Ending::Tombstone {
            match self.model.bounds.tombstones {
                Tombstones::Stay => {}
                Tombstones::Removed => begins(CollectorStep::DeleteManifest, "tombstone", out),
                Tombstones::Folded => begins(CollectorStep::FoldTombstone, "tombstone", out),
            }
        }
        if ending != Ending::Free && state.store.log.has(b) {
            begins(CollectorStep::DeleteManifest, "expired manifest", out);
        }
    }

    /// R2 is next, or R3 with the intents that were listed too early.
    fn after_marker(&self, state: &mut State) {
        if self.holds(Rule::IntentsListedAfterMarker) {
            self.go(state, CollectorStep::ListIntents);
        } else {
            let me = &mut state.collectors[self.number];
            (me.what, me.live) = (me.live, Set::NONE);
            me.step = CollectorStep::PutList;
        }
    }

    fn put_marker(&self, me: Collector, out: &mut Out<'_>) {
        let answered = |s: &mut State, answer| {
            let other = s.store.rounds[me.round as usize].marker != me.what;
            if answer == Answer::Exists && other {
                self.end(s);
            } else {
                self.after_marker(s);
            }
        };
        let unknown = |s: &mut State| {
            if !self.holds(Rule::MarkerConfirmed) {
                self.go(s, CollectorStep::ListIntents);
            } else if self.holds(Rule::MarkerNamedOnce) {
                self.go(s, CollectorStep::LookForMarker);
            }
        };
        out.send(self.state, Request::PutMarker(me.round, me.what), self.who, answered, unknown);
    }

    fn look_for_marker(&self, me: Collector, out: &mut Out<'_>) {
        let r = me.round;
        if self.state.store.rounds[r as usize].marker.is_empty() {
            return self.ends(format!("marker R{r} is not there, the name is abandoned"), out);
        }
        let mut next = *self.state;
        self.after_marker(&mut next);
        out.step(next, || format!("{}: marker R{r} is there", self.who));
    }

    fn list_intents(&self, out: &mut Out<'_>) {
        let intents = self.state.store.intents;
        let mut next = *self.state;
        next.collectors[self.number].what = intents;
        self.go(&mut next, CollectorStep::PutList);
        out.step(next, || format!("{}: lists intents {intents}", self.who));
    }

    fn await_intents(&self, me: Collector, out: &mut Out<'_>) {
        let (state, r) = (self.state, me.round);
        let Some(list) = state.store.rounds[r as usize].list else {
            return self.ends(format!("list R{r} is gone, stops"), out);
        };
        let torn = state.store.torn_lists.has(r);
        if torn && self.holds(Rule::CollectorStopsAtList) {
            return self.ends(format!("cannot read list R{r}, stops"), out);
        }
        let left = if torn { Set::NONE } else { list.and(state.store.intents) };
        if left.is_empty() || !self.holds(Rule::IntentsWaitedFor) {
            let step = match self.holds(Rule::LivenessLast) {
                true => CollectorStep::ReadManifests,
                false => CollectorStep::ReadMarkers,
            };
            return self.goes(step, format!("all on list R{r} have ended"), out);
        }
        self.ends(format!("B{left} on list R{r} is under way, stops for now"), out);
        for b in left.iter().filter(|_| state.budget.sentences > 0) {
            let mut next = *state;
            next.budget.sentences -= 1;
            next.collectors[self.number].backup = b;
            let step = match self.holds(Rule::TombstoneFirst) {
                true => CollectorStep::PutTombstone,
                false => CollectorStep::DeleteIntent,
            };
            self.go(&mut next, step);
            out.step(next, || format!("{}: takes B{b} on list R{r} for dead", self.who));
        }
    }

    fn read_manifests(&self, me: Collector, out: &mut Out<'_>) {
        let store = &self.state.store;
        let torn = store.torn_manifests.and(store.valid());
        if !torn.is_empty() && self.holds(Rule::CollectorStopsAtManifest) {
            return self.ends(format!("cannot read manifest B{torn}, stops"), out);
        }
        let live = self.model.needs(store.valid().minus(torn));
        let mut next = *self.state;
        next.collectors[self.number].live = live;
        let has_list = store.rounds[me.round as usize].list.is_some();
        let step = if !self.holds(Rule::LivenessLast) && has_list {
            CollectorStep::AwaitIntents
        } else if self.holds(Rule::MarkersBeforePacks) {
            CollectorStep::ReadMarkers
        } else {
            CollectorStep::ListPacks
        };
        self.go(&mut next, step);
        out.step(next, || format!("{}: lists manifests: live chunks {live}", self.who));
    }

    /// Markers are read before packs, but against the rule.
    fn in_order(&self) -> bool {
        self.holds(Rule::MarkersBeforePacks) || !self.holds(Rule::LivenessLast)
    }

    fn read_markers(&self, me: Collector, out: &mut Out<'_>) {
        let store = &self.state.store;
        if store.rounds[me.round as usize].marker.is_empty() {
            return self.ends("its marker is gone, stops".to_owned(), out);
        }
        if !store.torn_markers.is_empty() && self.holds(Rule::CollectorStopsAtMarker) {
            return self.ends(format!("cannot read marker R{}, stops", store.torn_markers), out);
        }
        let mut next = *self.state;
        let damaged = match self.holds(Rule::CollectorKnowsDamage) {
            true => store.damaged,
            false => Copies::default(),
        };
        let marked = store.marked_readable();
        if self.in_order() {
            let mine = &mut next.collectors[self.number];
            (mine.without, mine.damaged) = (marked, damaged);
            let step = match self.holds(Rule::CopiesIndexed) {
                true => CollectorStep::ReadIndex,
                false => CollectorStep::ListPacks,
            };
            self.go(&mut next, step);
        } else {
            let (own, listed) = (store.rounds[me.round as usize].marker, me.without);
            let dead = self.model.dead(self.state, own, me.live, listed, (marked, damaged));
            self.decided(&mut next, dead);
        }
        out.step(next, || format!("{}: reads markers {marked} and damage", self.who));
    }

    fn read_index(&self, out: &mut Out<'_>) {
        let indexed = self.state.store.indexed();
        let mut next = *self.state;
        let me = &mut next.collectors[self.number];
        me.without = me.without.or(Set(!indexed.0));
        self.go(&mut next, CollectorStep::ListPacks);
        out.step(next, || format!("{}: reads index {indexed}", self.who));
    }

    fn list_packs(&self, me: Collector, out: &mut Out<'_>) {
        let listed = self.state.store.present();
        let own = self.state.store.rounds[me.round as usize].marker;
        let mut next = *self.state;
        if !self.in_order() {
            next.collectors[self.number].without = listed;
            self.go(&mut next, CollectorStep::ReadMarkers);
            return out.step(next, || format!("{}: lists packs {listed}", self.who));
        }
        if own.is_empty() {
            return self.ends("its marker is gone, stops".to_owned(), out);
        }
        let dead = self.model.dead(self.state, own, me.live, listed, (me.without, me.damaged));
        self.decided(&mut next, dead);
        out.step(next, || format!("{}: lists packs {listed}; {dead} may go", self.who));
    }

    fn decided(&self, state: &mut State, dead: Set) {
        let me = &mut state.collectors[self.number];
        (me.without, me.live, me.damaged, me.what) = (Set::NONE, Set::NONE, Copies(0), dead);
        me.step = match self.holds(Rule::OneVerdict) {
            true => CollectorStep::PutVerdict,
            false => CollectorStep::DeletePacks,
        };
    }

    fn put_verdict(&self, me: Collector, out: &mut Out<'_>) {
        let answered = |s: &mut State, answer| {
            if answer == Answer::Exists {
                let stored = s.store.rounds[me.round as usize].verdict;
                s.collectors[self.number].what = stored.unwrap_or_default();
            }
            self.go(s, CollectorStep::LookAtMarker);
        };
        out.send(self.state, Request::PutVerdict(me.round, me.what), self.who, answered, |_| {});
    }

    fn look_at_marker(&self, me: Collector, out: &mut Out<'_>) {
        let r = me.round;
        let there = !self.state.store.rounds[r as usize].marker.is_empty();
        if there || !self.holds(Rule::MarkerLookedAtAgain) {
            return self.goes(CollectorStep::DeletePacks, format!("marker R{r} is there"), out);
        }
        let mut next = *self.state;
        next.collectors[self.number].what = Set::NONE;
        self.go(&mut next, CollectorStep::DeleteList);
        out.step(next, || format!("{}: marker R{r} is gone, only tidies", self.who));
    }

    fn delete_packs(&self, me: Collector, out: &mut Out<'_>) {
        let store = &self.state.store;
        let first = !self.holds(Rule::MarkerGoesLast);
        if first && !store.rounds[me.round as usize].marker.is_empty() {
            let delete = Request::DeleteMarker(me.round);
            return out.send(self.state, delete, self.who, |_, _| {}, |_| {});
        }
        let Some(pack) = me.what.and(store.present()).first() else {
            let mut next = *self.state;
            next.collectors[self.number].what = Set::NONE;
            self.go(&mut next, CollectorStep::DeleteMarker);
            return out.step(next, || format!("{}: no pack is left to delete", self.who));
        };
        out.send(self.state, Request::DeletePack(pack), self.who, |_, _| {}, |_| {});
    }
}
