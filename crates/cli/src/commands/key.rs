//! `pgrecall key`: who can open the repository, and new epochs of a domain's keys.

use std::path::Path;
use std::time::Duration;

use pgrecall_engine::archive::cache::HostCache;
use pgrecall_repo::format::document::LivingKey;
use pgrecall_repo::id::KeyId;
use pgrecall_repo::keys::{KeyFile, RestoreKey, RestoreKeyPublic, Rotation, Unlock};
use pgrecall_repo::names;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{Cache as _, KeyNote, Repository};
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_store::RootPolicy;
use serde::Serialize;

use super::key_shred;
use crate::args::key::{
    AddArgs, KeyCommand, ListArgs, NewKeyArgs, RemoveArgs, RotateArgs, UnlockArgs,
};
use crate::config::secret::{Secret, SecretSource};
use crate::config::settings::{Encryption, Settings};
use crate::context::{cluster, host, kms, repository, runtime, seen, store};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::prompt;
use crate::output::stdout::{self, Colour, Paint};
use crate::output::table::{Align, Cell, Table};
use crate::setup::owner::Owner;
use crate::setup::{key_file, place};

pub(crate) fn run(settings: &Settings, command: &KeyCommand) -> Outcome<()> {
    if settings.repository.encryption == Encryption::Clear {
        let message = "the repository is in the clear: it has no keys";
        return Err(Failure::new(Kind::Invalid, message));
    }
    let done = runtime::run(async {
        match command {
            KeyCommand::Add(args) => add(settings, args).await,
            KeyCommand::List(args) => list(settings, args).await,
            KeyCommand::Remove(args) => remove(settings, args).await,
            KeyCommand::Rotate(args) => rotate(settings, args).await,
            KeyCommand::Shred(args) => {
                key_shred::run(settings, unlock(settings, &args.unlock)?, args).await
            }
        }
    });
    hand_over(settings)?;
    done
}

/// What root has written into a directory store becomes its owner's.
fn hand_over(settings: &Settings) -> Outcome<()> {
    let Some(folder) = place::folder(settings.repository_url()?) else { return Ok(()) };
    let Some(owner) = Owner::other_than_root(&folder) else { return Ok(()) };
    owner.give_repository(&folder)
}

/// The key to open with: `--unlock`, else what the settings say.
fn unlock(settings: &Settings, args: &UnlockArgs) -> Outcome<Unlock> {
    match &args.unlock {
        Some(path) => repository::key_file(path),
        None => repository::unlock(settings),
    }
}

async fn open(settings: &Settings, unlock: Unlock) -> Outcome<Repository> {
    let options = repository::options_with(settings, unlock)?;
    let store = store::open(settings, RootPolicy::MustExist).await?;
    Ok(Repository::open(store, options).await?)
}

/// One key, as programs see it.
#[derive(Serialize)]
struct Row {
    id: String,
    method: String,
    /// The key of KMS, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_key: Option<String>,
    label: String,
    added: String,
    /// Whether it is the key that this command opened the repository with.
    in_use: bool,
}

#[derive(Serialize)]
struct Listing {
    repository: String,
    keys: Vec<Row>,
}

async fn list(settings: &Settings, args: &ListArgs) -> Outcome<()> {
    let repository = open(settings, unlock(settings, &args.unlock)?).await?;
    let (_, log) = repository.key_log().await?;
    let row = |key: &LivingKey| Row {
        id: key.id.to_string(),
        method: key.method.clone(),
        kms_key: key.kms_key.clone(),
        label: key.label.clone(),
        added: key.added.clone(),
        in_use: repository.opened_by() == Some(key.id),
    };
    let keys: Vec<Row> = log.living.iter().map(row).collect();
    if args.output.json {
        return stdout::print_json(&Listing { repository: repository.root().id.to_string(), keys });
    }
    let mut table = Table::new(&[
        ("KEY", Align::Left),
        ("KIND", Align::Left),
        ("LABEL", Align::Left),
        ("ADDED", Align::Left),
        ("", Align::Left),
    ]);
    let alone = keys.len() == 1;
    for key in keys {
        let used = if key.in_use { Cell::painted("used now", Paint::Good) } else { "".into() };
        let kind = match key.kms_key {
            Some(of_kms) => format!("{} {of_kms}", key.method),
            None => key.method,
        };
        table.row([key.id.into(), kind.into(), key.label.into(), key.added.into(), used]);
    }
    let mut text = table.render(Colour::of_stdout());
    if alone {
        let warning = "\nThis is the only key. If it is lost nobody can restore: keep a copy of it elsewhere, or add \
                       another (pgrecall key add).\n";
        text.push_str(&Colour::of_stdout().paint(Paint::Warning, warning));
    }
    stdout::print(&text)
}

/// A key that was added, as programs see it.
#[derive(Serialize)]
struct Added {
    id: String,
}

