//! What is in the store, and the requests that change it.

use std::fmt;

use super::State;
use crate::set::Set;

/// Packs: two are there at the beginning, each backup has two names.
pub(super) const PACKS: u8 = 6;
/// Backups: one is there at the beginning.
pub(super) const BACKUPS: usize = 3;
/// Rounds of collection.
pub(super) const ROUNDS: usize = 3;
/// Index objects: one is there, one for each backup, two for merges.
pub(super) const INDEXES: usize = 5;

/// What stands under a manifest's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Ending {
    /// Nothing.
    #[default]
    Free,
    /// A manifest.
    Manifest,
    /// A tombstone.
    Tombstone,
}

/// A round of collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Round {
    /// The packs that its marker retires; none when there is no marker.
    pub marker: Set,
    /// The backups on its list.
    pub list: Option<Set>,
    /// The packs that go.
    pub verdict: Option<Set>,
}

/// Objects. Their names stand for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Objects {
    /// The chunks in each pack; none when it is not there.
    pub packs: [Set; PACKS as usize],
    /// The packs that each index object names.
    pub indexes: [Set; INDEXES],
    /// What stands under each manifest's name.
    pub manifests: [Ending; BACKUPS],
    /// Rounds.
    pub rounds: [Round; ROUNDS],
    /// Backups that the highest entry of the log of expired backups names.
    pub log: Set,
    /// Backups whose intents are there.
    pub intents: Set,
    /// Copies noted as damaged: pack by pack, two chunks each.
    pub damaged: Copies,
    /// Manifests that cannot be read.
    pub torn_manifests: Set,
    /// Markers that cannot be read.
    pub torn_markers: Set,
    /// Lists that cannot be read.
    pub torn_lists: Set,
}

/// A set of chunks in packs: two chunks, six packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Copies(pub u16);

impl Copies {
    /// The chunks of a pack.
    pub const fn of(self, pack: u8) -> Set {
        Set(((self.0 >> (2 * pack)) & 3) as u8)
    }

    /// Adds one.
    pub const fn add(&mut self, pack: u8, chunk: u8) {
        self.0 |= 1 << (2 * pack + chunk);
    }
}

impl Objects {
    /// The packs that are there.
    pub fn present(&self) -> Set {
        Set((0..PACKS).filter(|p| !self.packs[*p as usize].is_empty()).fold(0, |a, p| a | 1 << p))
    }

    /// The packs that index objects name.
    pub fn indexed(&self) -> Set {
        self.indexes.iter().fold(Set::NONE, |all, one| all.or(*one))
    }

    /// The packs that markers name.
    pub fn marked(&self) -> Set {
        self.rounds.iter().fold(Set::NONE, |all, round| all.or(round.marker))
    }

    /// The packs that the markers name that can be read.
    pub fn marked_readable(&self) -> Set {
        let readable = (0..).zip(&self.rounds).filter(|(r, _)| !self.torn_markers.has(*r));
        readable.fold(Set::NONE, |all, (_, round)| all.or(round.marker))
    }

    /// The backups that exist.
    pub fn valid(&self) -> Set {
        let there = (0..).zip(&self.manifests).filter(|(_, m)| **m == Ending::Manifest);
        Set(there.fold(0, |a, (b, _): (u8, _)| a | 1 << b)).minus(self.log)
    }
}

/// A request that changes the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// A pack of chunks.
    PutPack(u8, Set),
    /// An index object of packs.
    PutIndex(u8, Set),
    /// An intent.
    PutIntent(u8),
    /// A manifest that refers to packs.
    PutManifest(u8, Set),
    /// A marker.
    PutMarker(u8, Set),
    /// A list of intents.
    PutList(u8, Set),
    /// A verdict.
    PutVerdict(u8, Set),
    /// A tombstone.
    PutTombstone(u8),
    /// A backup's id in the log.
    PutLog(u8),
    /// Deletes a pack.
    DeletePack(u8),
    /// Deletes an index object.
    DeleteIndex(u8),
    /// Deletes an intent.
    DeleteIntent(u8),
    /// Deletes what stands under a manifest's name.
    DeleteManifest(u8),
    /// Deletes a marker.
    DeleteMarker(u8),
    /// Deletes a list.
    DeleteList(u8),
    /// Deletes a verdict.
    DeleteVerdict(u8),
}

/// What the store says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Created, or deleted.
    Done,
    /// The name is taken.
    Exists,
}

