//! The rules, each of which can be broken, and the bounds of a search.

use crate::set::Set;

/// A rule of the protocol. `docs/protocol.md` gives the reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// B1: the intent is confirmed before markers and index are read.
    IntentFirst,
    /// B1: an intent whose put was not answered is no intent.
    IntentConfirmed,
    /// B2 to B4: markers, then the index, then a list of packs.
    MarkersFirst,
    /// B7: the packs are listed again before the manifest.
    PacksLookedAtLast,
    /// B8: what "exists" is read and compared.
    ExistsIsCompared,
    /// B9: the log is read after the manifest is there.
    LogReadAfterManifest,
    /// B10: who does not know what became of his manifest leaves his intent.
    IntentStaysInDoubt,
    /// G2: a pack's name is sent once.
    PackSentOnce,
    /// G2: a marker has a random name, sent once; else it is named after its pack.
    MarkerNamedOnce,
    /// R2: intents are listed once the marker is confirmed.
    IntentsListedAfterMarker,
    /// G2: a marker that was not answered is looked for.
    MarkerConfirmed,
    /// R4: a marker without a list gets one.
    ListMadeUp,
    /// S1: listed intents are waited for.
    IntentsWaitedFor,
    /// S1: the tombstone is there before the intent goes.
    TombstoneFirst,
    /// S2: what is live is read once the listed intents have ended.
    LivenessLast,
    /// S5: copies count only in packs that no marker names.
    CopiesUnmarked,
    /// S3, S5: markers are read before packs are listed.
    MarkersBeforePacks,
    /// S4: copies count only in packs that an index object names.
    CopiesIndexed,
    /// S6: the first verdict holds.
    OneVerdict,
    /// S7: the marker is looked at again after the verdict.
    MarkerLookedAtAgain,
    /// S9: the marker goes after the packs.
    MarkerGoesLast,
    /// E2: what expires is in the log before its manifest goes.
    LogFirst,
    /// M1, M2: a merge reads the index, then lists packs.
    MergeReadsFirst,
    /// M3: a merge keeps entries of retired packs.
    MergeKeepsRetired,
    /// B2: a backup refers to no copy that was found bad.
    BackupKnowsDamage,
    /// S5: a copy that was found bad is none.
    CollectorKnowsDamage,
    /// U: a backup that cannot read a marker ends.
    BackupStopsAtMarker,
    /// U: a collector that cannot read a marker ends.
    CollectorStopsAtMarker,
    /// U: a collector that cannot read a manifest ends.
    CollectorStopsAtManifest,
    /// U: a collector that cannot read a round's list ends.
    CollectorStopsAtList,
    /// A reader that misses a pack reads the index again before it says that something is lost.
    ReaderReadsIndexAgain,
    /// A reader reads the log of expired backups after its last miss, not before.
    ReaderReadsLogLast,
}

/// Which rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules(u64);

impl Rules {
    /// All of them.
    #[must_use]
    pub const fn all() -> Self {
        Self(u64::MAX)
    }

    /// These, but for one.
    #[must_use]
    pub const fn but(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u64))
    }

    /// Whether a rule holds.
    #[must_use]
    pub const fn hold(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u64) != 0
    }
}

/// What a collection does with tombstones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstones {
    /// They stay.
    Stay,
    /// They are deleted, and nothing tells of them.
    Removed,
    /// Their ids go into the log, then they are deleted.
    Folded,
}

/// What a collection retires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retires {
    /// Anything: a liveness that is as stale as can be.
    Anything,
    /// What nobody refers to, and what has a copy elsewhere, at the moment it looks.
    Guess,
}

/// What is asserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// Each chunk of a valid backup lies in a pack that is there.
    Stored,
    /// What was told "committed" is a backup, until it expires.
    Committed,
    /// When a manifest lands, the packs that it names are there.
    ManifestLast,
    /// Each chunk of a valid backup is indexed in a pack that is there.
    Indexed,
    /// A backup that nobody ends finds the packs that it refers to, and commits.
    Commits,
    /// One collector alone removes what nobody needs, and the debris of all who died.
    Cleans,
    /// A reader never says that something is lost while nothing is.
    NoFalseAlarm,
    /// A copy that is known to be bad never outlives the good one.
    GoodCopy,
}

/// Which properties are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched(u16);

impl Watched {
    /// All but [`Property::Commits`], which takes long.
    #[must_use]
    pub const fn usual() -> Self {
        Self(u16::MAX).but(Property::Commits)
    }

    /// These and one more.
    #[must_use]
    pub const fn with(self, property: Property) -> Self {
        Self(self.0 | 1 << property as u16)
    }

    /// These, but for one.
    #[must_use]
    pub const fn but(self, property: Property) -> Self {
        Self(self.0 & !(1 << property as u16))
    }

    /// One alone.
    #[must_use]
    pub const fn only(property: Property) -> Self {
        Self(1 << property as u16)
    }

    /// Whether one is looked at.
    #[must_use]
    pub const fn at(self, property: Property) -> bool {
        self.0 & (1 << property as u16) != 0
    }
}

/// What there is, and how often something goes wrong.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Backups that are taken.
    pub backups: u8,
    /// The chunks that each needs; the first is there already, and the others are taken.
    pub wants: [Set; 3],
    /// Whether the first backup is there.
    pub first: First,
    /// Chunks of the packs that are there; an empty pack is not.
    pub packs: [Set; 2],
    /// Packs that are gone and that the index still names.
    pub stale: Set,
    /// Runs of the collectors on two hosts.
    pub runs: [u8; 2],
    /// What they retire.
    pub retires: Retires,
    /// What becomes of tombstones.
    pub tombstones: Tombstones,
    /// Backups that expire.
    pub expiries: u8,
    /// Merges of the index.
    pub merges: u8,
    /// Backups that are read.
    pub reads: u8,
    /// Requests that are answered late, if ever, and take effect at any time.
    pub late: u8,
    /// Answers that are lost.
    pub lost: u8,
    /// Processes that die.
    pub deaths: u8,
    /// Backups that are taken for dead, rightly or not.
    pub sentences: u8,
    /// Copies that are found bad.
    pub rot: u8,
    /// Objects that cannot be read from some moment on.
    pub torn: u8,
    /// What is looked at.
    pub watched: Watched,
}

/// Whether a backup is there at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// It is.
    There,
    /// None is; its packs are.
    Gone,
}

impl Bounds {
    /// One backup under way beside one that is there and expires, two collectors, one wrong
    /// sentence.
    #[must_use]
    pub const fn small() -> Self {
        let one = Set(1);
        Self {
            backups: 1,
            wants: [one; 3],
            first: First::There,
            packs: [one, Set::NONE],
            stale: Set::NONE,
            runs: [2, 2],
            retires: Retires::Anything,
            tombstones: Tombstones::Folded,
            expiries: 1,
            merges: 0,
            reads: 0,
            late: 0,
            lost: 0,
            deaths: 0,
            sentences: 1,
            rot: 0,
            torn: 0,
            watched: Watched::usual(),
        }
    }
}
