//! Looking for what does not read, and for packs that the index does not know.

use std::collections::{HashMap, HashSet};

use futures::StreamExt as _;
use pgrecall_store::Key;

use super::{Left, LostPack, Quarantined, RepairPlan, What, lineages};
use crate::damaged_chunks::ChunkNotes;
use crate::error::{ErrorKind, RepoError};
use crate::expired::ExpiredLog;
use crate::format::document::{Damage, Document, Identity, RetireVerdict, Retired, RetiredIntents};
use crate::format::header::{Kind, Suite};
use crate::id::PackId;
use crate::names::{self, Name, RoundPart};
use crate::sealed_store::SealedStore;
use crate::{index, manifests};

/// Directories read at once.
const READS_AT_ONCE: usize = 8;

/// Times that the index is listed while objects of it vanish.
const LISTINGS_MAX: u32 = 5;

/// Looks at a domain, and changes nothing. Chunks are not read: that is what a verification does.
///
/// # Errors
/// When the store fails.
pub async fn look(sealed: &SealedStore, domain: &Name) -> Result<RepairPlan, RepoError> {
    let mut plan = RepairPlan::default();
    // The index first, packs after: what an index object speaks of was there before it.
    let known = look_at_index(sealed, domain, &mut plan).await?;
    let mut proven = look_at_packs(sealed, domain, &known, &mut plan).await?;
    let mut readable = look_at_manifests(sealed, domain, &mut plan).await?;
    proven.extend(lineages::look(sealed, domain, &readable, &mut plan).await?);
    readable.extend(known.objects);
    look_at_notes(sealed, domain, &mut plan).await?;
    look_at_rounds(sealed, domain, &mut plan).await?;
    plan.leave_unproven(sealed, proven, &readable).await?;
    Ok(plan)
}

impl RepairPlan {
    /// Takes an object up that does not read. True when it is to be moved.
    pub(super) async fn judge(
        &mut self,
        sealed: &SealedStore,
        name: Key,
        what: What,
        read: Result<(), RepoError>,
    ) -> Result<bool, RepoError> {
        let Err(error) = read else { return Ok(false) };
        if error.is_not_found() {
            return Ok(false);
        }
        let mut reason = error.chain();
        match error.kind() {
            // With its key it may be whole.
            ErrorKind::Corrupt if let Some(keys) = unknown_keys(sealed, &name).await? => {
                reason = format!("{reason}; the keys of {keys} are not here: find them");
                self.leave(name, ErrorKind::Corrupt, reason);
            }
            ErrorKind::Corrupt => {
                self.quarantined.push(Quarantined { name, what, reason });
                return Ok(true);
            }
            ErrorKind::Unsupported => self.leave(name, ErrorKind::Unsupported, reason),
            _ if error.is_damage() => {
                reason = format!("{reason}; the store cannot read it, so it cannot be moved");
                self.leave(name, ErrorKind::Corrupt, reason);
            }
            _ => return Err(error),
        }
        Ok(false)
    }

    /// Leaves what may be whole, and sealed by other keys than those that are here: that of an
    /// epoch of which nothing reads.
    async fn leave_unproven(
        &mut self,
        sealed: &SealedStore,
        mut epochs: HashSet<u32>,
        readable: &[Key],
    ) -> Result<(), RepoError> {
        let mut unread = Some(readable);
        for object in std::mem::take(&mut self.quarantined) {
            let epoch = epoch_of(sealed, &object.name).await?;
            let is_proven = |epochs: &HashSet<u32>| match epoch {
                Some(epoch) => epochs.contains(&epoch),
                // Whichever it is: the bytes in the clear are damaged.
                None => !epochs.is_empty(),
            };
            if !is_proven(&epochs)
                && let Some(readable) = unread.take()
            {
                let mut headers = futures::stream::iter(readable)
                    .map(|name| epoch_of(sealed, name))
                    .buffer_unordered(READS_AT_ONCE);
                while let Some(epoch) = headers.next().await {
                    epochs.extend(epoch?);
                }
            }
            if is_proven(&epochs) {
                self.quarantined.push(object);
            } else {
                let why =
                    "nothing of its epoch reads, so the keys may be others than those of then";
                self.leave(object.name, ErrorKind::Corrupt, format!("{}; {why}", object.reason));
            }
        }
        Ok(())
    }

    /// Leaves a note of damage of which nobody knows any more what it said.
    pub(super) fn leave_note(&mut self, name: Key, error: &RepoError) {
        let way_out = match error.kind() {
            ErrorKind::Unsupported => "",
            _ => {
                "; `pgrecall verify --read-data` reads everything again, and puts another in its \
                 place"
            }
        };
        self.leave(name, error.kind(), format!("{}{way_out}", error.chain()));
    }

    fn append(&mut self, other: Self) {
        self.reindexed.extend(other.reindexed);
        self.quarantined.extend(other.quarantined);
        self.left.extend(other.left);
    }

