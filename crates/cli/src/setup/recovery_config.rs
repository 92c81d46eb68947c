//! The configuration that a restored server's `restore_command` reads. PostgreSQL runs the command
//! with an environment of its own, so everything must stand in a file: the one in force if that
//! says it all, else one that `restore` writes beside the new data directory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pgrecall_repo::repository::Repository;

use super::key_file;
use super::owner::{Owner, User};
use crate::config::document;
use crate::config::resolve::{Item, Origin};
use crate::config::settings::{Encryption, Settings};
use crate::config::table::{Placement, Section};
use crate::failure::{Failure, Kind, Outcome};

/// What the command is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecoveryConfig {
    /// The file in force says everything.
    InForce(PathBuf),
    /// A file to be written.
    New { path: PathBuf, text: String },
}

/// How a file begins that may be written over.
const FIRST_LINE: &str = "# Written by `pgrecall restore` for the server restored to";

impl RecoveryConfig {
    /// Finds out which it is.
    ///
    /// # Errors
    /// When a secret that is needed can be had from the environment alone.
    pub(crate) fn plan(
        settings: &Settings,
        repository: &Repository,
        domain: &str,
        dir: &Path,
    ) -> Outcome<Self> {
        if says_everything(settings, domain)? {
            return Ok(Self::InForce(settings.resolved.file.clone()));
        }
        refuse_lost_secrets(settings)?;
        let mut name = dir.as_os_str().to_owned();
        name.push(".pgrecall.toml");
        let text = text(settings, repository, domain, dir)?;
        Ok(Self::New { path: name.into(), text })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::InForce(path) | Self::New { path, .. } => path,
        }
    }

    /// Writes the file, if it is a new one, for its owner alone.
    ///
    /// # Errors
    /// When it cannot be written, or another file has the name.
    pub(crate) fn write(&self, owner: Option<(u32, u32)>) -> Outcome<()> {
        let Self::New { path, text } = self else { return Ok(()) };
        let fail = |error: std::io::Error| {
            Failure::from_error(Kind::Denied, &error)
                .during(format!("writing {}, which restore_command is to read", path.display()))
                .hint(
                    "Put everything into a configuration file and name it with --config: then no \
                     other one is needed.",
                )
        };
        match std::fs::read_to_string(path) {
            Ok(there) if there.starts_with(FIRST_LINE) => {
                std::fs::remove_file(path).map_err(fail)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => {
                let message = format!("{} is there, and not from a restore", path.display());
                return Err(Failure::new(Kind::AlreadyExists, message)
                    .hint("Move it away, or name a configuration file with --config."));
            }
        }
        key_file::write_new(path, text.as_bytes(), 0o600).map_err(fail)?;
        match owner {
            Some((uid, gid)) => Owner { uid, gid }.give(path, User::Too),
            None => Ok(()),
        }
    }
}

/// Whether a setting has to do with fetching WAL.
fn concerns_fetch(item: &Item) -> bool {
    match item.setting.section {
        Section::Repository => !item.setting.is("repository.name"),
        Section::Cluster => item.setting.is("cluster.domain"),
        Section::Wal => true,
        Section::Backup | Section::Restore | Section::Log => false,
    }
}

/// Settings that `restore_command` or `archive_command` would not see: they come from flags or
/// variables. PostgreSQL's calls do not have them.
pub(crate) fn unseen(settings: &Settings) -> Vec<&Item> {
    let from_call = |item: &&Item| matches!(item.origin, Origin::Flag(_) | Origin::Variable(_));
    settings.resolved.items.iter().filter(|item| concerns_fetch(item)).filter(from_call).collect()
}

fn says_everything(settings: &Settings, domain: &str) -> Outcome<bool> {
    Ok(settings.resolved.file_exists
        && settings.repository.id.is_some()
        && settings.cluster()?.domain == domain
        && unseen(settings).is_empty())
}

