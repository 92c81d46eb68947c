//! What must hold in every state.

use super::backup::BackupStep;
use super::store::{Copies, Ending, PACKS, Request, Round};
use super::{Chunks, Property, State};
use crate::search::{Model, Steps};
use crate::set::Set;

/// Steps of a backup that is alone, at most.
const STEPS_ALONE: usize = 14;

impl Chunks {
    fn watches(&self, property: Property) -> bool {
        self.bounds.watched.at(property)
    }

    pub(super) fn harm_of(&self, state: &State) -> Option<String> {
        let there = state.store.present();
        let indexed = state.store.indexed().and(there);
        let of = |packs: Set| {
            let packs = packs.iter().filter(|pack| *pack < PACKS);
            packs.fold(Set::NONE, |all, pack| all.or(state.store.packs[pack as usize]))
        };
        let (stored, known) = (of(there), of(indexed));
        let good = there.iter().fold(Set::NONE, |all, pack| {
            let contents = state.store.packs[pack as usize];
            all.or(contents.minus(state.store.damaged.of(pack)))
        });
        for b in state.store.valid().iter() {
            let needs = self.bounds.wants[b as usize];
            if self.watches(Property::Stored) && !needs.within(stored) {
                return Some(format!("S1: backup B{b} lacks chunks {}", needs.minus(stored)));
            }
            if self.watches(Property::Indexed) && !needs.within(known) {
                return Some(format!("I1: of backup B{b} chunks are in no index"));
            }
            let excused = state.harm.excused.has(b);
            if self.watches(Property::GoodCopy) && !excused && !needs.within(good) {
                return Some(format!("D1: of backup B{b} only bad copies are left"));
            }
        }
        let gone = state.told.minus(state.store.valid()).minus(state.expired);
        if self.watches(Property::Committed) && !gone.is_empty() {
            return Some(format!("S2: B{gone} was told \"committed\" and is not there"));
        }
        if self.watches(Property::ManifestLast) && state.harm.landed_without_pack {
            return Some("S3: a manifest landed whose pack is gone".to_owned());
        }
        if self.watches(Property::Commits) && state.harm.backup_missed_pack {
            return Some("L2: a backup that nobody ended found its pack gone".to_owned());
        }
        if self.watches(Property::NoFalseAlarm) && state.harm.false_alarm {
            return Some("R1: a reader says that something is lost, and nothing is".to_owned());
        }
        None
    }

    /// Everybody is gone and one collector runs alone: all that is not needed goes, and nothing
    /// else.
    pub(super) fn remains_of(&self, state: &State) -> Option<String> {
        let quiet = state.backups.iter().all(|b| b.has_ended() || !b.is_under_way());
        let torn = state.store.torn_manifests.or(state.store.torn_markers);
        let torn = torn.or(state.store.torn_lists);
        if !self.watches(Property::Cleans) || !quiet || !torn.is_empty() {
            return None;
        }
        let mut alone = *state;
        for _ in 0..2 {
            self.end_backups(&mut alone);
            if let Some(harm) = self.end_rounds(&mut alone).or_else(|| self.retire_all(&mut alone))
            {
                return Some(format!("a collector alone: {harm}"));
            }
        }
        let live = self.needs(alone.store.valid());
        let left = alone.store.present();
        if left.iter().any(|pack| alone.store.packs[pack as usize].and(live).is_empty()) {
            return Some("L1: a pack that nobody needs stays".to_owned());
        }
        // What was found bad may keep packs that have copies.
        let many = left.len() > 2 && alone.store.damaged == Copies::default();
        let rounds = alone.store.rounds != [Round::default(); 3];
        let tombstones = alone.store.manifests.contains(&Ending::Tombstone);
        if many || rounds || tombstones || !alone.store.intents.is_empty() {
            return Some("L3: debris stays".to_owned());
        }
        None
    }

    fn end_backups(&self, state: &mut State) {
        for b in 0..state.store.manifests.len() as u8 {
            if state.store.intents.has(b) {
                Request::PutTombstone(b).apply(state);
                Request::DeleteIntent(b).apply(state);
            }
            if state.store.manifests[b as usize] == Ending::Tombstone {
                state.store.log.add(b);
            }
            if state.store.log.has(b) {
                state.store.manifests[b as usize] = Ending::Free;
            }
        }
    }

    fn dead_of(&self, state: &State, packs: Set, marked: Set) -> Set {
        let live = self.needs(state.store.valid());
        let without = marked.or(Set(!state.store.indexed().0));
        self.dead(state, packs, live, state.store.present(), (without, state.store.damaged))
    }

    fn end_rounds(&self, state: &mut State) -> Option<String> {
        for r in 0..state.store.rounds.len() {
            let round = state.store.rounds[r];
            if !round.marker.is_empty() {
                let list = round.list.unwrap_or(state.store.intents);
                if !list.and(state.store.intents).is_empty() {
                    return Some("an intent does not end".to_owned());
                }
                let dead = round
                    .verdict
                    .unwrap_or_else(|| self.dead_of(state, round.marker, state.store.marked()));
                for pack in dead.iter() {
                    state.store.packs[pack as usize] = Set::NONE;
                }
            }
            state.store.rounds[r] = Round::default();
            if let Some(harm) = self.harm_of(state) {
                return Some(harm);
            }
        }
        None
    }

    fn retire_all(&self, state: &mut State) -> Option<String> {
        for pack in state.store.present().iter() {
            let one = Set::of(pack);
            if !self.dead_of(state, one, one).is_empty() {
                state.store.packs[pack as usize] = Set::NONE;
            }
        }
        if let Some(harm) = self.harm_of(state) {
            return Some(harm);
        }
        let kept = state.store.indexed().and(state.store.present());
        state.store.indexes = [Set::NONE; 5];
        state.store.indexes[0] = kept;
        self.harm_of(state)
    }

    /// A backup that is alone from now on commits, unless it was ended.
    pub(super) fn waits_of(&self, state: &State) -> Option<String> {
        if !self.watches(Property::Commits) || !state.store.torn_markers.is_empty() {
            return None;
        }
        for number in 0..usize::from(self.bounds.backups) {
            let (me, id) = (state.backups[number], number as u8 + 1);
            let fenced = state.store.manifests[id as usize] == Ending::Tombstone
                || state.store.log.has(id)
                || me.step == BackupStep::EndFenced;
            if me.has_ended() || fenced || me.names > 0 {
                continue;
            }
            if !self.commits_alone(state, number, id) {
                return Some(format!("L2: B{id} alone does not commit"));
            }
        }
        None
    }

    fn commits_alone(&self, state: &State, number: usize, id: u8) -> bool {
        let mut alone = *state;
        (alone.budget.late, alone.budget.lost, alone.budget.deaths) = (0, 0, 0);
        for _ in 0..STEPS_ALONE {
            if alone.backups[number].has_ended() {
                break;
            }
            let mut steps = Steps::told();
            self.steps(&alone, &mut steps);
            let own = format!("B{id}:");
            let next = steps.into_all().into_iter().find(|(_, words)| words.starts_with(&own));
            let Some((next, _)) = next else { return false };
            alone = next;
        }
        alone.backups[number].step == BackupStep::Done
    }
}
