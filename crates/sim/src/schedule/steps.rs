//! The places in a run that matter: before what others will see, and before a look at what they
//! have done.

use crate::chance::Chance;
use crate::request::Request;

/// A kind of step. Between two of them it does not matter whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// An intent is put.
    PutIntent,
    /// An index object is put.
    PutIndex,
    /// A manifest is put, or a tombstone under its name.
    PutManifest,
    /// A marker is put.
    PutMarker,
    /// A round's list is put.
    PutList,
    /// A round's verdict is put.
    PutVerdict,
    /// An entry of the log of expired backups is put.
    PutEntry,
    /// An intent is deleted.
    DeleteIntent,
    /// An index object is deleted.
    DeleteIndex,
    /// A manifest or a tombstone is deleted.
    DeleteManifest,
    /// A marker is deleted.
    DeleteMarker,
    /// A round's list or its verdict is deleted.
    DeletePart,
    /// A pack is deleted.
    DeletePack,
    /// An entry of the log is deleted.
    DeleteEntry,
    /// Intents are listed.
    ListIntents,
    /// Index objects are listed.
    ListIndex,
    /// Manifests are listed.
    ListManifests,
    /// Rounds are listed.
    ListRounds,
    /// Packs are listed.
    ListPacks,
    /// The log is listed.
    ListLog,
}

impl Step {
    /// Those on which most depends: what a process has seen of others, or is about to make them
    /// see.
    const GRAVE: [Self; 13] = [
        Self::PutIntent,
        Self::PutManifest,
        Self::PutMarker,
        Self::PutList,
        Self::PutVerdict,
        Self::PutEntry,
        Self::DeleteIntent,
        Self::DeleteMarker,
        Self::DeletePack,
        Self::ListIntents,
        Self::ListManifests,
        Self::ListRounds,
        Self::ListPacks,
    ];

    /// The others.
    const LIGHT: [Self; 7] = [
        Self::PutIndex,
        Self::DeleteIndex,
        Self::DeleteManifest,
        Self::DeletePart,
        Self::DeleteEntry,
        Self::ListIndex,
        Self::ListLog,
    ];

    /// What begins with this request, if anything does: the second page of a listing begins
    /// nothing, and a new pack concerns nobody until an index object names it.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let which = |steps: [Option<Self>; 6]| {
            let parts = ["/intents/", "/index/", "/backups/", "/retired/", "/packs/", "/expired/"];
            parts.iter().zip(steps).find(|(part, _)| request.names(part)).and_then(|(_, step)| step)
        };
        match request {
            Request::Put(key, ..) if key.as_str().ends_with(".start") => None,
            Request::Put(key, ..) => which([
                Some(Self::PutIntent),
                Some(Self::PutIndex),
                Some(Self::PutManifest),
                Some(match key.as_str().rsplit_once('.').map(|(_, part)| part) {
                    Some("intents") => Self::PutList,
                    Some("verdict") => Self::PutVerdict,
                    _ => Self::PutMarker,
                }),
                None,
                Some(Self::PutEntry),
            ]),
            Request::Delete(key) if key.as_str().ends_with(".start") => None,
            Request::Delete(key) => which([
                Some(Self::DeleteIntent),
                Some(Self::DeleteIndex),
                Some(Self::DeleteManifest),
                Some(match key.file_name().contains('.') {
                    true => Self::DeletePart,
                    false => Self::DeleteMarker,
                }),
                Some(Self::DeletePack),
                Some(Self::DeleteEntry),
            ]),
            Request::List(_, None, _) => which([
                Some(Self::ListIntents),
                Some(Self::ListIndex),
                Some(Self::ListManifests),
                Some(Self::ListRounds),
                Some(Self::ListPacks),
                Some(Self::ListLog),
            ]),
            _ => None,
        }
    }

    const fn lists(self) -> bool {
        matches!(
            self,
            Self::ListIntents
                | Self::ListIndex
                | Self::ListManifests
                | Self::ListRounds
                | Self::ListPacks
                | Self::ListLog
        )
    }
}

/// Where somebody stands back: before his step of this kind that has this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) step: Step,
    pub(super) number: u32,
    /// Whether everybody does, who comes there: two that are about to do the same are in each
    /// other's way as often as not.
    pub(super) all: bool,
}

impl Place {
    /// Any: most that change something do so once, and all look more than once.
    pub(super) fn draw(chance: &mut Chance, looks: u32) -> Self {
        let steps: &[Step] = if chance.happens(800) { &Step::GRAVE } else { &Step::LIGHT };
        let step = steps[chance.place(steps.len())];
        let number = match step.lists() {
            true => 1 + chance.below(looks.into()) as u32,
            false if chance.happens(700) => 1,
            false => 2,
        };
        Self { step, number, all: chance.happens(500) }
    }
}
