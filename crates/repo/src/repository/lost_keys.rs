//! Telling a domain whose keys were lost from one that is new. Keys that are made anew under an old
//! number open nothing of before, and the old ones, found again, would have no place any more.

use futures::StreamExt as _;
use pgrecall_store::Key;

use crate::error::{FormatError, RepoError};
use crate::format::document::{DomainKeysDocument, Identity};
use crate::format::header::Kind;
use crate::names::{self, ClusterRef, Name};
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
        let lost = names::domain_keys(domain).entry(self.epoch.max(known.0 + 1).into());
        Err(RepoError::format(lost, lost_keys("objects that were sealed by them are still there")))
    }
}

/// Refuses a domain that has objects. It is asked when no keys were found; with those that another
/// host has made since, all is well.
///
/// # Errors
/// [`RepoError::Corrupt`] naming the keys that are missing.
pub(super) async fn require_nothing_of(
    sealed: &SealedStore,
    domain: &Name,
) -> Result<(), RepoError> {
    let objects = sealed.list(&names::domain(domain)).await?;
    let keys = names::domain_keys(domain);
    let count = objects.iter().filter(|object| keys.number(&object.key).is_none()).count();
    if count == 0 {
        return Ok(());
    }
    let reason = format!("{count} objects of the domain are still there");
    Err(RepoError::format(keys.prefix(), lost_keys(&reason)))
}

/// The names of all clusters' identities; no part of them is a domain, and `any` will do.
///
/// # Errors
/// When the store fails.
pub(super) async fn identities(sealed: &SealedStore, any: &Name) -> Result<Vec<Key>, RepoError> {
    let mut found = Vec::new();
    for cluster in sealed.list_folders(&names::clusters()).await? {
        for lineage in sealed.list_folders(&cluster).await? {
            let Ok(name) = cluster.name().parse() else { continue };
            let lineage = lineage.name().to_owned();
            let at = ClusterRef { domain: any.clone(), cluster: name, lineage };
            let identity = names::cluster_object(&at, "identity")?;
            match sealed.header(&identity).await {
                Ok(_) => found.push(identity),
                Err(error) if error.is_not_found() => {}
                // It opens by nothing, and nobody can say whose it is.
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Refuses while an identity opens by no domain's keys: a cluster's WAL may be all that a domain
/// had, and does not say whose it is.
///
/// # Errors
/// [`RepoError::Corrupt`] naming the keys that are missing.
pub(super) async fn require_opened(
    identities: &[Key],
    domains: &[SealedStore],
    domain: &Name,
) -> Result<(), RepoError> {
    for identity in identities {
        let mut is_opened = false;
        for keys in domains {
            match keys.get::<Identity>(Kind::Identity, identity).await {
                Ok(_) => is_opened = true,
                Err(error) if error.is_damage() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        if !is_opened {
            let keys = names::domain_keys(domain);
            let reason = format!("{identity} opens by no domain's keys");
            return Err(RepoError::format(keys.prefix(), lost_keys(&reason)));
        }
    }
    Ok(())
}

fn lost_keys(why: &str) -> FormatError {
    FormatError::Document {
        what: "what should be the domain's keys",
        reason: format!("they are not there, and {why}; no new ones are made in their place"),
    }
}
