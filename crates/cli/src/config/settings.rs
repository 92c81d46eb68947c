//! The settings with their types, as commands use them.

use std::path::PathBuf;
use std::time::Duration;

use super::resolve::{Item, Origin, Resolved};
use super::secret::{Secret, SecretSource};
use super::value::Value;
use crate::failure::{Failure, Outcome};
use crate::moment::{self, Moment};

/// `[[repository]]`: the one that is meant.
pub(crate) struct Repository {
    pub(crate) url: Option<String>,
    /// Pinned by `init`.
    pub(crate) id: Option<String>,
    /// Pinned by `init`.
    pub(crate) key_fingerprint: Option<String>,
    pub(crate) encryption: Encryption,
    pub(crate) key_file: PathBuf,
    pub(crate) passphrase: Option<SecretSource>,
    pub(crate) restore_key_file: Option<PathBuf>,
    pub(crate) cache_dir: PathBuf,
    pub(crate) kms: Kms,
    pub(crate) s3: S3,
}

/// `repository.encryption`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Aes256Gcm,
    Clear,
}

/// `repository.kms_key` and `[repository.kms]`.
pub(crate) struct Kms {
    pub(crate) key: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) timeout: Duration,
}

/// `[repository.s3]`.
pub(crate) struct S3 {
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) path_style: PathStyle,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) sse: Option<String>,
    pub(crate) sse_kms_key_id: Option<String>,
    pub(crate) storage_class: Option<String>,
    /// The bucket's past is meant.
    pub(crate) as_of: Option<jiff::Timestamp>,
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<SecretSource>,
    pub(crate) session_token: Option<Secret>,
    pub(crate) profile: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) retry_attempts: u32,
    pub(crate) retry_budget: Duration,
}

/// `repository.s3.path_style`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathStyle {
    Auto,
    Always,
    Never,
}

/// `[[cluster]]`: the one that is meant.
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) domain: String,
    /// Whether the domain is the cluster's name because nobody said otherwise.
    pub(crate) domain_is_default: bool,
    pub(crate) pgdata: Option<PathBuf>,
    pub(crate) server: Server,
    pub(crate) primary: Option<Primary>,
    pub(crate) retention: Retention,
    pub(crate) collection: Collection,
}

/// `[cluster.collection]`.
pub(crate) struct Collection {
    pub(crate) rewrite_below_percent: u64,
    pub(crate) rewrite_bytes_max: u64,
    pub(crate) dead_after: Duration,
}

/// `[cluster.retention]`.
pub(crate) struct Retention {
    pub(crate) keep_last: u32,
    pub(crate) keep_within: Option<Duration>,
    pub(crate) keep_window: Option<Duration>,
    pub(crate) keep_daily: u32,
    pub(crate) keep_weekly: u32,
    pub(crate) keep_monthly: u32,
    pub(crate) keep_yearly: u32,
    pub(crate) time_zone: String,
}

/// How the cluster's server is reached; what is `None` the data directory tells.
pub(crate) struct Server {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<String>,
    pub(crate) dbname: String,
    pub(crate) password: Option<SecretSource>,
    pub(crate) sslmode: String,
    pub(crate) sslrootcert: Option<PathBuf>,
}

/// `[cluster.primary]`.
pub(crate) struct Primary {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
}

/// `[backup]`.
pub(crate) struct Backup {
    pub(crate) threads: usize,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) compression_level: i32,
    pub(crate) wal_timeout: Duration,
}

/// `backup.checkpoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    Spread,
    Fast,
}

/// `[restore]`.
pub(crate) struct Restore {
    pub(crate) threads: usize,
    pub(crate) memory_budget_bytes: u64,
}

/// `[wal]`.
pub(crate) struct Wal {
    pub(crate) push_progress_timeout: Duration,
    pub(crate) push_timeout: Duration,
    pub(crate) fetch_timeout: Duration,
    pub(crate) standby_on_error: StandbyOnError,
    pub(crate) standby_progress_timeout: Duration,
}

/// `wal.standby_on_error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StandbyOnError {
    Continue,
    Stop,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Everything in force for this command.
pub(crate) struct Settings {
    pub(crate) repository: Repository,
    /// `None` when no cluster is meant.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) backup: Backup,
    pub(crate) restore: Restore,
    pub(crate) wal: Wal,
    pub(crate) log: Log,
    /// How long a command that prints a secret may take.
    pub(crate) secrets_within: Duration,
    /// `--system-id`: which of several lineages under the cluster's name.
    pub(crate) system_id: Option<u64>,
    /// The same values with their origins.
    pub(crate) resolved: Resolved,
}