fn put<T: PartialEq>(place: &mut T, free: T, value: T) -> Answer {
    if *place == free {
        *place = value;
        return Answer::Done;
    }
    Answer::Exists
}

impl Request {
    /// Carries it out.
    pub fn apply(self, state: &mut State) -> Answer {
        let store = &mut state.store;
        let at = |place: u8| place as usize;
        match self {
            Self::PutPack(p, chunks) => put(&mut store.packs[at(p)], Set::NONE, chunks),
            Self::PutIndex(i, packs) => put(&mut store.indexes[at(i)], Set::NONE, packs),
            Self::PutIntent(b) => {
                let there = store.intents.has(b);
                store.intents.add(b);
                if there { Answer::Exists } else { Answer::Done }
            }
            Self::PutManifest(b, packs) => {
                let answer = put(&mut store.manifests[at(b)], Ending::Free, Ending::Manifest);
                let whole = packs.within(store.present());
                if answer == Answer::Done && !store.log.has(b) && !whole {
                    state.harm.landed_without_pack = true;
                }
                answer
            }
            Self::PutTombstone(b) => {
                put(&mut store.manifests[at(b)], Ending::Free, Ending::Tombstone)
            }
            Self::PutMarker(r, packs) => put(&mut store.rounds[at(r)].marker, Set::NONE, packs),
            Self::PutList(r, backups) => put(&mut store.rounds[at(r)].list, None, Some(backups)),
            Self::PutVerdict(r, packs) => put(&mut store.rounds[at(r)].verdict, None, Some(packs)),
            Self::PutLog(b) => {
                store.log.add(b);
                Answer::Done
            }
            delete => {
                delete.delete(state);
                Answer::Done
            }
        }
    }

    fn delete(self, state: &mut State) {
        let store = &mut state.store;
        match self {
            Self::DeletePack(p) => store.packs[p as usize] = Set::NONE,
            Self::DeleteIndex(i) => store.indexes[i as usize] = Set::NONE,
            Self::DeleteIntent(b) => store.intents.remove(b),
            Self::DeleteManifest(b) => {
                store.manifests[b as usize] = Ending::Free;
                store.torn_manifests.remove(b);
            }
            Self::DeleteMarker(r) => {
                store.rounds[r as usize].marker = Set::NONE;
                store.torn_markers.remove(r);
            }
            Self::DeleteList(r) => {
                store.rounds[r as usize].list = None;
                store.torn_lists.remove(r);
            }
            Self::DeleteVerdict(r) => store.rounds[r as usize].verdict = None,
            _ => {}
        }
    }

    const fn deletes(self) -> bool {
        matches!(
            self,
            Self::DeletePack(_)
                | Self::DeleteIndex(_)
                | Self::DeleteIntent(_)
                | Self::DeleteManifest(_)
                | Self::DeleteMarker(_)
                | Self::DeleteList(_)
                | Self::DeleteVerdict(_)
        )
    }

    /// The answer in words.
    pub const fn told(self, answer: Answer) -> &'static str {
        match answer {
            Answer::Done if self.deletes() => "done",
            Answer::Done => "created",
            Answer::Exists => "exists",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutPack(p, chunks) => write!(f, "put pack P{p}, chunks {chunks}"),
            Self::PutIndex(i, packs) => write!(f, "put index object I{i}, packs {packs}"),
            Self::PutIntent(b) => write!(f, "put intent B{b}"),
            Self::PutManifest(b, packs) => {
                write!(f, "put manifest B{b}, which needs packs {packs}")
            }
            Self::PutMarker(r, packs) => write!(f, "put marker R{r}, packs {packs}"),
            Self::PutList(r, backups) => write!(f, "put list R{r}, backups {backups}"),
            Self::PutVerdict(r, packs) => write!(f, "put verdict R{r}, packs {packs} go"),
            Self::PutTombstone(b) => write!(f, "put tombstone B{b}"),
            Self::PutLog(b) => write!(f, "put a log entry that names B{b}"),
            Self::DeletePack(p) => write!(f, "delete pack P{p}"),
            Self::DeleteIndex(i) => write!(f, "delete index object I{i}"),
            Self::DeleteIntent(b) => write!(f, "delete intent B{b}"),
            Self::DeleteManifest(b) => write!(f, "delete what stands under manifest B{b}"),
            Self::DeleteMarker(r) => write!(f, "delete marker R{r}"),
            Self::DeleteList(r) => write!(f, "delete list R{r}"),
            Self::DeleteVerdict(r) => write!(f, "delete verdict R{r}"),
        }
    }
}
