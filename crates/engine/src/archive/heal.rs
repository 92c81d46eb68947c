//! Storing a WAL file again whose stored copy has rotted.
//!
//! Names are never stored over: the new copy goes beside the old one, under the digest of the
//! content, and a settlement says that it holds ([`holder`](super::holder)). Nobody has to decide
//! anything, for both have the same digest.

use pgrecall_pgformat::segment_summary::SegmentEnd;
use pgrecall_repo::damaged_wal::{Say, WalNotes};
use pgrecall_repo::format::document::{DamagedWal, Resolution};
use pgrecall_repo::object::Proof;
use pgrecall_repo::sealed_store::Stored as Written;
use pgrecall_repo::{RepoError, archive};
use pgrecall_store::Key;

use super::push::{Prepared, PushRequest, PushResult, Stored};
use super::{check, resolve, trailer};
use crate::catalog::chain;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};

/// What is wrong with the stored copy of a file that has the same digest; nothing if it is sound.
/// Its end was read, and said `damage` where it is damaged; all of it is read only where a
/// verification has noted it as damaged, or nobody knows: for on a standby that archives too this
/// is the rule.
///
/// # Errors
/// When the store fails.
pub(super) async fn what_rotted(
    cluster: &ClusterStore,
    key: &Key,
    file: &Prepared,
    damage: Option<RepoError>,
) -> Result<Option<String>, EngineError> {
    if let Some(damage) = damage {
        return Ok(Some(chain(&damage)));
    }
    let noted = noted(cluster, key).await?;
    if noted == Noted::No {
        return Ok(None);
    }
    let limit = check::limit_bytes(file.name, &cluster.facts);
    match archive::fetch(&cluster.sealed, key, limit, Proof::Hash, |_| {}).await {
        Ok(()) => {}
        // What its records say may be what was found wrong, and then this one says the same.
        Err(RepoError::NoRestoreKey { .. }) => {
            let Noted::By(found) = noted else {
                tracing::warn!(
                    "whether {key} is sound is not known: the notes of damaged WAL do not read, and \
                     only the restore key opens it; `pgrecall verify --read-data` where that key is \
                     says so: keep the file until then"
                );
                return Ok(None);
            };
            let ends = file.packed.summary.as_ref().map(|summary| &summary.end);
            let whole = matches!(ends, Some(SegmentEnd::Full | SegmentEnd::Switch { .. }));
            return Ok(whole.then(|| format!("it was found damaged, by {found}")));
        }
        Err(error @ RepoError::Corrupt { .. }) => return Ok(Some(chain(&error))),
        // Its end reads, which is all that is asked of one that nobody has noted.
        Err(error) if noted == Noted::Unknown => {
            tracing::warn!("whether {key} is sound is not known: {}", chain(&error));
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    }
    let stored = trailer::read(&cluster.sealed, key).await?;
    let same = stored.trailer.summary == file.packed.summary;
    Ok((!same).then(|| "its trailer tells of other records than it holds".into()))
}

/// Whether a verification has found an object damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Noted {
    /// It has, this one.
    By(String),
    No,
    /// The notes do not read.
    Unknown,
}

async fn noted(cluster: &ClusterStore, object: &Key) -> Result<Noted, EngineError> {
    match WalNotes::read(&cluster.sealed, &cluster.at).await {
        Ok(notes) if notes.damaged.iter().any(|noted| is_of(noted, object)) => {
            Ok(Noted::By(notes.found))
        }
        Ok(_) => Ok(Noted::No),
        // The file is stored, and its end reads: notes that this host may not read are no reason to
        // fail.
        Err(error) if error.kind() == ErrorKind::Denied => {
            tracing::debug!("whether {object} was found damaged is not known: {}", chain(&error));
            Ok(Noted::No)
        }
        Err(error) if error.is_damage() => Ok(Noted::Unknown),
        Err(error) => Err(error.into()),
    }
}

fn is_of(noted: &DamagedWal, object: &Key) -> bool {
    noted.object == object.as_str() && noted.after.is_none()
}

/// Stores the file beside its rotten copy, and has it hold from now on.
///
/// # Errors
/// When the store does not confirm either; `Conflict` when the file was settled otherwise.
pub(super) async fn heal(
    cluster: &ClusterStore,
    key: &Key,
    file: &Prepared,
    request: &PushRequest,
    why: String,
) -> Result<PushResult, EngineError> {
    let beside = resolve::by_digest(key, &file.packed.digest)?;
    keep(cluster, &beside, file, request).await?;
    let resolution = Resolution {
        object: beside.to_string(),
        reason: format!("the copy that was stored first has rotted: {why}"),
        by: format!("wal push on {} at {}", request.host, request.clock.now_text()),
        heals: true,
    };
    resolve::write_down(cluster, key, &resolution).await?;
    Ok(PushResult::Healed)
}

