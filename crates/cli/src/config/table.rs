//! The one table of settings. Parsing, precedence, `pgrecall config`, the file that `init` writes
//! and `docs/configuration.md` all follow from it.

use super::value::Kind;

/// A part of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// `[[repository]]`, a list.
    Repository,
    /// `[[cluster]]`, a list.
    Cluster,
    Backup,
    Restore,
    Wal,
    Log,
}

impl Section {
    pub(crate) const ALL: [Self; 6] =
        [Self::Repository, Self::Cluster, Self::Backup, Self::Restore, Self::Wal, Self::Log];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Cluster => "cluster",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Wal => "wal",
            Self::Log => "log",
        }
    }

    pub(crate) fn is_list(self) -> bool {
        matches!(self, Self::Repository | Self::Cluster)
    }

    /// What the section is about, for the commented file and the documentation.
    pub(crate) fn doc(self) -> &'static str {
        match self {
            Self::Repository => "Where backups and WAL are kept, and what opens it.",
            Self::Cluster => "A PostgreSQL cluster and how its server is reached.",
            Self::Backup => "How backups are made.",
            Self::Restore => "How restores are made.",
            Self::Wal => "How `wal push` and `wal fetch` behave; PostgreSQL waits for both.",
            Self::Log => "What is logged to standard error, and how.",
        }
    }
}

/// What holds when nobody says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// There is no value then.
    Unset,
    /// This value.
    Fixed(&'static str),
    /// Found out at run time, in the way told here.
    Derived(&'static str),
}

/// Where a setting may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    Anywhere,
    /// Not in the file: a secret that has a `_file` and a `_command` setting beside it.
    EnvironmentOnly,
}

/// One setting.
pub(crate) struct Setting {
    pub(crate) section: Section,
    /// The key below its section; a dot leads into a sub-table.
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) fallback: Fallback,
    pub(crate) placement: Placement,
    /// Variables besides its own, in their order.
    pub(crate) variables: &'static [&'static str],
    /// Variables that only fill a gap: others set them for reasons of their own, so the file wins.
    pub(crate) gap_variables: &'static [&'static str],
    pub(crate) flag: Option<&'static str>,
    /// A value to show in the commented file when there is no fixed default.
    pub(crate) example: &'static str,
    pub(crate) doc: &'static str,
}

impl Setting {
    const fn new(section: Section, key: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            section,
            key,
            kind,
            fallback: Fallback::Unset,
            placement: Placement::Anywhere,
            variables: &[],
            gap_variables: &[],
            flag: None,
            example: "",
            doc,
        }
    }

    const fn default(mut self, value: &'static str) -> Self {
        self.fallback = Fallback::Fixed(value);
        self
    }

    const fn derived(mut self, how: &'static str) -> Self {
        self.fallback = Fallback::Derived(how);
        self
    }

    const fn environment_only(mut self) -> Self {
        self.placement = Placement::EnvironmentOnly;
        self
    }

    const fn also(mut self, variables: &'static [&'static str]) -> Self {
        self.variables = variables;
        self
    }

    const fn fills_gap(mut self, variables: &'static [&'static str]) -> Self {
        self.gap_variables = variables;
        self
    }

    const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    const fn example(mut self, text: &'static str) -> Self {
        self.example = text;
        self
    }

    /// `section.key`.
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.section.name(), self.key)
    }

    /// Whether this is the setting at `path`.
    pub(crate) fn is(&self, path: &str) -> bool {
        path.split_once('.') == Some((self.section.name(), self.key))
    }

    /// The setting's own environment variable.
    pub(crate) fn variable(&self) -> String {
        let mut name = format!("PGRECALL_{}_{}", self.section.name(), self.key.replace('.', "_"));
        name.make_ascii_uppercase();
        name
    }

    pub(crate) fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }
}

const fn repository(key: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting::new(Section::Repository, key, kind, doc)
}

const fn cluster(key: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting::new(Section::Cluster, key, kind, doc)
}

const fn backup(key: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting::new(Section::Backup, key, kind, doc)
}

const fn restore(key: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting::new(Section::Restore, key, kind, doc)
}

