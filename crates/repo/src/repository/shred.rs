//! Making a domain unreadable for good. A mark comes first, beside the keys and for ever: whoever
//! looks for them sees it, so that a half-done deletion is taken for a loss by nobody, and nobody
//! makes new keys in the old ones' place.

use pgrecall_store::Listed;

use super::Repository;
use crate::error::{FormatError, RepoError};
use crate::format::document::Shredded;
use crate::format::header::Kind;
use crate::names::{self, Name};

/// More epochs nobody has: one a week for ten years.
const EPOCHS_MAX: u64 = 520;

impl Repository {
    /// The mark of a domain whose keys were deleted, or are to be.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn shredded(&self, name: &Name) -> Result<Option<Shredded>, RepoError> {
        let object = names::shredded(name);
        match self.sealed.get::<Shredded>(Kind::Shredded, &object).await {
            Ok(mark) if mark.domain == name.as_str() => Ok(Some(mark)),
            Ok(mark) => {
                let error = FormatError::Unexpected {
                    what: "the domain of shredded keys",
                    expected: name.to_string(),
                    found: mark.domain,
                };
                Err(RepoError::format(object, error))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many epochs of keys a domain has, readable or not.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn count_epochs(&self, name: &Name) -> Result<u64, RepoError> {
        let log = names::domain_keys(name);
        let listed = self.sealed.list(log.prefix()).await?;
        Ok(listed.iter().filter(|object| log.number(&object.key).is_some()).count() as u64)
    }

    /// Deletes all keys of a domain, and the copies that this host has: what they have sealed opens
    /// for nobody. Ended in the middle it is to be begun again. Gives how many objects it deleted.
    ///
    /// # Errors
    /// When the store fails: then some may be left.
    pub async fn shred(&self, name: &Name, mark: &Shredded) -> Result<u64, RepoError> {
        // Another one's mark is as good, if it is one. Without any the keys would look lost.
        let object = names::shredded(name);
        self.sealed.put(Kind::Shredded, &object, mark).await?;
        if self.shredded(name).await?.is_none() {
            let reason = "it was put and is not there; no key was deleted".to_owned();
            return Err(RepoError::Invalid { what: format!("the mark {object}"), reason });
        }
        let log = names::domain_keys(name);
        let mut deleted = 0;
        loop {
            let mut listed = self.sealed.list(log.prefix()).await?;
            listed.retain(|object| log.number(&object.key).is_some());
            if listed.is_empty() {
                // A push may have made copies meanwhile.
                self.forget_epochs(name);
                return Ok(deleted);
            }
            for object in listed {
                self.store.delete(&object.key).await?;
                deleted += 1;
            }
        }
    }

    /// Refuses a domain among whose keys the mark lies.
    ///
    /// # Errors
    /// [`RepoError::Shredded`]; when the mark cannot be read.
    pub(super) async fn refuse_shredded(
        &self,
        name: &Name,
        keys: &[Listed],
    ) -> Result<(), RepoError> {
        let mark = names::shredded(name);
        if !keys.iter().any(|object| object.key == mark) {
            return Ok(());
        }
        // Whoever can put an object must not have copies deleted by it.
        let Some(mark) = self.shredded(name).await? else { return Ok(()) };
        self.forget_epochs(name);
        Err(RepoError::Shredded { domain: name.to_string(), at: mark.at })
    }

    /// The same, where the keys were not listed just now.
    ///
    /// # Errors
    /// As [`refuse_shredded`](Self::refuse_shredded).
    pub(super) async fn require_not_shredded(&self, name: &Name) -> Result<(), RepoError> {
        let keys = self.sealed.list(names::domain_keys(name).prefix()).await?;
        self.refuse_shredded(name, &keys).await
    }

    fn forget_epochs(&self, name: &Name) {
        let Some(cache) = &self.options.cache else { return };
        let log = names::domain_keys(name);
        // One that broke off may have left the later ones.
        for number in 0..EPOCHS_MAX {
            cache.forget(self.root.id, log.entry(number).as_str());
        }
    }
}