/// A secret is written down by reference only: its file or the command that prints it.
fn refuse_lost_secrets(settings: &Settings) -> Outcome<()> {
    let repository = &settings.repository;
    let opened_by_key = repository.key_file.exists() || repository.kms.key.is_some();
    for item in unseen(settings) {
        let passphrase = item.setting.is("repository.passphrase");
        if !item.setting.is_secret()
            || (passphrase && opened_by_key)
            || has_reference(settings, item)
        {
            continue;
        }
        let Origin::Variable(variable) = &item.origin else { continue };
        let (section, key) = ("repository", item.setting.key);
        let message = format!(
            "{section}.{key} comes from {variable} alone, and PostgreSQL, which runs \
             restore_command, does not have that variable"
        );
        let mut lines = format!("{key}_file = \"/a/file/that/its/user/can/read\"");
        if passphrase {
            lines.push_str(", or key_file with a key file");
        }
        return Err(Failure::new(Kind::Configuration, message)
            .hint(format!(
                "Put this into [[{section}]] of a configuration file and name it with --config: \
                 {lines}."
            ))
            .hint("With --files-only no restore_command is written."));
    }
    Ok(())
}

/// Whether a file or a command gives the same secret.
fn has_reference(settings: &Settings, secret: &Item) -> bool {
    let names = ["file", "command"].map(|way| format!("{}_{way}", secret.setting.path()));
    let mut items = settings.resolved.items.iter();
    items.any(|item| item.value.is_some() && names.iter().any(|name| item.setting.is(name)))
}

fn text(settings: &Settings, repository: &Repository, domain: &str, dir: &Path) -> Outcome<String> {
    let mut text = format!(
        "{FIRST_LINE} {}: what its restore_command needs.\n\n[[repository]]\n",
        dir.display()
    );
    let mut chosen = vec![
        ("repository.id", repository.root().id.to_string()),
        ("cluster.name", settings.cluster()?.name.clone()),
        ("cluster.domain", domain.to_owned()),
    ];
    if settings.repository.encryption != Encryption::Clear {
        chosen.push(("repository.key_fingerprint", repository.fingerprint()));
        let key_file = &settings.repository.key_file;
        if key_file.exists() {
            chosen.push(("repository.key_file", key_file.display().to_string()));
        }
    }
    for section in [Section::Repository, Section::Cluster, Section::Wal] {
        let mut table = "";
        let mut begun = section == Section::Repository;
        for item in settings.resolved.items.iter().filter(|item| item.setting.section == section) {
            let told = chosen.iter().find(|(path, _)| item.setting.is(path));
            let value = match told {
                Some((_, value)) => value.clone(),
                None if !concerns_fetch(item) || !is_to_be_written(item) => continue,
                None => item.value.as_ref().map(|value| value.show()).unwrap_or_default(),
            };
            if !std::mem::replace(&mut begun, true) {
                let (open, close) = if section.is_list() { ("[[", "]]") } else { ("[", "]") };
                let _ = writeln!(text, "\n{open}{}{close}", section.name());
            }
            let (sub, key) = item.setting.key.split_once('.').unwrap_or(("", item.setting.key));
            if sub != table {
                let _ = writeln!(text, "\n[{}.{sub}]", section.name());
                table = sub;
            }
            let _ = writeln!(text, "{key} = {}", document::quote(item.setting, &value));
        }
    }
    Ok(text)
}