/// Long enough for a vault, and for a person who is asked for a PIN.
pub(crate) const SECRETS_WITHIN: Duration = Duration::from_secs(120);

impl Settings {
    /// Gives the values their types.
    pub(crate) fn from_resolved(resolved: Resolved) -> Outcome<Self> {
        let values = Values(&resolved.items);
        let settings = Self {
            repository: repository(&values, &resolved)?,
            cluster: resolved.cluster_known.then(|| cluster(&values)).transpose()?,
            backup: backup(&values)?,
            restore: Restore {
                threads: threads(&values, "restore.threads")?,
                memory_budget_bytes: values.required("restore.memory_budget", Value::number)?,
            },
            wal: wal(&values)?,
            log: Log {
                level: values.word("log.level")?,
                format: match values.word("log.format")?.as_str() {
                    "json" => LogFormat::Json,
                    _ => LogFormat::Text,
                },
            },
            secrets_within: SECRETS_WITHIN,
            system_id: None,
            resolved,
        };
        Ok(settings)
    }

    /// The repository's URL.
    ///
    /// # Errors
    /// A configuration failure when there is none.
    pub(crate) fn repository_url(&self) -> Outcome<&str> {
        self.repository.url.as_deref().ok_or_else(|| {
            Failure::configuration("no repository is named")
                .hint("Run pgrecall init, or give --repo URL.")
        })
    }

    /// The cluster that is meant.
    ///
    /// # Errors
    /// A configuration failure when there is none.
    pub(crate) fn cluster(&self) -> Outcome<&Cluster> {
        self.cluster.as_ref().ok_or_else(|| {
            Failure::configuration("no cluster is named").hint("Give --cluster NAME.")
        })
    }
}

fn repository(values: &Values<'_>, resolved: &Resolved) -> Outcome<Repository> {
    let name = values.word("repository.name")?;
    let beside = resolved.file.with_file_name(format!("{name}.key"));
    Ok(Repository {
        url: values.text("repository.url"),
        id: values.text("repository.id"),
        key_fingerprint: values.text("repository.key_fingerprint"),
        encryption: match values.word("repository.encryption")?.as_str() {
            "none" => Encryption::Clear,
            _ => Encryption::Aes256Gcm,
        },
        key_file: values.path("repository.key_file").unwrap_or(beside),
        passphrase: values.secret("repository.passphrase"),
        restore_key_file: values.path("repository.restore_key_file"),
        cache_dir: values.path("repository.cache_dir").unwrap_or_else(default_cache_dir),
        kms: Kms {
            key: values.text("repository.kms_key"),
            endpoint: values.text("repository.kms.endpoint"),
            region: values.text("repository.kms.region"),
            profile: values.text("repository.kms.profile"),
            ca_file: values.path("repository.kms.ca_file"),
            timeout: values.duration("repository.kms.timeout")?,
        },
        s3: s3(values)?,
    })
}

fn default_cache_dir() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    variable("XDG_CACHE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| PathBuf::from("/var/cache"))
        .join("pgrecall")
}

fn as_of(text: &str) -> Outcome<jiff::Timestamp> {
    match moment::parse(text)? {
        Moment::Fixed(moment)
            if moment < jiff::Timestamp::UNIX_EPOCH || moment > jiff::Timestamp::now() =>
        {
            let message = format!("repository.s3.as_of, {moment}, is no time of the past");
            Err(Failure::configuration(message).hint("A bucket is read as it was."))
        }
        Moment::Fixed(moment) => Ok(moment),
        Moment::Zoneless(_) => {
            let message = format!("repository.s3.as_of, \"{text}\", has no time zone");
            Err(Failure::configuration(message).hint("Write it as '2026-11-22 14:00:00+00'."))
        }
    }
}

fn s3(values: &Values<'_>) -> Outcome<S3> {
    Ok(S3 {
        endpoint: values.text("repository.s3.endpoint"),
        region: values.text("repository.s3.region"),
        path_style: match values.word("repository.s3.path_style")?.as_str() {
            "always" => PathStyle::Always,
            "never" => PathStyle::Never,
            _ => PathStyle::Auto,
        },
        ca_file: values.path("repository.s3.ca_file"),
        sse: values.text("repository.s3.sse"),
        sse_kms_key_id: values.text("repository.s3.sse_kms_key_id"),
        storage_class: values.text("repository.s3.storage_class"),
        as_of: values.text("repository.s3.as_of").map(|text| as_of(&text)).transpose()?,
        access_key_id: values.text("repository.s3.access_key_id"),
        secret_access_key: values.secret("repository.s3.secret_access_key"),
        session_token: values.item("repository.s3.session_token").and_then(Value::secret),
        profile: values.text("repository.s3.profile"),
        connect_timeout: values.duration("repository.s3.connect_timeout")?,
        read_timeout: values.duration("repository.s3.read_timeout")?,
        operation_timeout: values.duration("repository.s3.operation_timeout")?,
        retry_attempts: values.small("repository.s3.retry_attempts")?,
        retry_budget: values.duration("repository.s3.retry_budget")?,
    })
}

