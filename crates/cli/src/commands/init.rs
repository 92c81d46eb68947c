//! `pgrecall init`: makes a repository or joins one, gives this host a key, makes the cluster
//! known, writes the configuration, and says what comes next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrecall_engine::cluster::ClusterStore;
use pgrecall_repo::RepoError;
use pgrecall_repo::format::document::{Promise, StoreRecord};
use pgrecall_repo::format::header::Kind as ObjectKind;
use pgrecall_repo::keys::{KeyFile, Unlock};
use pgrecall_repo::names;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::{Created, KeyNote, Repository};
use pgrecall_store::{ProbeReport, RootPolicy, Store};
use serde::Serialize;

use crate::args::InitArgs;
use crate::config::settings::{Encryption, Settings};
use crate::context::{cluster, host, kms, repository, runtime, store};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::prompt;
use crate::output::stdout::{self, Colour, Paint};
use crate::setup::config_file::{self, Pinned, Written};
use crate::setup::owner::Owner;
use crate::setup::{advice, key_file, place};

pub(crate) fn run(settings: &Settings, args: &InitArgs) -> Outcome<()> {
    let pgdata = cluster::pgdata(settings)?;
    let owner = Owner::other_than_root(&pgdata);
    let done = runtime::run(set_up(settings, args, &pgdata, owner))?;
    if args.output.json {
        return stdout::print_json(&report(settings, &done, &pgdata)?);
    }
    tell(settings, &done, &pgdata)
}

/// What became of it.
struct Done {
    repository_id: String,
    how: How,
    system_identifier: u64,
    lives: usize,
    config: Written,
}

/// How the repository was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Made,
    Joined,
    /// This host's key opened it before.
    Known,
}

async fn set_up(
    settings: &Settings,
    args: &InitArgs,
    pgdata: &Path,
    owner: Option<Owner>,
) -> Outcome<Done> {
    let control = cluster::control_file(pgdata)?;
    let folder = place::folder(settings.repository_url()?);
    if let Some(folder) = &folder {
        place::make(folder, owner)?;
        place::require_usable(folder, owner)?;
    }
    warn_of_key_file(settings);
    let store = store::open(settings, RootPolicy::MustExist).await?;
    let stands = stands_there(settings, &store).await?;
    let report = probe(settings).await?;
    key_file::make_folder_of(&settings.resolved.file)?;
    let (repository, how) = match stands {
        Stands::Yes => join(settings, args, store, owner).await?,
        Stands::No => make(settings, args, store, owner).await?,
    };
    record(&repository, &report).await?;
    let names = cluster::cluster_names(settings)?;
    let facts = pgrecall_engine::cluster::ClusterFacts::of(&control);
    ClusterStore::register(&repository, &names.domain, &names.cluster, facts).await?;
    let (_, log) = repository.key_log().await?;
    if let (Some(folder), Some(owner)) = (&folder, owner) {
        owner.give_repository(folder)?;
    }
    let pinned =
        Pinned { id: repository.root().id.to_string(), key_fingerprint: repository.fingerprint() };
    Ok(Done {
        config: config_file::write(settings, &pinned, owner)?,
        repository_id: pinned.id,
        how,
        system_identifier: control.system_identifier,
        lives: log.living.len(),
    })
}

/// Who names a KMS key wants no key on this host.
fn warn_of_key_file(settings: &Settings) {
    let repository = &settings.repository;
    if repository.kms.key.is_some() && kms::in_force(settings).is_none() {
        let file = repository.key_file.display();
        tracing::warn!(
            "the key file {file} goes before the KMS key, which is not used: remove the file first, \
             if no key is to lie on this host"
        );
    }
}

/// Tries what the store promises. One that lets two writers win would lose WAL: no repository is
/// made there.
async fn probe(settings: &Settings) -> Outcome<ProbeReport> {
    tracing::info!("trying whether the store keeps what a repository needs");
    let report = store::probe(settings).await?;
    if report.is_sound() {
        return Ok(report);
    }
    let url = settings.repository_url()?;
    let mut failure = Failure::new(
        Kind::Unsupported,
        format!("the store at {url} does not keep what a repository needs: nothing was made there"),
    );
    failure.chain.extend(report.findings.first().map(ToString::to_string));
    Err(failure.hint(
        "Use another store, or a newer version of its server: with this one two hosts, or two \
         tries of one, could overwrite each other's WAL.",
    ))
}

