//! A restore or a verification while packs go: it holds no intent, and no lease.

use super::{Chunks, Out, Rule, State};
use crate::set::Set;

/// Where the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ReaderStep {
    Idle,
    /// It has chosen a backup, and reads the index.
    ReadIndex(u8),
    /// It fetches what is left from packs that the index names.
    Fetch(u8),
    /// It has missed a pack, and looks whether its backup has expired.
    ReadLog(u8),
    /// Against [`Rule::ReaderReadsLogLast`]: the log was read at the first miss.
    ReadIndexAfterLog(u8),
}

/// A reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    step: ReaderStep,
    /// Chunks still to be read.
    left: Set,
    /// Packs that the index names.
    known: Set,
    /// Packs that were not there.
    missed: Set,
    /// Backups still to be read.
    reads: u8,
}

impl Reader {
    pub(super) const fn with(reads: u8) -> Self {
        let none = Set::NONE;
        Self { step: ReaderStep::Idle, left: none, known: none, missed: none, reads }
    }
}

impl Chunks {
    pub(super) fn reader(&self, state: &State, out: &mut Out<'_>) {
        match state.reader.step {
            ReaderStep::Idle => {
                if state.reader.reads == 0 {
                    return;
                }
                for b in state.store.valid().iter() {
                    let mut next = *state;
                    next.reader.reads -= 1;
                    next.reader.left = self.bounds.wants[b as usize];
                    next.reader.step = ReaderStep::ReadIndex(b);
                    out.step(next, || format!("reader: takes backup B{b}"));
                }
            }
            ReaderStep::ReadIndex(b) => self.read_index(state, ReaderStep::Fetch(b), out),
            ReaderStep::Fetch(b) => self.fetch(state, b, out),
            ReaderStep::ReadLog(b) => self.read_log(state, b, out),
            ReaderStep::ReadIndexAfterLog(b) => {
                let fresh = state.store.indexed().minus(state.reader.missed);
                match self.holders(state, fresh).is_empty() {
                    true => self.alarm(state, b, out),
                    false => self.read_index(state, ReaderStep::Fetch(b), out),
                }
            }
        }
    }

    fn read_index(&self, state: &State, step: ReaderStep, out: &mut Out<'_>) {
        let mut next = *state;
        next.reader.known = state.store.indexed();
        next.reader.step = step;
        out.step(next, || format!("reader: reads index {}", state.store.indexed()));
    }

    /// Those of these packs that have the chunk that is read next.
    fn holders(&self, state: &State, packs: Set) -> Set {
        let Some(chunk) = state.reader.left.first() else { return Set::NONE };
        let has = |pack: &u8| *pack < super::PACKS && self.contents(state, *pack).has(chunk);
        packs.iter().filter(has).fold(Set::NONE, |all, pack| all.or(Set::of(pack)))
    }

    fn fetch(&self, state: &State, b: u8, out: &mut Out<'_>) {
        let Some(chunk) = state.reader.left.first() else {
            let mut next = *state;
            next.reader = Reader::with(state.reader.reads);
            return out.step(next, || format!("reader: has read B{b}"));
        };
        let holders = self.holders(state, state.reader.known.minus(state.reader.missed));
        for pack in holders.iter() {
            let mut next = *state;
            let there = !state.store.packs[pack as usize].is_empty();
            if there {
                next.reader.left.remove(chunk);
            } else {
                next.reader.missed.add(pack);
            }
            let found = if there { "has" } else { "misses" };
            out.step(next, || format!("reader: {found} chunk {chunk} of pack P{pack}"));
        }
        if !holders.is_empty() {
            return;
        }
        // Nothing that it knows of is left.
        let indexed = state.store.indexed().minus(state.reader.missed);
        let more = !self.holders(state, indexed).is_empty();
        let again = self.holds(Rule::ReaderReadsIndexAgain);
        if again && self.holds(Rule::ReaderReadsLogLast) {
            if more {
                return self.read_index(state, ReaderStep::Fetch(b), out);
            }
            let mut next = *state;
            next.reader.step = ReaderStep::ReadLog(b);
            return out.step(next, || "reader: reads the index again, nothing new".to_owned());
        }
        self.read_log(state, b, out);
    }

    fn read_log(&self, state: &State, b: u8, out: &mut Out<'_>) {
        if state.store.log.has(b) {
            let mut next = *state;
            next.reader = Reader::with(state.reader.reads);
            return out.step(next, || format!("reader: the log names B{b}: it has expired, ends"));
        }
        let again = self.holds(Rule::ReaderReadsIndexAgain);
        if again && !self.holds(Rule::ReaderReadsLogLast) {
            let mut next = *state;
            next.reader.step = ReaderStep::ReadIndexAfterLog(b);
            return out.step(next, || format!("reader: the log does not name B{b}"));
        }
        self.alarm(state, b, out);
    }

    fn alarm(&self, state: &State, b: u8, out: &mut Out<'_>) {
        let mut next = *state;
        next.harm.false_alarm = true;
        next.reader = Reader::with(state.reader.reads);
        out.step(next, || format!("reader: says that a chunk of B{b} is lost"));
    }
}