fn is_to_be_written(item: &Item) -> bool {
    let said = match item.origin {
        Origin::Flag(_) | Origin::Variable(_) | Origin::File { .. } => true,
        Origin::Default | Origin::Derived(_) | Origin::Unset => false,
    };
    said && item.setting.placement == Placement::Anywhere && !item.setting.is_secret()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use pgrecall_repo::format::root::RootSuite;
    use pgrecall_repo::keys::{KeyFile, Unlock};
    use pgrecall_repo::random::SharedRandom;
    use pgrecall_repo::repository::{Created, KeyNote, OpenOptions};
    use pgrecall_store::MemoryStore;

    use super::*;
    use crate::config::resolve::{ClusterNeed, Flag, Request, Surroundings, resolve};

    /// As on a host with this file (or none), these variables, and `--repo` and `--cluster` unless
    /// there is a file.
    fn settings(file: Option<&Path>, variables: &[(&str, &str)]) -> Outcome<Settings> {
        let flag = |path, flag, value: &str| Flag { path, flag, value: value.into() };
        let flags = match file {
            Some(_) => Vec::new(),
            None => vec![
                flag("repository.url", "--repo", "file:///backup/pg"),
                flag("cluster.name", "--cluster", "main"),
            ],
        };
        let config = file.map(Path::to_owned);
        let request = Request { config, flags, cluster: ClusterNeed::One };
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        let around = Surroundings {
            variables,
            directory: "/".into(),
            is_root: false,
            system_file: crate::config::resolve::SYSTEM_FILE.into(),
        };
        Settings::from_resolved(resolve(&request, &around)?)
    }

    fn repository() -> Repository {
        let random = SharedRandom::system();
        let options = OpenOptions {
            id: None,
            suite: RootSuite::Aes256Gcm,
            fingerprint: None,
            unlock: Unlock::KeyFile(KeyFile::random(&random)),
            random,
            cache: None,
            restore_keys: Vec::new(),
        };
        let note = KeyNote { label: "test".into(), now: "2026-11-22T00:00:00Z".into() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let made = Repository::create(Arc::new(MemoryStore::new()), options, &note);
        match runtime.block_on(made).expect("a repository") {
            Created::New(repository) => *repository,
            Created::Taken(_) => panic!("an empty store"),
        }
    }

    /// A restore on a new host must not write a `restore_command` that can only fail.
    #[test]
    fn what_flags_and_variables_say_is_written_down_with_what_they_leave_out() -> Outcome<()> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (key, dir) = (folder.path().join("a.key"), folder.path().join("data"));
        std::fs::write(&key, "").expect("a key file");
        let key_text = key.to_str().expect("UTF-8");
        let given = [
            ("PGRECALL_REPOSITORY_KEY_FILE", key_text),
            ("PGRECALL_REPOSITORY_S3_REGION", "eu-central-1"),
            ("PGRECALL_WAL_FETCH_TIMEOUT", "7s"),
        ];
        let repository = repository();
        let there = settings(None, &given)?;
        let planned = RecoveryConfig::plan(&there, &repository, "shared", &dir)?;
        planned.write(None)?;
        planned.write(None)?;
        let read = settings(Some(planned.path()), &[])?;
        assert_eq!(read.repository_url()?, "file:///backup/pg");
        assert_eq!(read.repository.id, Some(repository.root().id.to_string()));
        assert_eq!(read.repository.key_fingerprint, Some(repository.fingerprint()));
        assert_eq!(read.repository.key_file, key);
        assert_eq!(read.repository.s3.region.as_deref(), Some("eu-central-1"));
        assert_eq!(read.cluster()?.domain, "shared");
        assert_eq!(read.wal.fetch_timeout, std::time::Duration::from_secs(7));
        // That file says everything: it needs no other one.
        let again = RecoveryConfig::plan(&read, &repository, "shared", &dir)?;
        assert_eq!(again, RecoveryConfig::InForce(planned.path().to_owned()));
        // A file of somebody else's is never written over.
        std::fs::write(planned.path(), "mine").expect("another file");
        let refused = planned.write(None).map_err(|failure| failure.kind);
        assert_eq!(refused, Err(Kind::AlreadyExists));
        Ok(())
    }

    #[test]
    fn a_secret_that_only_the_environment_has_is_refused_and_never_written() -> Outcome<()> {
        let dir = Path::new("/srv/data");
        let repository = repository();
        let given = ("PGRECALL_PASSPHRASE", "correct horse");
        let failure = RecoveryConfig::plan(&settings(None, &[given])?, &repository, "main", dir)
            .expect_err("PostgreSQL does not have the variable");
        assert_eq!(failure.kind, Kind::Configuration);
        assert!(failure.hints[0].contains("passphrase_file = "), "{:?}", failure.hints);
        let command = ("PGRECALL_REPOSITORY_PASSPHRASE_COMMAND", "pass show x");
        let both = settings(None, &[given, command])?;
        match RecoveryConfig::plan(&both, &repository, "main", dir)? {
            RecoveryConfig::New { text, .. } => {
                assert!(text.contains("passphrase_command = \"pass show x\""), "{text}");
                assert!(!text.contains("horse"), "{text}");
            }
            RecoveryConfig::InForce(path) => panic!("there is no file {}", path.display()),
        }
        Ok(())
    }

    #[test]
    fn a_kms_key_is_written_down_and_no_passphrase_is_missed() -> Outcome<()> {
        let given = [
            ("PGRECALL_PASSPHRASE", "correct horse"),
            ("PGRECALL_REPOSITORY_KMS_KEY", "alias/x"),
            ("PGRECALL_REPOSITORY_KMS_REGION", "eu-central-1"),
        ];
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().join("data");
        let planned = RecoveryConfig::plan(&settings(None, &given)?, &repository(), "main", &dir)?;
        planned.write(None)?;
        let kms = settings(Some(planned.path()), &[])?.repository.kms;
        assert_eq!(kms.key.as_deref(), Some("alias/x"));
        assert_eq!(kms.region.as_deref(), Some("eu-central-1"));
        Ok(())
    }
}
