//! Telling a domain whose keys were lost from one that is new. Keys that are made anew under an old
//! number open nothing of before, and the old ones, found again, would have no place any more.

use futures::StreamExt as _;

use crate::error::{FormatError, RepoError};
use crate::format::document::DomainKeysDocument;
use crate::names::{self, Name};
use crate::sealed_store::SealedStore;

/// Headers read at once.
const READS_AT_ONCE: usize = 16;

/// What a domain's objects say of the keys that they were sealed by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct InUse {
    /// The highest epoch of any.
    epoch: u32,
    /// The highest generation of the id key.
    id_generation: u32,
}

impl InUse {
    /// Reads the headers of a domain's manifests and index objects: each backup leaves some.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn read(sealed: &SealedStore, domain: &Name) -> Result<Self, RepoError> {
        let mut objects = sealed.list(&names::manifests(domain)).await?;
        objects.append(&mut sealed.list(&names::indexes(domain)).await?);
        let mut headers = futures::stream::iter(&objects)
            .map(|object| sealed.header(&object.key))
            .buffer_unordered(READS_AT_ONCE);
        let mut highest = Self::default();
        while let Some(header) = headers.next().await {
            match header {
                Ok(header) => {
                    let sealing = header.sealing;
                    highest.epoch = highest.epoch.max(sealing.epoch);
                    highest.id_generation = highest.id_generation.max(sealing.id_generation);
                }
                Err(error) if error.is_not_found() || error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(highest)
    }

    /// Refuses what the newest keys are too old for.
    ///
    /// # Errors
    /// [`RepoError::Corrupt`] naming the keys that are missing.
    pub(super) fn require(
        self,
        domain: &Name,
        newest: Option<&DomainKeysDocument>,
    ) -> Result<(), RepoError> {
        let known = newest.map(|keys| (keys.epoch, keys.id_generation)).unwrap_or_default();
        if self.epoch <= known.0 && self.id_generation <= known.1 {
            return Ok(());
        }
        let after = known.0.saturating_add(1);
        let lost = names::domain_keys(domain).entry(self.epoch.max(after).into());
        Err(RepoError::format(lost, lost_keys("objects that were sealed by them are still there")))
    }
}

/// Refuses a domain that has objects. It is asked when no keys were found; with those that another
/// host has made since, all is well.
///
/// # Errors
/// [`RepoError::Corrupt`] naming the keys that are missing.
pub(super) async fn require_new(sealed: &SealedStore, domain: &Name) -> Result<(), RepoError> {
    let objects = sealed.list(&names::domain(domain)).await?;
    let keys = names::domain_keys(domain);
    let count = objects.iter().filter(|object| keys.number(&object.key).is_none()).count();
    if count == 0 {
        return Ok(());
    }
    let reason = format!("{count} objects of the domain are still there");
    Err(RepoError::format(keys.prefix(), lost_keys(&reason)))
}

fn lost_keys(why: &str) -> FormatError {
    FormatError::Document {
        what: "what should be the domain's keys",
        reason: format!("they are not there, and {why}; no new ones are made in their place"),
    }
}