async fn add(settings: &Settings, args: &AddArgs) -> Outcome<()> {
    let repository = open(settings, unlock(settings, &args.unlock)?).await?;
    let new = new_key(settings, &args.new)?;
    let label = args.label.clone().unwrap_or_else(|| match (&new, &args.new.new_kms_key) {
        (New::File(_), _) => host::name(),
        (New::Kms(_), Some(key)) => key.clone(),
        (New::Kms(_), None) => "kms".to_owned(),
        (New::Passphrase(_), _) => "passphrase".to_owned(),
    });
    let note = KeyNote { label, now: host::now() };
    let id = match (&new, &args.new.new_key_file) {
        (New::File(key), Some(path)) => add_key_file(&repository, key, path, &note).await?,
        _ => repository.add_key(&new.unlock(), &note).await?,
    };
    if args.output.json {
        return stdout::print_json(&Added { id: id.to_string() });
    }
    let mut text = format!("added key {id}\n");
    if let Some(path) = &args.new.new_key_file {
        text.push_str(&format!(
            "It lies in {}. Take it to where it is to be kept, and remove it here.\n",
            path.display()
        ));
    }
    stdout::print(&text)
}

/// The file first, so that the repository never knows a key which nobody has.
async fn add_key_file(
    repository: &Repository,
    key: &KeyFile,
    path: &Path,
    note: &KeyNote,
) -> Outcome<KeyId> {
    key_file::write(path, key, None)?;
    match repository.add_key(&Unlock::KeyFile(key.clone()), note).await {
        Ok(id) => Ok(id),
        Err(error) => {
            let failure = Failure::from(error);
            if failure.kind == Kind::Unavailable {
                return Err(failure.hint(format!(
                    "Whether {} opens the repository is not known: see pgrecall key list, and \
                     remove the file if its key is not there.",
                    path.display()
                )));
            }
            let _ = std::fs::remove_file(path);
            Err(failure)
        }
    }
}

enum New {
    File(KeyFile),
    Kms(Unlock),
    Passphrase(Secret),
}

impl New {
    fn unlock(&self) -> Unlock {
        match self {
            Self::File(key) => Unlock::KeyFile(key.clone()),
            Self::Kms(unlock) => unlock.clone(),
            Self::Passphrase(secret) => Unlock::Passphrase(secret.expose().to_owned().into()),
        }
    }
}

/// A passphrase below this length is refused: whoever has a copy of the repository can try at
/// leisure.
const PASSPHRASE_LEN_MIN: usize = 12;

fn new_key(settings: &Settings, args: &NewKeyArgs) -> Outcome<New> {
    if args.new_key_file.is_some() {
        return Ok(New::File(KeyFile::random(&SharedRandom::system())));
    }
    if let Some(key) = &args.new_kms_key {
        return Ok(New::Kms(kms::unlock(settings, key)));
    }
    let secret = match &args.new_passphrase_file {
        Some(path) => SecretSource::File(path.clone()).obtain("new passphrase", Duration::ZERO)?,
        None => typed_twice()?,
    };
    if secret.expose().chars().count() < PASSPHRASE_LEN_MIN {
        let message = format!("a passphrase has at least {PASSPHRASE_LEN_MIN} characters");
        return Err(Failure::new(Kind::Usage, message)
            .hint("Four or five words that do not belong together are long and easy to keep."));
    }
    Ok(New::Passphrase(secret))
}

fn typed_twice() -> Outcome<Secret> {
    let first = prompt::secret("New passphrase: ")?;
    let second = prompt::secret("The same again: ")?;
    if first.expose() != second.expose() {
        return Err(Failure::new(Kind::Usage, "the two passphrases differ; nothing was done"));
    }
    Ok(first)
}

async fn remove(settings: &Settings, args: &RemoveArgs) -> Outcome<()> {
    let unlock = unlock(settings, &args.unlock)?;
    let repository = open(settings, unlock.clone()).await?;
    let (_, log) = repository.key_log().await?;
    let key = meant(&log.living, &args.id)?;
    let question = format!("Remove key {} ({}, {})?", key.id, key.method, key.label);
    prompt::confirm(&question, args.confirm.yes)?;
    repository.remove_key(key.id, &unlock).await?;
    if args.output.json {
        return stdout::print_json(&Added { id: key.id.to_string() });
    }
    stdout::print(&format!(
        "removed key {}\nWhoever had it may have kept what it opened: if it fell into wrong hands, \
         change the credentials of the store,\nand where that is not enough make a new repository.\n",
        key.id
    ))
}

/// The key whose id begins so.
fn meant<'a>(living: &'a [LivingKey], beginning: &str) -> Outcome<&'a LivingKey> {
    let fits: Vec<&LivingKey> =
        living.iter().filter(|key| key.id.to_string().starts_with(beginning)).collect();
    match fits.as_slice() {
        [only] if !beginning.is_empty() => Ok(only),
        [] => Err(Failure::new(Kind::NotFound, format!("no key's id begins with {beginning}"))
            .hint("`pgrecall key list` shows them.")),
        _ => Err(Failure::new(
            Kind::Invalid,
            format!("{} keys begin with \"{beginning}\"", fits.len()),
        )),
    }
}

