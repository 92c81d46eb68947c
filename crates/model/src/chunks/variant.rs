//! The protocol with one rule less, and what breaks then.

use super::rule::{Bounds, First, Property, Retires, Rule, Rules, Tombstones, Watched};
use crate::set::Set;

/// A variant of `docs/protocol.md`'s table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// A pack is spared by just removing the marker; collectors that look before they retire.
    SparedWithoutVerdict,
    /// The same with collectors that retire anything.
    SparedWithoutVerdictAnything,
    /// The marker is not looked at again after the verdict.
    MarkerNotLookedAt,
    /// The backup's intent is put after it has read.
    IntentLate,
    /// Intents are listed before the marker is put.
    IntentsListedEarly,
    /// A marker that was not answered is taken for put.
    MarkerUnconfirmed,
    /// A marker without a list is taken as "no intents".
    ListTakenAsEmpty,
    /// An expiry deletes the manifest and writes no log.
    NoLog,
    /// Tombstones are deleted and nothing tells of them.
    TombstonesForgotten,
    /// A backup does not read the log after its manifest.
    LogNotRead,
    /// "Exists" is taken for success.
    ExistsTrusted,
    /// A backup that does not know what became of its manifest removes its intent.
    IntentRemovedInDoubt,
    /// Liveness is read before the intents have ended.
    LivenessEarly,
    /// Intents are not waited for.
    IntentsNotWaitedFor,
    /// The intent of a dead backup goes before its tombstone is there.
    TombstoneLate,
    /// A backup reads the index before the markers, and lists no packs.
    IndexBeforeMarkers,
    /// The same, and it does not look at the packs before its manifest.
    IndexBeforeMarkersUnchecked,
    /// Two collectors each count the other's copy.
    CopiesCountedTwice,
    /// Markers are looked at after the packs were listed.
    PacksBeforeMarkers,
    /// The marker goes before the packs.
    MarkerFirst,
    /// Markers are named after their packs.
    MarkerNameAgain,
    /// A merge lists packs before it reads the index.
    MergeListsFirst,
    /// A merge drops entries of retired packs.
    MergeDropsRetired,
    /// A pack is sent again under its name.
    PackSentAgain,
    /// An intent that was not answered is taken for put.
    IntentUnconfirmed,
    /// A copy counts in a pack that no index object names.
    CopyNotIndexed,
    /// A backup does not read notes of damage.
    BackupIgnoresDamage,
    /// A collector counts copies that were found bad.
    CollectorIgnoresDamage,
    /// A backup goes on when it cannot read a marker.
    BackupPassesMarker,
    /// A collector goes on when it cannot read a marker.
    CollectorPassesMarker,
    /// A collector takes a manifest that it cannot read for none.
    CollectorPassesManifest,
    /// A collector takes a list that it cannot read for an empty one.
    CollectorPassesList,
    /// A reader that misses a pack does not read the index again.
    ReaderReadsIndexOnce,
    /// A reader that misses a pack reads the log first and the index then.
    ReaderReadsLogEarly,
}

