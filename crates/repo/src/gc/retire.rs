//! Retiring packs (R): a marker that says which, then the list of backups that may not have seen
//! it.

use pgrecall_store::Put;

use crate::error::RepoError;
use crate::format::document::{Retired, RetiredIntents};
use crate::format::header::{KeyClass, Kind};
use crate::id::{BackupId, PackId, RoundId};
use crate::names::{self, ClusterRef, Name, RoundPart};
use crate::object;
use crate::sealed_store::SealedStore;

/// Names tried for a marker before it is given up.
const NAMES_MAX: u32 = 4;

/// A round under way: its id, and what of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// The round.
    pub id: RoundId,
    /// Whether its marker is there.
    pub marker: bool,
}

/// The rounds of a domain that are under way, or have left something behind.
///
/// # Errors
/// When the store cannot list.
pub async fn rounds(sealed: &SealedStore, domain: &Name) -> Result<Vec<Round>, RepoError> {
    let mut rounds: Vec<Round> = Vec::new();
    for object in sealed.list(&names::retired(domain)).await? {
        let Some((id, part)) = names::round_of(domain, &object.key) else { continue };
        let marker = part == RoundPart::Marker;
        match rounds.iter_mut().find(|round| round.id == id) {
            Some(round) => round.marker |= marker,
            None => rounds.push(Round { id, marker }),
        }
    }
    Ok(rounds)
}

/// What a round is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundLook {
    /// Packs that its marker names.
    pub packs: u64,
    /// Backups on its list that are under way; none is known before there is a list.
    pub waits_for: Vec<(ClusterRef, BackupId)>,
}

/// Looks at a round and changes nothing; nothing when its marker is gone.
///
/// # Errors
/// When its marker or its list cannot be read, or the store fails.
pub async fn look_at(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
) -> Result<Option<RoundLook>, RepoError> {
    let marker = names::round(domain, id, RoundPart::Marker);
    let retired: Retired = match sealed.get(Kind::Retired, &marker).await {
        Err(error) if error.is_not_found() => return Ok(None),
        read => read?,
    };
    let list = names::round(domain, id, RoundPart::Intents);
    let waits_for = match sealed.get::<RetiredIntents>(Kind::RetiredIntents, &list).await {
        Ok(list) => still_there(sealed, domain, &list).await?,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(Some(RoundLook { packs: retired.packs.len() as u64, waits_for }))
}

/// Retires packs (R1 to R3): whoever begins a backup from now on does without them.
///
/// # Errors
/// When the marker cannot be confirmed under any name, or the list cannot be put.
pub async fn retire(
    sealed: &SealedStore,
    domain: &Name,
    packs: Vec<PackId>,
) -> Result<RoundId, RepoError> {
    let marker = Retired { packs };
    let mut last = None;
    for _ in 0..NAMES_MAX {
        let id = RoundId::random(sealed.random());
        match put_marker(sealed, domain, id, &marker).await? {
            Marker::There => {
                complete_list(sealed, domain, id).await?;
                return Ok(id);
            }
            Marker::Abandoned(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| RepoError::Invalid {
        what: "a retirement".into(),
        reason: "the random names of its marker are taken".into(),
    }))
}

enum Marker {
    There,
    Abandoned(RepoError),
}

/// Puts a marker once: a name that is not confirmed is abandoned for ever, since a copy of the put
/// that arrives after the round's end would retire packs of which nobody keeps a list.
async fn put_marker(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
    marker: &Retired,
) -> Result<Marker, RepoError> {
    use crate::format::document::Document as _;
    let name = names::round(domain, id, RoundPart::Marker);
    let plain = marker.encode();
    let (keys, random) = (sealed.keys(), sealed.random());
    let bytes = object::seal_blob(keys, Kind::Retired, KeyClass::Meta, &name, &plain, random)?;
    match sealed.store().put_once(&name, bytes).await {
        Put::Created => Ok(Marker::There),
        Put::Exists => Ok(Marker::Abandoned(RepoError::Invalid {
            what: format!("the marker {name}"),
            reason: "its random name is taken by something else".into(),
        })),
        Put::Unknown(source) => {
            let there: Result<Retired, RepoError> = sealed.get(Kind::Retired, &name).await;
            match there {
                Ok(there) if there == *marker => Ok(Marker::There),
                _ => Ok(Marker::Abandoned(RepoError::Unknown { object: name.to_string(), source })),
            }
        }
    }
}

/// Lists intents with the marker in place and puts the list (R2, R3); another's list holds.
///
/// # Errors
/// When intents cannot be listed, or the list not be put.
pub(super) async fn complete_list(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
) -> Result<(), RepoError> {
    let mut intents = Vec::new();
    for object in sealed.list(&names::all_intents(domain)).await? {
        if names::intent_of(domain, &object.key).is_some() {
            intents.push(object.key.to_string());
        }
    }
    let name = names::round(domain, id, RoundPart::Intents);
    // Whose it is does not matter: the stored one holds.
    sealed.put(Kind::RetiredIntents, &name, &RetiredIntents { intents }).await?;
    Ok(())
}

/// The backups on a round's list whose intents are still there; nothing when another has ended the
/// round, and its list with it.
///
/// # Errors
/// When the list cannot be read or the intents not be looked for.
pub(super) async fn waiting_for(
    sealed: &SealedStore,
    domain: &Name,
    id: RoundId,
) -> Result<Option<Vec<(ClusterRef, BackupId)>>, RepoError> {
    let name = names::round(domain, id, RoundPart::Intents);
    let list: RetiredIntents = match sealed.get(Kind::RetiredIntents, &name).await {
        Err(error) if error.is_not_found() => {
            // R4: whoever retired them died before he had listed; never "no intents".
            let completed = match complete_list(sealed, domain, id).await {
                Ok(()) => sealed.get(Kind::RetiredIntents, &name).await,
                Err(error) => Err(error),
            };
            match completed {
                // It goes after the marker.
                Err(error) if error.is_not_found() => return Ok(None),
                completed => completed?,
            }
        }
        read => read?,
    };
    still_there(sealed, domain, &list).await.map(Some)
}

async fn still_there(
    sealed: &SealedStore,
    domain: &Name,
    list: &RetiredIntents,
) -> Result<Vec<(ClusterRef, BackupId)>, RepoError> {
    let mut waiting = Vec::new();
    for object in sealed.list(&names::all_intents(domain)).await? {
        if list.intents.iter().any(|listed| listed == object.key.as_str())
            && let Some(intent) = names::intent_of(domain, &object.key)
        {
            waiting.push(intent);
        }
    }
    Ok(waiting)
}
