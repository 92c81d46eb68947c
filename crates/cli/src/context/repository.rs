//! The repository that the settings name, and what opens it.

use std::path::Path;

use pgrecall_repo::format::root::RootSuite;
use pgrecall_repo::id::RepositoryId;
use pgrecall_repo::keys::{KeyFile, RestoreKey, Unlock};
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{OpenOptions, Repository};
use pgrecall_store::RootPolicy;
use zeroize::Zeroizing;

use super::{kms, store};
use crate::config::secret::{SecretSource, warn_if_open_to_everybody};
use crate::config::settings::{Encryption, Settings};
use crate::failure::{Failure, Kind, Outcome};

/// Opens the store and the repository as the settings say.
///
/// # Errors
/// Whatever keeps it from being opened; see [`options`].
pub(crate) async fn open(settings: &Settings) -> Outcome<Repository> {
    let mut options = options(settings)?;
    options.restore_keys = restore_keys_at_hand(settings);
    let store = store::open(settings, RootPolicy::MustExist).await?;
    Ok(Repository::open(store, options).await?)
}

/// How the settings want the repository opened.
///
/// # Errors
/// When the pinned id is malformed, or there is no key and no passphrase.
pub(crate) fn options(settings: &Settings) -> Outcome<OpenOptions> {
    options_with(settings, unlock(settings)?)
}

/// The same with a key of the caller's choice.
///
/// # Errors
/// When the pinned id is malformed.
pub(crate) fn options_with(settings: &Settings, unlock: Unlock) -> Outcome<OpenOptions> {
    Ok(OpenOptions {
        id: pinned_id(settings)?,
        suite: suite(settings),
        fingerprint: settings.repository.key_fingerprint.clone(),
        unlock,
        random: SharedRandom::system(),
        cache: None,
        restore_keys: Vec::new(),
    })
}

/// The restore keys that the settings name, as far as they can be read: who only writes needs none,
/// and who reads is told which key is not here.
pub(crate) fn restore_keys_at_hand(settings: &Settings) -> Vec<RestoreKey> {
    let Some(path) = &settings.repository.restore_key_file else { return Vec::new() };
    match restore_keys(path) {
        Ok(keys) => keys,
        Err(failure) if path.try_exists().is_ok_and(|there| !there) => {
            tracing::debug!("{}", failure.chain.join(": "));
            Vec::new()
        }
        Err(failure) => {
            tracing::warn!("{}", failure.chain.join(": "));
            Vec::new()
        }
    }
}

/// Reads a file of restore keys.
///
/// # Errors
/// When it cannot be read, or a line is none.
pub(crate) fn restore_keys(path: &Path) -> Outcome<Vec<RestoreKey>> {
    let reading = || format!("reading the restore keys in {}", path.display());
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| Failure::from_error(Kind::Denied, &error).during(reading()))?;
    warn_if_open_to_everybody(path, "the file of restore keys");
    RestoreKey::parse_all(&text).map_err(|error| Failure::from(error).during(reading()))
}

/// The crypto suite asked for.
pub(crate) fn suite(settings: &Settings) -> RootSuite {
    match settings.repository.encryption {
        Encryption::Aes256Gcm => RootSuite::Aes256Gcm,
        Encryption::Clear => RootSuite::None,
    }
}

/// The pinned id, if there is one.
///
/// # Errors
/// When it is malformed.
pub(crate) fn pinned_id(settings: &Settings) -> Outcome<Option<RepositoryId>> {
    let Some(text) = &settings.repository.id else { return Ok(None) };
    let id = text.parse().map_err(|_| {
        Failure::configuration(format!("repository.id is no repository's id: \"{text}\""))
    })?;
    Ok(Some(id))
}

/// The pinned id, which must be there: an acknowledged segment, or a proven absence, counts only
/// in the very repository that is meant.
///
/// # Errors
/// When no id is pinned.
pub(crate) fn require_pinned_id(settings: &Settings) -> Outcome<RepositoryId> {
    pinned_id(settings)?.ok_or_else(|| {
        Failure::configuration("the configuration pins no repository.id").hint(
            "Run pgrecall init, which writes it, or copy it from the configuration of another \
             host.",
        )
    })
}

/// What opens the repository: this host's key file, else the KMS key, else the passphrase.
///
/// # Errors
/// When there is none of them, or it cannot be read.
pub(crate) fn unlock(settings: &Settings) -> Outcome<Unlock> {
    let repository = &settings.repository;
    if repository.encryption == Encryption::Clear {
        return Ok(Unlock::Nothing);
    }
    let path = &repository.key_file;
    match path.try_exists() {
        Ok(false) => {}
        // One that is there and cannot be looked at is no missing one: reading tells why.
        Ok(true) | Err(_) => return key_file(path),
    }
    if let Some(key) = &repository.kms.key {
        return Ok(kms::unlock(settings, key));
    }
    match &repository.passphrase {
        Some(source) => passphrase(settings, source),
        None => Err(Failure::new(
            Kind::Denied,
            format!(
                "nothing opens the repository: the key file {} does not exist, and neither a KMS \
                 key nor a passphrase is set",
                path.display()
            ),
        )
        .hint(
            "Copy a key to that place, name another one by repository.key_file, or set \
             repository.kms_key, PGRECALL_PASSPHRASE, repository.passphrase_file or \
             repository.passphrase_command.",
        )),
    }
}

/// Reads a key file.
///
/// # Errors
/// When it cannot be read, or is none.
pub(crate) fn key_file(path: &Path) -> Outcome<Unlock> {
    let reading = || format!("reading the key file {}", path.display());
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        let failure = Failure::from_error(Kind::Denied, &error).during(reading());
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => failure.hint(
                "It must be readable by the user who runs this command: chown it to the owner of \
                 the data directory, and keep its mode at 0600.",
            ),
            _ => failure,
        }
    })?;
    warn_if_open_to_everybody(path, "the key file");
    let key = KeyFile::parse(&text).map_err(|error| Failure::from(error).during(reading()))?;
    Ok(Unlock::KeyFile(key))
}

/// Fetches a passphrase.
///
/// # Errors
/// When it cannot be had.
pub(crate) fn passphrase(settings: &Settings, source: &SecretSource) -> Outcome<Unlock> {
    let secret = source.obtain("passphrase", settings.secrets_within)?;
    Ok(Unlock::Passphrase(Zeroizing::new(secret.expose().to_owned())))
}
