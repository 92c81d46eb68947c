//! The bugs that the simulation has to find.
//!
//! None of them is in the product's code, which runs as it is shipped. A
//! [`Door`](crate::door::Door) stands between a
//! process and its connection and makes of the product's requests those that a wrong product would
//! have sent: it drops one, sends one too early or too late, or answers from what it has read
//! before. The few that are no matter of requests are in the actors, where [`Plant`] is asked.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plant {
    /// X1: every sweep acts on its own verdict, and spares by removing the marker.
    OwnVerdict,
    /// X2: the marker is not looked at again after the verdict.
    MarkerNotLookedAt,
    /// X3: the intent is put after reading.
    IntentAfterReading,
    /// X4: intents are listed before the marker is there.
    IntentsBeforeMarker,
    /// X5: a marker whose put is unknown counts as put.
    UnknownMarker,
    /// X6: a marker without a list counts as one without intents.
    NoListNoIntents,
    /// X7: expire deletes manifests and writes nothing down.
    ExpiredWithoutLog,
    /// X8: tombstones are removed, and nothing is kept of them.
    TombstoneRemoved,
    /// X9: tombstones are folded into the log, and a backup does not look there.
    LogNotLookedAt,
    /// X10: "exists" on the manifest is taken as success.
    ExistsIsCommitted,
    /// X11: a backup gives up after an unknown manifest and removes its intent.
    GivesUpItsIntent,
    /// X12: liveness is listed before the intents are seen to have ended.
    LivenessFirst,
    /// X13: the sweep does not wait for intents.
    NoWaiting,
    /// X14: a dead intent is removed before its tombstone is there.
    IntentBeforeTombstone,
    /// X16b: a backup reads the index, then markers, lists no packs, and verifies none.
    IndexBeforeMarkers,
    /// X17: a copy in a pack that another round has retired counts.
    CopyInRetiredPack,
    /// X18: packs are listed before the markers are read.
    PacksBeforeMarkers,
    /// X19: the marker is removed before the packs.
    MarkerBeforePacks,
    /// X20: the marker is named after its pack.
    MarkerNamedAfterPack,
    /// X21: a merge lists packs, then reads the index.
    MergeListsFirst,
    /// X22: a merge drops the entries of retired packs.
    MergeDropsRetired,
    /// X24: a pack is sent again under its name after "unknown".
    PackSentAgain,
    /// X25: an intent whose put is unknown counts as put.
    UnknownIntent,
    /// X26: a copy in a pack that no index object names counts.
    CopyNotIndexed,
    /// E1: each expiry adds its victims, whatever another has expired meanwhile.
    IndependentExpiries,
    /// E2: who wins a number of the log deletes by his own plan.
    WinnerDeletes,
    /// H1a: an expiry looks at holds before its first try, and not again when somebody has won the
    /// number.
    HoldsLookedAtOnce,
    /// H1b: who holds does not read the highest entry again.
    HoldNotReadAgain,
    /// The stop LSN is used for the start LSN.
    StopInsteadOfStart,
    /// Expire does not ask which backups are under way.
    IntentsIgnored,
    /// A backup does not look up to where WAL may have expired.
    FloorIgnored,
    /// WAL is acknowledged while its put is on its way.
    WalNotAwaited,
    /// "Exists" is acknowledged although what exists is not durable yet.
    ExistsNotSynced,
    /// A key is removed although another host has won the log's entry.
    KeyLogLost,
    /// R1a: a reader reads the index once.
    IndexReadOnce,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 35] = [
        Self::OwnVerdict,
        Self::MarkerNotLookedAt,
        Self::IntentAfterReading,
        Self::IntentsBeforeMarker,
        Self::UnknownMarker,
        Self::NoListNoIntents,
        Self::ExpiredWithoutLog,
        Self::TombstoneRemoved,
        Self::LogNotLookedAt,
        Self::ExistsIsCommitted,
        Self::GivesUpItsIntent,
        Self::LivenessFirst,
        Self::NoWaiting,
        Self::IntentBeforeTombstone,
        Self::IndexBeforeMarkers,
        Self::CopyInRetiredPack,
        Self::PacksBeforeMarkers,
        Self::MarkerBeforePacks,
        Self::MarkerNamedAfterPack,
        Self::MergeListsFirst,
        Self::MergeDropsRetired,
        Self::PackSentAgain,
        Self::UnknownIntent,
        Self::CopyNotIndexed,
        Self::IndependentExpiries,
        Self::WinnerDeletes,
        Self::HoldsLookedAtOnce,
        Self::HoldNotReadAgain,
        Self::StopInsteadOfStart,
        Self::IntentsIgnored,
        Self::FloorIgnored,
        Self::WalNotAwaited,
        Self::ExistsNotSynced,
        Self::KeyLogLost,
        Self::IndexReadOnce,
    ];

    /// Its name in the table of variants, where it has one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnVerdict => "X1",
            Self::MarkerNotLookedAt => "X2",
            Self::IntentAfterReading => "X3",
            Self::IntentsBeforeMarker => "X4",
            Self::UnknownMarker => "X5",
            Self::NoListNoIntents => "X6",
            Self::ExpiredWithoutLog => "X7",
            Self::TombstoneRemoved => "X8",
            Self::LogNotLookedAt => "X9",
            Self::ExistsIsCommitted => "X10",
            Self::GivesUpItsIntent => "X11",
            Self::LivenessFirst => "X12",
            Self::NoWaiting => "X13",
            Self::IntentBeforeTombstone => "X14",
            Self::IndexBeforeMarkers => "X16b",
            Self::CopyInRetiredPack => "X17",
            Self::PacksBeforeMarkers => "X18",
            Self::MarkerBeforePacks => "X19",
            Self::MarkerNamedAfterPack => "X20",
            Self::MergeListsFirst => "X21",
            Self::MergeDropsRetired => "X22",
            Self::PackSentAgain => "X24",
            Self::UnknownIntent => "X25",
            Self::CopyNotIndexed => "X26",
            Self::IndependentExpiries => "E1",
            Self::WinnerDeletes => "E2",
            Self::HoldsLookedAtOnce => "H1a",
            Self::HoldNotReadAgain => "H1b",
            Self::StopInsteadOfStart => "W1",
            Self::IntentsIgnored => "W2",
            Self::FloorIgnored => "W3",
            Self::WalNotAwaited => "W4",
            Self::ExistsNotSynced => "W5",
            Self::KeyLogLost => "K1",
            Self::IndexReadOnce => "R1a",
        }
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::OwnVerdict => "every sweep acts on its own verdict",
            Self::MarkerNotLookedAt => "the marker is not looked at again after the verdict",
            Self::IntentAfterReading => "the intent is put after reading",
            Self::IntentsBeforeMarker => "intents are listed before the marker",
            Self::UnknownMarker => "a marker's \"unknown\" is taken as success",
            Self::NoListNoIntents => "a marker without a list is taken as \"no intents\"",
            Self::ExpiredWithoutLog => "expire deletes the manifest only",
            Self::TombstoneRemoved => "a tombstone is removed, nothing kept",
            Self::LogNotLookedAt => "tombstones are folded into the log, the backup does not look",
            Self::ExistsIsCommitted => "\"exists\" on the manifest is taken as success",
            Self::GivesUpItsIntent => "a backup gives up after \"unknown\" and removes its intent",
            Self::LivenessFirst => "liveness is listed before the intents have ended",
            Self::NoWaiting => "the sweep does not wait for intents",
            Self::IntentBeforeTombstone => "a dead intent is removed before its tombstone",
            Self::IndexBeforeMarkers => "index, then markers; no packs listed, none verified",
            Self::CopyInRetiredPack => "two rounds count on each other's copy",
            Self::PacksBeforeMarkers => "the same, packs listed before markers are read",
            Self::MarkerBeforePacks => "the marker is removed before the packs",
            Self::MarkerNamedAfterPack => "the marker is named after its pack",
            Self::MergeListsFirst => "a merge lists packs, then reads the index",
            Self::MergeDropsRetired => "a merge drops entries of retired packs",
            Self::PackSentAgain => "a pack is sent again under its name",
            Self::UnknownIntent => "an intent's \"unknown\" is taken as success",
            Self::CopyNotIndexed => "a copy in a pack that is not indexed counts",
            Self::IndependentExpiries => "two expiries at once, independently",
            Self::WinnerDeletes => "who wins a number of the log deletes by his own plan",
            Self::HoldsLookedAtOnce => "an expiry looks at holds before its first try alone",
            Self::HoldNotReadAgain => "who holds does not read the highest entry again",
            Self::StopInsteadOfStart => "the stop LSN is used instead of the start LSN",
            Self::IntentsIgnored => "WAL is expired during a standby's backup",
            Self::FloorIgnored => "a backup does not look up to where WAL has expired",
            Self::WalNotAwaited => "WAL is acknowledged before it is stored",
            Self::ExistsNotSynced => "\"exists\" is acknowledged without fsync",
            Self::KeyLogLost => "the last two keys are removed by two hosts at once",
            Self::IndexReadOnce => "a reader reads the index once",
        }
    }
}