fn cluster(values: &Values<'_>) -> Outcome<Cluster> {
    let name = values.word("cluster.name")?;
    let primary = match values.text("cluster.primary.host") {
        Some(host) => Some(Primary {
            host,
            port: values.small("cluster.primary.port")?,
            user: values.text("cluster.primary.user").or_else(|| values.text("cluster.user")),
        }),
        None => None,
    };
    let port = values.item("cluster.port").and_then(Value::number);
    Ok(Cluster {
        domain: values.text("cluster.domain").unwrap_or_else(|| name.clone()),
        domain_is_default: values.text("cluster.domain").is_none(),
        pgdata: values.path("cluster.pgdata"),
        server: Server {
            host: values.text("cluster.host"),
            port: port.and_then(|port| u16::try_from(port).ok()),
            user: values.text("cluster.user"),
            dbname: values.word("cluster.dbname")?,
            password: values.secret("cluster.password"),
            sslmode: values.word("cluster.sslmode")?,
            sslrootcert: values.path("cluster.sslrootcert"),
        },
        primary,
        retention: retention(values)?,
        collection: collection(values)?,
        name,
    })
}

fn retention(values: &Values<'_>) -> Outcome<Retention> {
    let count = |path: &str| {
        let number = values.item(path).and_then(Value::number).unwrap_or_default();
        u32::try_from(number).unwrap_or(u32::MAX)
    };
    let span = |path: &str| values.item(path).map(|_| values.duration(path)).transpose();
    Ok(Retention {
        keep_last: count("cluster.retention.keep_last"),
        keep_within: span("cluster.retention.keep_within")?,
        keep_window: span("cluster.retention.keep_window")?,
        keep_daily: count("cluster.retention.keep_daily"),
        keep_weekly: count("cluster.retention.keep_weekly"),
        keep_monthly: count("cluster.retention.keep_monthly"),
        keep_yearly: count("cluster.retention.keep_yearly"),
        time_zone: values.word("cluster.retention.time_zone")?,
    })
}

fn collection(values: &Values<'_>) -> Outcome<Collection> {
    Ok(Collection {
        rewrite_below_percent: values
            .required("cluster.collection.rewrite_below", Value::number)?,
        rewrite_bytes_max: values.required("cluster.collection.rewrite_max", Value::number)?,
        dead_after: values.duration("cluster.collection.dead_after")?,
    })
}

fn backup(values: &Values<'_>) -> Outcome<Backup> {
    Ok(Backup {
        threads: threads(values, "backup.threads")?,
        checkpoint: match values.word("backup.checkpoint")?.as_str() {
            "fast" => Checkpoint::Fast,
            _ => Checkpoint::Spread,
        },
        compression_level: values.small("backup.compression_level")?,
        wal_timeout: values.duration("backup.wal_timeout")?,
    })
}

fn wal(values: &Values<'_>) -> Outcome<Wal> {
    Ok(Wal {
        push_progress_timeout: values.duration("wal.push_progress_timeout")?,
        push_timeout: values.duration("wal.push_timeout")?,
        fetch_timeout: values.duration("wal.fetch_timeout")?,
        standby_on_error: match values.word("wal.standby_on_error")?.as_str() {
            "stop" => StandbyOnError::Stop,
            _ => StandbyOnError::Continue,
        },
        standby_progress_timeout: values.duration("wal.standby_progress_timeout")?,
    })
}

fn threads(values: &Values<'_>, path: &str) -> Outcome<usize> {
    match values.item(path) {
        Some(_) => values.small(path),
        None => Ok(std::thread::available_parallelism().map_or(1, |count| count.get().min(256))),
    }
}

impl Value {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Integer(number) | Self::Size(number) => Some(*number),
            _ => None,
        }
    }

    fn span(&self) -> Option<Duration> {
        match self {
            Self::Duration(duration) => Some(*duration),
            _ => None,
        }
    }

    fn secret(&self) -> Option<Secret> {
        match self {
            Self::Secret(secret) => Some(secret.clone()),
            _ => None,
        }
    }
}

/// Looks values up by path. A path that is not in the table is a defect of this file, and an
/// internal failure.
struct Values<'a>(&'a [Item]);

