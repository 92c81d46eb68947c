//! Which object holds the content of an archived file: the one under the file's own name, unless a
//! settlement (`<file>.resolved`) names another one.
//!
//! Whoever reads an archived file asks here, whether by its name ([`read`]) or out of a listing
//! ([`Holders`]). A settlement is obeyed whatever lies under the plain name, so that nothing has to
//! be deleted or overwritten to make it hold.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _};
use pgrecall_repo::format::document::Resolution;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::{Key, Listed};

use crate::error::{EngineError, ErrorKind};

/// What a settlement's object has behind the file's name.
const SUFFIX: &str = "resolved";

/// Hex digits of a digest in names and messages.
pub(super) const DIGEST_DIGITS: usize = 16;

/// Settlements read at once.
const READS_AT_ONCE: usize = 16;

/// How the collision over a file's name was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The object that holds.
    pub object: Key,
    /// What was written down.
    pub resolution: Resolution,
}

/// The settlement over a file, `file` being the object under its own name; nothing if there is
/// none.
///
/// # Errors
/// When it is damaged or speaks of another file, or the store fails.
pub async fn settled(sealed: &SealedStore, file: &Key) -> Result<Option<Settled>, EngineError> {
    let resolution: Resolution = match sealed.get(Kind::Resolution, &settlement_of(file)?).await {
        Ok(resolution) => resolution,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // It authenticated; still it may only speak of the file it belongs to.
    let own = |named: &Key| named.as_str().starts_with(&format!("{file}."));
    match Key::parse(&resolution.object).ok().filter(own) {
        Some(object) => Ok(Some(Settled { object, resolution })),
        None => {
            let message = format!("the settlement of {file} names {:?}", resolution.object);
            Err(EngineError::refused(ErrorKind::Corrupt, message))
        }
    }
}

/// Where the settlement over a file is.
pub(super) fn settlement_of(file: &Key) -> Result<Key, EngineError> {
    beside(file, SUFFIX)
}

/// The name of an object that belongs to a file: `<file>.<suffix>`.
pub(super) fn beside(file: &Key, suffix: &str) -> Result<Key, EngineError> {
    Key::parse(&format!("{file}.{suffix}"))
        .map_err(|error| EngineError::refused(ErrorKind::Internal, error.to_string()))
}

/// Contents of a file that a settlement kept under their digests.
///
/// # Errors
/// When the store fails.
pub(super) async fn kept(sealed: &SealedStore, file: &Key) -> Result<Vec<Key>, EngineError> {
    let listed = sealed.list(&file.parent()).await?;
    let own = |key: &Key| kept_file(key).as_ref() == Some(file);
    Ok(listed.into_iter().map(|object| object.key).filter(own).collect())
}

/// The file that a listed object is a kept content of, if it is one.
pub(crate) fn kept_file(object: &Key) -> Option<Key> {
    let (file, digest) = object.as_str().rsplit_once('.')?;
    let is_digest = digest.len() == DIGEST_DIGITS
        && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_digest.then(|| Key::parse(file).ok())?
}

/// Reads a file by `read`, which is given the object that holds it and has no effect until this
/// has returned: the object under the file's own name is read while the settlement is asked for,
/// and once more another object if there is one. The answer is that of the object that holds.
///
/// # Errors
/// Those of `read`, `NotFound` above all; `Corrupt` when what a settlement names is not there.
pub async fn read<T>(
    sealed: &SealedStore,
    file: &Key,
    mut read: impl AsyncFnMut(&Key) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let (settled, plain) = futures::join!(settled(sealed, file), read(file));
    let Some(settled) = settled? else { return plain };
    drop(plain);
    match read(&settled.object).await {
        Err(EngineError::Repo(error)) if error.is_not_found() => {
            let object = &settled.object;
            let message = format!("{file} was settled to be {object}, which is not there");
            Err(EngineError::refused(ErrorKind::Corrupt, message))
        }
        read => read,
    }
}

/// The files of a listing whose collisions were settled, and the objects that hold them.
#[derive(Debug, Default)]
pub struct Holders {
    objects: BTreeMap<Key, Key>,
    /// Files whose settlement cannot be read: nobody can tell which content holds.
    pub unreadable: Vec<(Key, EngineError)>,
    /// Files of which a settlement kept contents, and whose settlement is not there.
    pub unsettled: BTreeSet<Key>,
}

impl Holders {
    /// Reads the settlements among listed objects.
    ///
    /// # Errors
    /// When the store fails; damage is no failure but an entry of
    /// [`unreadable`](Self::unreadable).
    pub async fn of(sealed: &SealedStore, listed: &[Listed]) -> Result<Self, EngineError> {
        let files: Vec<Key> =
            listed.iter().filter_map(|object| settled_file(&object.key)).collect();
        let mut unsettled: BTreeSet<Key> =
            listed.iter().filter_map(|object| kept_file(&object.key)).collect();
        for file in &files {
            unsettled.remove(file);
        }
        let mut holders = Self { unsettled, ..Self::default() };
        let mut read = futures::stream::iter(files)
            .map(|file| async {
                match settled(sealed, &file).await {
                    Err(error) if !error.is_unreadable() => Err(error),
                    read => Ok((file, read)),
                }
            })
            .buffered(READS_AT_ONCE);
        while let Some((file, read)) = read.try_next().await? {
            match read {
                Ok(Some(settled)) => {
                    holders.objects.insert(file, settled.object);
                }
                // Gone since it was listed, with the file itself.
                Ok(None) => {}
                Err(error) => holders.unreadable.push((file, error)),
            }
        }
        Ok(holders)
    }

    /// The objects that settlements name.
    pub fn settled(&self) -> impl Iterator<Item = &Key> {
        self.objects.values()
    }

    /// The object that holds a file.
    #[must_use]
    pub fn object<'a>(&'a self, file: &'a Key) -> &'a Key {
        self.objects.get(file).unwrap_or(file)
    }
}

/// The file that a listed object settles, if it is a settlement.
#[must_use]
pub fn settled_file(object: &Key) -> Option<Key> {
    Key::parse(object.as_str().strip_suffix(SUFFIX)?.strip_suffix('.')?).ok()
}