/// Stores the file under the name of its digest, where no sound copy of it is.
///
/// # Errors
/// As [`keep_sound`].
pub(super) async fn keep(
    cluster: &ClusterStore,
    kept: &Key,
    file: &Prepared,
    request: &PushRequest,
) -> Result<(), EngineError> {
    let notes = notes_before(cluster).await;
    let object = file.seal(cluster, kept, request)?;
    match file.store(cluster, kept, object).await? {
        Stored::Created => {
            forget(cluster, kept, notes).await;
            Ok(())
        }
        Stored::Before { .. } | Stored::Unknown { .. } => {
            keep_sound(cluster, kept, file, request).await.map(drop)
        }
        other @ Stored::Collision { .. } => resolve::kept(kept, other),
    }
}

/// Makes sure that the copy under the name of its digest, which is served, reads: one that does not
/// is deleted, and stored again. Until that has arrived whoever asks for the file is refused, since
/// the settlement names what is not there.
///
/// # Errors
/// `Denied` where these credentials may not delete; the store's failures.
pub(super) async fn keep_sound(
    cluster: &ClusterStore,
    kept: &Key,
    file: &Prepared,
    request: &PushRequest,
) -> Result<PushResult, EngineError> {
    let notes = notes_before(cluster).await;
    if rotten(cluster, kept, file).await?.is_none() {
        return Ok(PushResult::AlreadyThere);
    }
    // Another host may store it again at this moment: what is deleted is what was looked at.
    let before = bytes_of(cluster, kept, file).await?;
    let Some(why) = rotten(cluster, kept, file).await? else {
        return Ok(PushResult::AlreadyThere);
    };
    if bytes_of(cluster, kept, file).await? == before {
        tracing::warn!(object = %kept, "a copy has rotted, and is stored again: {why}");
        cluster.sealed.store().delete(kept).await.map_err(RepoError::from)?;
    }
    let object = file.seal(cluster, kept, request)?;
    resolve::kept(kept, file.store(cluster, kept, object).await?)?;
    forget(cluster, kept, notes).await;
    Ok(PushResult::Healed)
}

/// The notes as they are before something is stored; nothing where they do not read.
async fn notes_before(cluster: &ClusterStore) -> Option<WalNotes> {
    let read = WalNotes::read(&cluster.sealed, &cluster.at).await;
    read.inspect_err(|error| tracing::debug!("notes of damaged WAL: {}", chain(error))).ok()
}

/// Takes a note back of what was stored again under the same name, if nobody has written another
/// since before that: he may have found it rotten once more. Then it stays for a verification.
async fn forget(cluster: &ClusterStore, object: &Key, before: Option<WalNotes>) {
    let Some(notes) = before else { return };
    if !notes.damaged.iter().any(|noted| is_of(noted, object)) {
        return;
    }
    let damaged = notes.damaged.iter().filter(|noted| !is_of(noted, object)).cloned().collect();
    let say = Say { damaged, found: notes.found.clone() };
    match notes.put_next(&cluster.sealed, &cluster.at, say).await {
        Ok(Written::Mine) => {}
        Ok(Written::Other) => tracing::debug!("{object} is noted as damaged still"),
        Err(error) => tracing::debug!("{object} is noted as damaged still: {}", chain(&error)),
    }
}

/// As [`what_rotted`], with a look at the end.
async fn rotten(
    cluster: &ClusterStore,
    kept: &Key,
    file: &Prepared,
) -> Result<Option<String>, EngineError> {
    let damage = match archive::read_trailer(&cluster.sealed, kept).await {
        Ok(_) => None,
        Err(error @ RepoError::Corrupt { .. }) => Some(error),
        Err(error) => return Err(error.into()),
    };
    what_rotted(cluster, kept, file, damage).await
}

async fn bytes_of(
    cluster: &ClusterStore,
    object: &Key,
    file: &Prepared,
) -> Result<bytes::Bytes, EngineError> {
    let limit = check::limit_bytes(file.name, &cluster.facts).saturating_mul(2);
    Ok(cluster.sealed.store().get(object, limit).await.map_err(RepoError::from)?)
}
