//! What verifications note in the repository, and what becomes of notes that were lost: until all
//! that they may have spoken of has been read again nothing expires.

use std::collections::BTreeSet;

use pgrecall_repo::RepoError;
use pgrecall_repo::index::{self, Purpose};
use pgrecall_repo::keys::Keys;
use pgrecall_repo::names;
use pgrecall_store::Key;

use super::chunks::Looked;
use super::finding::{Severity, VerifyReport};
use super::wal::WalCheck;
use super::{Depth, Notes, VerifyOptions, Which};
use crate::catalog::chain;
use crate::catalog::wal::StoredWal;
use crate::catalog::wal_damage::KnownDamage;
use crate::cluster::ClusterStore;
use crate::error::EngineError;
use crate::unreadable::Unreadable;

/// Notes that were lost before a verification began, which it makes good if it reads everything.
#[derive(Debug)]
pub(super) struct LostNotes {
    /// As in [`WalNotes`](pgrecall_repo::damaged_wal::WalNotes).
    loss: Option<u64>,
    /// Backups there were then, and those that were ended, where some were lost.
    manifests: BTreeSet<Key>,
}

impl LostNotes {
    /// To be asked before anything else is read: a note that is lost later was heeded, and what it
    /// spoke of is not read.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn read(cluster: &ClusterStore) -> Result<Self, EngineError> {
        let loss = KnownDamage::read(cluster).await?.notes.due;
        let manifests = match loss {
            Some(_) => manifests(cluster).await?,
            None => BTreeSet::new(),
        };
        Ok(Self { loss, manifests })
    }

    /// The loss after which everything was read, or what was not.
    async fn read_again(
        &self,
        cluster: &ClusterStore,
        options: &VerifyOptions,
        (check, looked): (&WalCheck<'_>, &Looked),
        report: &VerifyReport,
    ) -> Result<Result<u64, &'static str>, EngineError> {
        if options.depth != Depth::ReadData || options.which != Which::All {
            return Ok(Err("this one has read a part of it"));
        }
        let Some(loss) = self.loss else { return Ok(Err("it was lost while this one read")) };
        if check.locked || is_locked(cluster.sealed.keys(), looked) {
            return Ok(Err("the restore key that opens the rest is not here"));
        }
        if report.unsure || check.unsure {
            return Ok(Err("something could not be read or written down, as said here"));
        }
        if !manifests(cluster).await?.is_subset(&self.manifests) {
            return Ok(Err("backups were taken while this one read"));
        }
        Ok(Ok(loss))
    }
}

async fn manifests(cluster: &ClusterStore) -> Result<BTreeSet<Key>, EngineError> {
    let listed = cluster.sealed.list(&names::manifests_of(&cluster.at)).await?;
    Ok(listed.into_iter().map(|object| object.key).collect())
}

/// Whether some chunk was compared in its sealed form only.
fn is_locked(keys: &Keys, looked: &Looked) -> bool {
    looked.rows.packs_in_use().iter().any(|(pack, _)| keys.locked(&pack.sealing).is_some())
}

/// Tells which notes that earlier verifications left do not read: nothing expires by them.
///
/// # Errors
/// When the store fails.
pub(super) async fn report_unread(
    cluster: &ClusterStore,
    stored: &StoredWal,
    report: &mut VerifyReport,
) -> Result<(), EngineError> {
    let read = index::read_damage(&cluster.sealed, cluster.domain(), Purpose::Refer).await;
    let unread = match read.map_err(EngineError::from) {
        Ok(_) => None,
        Err(error) if error.is_unreadable() => Some(error),
        Err(error) => return Err(error),
    };
    for error in unread.iter().chain(&stored.damage.unreadable) {
        report.add_unreadable(
            Severity::Damage,
            "notes",
            ("a note of what was found damaged does not read: ", &Unreadable::from(error)),
            "nothing expires and nothing is collected until it does: `pgrecall repair` moves it \
             out of the way, and verify --read-data finds again what it noted",
        );
    }
    Ok(())
}

/// Writes down which WAL is damaged, for those that expire backups.
///
/// # Errors
/// When the store fails while it is told what there is; that it cannot be written down is a
/// finding.
pub(super) async fn write_down(
    lost: &LostNotes,
    (cluster, options): (&ClusterStore, &VerifyOptions),
    (check, looked): (&WalCheck<'_>, &Looked),
    report: &mut VerifyReport,
) -> Result<(), EngineError> {
    let again = lost.read_again(cluster, options, (check, looked), report).await?;
    let written = match options.notes {
        Notes::None => Ok(check.stored().damage.notes.due),
        Notes::Written => {
            let found = format!("verify on {} at {}", options.host, options.clock.now_text());
            check.write_down(found, again.ok()).await
        }
    };
    match written {
        Ok(None) => {}
        Ok(Some(_)) => report_due(again.err().unwrap_or("notes were lost once more"), report),
        Err(error) => report.add(
            Severity::Warning,
            "WAL",
            format!("which WAL is damaged could not be written down: {}", chain(&error)),
            "`expire` does not know what is written here: run verify again with credentials that \
             may put",
        ),
    }
    Ok(())
}

fn report_due(why: &str, report: &mut VerifyReport) {
    report.add(
        Severity::Damage,
        "notes",
        format!(
            "what was found damaged before is not known any more, since a note of it did not \
             read; {why}"
        ),
        "nothing expires and nothing is collected until verify --read-data has read all backups \
         and their WAL: run it, where the restore key is if there is one",
    );
}

/// What was found matters more than that it cannot be written down: the reader may have no right to
/// put, or look at the past.
pub(super) fn not_noted(error: &RepoError, report: &mut VerifyReport) {
    report.unsure = true;
    report.add(
        Severity::Warning,
        "data",
        format!("which chunks are bad could not be written down: {}", chain(error)),
        "a later backup does not store them again by itself: run verify --read-data again with \
         credentials that may put",
    );
}
