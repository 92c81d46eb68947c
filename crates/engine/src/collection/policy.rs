//! When copying what is needed of a pack pays.

use std::collections::HashSet;

use pgrecall_repo::gc::{Ids, PackUse};
use pgrecall_repo::id::PackId;

/// What a collection may do besides removing what nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A pack is copied when at most so many percent of the bytes of its chunks are needed. 0
    /// copies none.
    pub rewrite_below_percent: u64,
    /// Bytes copied by one collection, at most.
    pub rewrite_bytes_max: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { rewrite_below_percent: 50, rewrite_bytes_max: 16 << 30 }
    }
}

/// Packs, and what of them is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The packs.
    pub packs: Vec<PackId>,
    /// Bytes of their objects.
    pub bytes: u64,
    /// Bytes of them that are needed.
    pub live_bytes: u64,
}

impl Chosen {
    fn add(&mut self, used: &PackUse) {
        self.packs.push(used.id);
        self.bytes += used.size;
        self.live_bytes += used.live_bytes;
    }
}

/// What becomes of packs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Nobody refers to them.
    pub unused: Chosen,
    /// What is needed of them is copied, and they go.
    pub rewritten: Chosen,
    /// They are needed in part, and copying does not pay, or not this time.
    pub left: Chosen,
    /// No index object names them while backups are under way: they may be theirs.
    pub unindexed: Chosen,
    /// All of them is needed.
    pub full: Chosen,
}

/// Whether backups are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    /// None is.
    Nobody,
    /// Some are.
    Somebody,
}

impl Policy {
    /// Decides what becomes of each pack: those of which the least is needed are copied first.
    #[must_use]
    pub fn choose(&self, packs: &[PackUse], under_way: UnderWay) -> Choice {
        let mut choice = Choice::default();
        let mut partly: Vec<&PackUse> = Vec::new();
        for used in packs {
            // A chunk whose only copy is bad counts as needed where it is; the sweep looks again.
            if used.live_chunks == 0 {
                match (used.indexed, under_way) {
                    (false, UnderWay::Somebody) => choice.unindexed.add(used),
                    _ => choice.unused.add(used),
                }
            } else if used.live_bytes < used.frame_bytes {
                partly.push(used);
            } else {
                choice.full.add(used);
            }
        }
        partly.sort_by_key(|used| (permille(used), used.id));
        let pays = self.paying(&partly);
        for used in partly {
            let place =
                if pays.contains(&used.id) { &mut choice.rewritten } else { &mut choice.left };
            place.add(used);
        }
        choice
    }

    fn paying(&self, partly: &[&PackUse]) -> HashSet<PackId> {
        let mut copied = 0_u64;
        let mut paying = HashSet::new();
        for used in partly {
            // A bad chunk cannot be copied: the pack stays for a repair, or until a backup has
            // stored the chunk again. What has its id from an earlier key cannot either.
            let pays = permille(used) <= self.rewrite_below_percent * 10
                && self.rewrite_below_percent > 0
                && used.damaged_chunks == 0
                && used.ids == Ids::Current;
            if pays && copied.saturating_add(used.live_bytes) <= self.rewrite_bytes_max {
                copied += used.live_bytes;
                paying.insert(used.id);
            }
        }
        paying
    }
}

/// How much of a pack's chunks is needed, in thousandths, rounded up.
fn permille(used: &PackUse) -> u64 {
    (used.live_bytes * 1000).div_ceil(used.frame_bytes.max(1))
}

#[cfg(test)]
mod tests {
    use pgrecall_repo::format::header::Kind;

    use super::*;

    fn pack(number: u8, live: u64, all: u64) -> PackUse {
        PackUse {
            id: PackId::from_bytes([number; 16]),
            kind: Kind::DataPack,
            size: all + 100,
            frame_bytes: all,
            live_chunks: u64::from(live > 0),
            live_bytes: live,
            damaged_chunks: 0,
            indexed: true,
            ids: Ids::Current,
        }
    }

    fn numbers(chosen: &Chosen) -> Vec<u8> {
        chosen.packs.iter().map(|id| id.as_bytes()[0]).collect()
    }

    #[test]
    fn what_is_least_needed_is_copied_first_and_the_rest_another_time() {
        let packs =
            [pack(1, 500, 1000), pack(2, 100, 1000), pack(3, 501, 1000), pack(4, 300, 1000)];
        let policy = Policy { rewrite_below_percent: 50, rewrite_bytes_max: 450 };
        let choice = policy.choose(&packs, UnderWay::Nobody);
        assert_eq!(numbers(&choice.rewritten), [2, 4]);
        assert_eq!(numbers(&choice.left), [1, 3]);
        let all = Policy { rewrite_bytes_max: 10_000, ..policy };
        assert_eq!(numbers(&all.choose(&packs, UnderWay::Nobody).rewritten), [2, 4, 1]);
        let none = Policy { rewrite_below_percent: 0, ..all };
        assert!(none.choose(&packs, UnderWay::Nobody).rewritten.packs.is_empty());
    }

    #[test]
    fn a_pack_with_damage_goes_once_nobody_refers_to_it() {
        let mut bad = pack(1, 0, 1000);
        bad.damaged_chunks = 1;
        let choice = Policy::default().choose(&[bad], UnderWay::Nobody);
        assert_eq!(numbers(&choice.unused), [1]);
    }

    #[test]
    fn packs_of_a_backup_under_way_and_bad_ones_are_left_alone() {
        let mut foreign = pack(1, 0, 1000);
        foreign.indexed = false;
        let mut bad = pack(2, 10, 1000);
        bad.damaged_chunks = 1;
        let packs = [foreign, bad, pack(3, 0, 1000), pack(4, 1000, 1000)];
        let choice = Policy::default().choose(&packs, UnderWay::Somebody);
        assert_eq!(numbers(&choice.unindexed), [1]);
        assert_eq!(numbers(&choice.left), [2]);
        assert_eq!(numbers(&choice.unused), [3]);
        assert_eq!(numbers(&choice.full), [4]);
        assert_eq!(numbers(&Policy::default().choose(&packs, UnderWay::Nobody).unused), [1, 3]);
    }
}
