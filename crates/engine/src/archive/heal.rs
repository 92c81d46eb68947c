//! Storing a WAL file again whose stored copy has rotted.
//!
//! Names are never stored over: the new copy goes beside the old one, under the digest of the
//! content, and a settlement says that it holds ([`holder`](super::holder)). Nobody has to decide
//! anything, for both have the same digest.

use pgrecall_repo::damaged_wal::WalNotes;
use pgrecall_repo::format::document::Resolution;
use pgrecall_repo::object::Proof;
use pgrecall_repo::{RepoError, archive};
use pgrecall_store::Key;

use super::push::{Prepared, PushRequest, PushResult};
use super::{check, resolve, trailer};
use crate::catalog::chain;
use crate::cluster::ClusterStore;
use crate::error::{EngineError, ErrorKind};

/// What is wrong with the stored copy of a file that has the same digest; nothing if it is sound.
/// Its end was read, and said `damage` where it is damaged; all of it is read only where a
/// verification has noted it as damaged, for on a standby that archives too this is the rule.
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
    let notes = match WalNotes::read(&cluster.sealed, &cluster.at).await {
        Ok(notes) => notes,
        // Who may only put need not know of it.
        Err(error) if error.kind() == ErrorKind::Denied => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let noted = |noted: &&pgrecall_repo::format::document::DamagedWal| {
        noted.object == key.as_str() && noted.after.is_none()
    };
    if notes.damaged.iter().find(noted).is_none() {
        return Ok(None);
    }
    let limit = check::limit_bytes(file.name, &cluster.facts);
    match archive::fetch(&cluster.sealed, key, limit, Proof::Hash, |_| {}).await {
        Ok(()) => {}
        Err(RepoError::NoRestoreKey { .. }) => {
            return Ok(Some(format!("it was found damaged, by {}", notes.found)));
        }
        Err(error @ RepoError::Corrupt { .. }) => return Ok(Some(chain(&error))),
        Err(error) => return Err(error.into()),
    }
    let stored = trailer::read(&cluster.sealed, key).await?;
    let same = stored.trailer.summary == file.packed.summary;
    Ok((!same).then(|| "its trailer tells of other records than it holds".into()))
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
    let object = file.seal(cluster, &beside, request)?;
    resolve::kept(&beside, file.store(cluster, &beside, object).await?)?;
    let resolution = Resolution {
        object: beside.to_string(),
        reason: format!("the copy that was stored first has rotted: {why}"),
        by: format!("wal push on {} at {}", request.host, request.clock.now_text()),
    };
    resolve::write_down(cluster, key, &resolution).await?;
    Ok(PushResult::Healed)
}