const fn wal(key: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting::new(Section::Wal, key, kind, doc)
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const COUNT: Kind = Kind::Integer(0, 100_000);
const PORT: Kind = Kind::Integer(1, 65_535);
const THREADS: Kind = Kind::Integer(1, 256);
const BUDGET: Kind = Kind::Size(64 * MIB, 64 * GIB);
const HTTP: Kind = Kind::Url(&["https", "http"]);
const STORES: Kind = Kind::Url(&["file", "s3"]);
const SSL_MODES: Kind = Kind::Choice(&["disable", "prefer", "require", "verify-ca", "verify-full"]);

/// Every setting, in the order of the file.
pub(crate) static TABLE: &[Setting] = &[
    repository("name", Kind::Text, "The name by which `--repo` means this repository.")
        .default("main"),
    repository("url", STORES, "Where the repository lies: a directory or an S3 bucket with a prefix.")
        .also(&["PGRECALL_REPO"])
        .flag("--repo")
        .example("file:///backup/pg"),
    repository(
        "id",
        Kind::Text,
        "The repository's id, pinned by `init`: another repository, or the empty mount point of this one, is refused.",
    ),
    repository(
        "key_fingerprint",
        Kind::Text,
        "The fingerprint of the repository key, pinned by `init`.",
    ),
    repository(
        "encryption",
        Kind::Choice(&["aes-256-gcm", "none"]),
        "How contents are sealed. \"none\" stores them in the clear and must be written here to hold.",
    )
    .default("aes-256-gcm")
    .flag("--encryption"),
    repository("key_file", Kind::Path, "This host's key to the repository. Keep a copy elsewhere.")
        .derived("`<name>.key` beside the configuration file")
        .flag("--key-file")
        .example("/etc/pgrecall/main.key"),
    repository(
        "kms_key",
        Kind::Text,
        "The key of AWS KMS that opens the repository where there is no key file: its id, its ARN, or `alias/NAME`.",
    )
    .flag("--kms-key")
    .example("alias/pgrecall"),
    repository(
        "passphrase",
        Kind::Secret,
        "A passphrase that opens the repository, used where there is no key file and no KMS key.",
    )
    .environment_only()
    .also(&["PGRECALL_PASSPHRASE"]),
    repository("passphrase_file", Kind::Path, "A file whose first line is the passphrase.")
        .example("/root/pgrecall.passphrase"),
    repository("passphrase_command", Kind::Text, "A shell command that prints the passphrase.")
        .example("pass show pgrecall"),
    repository(
        "restore_key_file",
        Kind::Path,
        "Restore keys, one a line, where data is sealed for one (`pgrecall key rotate --restore-key`). Only where one restores.",
    )
    .example("/root/main.restore-key"),
    repository("cache_dir", Kind::Path, "Where copies of objects that never change are kept, and what was seen of the repository.")
        .derived("`$XDG_CACHE_HOME/pgrecall`, else `~/.cache/pgrecall`, else `/var/cache/pgrecall`")
        .example("/var/cache/pgrecall"),
    repository(
        "kms.endpoint",
        HTTP,
        "The address of KMS; AWS by default. `http://` is taken for this very machine only, since a secret goes over it.",
    )
    .flag("--kms-endpoint")
    .example("https://vpce-0123.kms.eu-central-1.vpce.amazonaws.com"),
    repository("kms.region", Kind::Text, "The region of the KMS key.")
        .derived("that of its ARN, else what the AWS configuration says")
        .flag("--kms-region")
        .example("eu-central-1"),
    repository(
        "kms.profile",
        Kind::Text,
        "The profile of the AWS configuration to use for KMS. Its credentials come from the standard AWS chain (variables, profile, instance role).",
    )
    .example("backup"),
    repository("kms.ca_file", Kind::Path, "PEM certificates to trust for KMS in place of the system's.")
        .example("/etc/pgrecall/kms-ca.pem"),
    repository(
        "kms.timeout",
        Kind::Duration,
        "How long KMS may take for one answer, repetitions included. `wal push` and `wal fetch` wait no longer than they may go without progress.",
    )
    .default("20s"),
    repository("s3.endpoint", HTTP, "The S3 server's address; AWS by default.")
        .flag("--s3-endpoint")
        .example("https://s3.example.org"),
    repository("s3.region", Kind::Text, "The bucket's region.")
        .derived("what the AWS configuration says, else `us-east-1`")
        .flag("--s3-region")
        .example("eu-central-1"),
    repository(
        "s3.path_style",
        Kind::Choice(&["auto", "always", "never"]),
        "Whether the bucket goes into the path; \"auto\": when there is an endpoint.",
    )
    .default("auto")
    .flag("--s3-path-style"),
    repository("s3.ca_file", Kind::Path, "PEM certificates to trust in place of the system's.")
        .flag("--s3-ca-file")
        .example("/etc/pgrecall/s3-ca.pem"),
    repository(
        "s3.sse",
        Kind::Choice(&["AES256", "aws:kms"]),
        "Server-side encryption to ask for, on top of our own.",
    )
    .example("AES256"),
    repository("s3.sse_kms_key_id", Kind::Text, "The KMS key for server-side encryption."),
    repository("s3.storage_class", Kind::Text, "The storage class of what is written.")
        .example("STANDARD_IA"),
    repository(
        "s3.as_of",
        Kind::Text,
        "Read a bucket that keeps versions as it was at this time; nothing is written. For a repository in which somebody has deleted or replaced objects since.",
    )
    .flag("--s3-as-of")
    .example("2026-11-22 14:00:00+00"),
    repository(
        "s3.access_key_id",
        Kind::Text,
        "The access key's id. Without it the standard AWS chain is asked (variables, profile, instance role).",
    ),
    repository("s3.secret_access_key", Kind::Secret, "The access key's secret."),
    repository(
        "s3.secret_access_key_file",
        Kind::Path,
        "A file whose first line is the access key's secret.",
    )
    .example("/etc/pgrecall/s3.secret"),
    repository(
        "s3.secret_access_key_command",
        Kind::Text,
        "A shell command that prints the access key's secret.",
    )
    .example("vault kv get -field=secret pgrecall/s3"),
    repository("s3.session_token", Kind::Secret, "The session token of temporary credentials."),
    repository("s3.profile", Kind::Text, "The profile of the AWS configuration to use.")
        .example("backup"),
    repository("s3.connect_timeout", Kind::Duration, "How long a connection may take to stand.")
        .default("5s"),
    repository("s3.read_timeout", Kind::Duration, "How long an answer may send nothing.")
        .default("30s"),
    repository(
        "s3.operation_timeout",
        Kind::Duration,
        "How long one request may take, its repetitions included.",
    )
    .default("5min"),
    repository(
        "s3.retry_attempts",
        Kind::Integer(1, 100),
        "How often a request is tried before it counts as failed.",
    )
    .default("100"),
    repository(
        "s3.retry_budget",
        Kind::Duration,
        "How long a request may be repeated without a byte of progress before it counts as failed.",
    )
    .default("2min"),
    cluster("name", Kind::Text, "The cluster's name in the repository.")
        .also(&["PGRECALL_CLUSTER"])
        .flag("--cluster")
        .example("main"),
    cluster("pgdata", Kind::Path, "The data directory.")
        .fills_gap(&["PGDATA"])
        .flag("--pgdata")
        .example("/var/lib/postgresql/17/main"),
    cluster(
        "domain",
        Kind::Text,
        "What shares keys and deduplication; give clusters one domain to let them share.",
    )
    .derived("the cluster's name")
    .flag("--domain")
    .example("main"),
    cluster("host", Kind::Text, "The server's host name, or the folder of its socket.")
        .also(&["PGHOST"])
        .derived("what `postmaster.pid` in the data directory says")
        .example("/var/run/postgresql"),
    cluster("port", PORT, "The server's port.")
        .also(&["PGPORT"])
        .derived("what `postmaster.pid` in the data directory says")
        .example("5432"),
    cluster("user", Kind::Text, "The role to log in as.")
        .also(&["PGUSER"])
        .derived("the operating system's user")
        .example("postgres"),
    cluster("dbname", Kind::Text, "The database to connect to.")
        .also(&["PGDATABASE"])
        .default("postgres"),
    cluster("password", Kind::Secret, "The role's password.")
        .environment_only()
        .also(&["PGPASSWORD"]),
    cluster("password_file", Kind::Path, "A file whose first line is the password.")
        .example("/etc/pgrecall/main.password"),
    cluster("password_command", Kind::Text, "A shell command that prints the password.")
        .example("pass show postgres/main"),
    cluster("sslmode", SSL_MODES, "How far the connection is secured, as in libpq; there is no `allow`.")
        .also(&["PGSSLMODE"])
        .default("prefer"),
    cluster("sslrootcert", Kind::Path, "PEM certificates that the server's is checked against.")
        .also(&["PGSSLROOTCERT"])
        .example("/etc/pgrecall/server-ca.pem"),
    cluster(
        "primary.host",
        Kind::Text,
        "Where the primary is: a backup taken on a standby asks it to close the last WAL segment.",
    )
    .example("db1.example.org"),
    cluster("primary.port", PORT, "The primary's port.").default("5432"),
    cluster("primary.user", Kind::Text, "The role to log in as on the primary.")
        .derived("`cluster.user`")
        .example("postgres"),
    cluster(
        "retention.keep_last",
        COUNT,
        "`expire` keeps the newest so many backups that can be restored.",
    )
    .flag("--keep-last")
    .example("7"),
    cluster("retention.keep_within", Kind::Duration, "`expire` keeps backups younger than this.")
        .flag("--keep-within")
        .example("14d"),
    cluster(
        "retention.keep_window",
        Kind::Duration,
        "`expire` keeps what it takes to get to any moment of this long a time.",
    )
    .flag("--keep-window")
    .example("14d"),
    cluster(
        "retention.keep_daily",
        COUNT,
        "`expire` keeps the newest backup of each of the last so many days that have one.",
    )
    .flag("--keep-daily")
    .example("7"),
    cluster("retention.keep_weekly", COUNT, "The same for weeks, which begin on Monday.")
        .flag("--keep-weekly")
        .example("4"),
    cluster("retention.keep_monthly", COUNT, "The same for months.")
        .flag("--keep-monthly")
        .example("12"),
    cluster("retention.keep_yearly", COUNT, "The same for years.")
        .flag("--keep-yearly")
        .example("3"),
    cluster(
        "retention.time_zone",
        Kind::Text,
        "Whose days, weeks, months and years count, such as `Europe/Berlin`.",
    )
    .default("UTC"),
    cluster(
        "collection.rewrite_below",
        Kind::Integer(0, 100),
        "`gc` copies packs of which at most so many percent are needed; 0 copies none.",
    )
    .default("50")
    .flag("--rewrite-below"),
    cluster("collection.rewrite_max", Kind::Size(0, 1 << 50), "`gc` copies so much in one run at most.")
        .default("16GiB")
        .flag("--rewrite-max"),
    cluster(
        "collection.dead_after",
        Kind::Duration,
        "`gc` ends a backup that it has seen under way for so long, by this host's own count.",
    )
    .default("30d"),
    backup("threads", THREADS, "How many threads hash, compress and encrypt.")
        .derived("the number of processors")
        .flag("--threads")
        .example("2"),
    backup(
        "checkpoint",
        Kind::Choice(&["spread", "fast"]),
        "Whether the checkpoint at the start is spread out, or done at once at the price of a burst of writes.",
    )
    .default("spread")
    .flag("--fast-checkpoint"),
    backup("compression_level", Kind::Integer(1, 19), "The level of zstd.").default("1"),
    backup(
        "wal_timeout",
        Kind::Duration,
        "How long a backup waits for each WAL segment it needs to arrive in the repository.",
    )
    .default("10min")
    .flag("--wal-timeout"),
    restore("threads", THREADS, "How many threads decrypt, inflate and write.")
        .derived("the number of processors")
        .flag("--threads")
        .example("2"),
    restore("memory_budget", BUDGET, "How much memory a restore may take.").default("192MiB"),
    wal(
        "push_progress_timeout",
        Kind::Duration,
        "`wal push` fails when not a byte has moved for this long; PostgreSQL then tries again. Nobody counts the bytes that a directory takes: storing there is given a second more for each MiB.",
    )
    .default("30s"),
    wal(
        "push_timeout",
        Kind::Duration,
        "How long one `wal push` may take in all: more is needed where segments of 1 GiB go to a store of less than 2 MiB a second.",
    )
    .default("10min"),
    wal(
        "fetch_timeout",
        Kind::Duration,
        "How long `wal fetch` tries before it stops recovery with an error.",
    )
    .default("2min"),
    wal(
        "standby_on_error",
        Kind::Choice(&["continue", "stop"]),
        "What a failed `wal fetch` does to a standby: \"continue\" tells PostgreSQL \"not there\", so that it streams or asks again; \"stop\" shuts the standby down.",
    )
    .default("continue"),
    wal(
        "standby_progress_timeout",
        Kind::Duration,
        "`wal fetch` on a standby fails when not a byte has moved for this long; reading from a directory is given a second more for each 8 MiB of a segment.",
    )
    .default("5s"),
    Setting::new(
        Section::Log,
        "level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "The least severity that is logged.",
    )
    .default("info")
    .flag("--log-level"),
    Setting::new(
        Section::Log,
        "format",
        Kind::Choice(&["text", "json"]),
        "Lines for people, or one JSON object a line.",
    )
    .default("text")
    .flag("--log-format"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn paths_and_variables_are_unique_and_defaults_parse() {
        let mut seen = BTreeSet::new();
        for setting in TABLE {
            assert!(seen.insert(setting.path()), "{} twice", setting.path());
            assert!(seen.insert(setting.variable()), "{} twice", setting.variable());
            for variable in setting.variables.iter().chain(setting.gap_variables) {
                assert!(seen.insert((*variable).to_owned()), "{variable} twice");
            }
            if let Fallback::Fixed(text) = setting.fallback {
                assert!(setting.kind.parse(text).is_ok(), "default of {}", setting.path());
            }
            if !setting.example.is_empty() {
                assert!(setting.kind.parse(setting.example).is_ok(), "{}", setting.path());
            }
            assert!(setting.doc.ends_with('.'), "{}", setting.path());
            let path = setting.path();
            assert!(TABLE.iter().find(|s| s.is(&path)).is_some_and(|s| s.key == setting.key));
        }
    }

    #[test]
    fn sections_stand_together_and_sub_tables_last() {
        let mut order: Vec<(Section, &str)> = Vec::new();
        for setting in TABLE {
            let sub = setting.key.split_once('.').map_or("", |(sub, _)| sub);
            if order.last() != Some(&(setting.section, sub)) {
                assert!(!order.contains(&(setting.section, sub)), "{}", setting.path());
                order.push((setting.section, sub));
            }
        }
    }
}