impl Values<'_> {
    fn item(&self, path: &str) -> Option<&Value> {
        let found = self.0.iter().find(|item| item.setting.is(path));
        found.and_then(|item| item.value.as_ref())
    }

    fn required<T>(&self, path: &str, read: impl Fn(&Value) -> Option<T>) -> Outcome<T> {
        self.item(path)
            .and_then(read)
            .ok_or_else(|| Failure::configuration(format!("{path} has no value, and no default")))
    }

    fn text(&self, path: &str) -> Option<String> {
        match self.item(path) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn word(&self, path: &str) -> Outcome<String> {
        self.text(path)
            .ok_or_else(|| Failure::configuration(format!("{path} has no value, and no default")))
    }

    fn path(&self, path: &str) -> Option<PathBuf> {
        match self.item(path) {
            Some(Value::Path(found)) => Some(found.clone()),
            _ => None,
        }
    }

    fn duration(&self, path: &str) -> Outcome<Duration> {
        self.required(path, Value::span)
    }

    fn small<T: TryFrom<u64>>(&self, path: &str) -> Outcome<T> {
        self.required(path, |value| value.number().and_then(|number| T::try_from(number).ok()))
    }

    /// The secret itself if it was given, else where it is to be had. Of several ways the one of
    /// the flag or variable wins over the one in the file, as with any setting; of those from one
    /// place the secret itself, then its file, then its command.
    fn secret(&self, path: &str) -> Option<SecretSource> {
        let [file, command] = ["file", "command"].map(|way| format!("{path}_{way}"));
        let given = self.item(path).and_then(Value::secret).map(SecretSource::Given);
        let ways = [
            (path, given),
            (file.as_str(), self.path(&file).map(SecretSource::File)),
            (command.as_str(), self.text(&command).map(SecretSource::Command)),
        ];
        let ways = ways.into_iter().filter_map(|(path, source)| Some((self.rank(path), source?)));
        // Of equals the first.
        ways.min_by_key(|(rank, _)| *rank).map(|(_, source)| source)
    }

    /// Lower wins.
    fn rank(&self, path: &str) -> u8 {
        let item = self.0.iter().find(|item| item.setting.is(path));
        match item.map(|item| &item.origin) {
            Some(Origin::Flag(_)) => 0,
            Some(Origin::Variable(_)) => 1,
            _ => 2,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::super::resolve::{ClusterNeed, Request, Surroundings, resolve};
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Outcome<Settings> {
        settings_with("", variables)
    }

    pub(crate) fn settings_with(file: &str, variables: &[(&str, &str)]) -> Outcome<Settings> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pgrecall.toml");
        std::fs::write(&path, file).expect("writing the file");
        let request =
            Request { config: Some(path), flags: Vec::new(), cluster: ClusterNeed::IfClear };
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        let around = Surroundings {
            variables,
            directory: PathBuf::from("/"),
            is_root: true,
            system_file: crate::config::resolve::SYSTEM_FILE.into(),
        };
        Settings::from_resolved(resolve(&request, &around)?)
    }

    #[test]
    fn defaults_alone_make_settings() -> Outcome<()> {
        let settings = settings(&[("PGRECALL_CLUSTER", "main")])?;
        assert_eq!(settings.repository.encryption, Encryption::Aes256Gcm);
        assert_eq!(settings.repository.key_file.file_name(), Some("main.key".as_ref()));
        assert_eq!(settings.restore.memory_budget_bytes, 192 << 20);
        assert_eq!(settings.wal.push_progress_timeout, Duration::from_secs(30));
        assert_eq!(settings.cluster()?.domain, "main");
        assert!(settings.backup.threads >= 1);
        assert!(settings.repository_url().is_err());
        Ok(())
    }

    #[test]
    fn a_given_secret_beats_its_file_and_command() -> Outcome<()> {
        let source = |variables: &[(&str, &str)]| -> Outcome<Option<SecretSource>> {
            Ok(settings(variables)?.repository.passphrase)
        };
        let command = ("PGRECALL_REPOSITORY_PASSPHRASE_COMMAND", "echo x");
        let given = ("PGRECALL_PASSPHRASE", "horse");
        assert!(matches!(source(&[command])?, Some(SecretSource::Command(_))));
        assert!(matches!(source(&[command, given])?, Some(SecretSource::Given(_))));
        assert!(source(&[])?.is_none());
        // Who overrides the file for one call does not have to know which way it goes.
        let file = "[[repository]]\npassphrase_file = \"/x\"\n";
        let over = settings_with(file, &[command])?.repository.passphrase;
        assert!(matches!(over, Some(SecretSource::Command(_))));
        let kept = settings_with(file, &[])?.repository.passphrase;
        assert!(matches!(kept, Some(SecretSource::File(_))));
        Ok(())
    }
}
