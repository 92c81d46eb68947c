//! The keys of a domain's epochs as they are made: the first ones, and new ones after others.

use super::restore_key::RestoreKeyPublic;
use super::secret::Secret;
use crate::format::document::DomainKeysDocument;
use crate::random::SharedRandom;

/// What a new epoch changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The data and meta keys: what is stored goes on serving new backups.
    Sealing,
    /// The id key too: nothing stored before is known again, so the next backup stores everything.
    Ids,
}

/// The keys of a domain's first epoch.
#[must_use]
pub fn first_domain_keys(random: &SharedRandom) -> DomainKeysDocument {
    DomainKeysDocument {
        epoch: 0,
        id_generation: 0,
        id_key: Secret::random(random).to_hex(),
        data_key: Secret::random(random).to_hex(),
        meta_key: Secret::random(random).to_hex(),
    }
}

/// The keys of the epoch after another. Data is sealed for a restore key from then on where one is
/// given, and where the epoch before had one.
#[must_use]
pub fn next_domain_keys(
    before: &DomainKeysDocument,
    rotation: Rotation,
    restore_key: Option<&RestoreKeyPublic>,
    random: &SharedRandom,
) -> DomainKeysDocument {
    let fresh = first_domain_keys(random);
    let (id_generation, id_key) = match rotation {
        Rotation::Sealing => (before.id_generation, before.id_key.clone()),
        Rotation::Ids => (before.id_generation + 1, fresh.id_key.clone()),
    };
    let before_had = RestoreKeyPublic::parse(&before.data_key).ok().flatten();
    let data_key = match restore_key.or(before_had.as_ref()) {
        Some(public) => public.to_text(),
        None => fresh.data_key.clone(),
    };
    DomainKeysDocument { epoch: before.epoch + 1, id_generation, id_key, data_key, ..fresh }
}