/// A new epoch, as programs see it.
#[derive(Serialize)]
struct Rotated {
    domain: String,
    epoch: u32,
    /// The fingerprint of the restore key that data is sealed for from now on, if one was given.
    restore_key: Option<String>,
}

const REUSED: &str = "What is stored already stays sealed as it is, and the next backups go on to \
                      use it: with --ids they store everything anew.\n";

/// Refuses another restore key where backups would go on to use what only the old one opens, and
/// that is not at hand.
fn require_old_restore_key(settings: &Settings, domain: &SealedStore, path: &Path) -> Outcome<()> {
    let Some(old) = domain.keys().sealed_for() else { return Ok(()) };
    let mut known = repository::restore_keys_at_hand(settings);
    if path.exists() {
        known.extend(repository::restore_keys(path)?);
    }
    if known.iter().any(|key| key.public() == old) {
        return Ok(());
    }
    let message = format!(
        "data is sealed for the restore key {}, which is not here, and the next backups would go on \
         to use what is",
        old.fingerprint()
    );
    Err(Failure::new(Kind::Denied, message)
        .hint("With --ids the next backup stores everything anew, for the new key alone.")
        .hint("Or name the old key's file by repository.restore_key_file, and keep both keys."))
}

/// The restore key of a file; a new one where there is no file.
fn restore_key(path: &Path) -> Outcome<RestoreKey> {
    if path.exists() {
        let mut keys = repository::restore_keys(path)?;
        return keys.pop().ok_or_else(|| Failure::new(Kind::Internal, "a file without keys"));
    }
    let key = RestoreKey::random(&SharedRandom::system());
    key_file::write_text(path, &key.to_text(), "the restore key", None)?;
    Ok(key)
}

async fn rotate(settings: &Settings, args: &RotateArgs) -> Outcome<()> {
    let meant = cluster::cluster_names(settings)?;
    let repository = open(settings, unlock(settings, &args.unlock)?).await?;
    let domain = repository.existing_domain(&meant.domain).await?;
    for cluster in cluster::lineages(settings, &repository).await? {
        if args.restore_key.is_some() {
            // A backup that is refused for want of one must have a way on.
            seen::warn_of_missing(settings, &repository, &cluster).await?;
        } else {
            seen::require_nothing_missing(settings, &repository, &cluster).await?;
        }
    }
    let (rotation, cost) = if args.ids {
        (Rotation::Ids, " The next backup of every cluster in it will store everything anew.")
    } else {
        (Rotation::Sealing, "")
    };
    if let (Some(path), false) = (&args.restore_key, args.ids) {
        require_old_restore_key(settings, &domain, path)?;
    }
    let question = format!("Begin a new epoch of the keys of domain {}?{cost}", meant.domain);
    prompt::confirm(&question, args.confirm.yes)?;
    let restore_key = args.restore_key.as_deref().map(restore_key).transpose()?;
    let public = restore_key.as_ref().map(RestoreKey::public);
    let epoch = repository.rotate(&meant.domain, rotation, public).await?;
    // This host goes over at once, as far as this user's copies go.
    let cache = HostCache::new(settings.repository.cache_dir.clone());
    cache.forget(repository.root().id, names::root().as_str());
    if args.output.json {
        return stdout::print_json(&Rotated {
            domain: meant.domain.to_string(),
            epoch,
            restore_key: public.map(RestoreKeyPublic::fingerprint),
        });
    }
    if let (Some(public), Some(path)) = (public, &args.restore_key) {
        let path = path.display();
        stdout::print(&format!(
            "data is sealed for the restore key {} in {path} from now on.\nNOBODY RESTORES \
             WITHOUT THAT FILE. Copy it to two safe places and to where you restore, name it \
             there by repository.restore_key_file,\nand then take it away from this host. Other \
             hosts, and other users of this one, go over within the hour.\n{}",
            public.fingerprint(),
            if args.ids { "" } else { REUSED }
        ))?;
    }
    stdout::print(&format!(
        "domain {} is in epoch {epoch} of its keys now; what was stored before stays as it is, and \
         readable\n{}",
        meant.domain,
        if args.ids { "the next backup stores everything anew\n" } else { "" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_meant_by_a_beginning_that_fits_one() {
        let key = |byte: u8| LivingKey {
            id: KeyId::from_bytes([byte; 16]),
            label: String::new(),
            method: "key file".to_owned(),
            added: String::new(),
            kms_key: None,
        };
        let living = [key(0), key(255)];
        let full = living[1].id.to_string();
        let found = |text: &str| meant(&living, text).map(|key| key.id).map_err(|f| f.kind);
        assert_eq!(found(&full), Ok(living[1].id));
        assert_eq!(found(&full[..4]), Ok(living[1].id));
        assert_eq!(found("zz-no"), Err(Kind::NotFound));
        assert_eq!(found(""), Err(Kind::Invalid));
    }
}
