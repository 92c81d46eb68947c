//! Step M: a merge of the index.

use super::store::{INDEXES, Request};
use super::{Chunks, Out, Rule, State};
use crate::set::Set;

/// Where the merge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum MergeStep {
    Idle,
    /// M1 is done: the entries read (or, against [`Rule::MergeReadsFirst`], the packs listed).
    Second(Set),
    /// M4.
    Put(Set),
    /// M5.
    DeleteRead,
}

/// A merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Merge {
    step: MergeStep,
    /// The index objects read.
    read: Set,
    left: u8,
}

impl Merge {
    pub(super) const fn with(left: u8) -> Self {
        Self { step: MergeStep::Idle, read: Set::NONE, left }
    }
}

fn objects(state: &State) -> Set {
    let there = (0..).zip(&state.store.indexes).filter(|(_, packs)| !packs.is_empty());
    there.fold(Set::NONE, |all, (i, _)| all.or(Set::of(i)))
}

impl Chunks {
    pub(super) fn merge(&self, state: &State, out: &mut Out<'_>) {
        let first = self.holds(Rule::MergeReadsFirst);
        let store = &state.store;
        let mut next = *state;
        match state.merge.step {
            MergeStep::Idle => {
                if state.merge.left == 0 || usize::from(state.indexes) >= INDEXES {
                    return;
                }
                next.merge.left -= 1;
                let (seen, what) = match first {
                    true => (store.indexed(), "reads all index objects"),
                    false => (store.present(), "lists packs"),
                };
                next.merge.read = if first { objects(state) } else { Set::NONE };
                next.merge.step = MergeStep::Second(seen);
                out.step(next, || format!("merge: {what}: packs {seen}"));
            }
            MergeStep::Second(seen) => {
                let kept = if first {
                    let retired = match self.holds(Rule::MergeKeepsRetired) {
                        true => Set::NONE,
                        false => store.marked(),
                    };
                    seen.and(store.present()).minus(retired)
                } else {
                    next.merge.read = objects(state);
                    seen.and(store.indexed())
                };
                next.merge.step =
                    if kept.is_empty() { MergeStep::DeleteRead } else { MergeStep::Put(kept) };
                out.step(next, || format!("merge: looks at the other: keeps packs {kept}"));
            }
            MergeStep::Put(kept) => {
                let answered = |s: &mut State, _| {
                    s.merge.step = MergeStep::DeleteRead;
                    s.indexes += 1;
                };
                out.send(state, Request::PutIndex(state.indexes, kept), "merge", answered, |_| {});
            }
            MergeStep::DeleteRead => match state.merge.read.first() {
                None => {
                    next.merge.step = MergeStep::Idle;
                    out.step(next, || "merge: ends".to_owned());
                }
                Some(i) => {
                    let answered = |s: &mut State, _| s.merge.read.remove(i);
                    out.send(state, Request::DeleteIndex(i), "merge", answered, |_| {});
                }
            },
        }
        if state.merge.step != MergeStep::Idle && state.budget.deaths > 0 {
            let mut next = *state;
            next.budget.deaths -= 1;
            next.merge = Merge::with(state.merge.left);
            out.step(next, || "merge dies".to_owned());
        }
    }
}