/// Notes in the repository that the store was probed.
async fn record(repository: &Repository, report: &ProbeReport) -> Outcome<()> {
    let log = names::store_log();
    let sealed = repository.sealed();
    let newest = sealed.newest::<StoreRecord>(ObjectKind::StoreRecord, &log).await?;
    let number = match newest {
        Some((_, StoreRecord { put_if_absent: Promise::Kept, .. })) => return Ok(()),
        Some((number, _)) => number + 1,
        None => 0,
    };
    let note = format!(
        "probed by {} at {}: {} rounds of {} racing puts",
        host::name(),
        host::now(),
        report.rounds,
        report.racers
    );
    let record = StoreRecord { put_if_absent: Promise::Kept, note };
    // When another host was first, its record says the same.
    sealed.put(ObjectKind::StoreRecord, &log.entry(number), &record).await?;
    Ok(())
}

/// Whether a repository stands there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Yes,
    No,
}

async fn stands_there(settings: &Settings, store: &Arc<dyn Store>) -> Outcome<Stands> {
    let options = repository::options_with(settings, Unlock::Nothing)?;
    match Repository::read_root(store, &options).await {
        Ok(_) => return Ok(Stands::Yes),
        Err(RepoError::NoRepository { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let Some(id) = options.id else { return Ok(Stands::No) };
    let url = settings.repository_url()?;
    let message = format!("the configuration pins the repository {id}, and there is none at {url}");
    Err(Failure::new(Kind::NotFound, message).hint(
        "Is the disk mounted? To make a new one there, take id and key_fingerprint out of the file.",
    ))
}

async fn make(
    settings: &Settings,
    args: &InitArgs,
    store: Arc<dyn Store>,
    owner: Option<Owner>,
) -> Outcome<(Repository, How)> {
    let own = own_key(settings, owner)?;
    let options = repository::options_with(settings, own.unlock())?;
    match Repository::create(Arc::clone(&store), options, &note()).await? {
        Created::New(repository) => Ok((*repository, How::Made)),
        // Another host was faster; its repository is the one.
        Created::Taken(_) => join(settings, args, store, owner).await,
    }
}

/// This host's key.
enum OwnKey {
    /// In the clear there is none.
    None,
    /// It was there before.
    Old(KeyFile),
    /// It was made just now.
    New(KeyFile),
    /// One of KMS: nothing lies on this host.
    Kms(Unlock),
}

impl OwnKey {
    fn unlock(&self) -> Unlock {
        match self {
            Self::None => Unlock::Nothing,
            Self::Old(key) | Self::New(key) => Unlock::KeyFile(key.clone()),
            Self::Kms(unlock) => unlock.clone(),
        }
    }
}

/// Reads this host's key, or makes one, unless a KMS key is to be it. It is durable before anything
/// is sealed for it, so that no repository can be left without a key.
fn own_key(settings: &Settings, owner: Option<Owner>) -> Outcome<OwnKey> {
    if settings.repository.encryption == Encryption::Clear {
        return Ok(OwnKey::None);
    }
    let path = &settings.repository.key_file;
    if path.try_exists().unwrap_or(true) {
        let Unlock::KeyFile(key) = repository::key_file(path)? else {
            return Err(Failure::new(Kind::Internal, "a key file that is none"));
        };
        return Ok(OwnKey::Old(key));
    }
    if let Some(key) = kms::in_force(settings) {
        return Ok(OwnKey::Kms(kms::unlock(settings, key)));
    }
    let key = KeyFile::random(&SharedRandom::system());
    key_file::make_folder_of(path)?;
    key_file::write(path, &key, owner)?;
    Ok(OwnKey::New(key))
}

fn note() -> KeyNote {
    KeyNote { label: host::name(), now: host::now() }
}

/// Opens a repository that is there and gives this host a key of its own.
async fn join(
    settings: &Settings,
    args: &InitArgs,
    store: Arc<dyn Store>,
    owner: Option<Owner>,
) -> Outcome<(Repository, How)> {
    if settings.repository.encryption == Encryption::Clear {
        let options = repository::options_with(settings, Unlock::Nothing)?;
        return Ok((Repository::open(store, options).await?, How::Joined));
    }
    let path = &settings.repository.key_file;
    if args.unlock.is_none() && path.try_exists().unwrap_or(true) {
        let unlock = repository::key_file(path)?;
        let options = repository::options_with(settings, unlock)?;
        let opened = Repository::open(store, options).await.map_err(|error| {
            Failure::from(error).hint(format!(
                "A key lies in {} already. To join by another key, give --unlock FILE; to keep \
                 both, name another place by --key-file.",
                path.display()
            ))
        })?;
        return Ok((opened, How::Known));
    }
    if let Some(key) = kms::in_force(settings) {
        let options = repository::options_with(settings, kms::unlock(settings, key))?;
        match Repository::open(Arc::clone(&store), options).await {
            Ok(opened) => return Ok((opened, How::Known)),
            // It does not open the repository yet: by another key it can be made to.
            Err(RepoError::WrongKey { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let unlock = others_key(settings, args)?;
    let options = repository::options_with(settings, unlock)?;
    let repository = Repository::open(store, options).await?;
    match own_key(settings, owner)? {
        OwnKey::Old(key) if repository.opened_by() == Some(key.id) => Ok((repository, How::Known)),
        own => {
            repository.add_key(&own.unlock(), &note()).await?;
            Ok((repository, How::Joined))
        }
    }
}

fn others_key(settings: &Settings, args: &InitArgs) -> Outcome<Unlock> {
    if let Some(path) = &args.unlock {
        return repository::key_file(path);
    }
    if let Some(source) = &settings.repository.passphrase {
        return repository::passphrase(settings, source);
    }
    let url = settings.repository_url()?;
    if prompt::is_possible() {
        let secret = prompt::secret(&format!("Passphrase of the repository at {url}: "))?;
        return Ok(Unlock::Passphrase(secret.expose().to_owned().into()));
    }
    Err(Failure::new(Kind::Denied, format!("a repository stands at {url} already")).hint(
        "To join it with a key of this host's own, open it: --unlock FILE with another host's \
         key, or PGRECALL_PASSPHRASE.",
    ))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    url: String,
    repository_id: String,
    how: How,
    encrypted: bool,
    keys: usize,
    key_file: Option<String>,
    kms_key: Option<String>,
    cluster: String,
    system_identifier: String,
    pgdata: String,
    config_file: String,
    config: &'static str,
    config_to_add: Option<String>,
    archive_command: String,
    warnings: Vec<Warning>,
}

fn report(settings: &Settings, done: &Done, pgdata: &Path) -> Outcome<Report> {
    let encrypted = settings.repository.encryption != Encryption::Clear;
    let kms_key = kms::in_force(settings).map(str::to_owned);
    let key_file = settings.repository.key_file.display().to_string();
    let (config, config_to_add) = match &done.config {
        Written::New => ("written", None),
        Written::Unchanged => ("complete", None),
        Written::ToAdd(lines) => ("lacking", Some(lines.clone())),
    };
    let setting = advice::archive_command(&program()?, &settings.resolved);
    Ok(Report {
        url: settings.repository_url()?.to_owned(),
        repository_id: done.repository_id.clone(),
        how: done.how,
        encrypted,
        keys: done.lives,
        key_file: (encrypted && kms_key.is_none()).then_some(key_file),
        kms_key,
        cluster: settings.cluster()?.name.to_string(),
        system_identifier: done.system_identifier.to_string(),
        pgdata: pgdata.display().to_string(),
        config_file: settings.resolved.file.display().to_string(),
        config,
        config_to_add,
        archive_command: setting,
        warnings: warnings(settings, done, pgdata),
    })
}

fn tell(settings: &Settings, done: &Done, pgdata: &Path) -> Outcome<()> {
    let colour = Colour::of_stdout();
    let url = settings.repository_url()?;
    let heading = |text: &str| colour.paint(Paint::Heading, text);
    let did = match done.how {
        How::Made => "made",
        How::Joined => "joined",
        How::Known => "known to this host already",
    };
    let cluster = settings.cluster()?;
    let mut text = format!(
        "{} {url} ({did}; id {})\n{} {} (system identifier {}, {})\n",
        heading("Repository:"),
        done.repository_id,
        heading("Cluster:   "),
        cluster.name,
        done.system_identifier,
        pgdata.display(),
    );
    let config = settings.resolved.file.display();
    match &done.config {
        Written::New => text.push_str(&format!("{} {config} (written)\n", heading("Settings:  "))),
        Written::Unchanged => {
            text.push_str(&format!("{} {config} (nothing to add)\n", heading("Settings:  ")));
        }
        Written::ToAdd(lines) => text.push_str(&format!(
            "{} {config} is there and was not touched.\n{}\n\n{lines}\n",
            heading("Settings:  "),
            colour.paint(
                Paint::Warning,
                "Put this into it (into its own section, where there is one):"
            ),
        )),
    }
    text.push('\n');
    text.push_str(&advice::next_steps(&program()?, &settings.resolved));
    text.push('\n');
    if settings.repository.encryption != Encryption::Clear && done.lives > 1 {
        let own = match kms::in_force(settings) {
            Some(key) => format!("the KMS key {key}"),
            None => settings.repository.key_file.display().to_string(),
        };
        text.push_str(&format!(
            "This host's key is {own}; {} keys open the repository (pgrecall key list).\n",
            done.lives
        ));
    }
    for warning in warnings(settings, done, pgdata) {
        text.push_str(&warning.tell(settings, colour));
    }
    stdout::print(&text)
}

/// What has to be said loudly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Warning {
    NotEncrypted,
    OnlyKey,
    SameDisk,
    NoS3Credentials,
    NoKmsCredentials,
}

fn warnings(settings: &Settings, done: &Done, pgdata: &Path) -> Vec<Warning> {
    let repository = &settings.repository;
    let mut warnings = Vec::new();
    if repository.encryption == Encryption::Clear {
        warnings.push(Warning::NotEncrypted);
    } else if done.lives <= 1 {
        warnings.push(Warning::OnlyKey);
    }
    let url = repository.url.as_deref().unwrap_or_default();
    let folder: Option<PathBuf> = place::folder(url);
    if folder.is_some_and(|folder| place::on_one_disk(&folder, pgdata)) {
        warnings.push(Warning::SameDisk);
    }
    if url.starts_with("s3:") && repository.s3.access_key_id.is_none() {
        warnings.push(Warning::NoS3Credentials);
    }
    if kms::in_force(settings).is_some() {
        warnings.push(Warning::NoKmsCredentials);
    }
    warnings
}

impl Warning {
    fn tell(self, settings: &Settings, colour: Colour) -> String {
        match self {
            Self::NotEncrypted => colour.paint(
                Paint::Bad,
                "NOT ENCRYPTED. Whoever can read the store can read the whole database, passwords \
                 in it included, and\ncan change a backup unseen.\n",
            ),
            Self::OnlyKey => {
                let about = match kms::in_force(settings) {
                    Some(key) => advice::about_the_kms_key(key),
                    None => advice::about_the_key(&settings.repository.key_file),
                };
                colour.paint(Paint::Warning, &about)
            }
            Self::SameDisk => colour.paint(
                Paint::Warning,
                "\nThe repository lies on the same disk as the data directory: when that disk dies, \
                 both are gone.\n",
            ),
            Self::NoS3Credentials => {
                "\nS3 credentials are not in the configuration. PostgreSQL calls the archive_command \
                 with its own environment:\nmake sure that its user finds them there \
                 (~/.aws/credentials, or an instance role).\n"
                    .into()
            }
            Self::NoKmsCredentials => {
                "\nCredentials for KMS are never in the configuration. PostgreSQL calls the \
                 archive_command with its own environment:\nmake sure that its user finds them \
                 there (~/.aws/credentials, or an instance role).\n"
                    .into()
            }
        }
    }
}

fn program() -> Outcome<PathBuf> {
    std::env::current_exe().map_err(|error| {
        Failure::from_error(Kind::Internal, &error).during("looking for this very program")
    })
}