impl Variant {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 34] = [
        Self::SparedWithoutVerdict,
        Self::SparedWithoutVerdictAnything,
        Self::MarkerNotLookedAt,
        Self::IntentLate,
        Self::IntentsListedEarly,
        Self::MarkerUnconfirmed,
        Self::ListTakenAsEmpty,
        Self::NoLog,
        Self::TombstonesForgotten,
        Self::LogNotRead,
        Self::ExistsTrusted,
        Self::IntentRemovedInDoubt,
        Self::LivenessEarly,
        Self::IntentsNotWaitedFor,
        Self::TombstoneLate,
        Self::IndexBeforeMarkers,
        Self::IndexBeforeMarkersUnchecked,
        Self::CopiesCountedTwice,
        Self::PacksBeforeMarkers,
        Self::MarkerFirst,
        Self::MarkerNameAgain,
        Self::MergeListsFirst,
        Self::MergeDropsRetired,
        Self::PackSentAgain,
        Self::IntentUnconfirmed,
        Self::CopyNotIndexed,
        Self::BackupIgnoresDamage,
        Self::CollectorIgnoresDamage,
        Self::BackupPassesMarker,
        Self::CollectorPassesMarker,
        Self::CollectorPassesManifest,
        Self::CollectorPassesList,
        Self::ReaderReadsIndexOnce,
        Self::ReaderReadsLogEarly,
    ];

    /// Its name in `docs/protocol.md`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SparedWithoutVerdict => "X1",
            Self::SparedWithoutVerdictAnything => "X1b",
            Self::MarkerNotLookedAt => "X2",
            Self::IntentLate => "X3",
            Self::IntentsListedEarly => "X4",
            Self::MarkerUnconfirmed => "X5",
            Self::ListTakenAsEmpty => "X6",
            Self::NoLog => "X7",
            Self::TombstonesForgotten => "X8",
            Self::LogNotRead => "X9",
            Self::ExistsTrusted => "X10",
            Self::IntentRemovedInDoubt => "X11",
            Self::LivenessEarly => "X12",
            Self::IntentsNotWaitedFor => "X13",
            Self::TombstoneLate => "X14",
            Self::IndexBeforeMarkers => "X16",
            Self::IndexBeforeMarkersUnchecked => "X16b",
            Self::CopiesCountedTwice => "X17",
            Self::PacksBeforeMarkers => "X18",
            Self::MarkerFirst => "X19",
            Self::MarkerNameAgain => "X20",
            Self::MergeListsFirst => "X21",
            Self::MergeDropsRetired => "X22",
            Self::PackSentAgain => "X24",
            Self::IntentUnconfirmed => "X25",
            Self::CopyNotIndexed => "X26",
            Self::BackupIgnoresDamage => "D1a",
            Self::CollectorIgnoresDamage => "D1b",
            Self::BackupPassesMarker => "U1",
            Self::CollectorPassesMarker => "U2",
            Self::CollectorPassesManifest => "U3",
            Self::CollectorPassesList => "U4",
            Self::ReaderReadsIndexOnce => "R1a",
            Self::ReaderReadsLogEarly => "R1b",
        }
    }

    /// Whether its harm lies within few states; some take minutes to be found.
    #[must_use]
    pub const fn is_near(self) -> bool {
        !matches!(
            self,
            Self::SparedWithoutVerdict
                | Self::MarkerNameAgain
                | Self::PackSentAgain
                | Self::ReaderReadsLogEarly
        )
    }

    /// The property that breaks.
    #[must_use]
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::TombstonesForgotten | Self::LogNotRead | Self::ExistsTrusted => "S2",
            Self::IndexBeforeMarkers => "L2",
            Self::MergeListsFirst | Self::MergeDropsRetired | Self::CopyNotIndexed => "I1",
            Self::BackupIgnoresDamage | Self::CollectorIgnoresDamage => "D1",
            Self::ReaderReadsIndexOnce | Self::ReaderReadsLogEarly => "R1",
            _ => "S1",
        }
    }

    /// The rules that are left.
    #[must_use]
    pub const fn rules(self) -> Rules {
        let all = Rules::all();
        match self {
            Self::SparedWithoutVerdict | Self::SparedWithoutVerdictAnything => {
                all.but(Rule::OneVerdict)
            }
            Self::MarkerNotLookedAt => all.but(Rule::MarkerLookedAtAgain),
            Self::IntentLate => all.but(Rule::IntentFirst),
            Self::IntentsListedEarly => all.but(Rule::IntentsListedAfterMarker),
            Self::MarkerUnconfirmed => all.but(Rule::MarkerConfirmed),
            Self::ListTakenAsEmpty => all.but(Rule::ListMadeUp),
            Self::NoLog => all.but(Rule::LogFirst),
            Self::TombstonesForgotten => all,
            Self::LogNotRead => all.but(Rule::LogReadAfterManifest),
            Self::ExistsTrusted => all.but(Rule::ExistsIsCompared),
            Self::IntentRemovedInDoubt => all.but(Rule::IntentStaysInDoubt),
            Self::LivenessEarly => all.but(Rule::LivenessLast),
            Self::IntentsNotWaitedFor => all.but(Rule::IntentsWaitedFor),
            Self::TombstoneLate => all.but(Rule::TombstoneFirst),
            Self::IndexBeforeMarkers => all.but(Rule::MarkersFirst),
            Self::IndexBeforeMarkersUnchecked => {
                all.but(Rule::MarkersFirst).but(Rule::PacksLookedAtLast)
            }
            Self::CopiesCountedTwice => all.but(Rule::CopiesUnmarked),
            Self::PacksBeforeMarkers => all.but(Rule::MarkersBeforePacks).but(Rule::CopiesIndexed),
            Self::MarkerFirst => all.but(Rule::MarkerGoesLast),
            Self::MarkerNameAgain => all.but(Rule::MarkerNamedOnce),
            Self::MergeListsFirst => all.but(Rule::MergeReadsFirst),
            Self::MergeDropsRetired => all.but(Rule::MergeKeepsRetired),
            Self::PackSentAgain => all.but(Rule::PackSentOnce),
            Self::IntentUnconfirmed => all.but(Rule::IntentConfirmed),
            Self::CopyNotIndexed => all.but(Rule::CopiesIndexed),
            Self::BackupIgnoresDamage => all.but(Rule::BackupKnowsDamage),
            Self::CollectorIgnoresDamage => all.but(Rule::CollectorKnowsDamage),
            Self::BackupPassesMarker => all.but(Rule::BackupStopsAtMarker),
            Self::CollectorPassesMarker => all.but(Rule::CollectorStopsAtMarker),
            Self::CollectorPassesManifest => all.but(Rule::CollectorStopsAtManifest),
            Self::CollectorPassesList => all.but(Rule::CollectorStopsAtList),
            Self::ReaderReadsIndexOnce => all.but(Rule::ReaderReadsIndexAgain),
            Self::ReaderReadsLogEarly => all.but(Rule::ReaderReadsLogLast),
        }
    }

    /// Bounds within which it breaks.
    #[must_use]
    pub const fn bounds(self) -> Bounds {
        let one = Set(1);
        let base = Bounds { sentences: 0, ..Bounds::small() };
        let late = Bounds { late: 1, first: First::Gone, runs: [2, 0], ..base };
        let copies = Bounds { packs: [one, one], expiries: 0, ..base };
        match self {
            Self::SparedWithoutVerdict => Bounds {
                backups: 2,
                retires: Retires::Guess,
                first: First::Gone,
                runs: [2, 1],
                ..base
            },
            Self::SparedWithoutVerdictAnything => Bounds { runs: [2, 1], ..base },
            Self::MarkerUnconfirmed
            | Self::NoLog
            | Self::IntentRemovedInDoubt
            | Self::IntentUnconfirmed => late,
            Self::ListTakenAsEmpty => Bounds { deaths: 1, runs: [2, 0], ..base },
            Self::TombstonesForgotten => {
                Bounds { tombstones: Tombstones::Removed, sentences: 1, ..base }
            }
            Self::LogNotRead | Self::ExistsTrusted | Self::TombstoneLate => {
                Bounds { sentences: 1, ..base }
            }
            Self::IndexBeforeMarkers => {
                Bounds { watched: Watched::usual().with(Property::Commits), ..base }
            }
            Self::IndexBeforeMarkersUnchecked => {
                Bounds { watched: Watched::usual().but(Property::ManifestLast), ..base }
            }
            Self::CopiesCountedTwice => copies,
            Self::PacksBeforeMarkers => {
                Bounds { watched: Watched::only(Property::Stored), ..copies }
            }
            Self::MarkerNameAgain => {
                Bounds { backups: 2, watched: Watched::only(Property::Stored), ..base }
            }
            Self::MergeListsFirst | Self::MergeDropsRetired => {
                Bounds { merges: 1, runs: [1, 1], ..base }
            }
            Self::PackSentAgain => Bounds {
                backups: 2,
                packs: [Set(2), Set::NONE],
                late: 2,
                first: First::Gone,
                runs: [2, 0],
                retires: Retires::Guess,
                watched: Watched::only(Property::Stored),
                ..base
            },
            Self::CopyNotIndexed => Bounds { deaths: 1, runs: [2, 2], ..base },
            Self::BackupIgnoresDamage => Bounds { rot: 1, runs: [1, 0], ..base },
            Self::CollectorIgnoresDamage => Bounds { rot: 1, ..copies },
            Self::BackupPassesMarker | Self::CollectorPassesManifest => Bounds { torn: 1, ..base },
            Self::CollectorPassesList => Bounds { torn: 1, ..base },
            Self::CollectorPassesMarker => Bounds { torn: 1, ..copies },
            Self::ReaderReadsIndexOnce => Bounds { reads: 1, ..base },
            Self::ReaderReadsLogEarly => Bounds {
                reads: 1,
                merges: 1,
                expiries: 2,
                runs: [4, 0],
                watched: Watched::only(Property::NoFalseAlarm),
                ..base
            },
            _ => base,
        }
    }
}