    /// Whether nothing was found that does not read.
    fn is_untouched(&self) -> bool {
        self.is_empty() && self.left.is_empty()
    }

    fn leave(&mut self, name: Key, kind: ErrorKind, reason: String) {
        self.left.push(Left { name, kind, reason });
    }
}

/// The epoch that an object says it is of, if that much of it reads.
async fn epoch_of(sealed: &SealedStore, name: &Key) -> Result<Option<u32>, RepoError> {
    match sealed.header(name).await {
        Ok(header) => Ok(Some(header.sealing.epoch)),
        Err(error) if error.is_damage() || error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an object still does not read, of which a plan said so.
pub(super) async fn is_still_damaged(
    sealed: &SealedStore,
    domain: &Name,
    object: &Quarantined,
) -> Result<bool, RepoError> {
    let name = &object.name;
    let read = match &object.what {
        What::Manifest { at, backup } | What::MissingManifest { at, backup } => {
            manifests::read(sealed, at, *backup).await.map(drop)
        }
        What::Index => index::read_object(sealed, name).await.map(drop),
        What::Identity { .. } => read::<Identity>(sealed, Kind::Identity, name).await,
        What::DamageNote => read::<Damage>(sealed, Kind::Damage, name).await,
        What::Pack { kind, id } => {
            index::read_directory(sealed, domain, *kind, *id).await.map(drop)
        }
    };
    let mut plan = RepairPlan::default();
    plan.judge(sealed, name.clone(), object.what.clone(), read).await
}

/// Which keys of an object are not here.
async fn unknown_keys(sealed: &SealedStore, name: &Key) -> Result<Option<String>, RepoError> {
    let sealing = match sealed.header(name).await {
        Ok(header) => header.sealing,
        Err(error) if error.is_damage() || error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let (epoch, generation) = (sealing.epoch, sealing.id_generation);
    let keys = sealed.keys();
    Ok(if sealing.suite != Suite::Clear && !keys.has_epoch(sealing.class, epoch) {
        Some(format!("epoch {epoch}"))
    } else if keys.ids_of(generation).is_err() {
        Some(format!("generation {generation} of names"))
    } else {
        None
    })
}

/// How many chunks the index names in each pack.
struct Known {
    chunks: HashMap<PackId, u64>,
    /// Whether all index objects read.
    whole: bool,
    /// Whether none went while they were read.
    all_there: bool,
    /// Those that read.
    objects: Vec<Key>,
}

async fn look_at_index(
    sealed: &SealedStore,
    domain: &Name,
    plan: &mut RepairPlan,
) -> Result<Known, RepoError> {
    // One that is gone was merged into another, which the listing did not have.
    for _ in 1..LISTINGS_MAX {
        let mut tried = RepairPlan::default();
        let known = try_index(sealed, domain, &mut tried).await?;
        if known.all_there {
            plan.append(tried);
            return Ok(known);
        }
    }
    try_index(sealed, domain, plan).await
}

async fn try_index(
    sealed: &SealedStore,
    domain: &Name,
    plan: &mut RepairPlan,
) -> Result<Known, RepoError> {
    let mut numbers: HashMap<PackId, u32> = HashMap::new();
    // By pack and frame: several objects may name the same, and one object not all of a pack.
    let mut named: Vec<(u32, u32)> = Vec::new();
    let (mut all_there, mut objects) = (true, Vec::new());
    for object in sealed.list(&names::indexes(domain)).await? {
        let read = index::read_object(sealed, &object.key).await;
        if let Ok(read) = &read {
            for entry in &read.entries {
                let Some(pack) = read.pack(entry) else { continue };
                let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                named.push((*numbers.entry(pack.id).or_insert(next), entry.frame));
            }
            objects.push(object.key);
            continue;
        }
        all_there &= !read.as_ref().is_err_and(RepoError::is_not_found);
        plan.judge(sealed, object.key, What::Index, read.map(drop)).await?;
    }
    named.sort_unstable();
    named.dedup();
    let mut counts = vec![0_u64; numbers.len()];
    for (pack, _) in named {
        if let Some(count) = usize::try_from(pack).ok().and_then(|pack| counts.get_mut(pack)) {
            *count += 1;
        }
    }
    let count = |number: u32| counts.get(usize::try_from(number).ok()?).copied();
    let chunks = numbers.into_iter().map(|(id, number)| (id, count(number).unwrap_or(0)));
    let whole = all_there && plan.is_untouched();
    Ok(Known { chunks: chunks.collect(), whole, all_there, objects })
}

/// Gives the epochs of those whose directories read.
async fn look_at_packs(
    sealed: &SealedStore,
    domain: &Name,
    known: &Known,
    plan: &mut RepairPlan,
) -> Result<HashSet<u32>, RepoError> {
    let mut epochs = HashSet::new();
    let mut listed: Vec<_> = index::list_packs_by_kind(sealed, domain).await?.into_iter().collect();
    listed.sort_unstable_by_key(|(id, _)| *id);
    // All of them: an object of several that name a pack may be lost.
    let asked = listed
        .into_iter()
        .map(|(id, (kind, _))| (id, kind, known.chunks.get(&id).copied().unwrap_or(0)));
    let mut read = futures::stream::iter(asked)
        .map(|(id, kind, named)| async move {
            (id, kind, named, index::read_directory(sealed, domain, kind, id).await)
        })
        .buffered(READS_AT_ONCE);
    while let Some((id, kind, named, directory)) = read.next().await {
        let name = names::pack(domain, kind, id);
        match directory {
            Ok(pack) => {
                epochs.insert(pack.pack.sealing.epoch);
                let chunks = pack.entries.len() as u64;
                if chunks > named {
                    plan.reindexed.push(LostPack { id, kind, chunks });
                }
            }
            Err(error) if error.is_not_found() => {}
            Err(error) if (named > 0 || !known.whole) && error.is_damage() => {
                let reason = error.chain();
                let reason = format!("{reason}; an index object knows its chunks, or may");
                plan.leave(name, error.kind(), reason);
            }
            Err(error) => {
                plan.judge(sealed, name, What::Pack { kind, id }, Err(error)).await?;
            }
        }
    }
    Ok(epochs)
}

/// Gives the names of those that read.
async fn look_at_manifests(
    sealed: &SealedStore,
    domain: &Name,
    plan: &mut RepairPlan,
) -> Result<Vec<Key>, RepoError> {
    let listed = manifests::list(sealed, domain).await?;
    if let Some(error) = &listed.log_error {
        // Without it nobody knows which backups have expired, and no entry can follow it.
        let name = names::expired(domain).prefix().as_str().trim_end_matches('/').to_owned();
        let reason = format!("its highest entry does not read: {}", error.chain());
        if let Ok(name) = Key::parse(&name) {
            plan.leave(name, error.kind(), reason);
        }
    }
    let held = match &listed.log_error {
        None => ExpiredLog::read(sealed, domain).await?.entry().held.clone(),
        Some(_) => Vec::new(),
    };
    let name_of = |backup: &manifests::Backup| names::manifest(&backup.at, backup.manifest.backup);
    let readable: Vec<Key> = listed.valid.iter().map(name_of).collect();
    for found in listed.unreadable {
        let name = names::manifest(&found.at, found.id);
        let why_not = if held.iter().any(|hold| hold.backup == found.id) {
            Some("the backup is held")
        } else if listed.log_error.is_some() {
            Some("the log of expired backups has to read first")
        } else if readable.is_empty() {
            Some("no manifest reads, so the keys may be others than those of then")
        } else {
            None
        };
        if let Some(why_not) = why_not {
            let reason = format!("{}; {why_not}", found.error.chain());
            plan.leave(name, found.error.kind(), reason);
            continue;
        }
        let what = What::Manifest { at: found.at, backup: found.id };
        plan.judge(sealed, name, what, Err(found.error)).await?;
    }
    Ok(readable)
}

/// Only those go for which another stands: what they said is known again.
async fn look_at_notes(
    sealed: &SealedStore,
    domain: &Name,
    plan: &mut RepairPlan,
) -> Result<(), RepoError> {
    let notes = ChunkNotes::read(sealed, domain).await?;
    for name in notes.replaced {
        let read = read::<Damage>(sealed, Kind::Damage, &name).await;
        plan.judge(sealed, name, What::DamageNote, read).await?;
    }
    for note in notes.unread {
        plan.leave_note(note.name, &note.error);
    }
    Ok(())
}

/// Of a round nothing is moved: somebody who has read its verdict may still be deleting, and no
/// order of requests makes that safe.
async fn look_at_rounds(
    sealed: &SealedStore,
    domain: &Name,
    plan: &mut RepairPlan,
) -> Result<(), RepoError> {
    for object in sealed.list(&names::retired(domain)).await? {
        let Some((_, part)) = names::round_of(domain, &object.key) else { continue };
        let name = &object.key;
        let read = match part {
            RoundPart::Marker => read::<Retired>(sealed, Kind::Retired, name).await,
            RoundPart::Intents => read::<RetiredIntents>(sealed, Kind::RetiredIntents, name).await,
            RoundPart::Verdict => read::<RetireVerdict>(sealed, Kind::RetireVerdict, name).await,
        };
        match read {
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_damage() => {
                let reason = format!("{}; of a round nothing is moved", error.chain());
                plan.leave(object.key, error.kind(), reason);
            }
            read => read?,
        }
    }
    Ok(())
}

pub(super) async fn read<T: Document>(
    sealed: &SealedStore,
    kind: Kind,
    name: &Key,
) -> Result<(), RepoError> {
    sealed.get::<T>(kind, name).await.map(drop)
}
