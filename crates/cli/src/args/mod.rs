//! The command line: every command with its flags and the help a tired person reads.

#[cfg(test)]
mod examples;
pub(crate) mod expire;
pub(crate) mod gc;
pub(crate) mod hold;
pub(crate) mod key;
pub(crate) mod recovery;
pub(crate) mod repair;
pub(crate) mod wal;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::resolve::Flag;

/// Backup and point-in-time recovery for PostgreSQL.
#[derive(Parser, Debug)]
#[command(
    name = "pgrecall",
    version,
    about,
    long_about = "Backup and point-in-time recovery for PostgreSQL.\n\n\
        One repository, a directory or an S3 bucket, holds the WAL and the backups of one or more clusters. \
        PostgreSQL calls `wal push` and `wal fetch`, a timer calls `backup`, and you call `plan` and \
        `restore` when a database must come back.",
    after_long_help = "\
Start:
  pgrecall init --repo file:///backup/pg --cluster main --pgdata /var/lib/postgresql/17/main
  archive_command = 'pgrecall wal push %p'     (in postgresql.conf; init prints the line for you)
  pgrecall check
  pgrecall backup

Bring a database back:
  pgrecall list
  pgrecall plan --to-time '2026-11-22 14:03:07+00'
  pgrecall restore /srv/restored --as copy --to-time '2026-11-22 14:03:07+00'

Exit codes: 0 done, 2 wrong command line, 3 wrong configuration, 10 to 19 by the kind of failure, 130 and 143 ended by
SIGINT and SIGTERM; `wal push` and `wal fetch` have rules of their own, see their help.",
    disable_help_subcommand = true,
    propagate_version = false
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Args, Debug, Default)]
pub(crate) struct Common {
    /// The configuration file [default: PGRECALL_CONFIG, else /etc/pgrecall/pgrecall.toml, else the
    /// user's]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Common options")]
    pub(crate) config: Option<PathBuf>,
    /// The repository: file:///folder, s3://bucket/prefix, or the name it has in the configuration
    #[arg(long, global = true, value_name = "URL", help_heading = "Common options")]
    pub(crate) repo: Option<String>,
    /// The cluster's name [default: the one whose data directory this is, else the only one]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Common options")]
    pub(crate) cluster: Option<String>,
    /// The cluster's data directory
    #[arg(long, global = true, value_name = "DIR", help_heading = "Common options")]
    pub(crate) pgdata: Option<PathBuf>,
    /// Read an S3 bucket that keeps versions as it was at this time, such as
    /// '2026-11-22 14:00:00+00'; nothing is written
    #[arg(long, global = true, value_name = "TIME", help_heading = "Common options")]
    pub(crate) s3_as_of: Option<String>,
    /// The least severity to log: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Common options")]
    pub(crate) log_level: Option<String>,
    /// How to log: text, json
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Common options")]
    pub(crate) log_format: Option<String>,
}

impl Common {
    /// The settings these flags give.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut add = |path, flag, value: Option<std::ffi::OsString>| {
            flags.extend(value.map(|value| Flag { path, flag, value }));
        };
        add("repository.url", "--repo", self.repo.clone().map(Into::into));
        add("cluster.name", "--cluster", self.cluster.clone().map(Into::into));
        add("cluster.pgdata", "--pgdata", self.pgdata.clone().map(Into::into));
        add("repository.s3.as_of", "--s3-as-of", self.s3_as_of.clone().map(Into::into));
        add("log.level", "--log-level", self.log_level.clone().map(Into::into));
        add("log.format", "--log-format", self.log_format.clone().map(Into::into));
        flags
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Init(InitArgs),
    /// Store and fetch WAL: what PostgreSQL's archive_command and restore_command call
    #[command(subcommand)]
    Wal(wal::WalCommand),
    /// The same as `wal push`
    #[command(name = "archive-push", hide = true)]
    ArchivePush(wal::PushArgs),
    /// The same as `wal fetch`
    #[command(name = "archive-get", hide = true)]
    ArchiveGet(wal::FetchArgs),
    Check(CheckArgs),
    Backup(BackupArgs),
    List(ListArgs),
    Plan(recovery::PlanArgs),
    Restore(recovery::RestoreArgs),
    Verify(VerifyArgs),
    Expire(expire::ExpireArgs),
    Gc(gc::GcArgs),
    Repair(repair::RepairArgs),
    /// Backups that are kept whatever the rules say: add, list, remove
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// The keys that open the repository: add, list, remove, rotate, shred
    #[command(subcommand)]
    Key(key::KeyCommand),
    Config(ConfigArgs),
    Completions(CompletionsArgs),
    #[command(hide = true)]
    Man(ManArgs),
}

/// Whether a person or a program reads the output.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct OutputArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which cluster, where a new one was made under the name of an old one.
#[derive(Args, Debug, Clone, Copy, Default)]
pub(crate) struct LineageArgs {
    /// The cluster's system identifier, where several were stored under the same name; `list` shows
    /// them
    #[arg(long, value_name = "N")]
    pub(crate) system_id: Option<u64>,
}

/// Create a repository, or join one, and write the configuration file
///
/// Without a repository at the URL, one is created; encryption is on, and a key for this host is
/// written beside the configuration file, unless a KMS key is to open it. With one there, this host
/// joins it: open it with --unlock or its passphrase, and the host gets a key of its own. Run again,
/// it changes nothing that exists.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall init --repo file:///backup/pg --cluster main --pgdata /var/lib/postgresql/17/main
  pgrecall init --repo s3://bucket/pg --s3-region eu-central-1 --cluster main --pgdata /pgdata
  pgrecall init --repo s3://bucket/pg --cluster main --pgdata /pgdata --unlock other-host.key
  pgrecall init --repo s3://bucket/pg --cluster main --pgdata /pgdata --kms-key alias/pgrecall

Secrets never go on the command line. S3 credentials come from the usual AWS places (variables, profile, instance role)
or from settings; a passphrase from PGRECALL_PASSPHRASE, passphrase_file or passphrase_command.")]
pub(crate) struct InitArgs {
    /// A key file that opens the existing repository
    #[arg(long, value_name = "FILE")]
    pub(crate) unlock: Option<PathBuf>,
    /// Where this host's key goes [default: NAME.key beside the configuration file]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// The AWS KMS key that opens the repository for this host, in place of a key file
    #[arg(long, value_name = "KEY")]
    pub(crate) kms_key: Option<String>,
    /// The address of KMS [default: AWS]
    #[arg(long, value_name = "URL")]
    pub(crate) kms_endpoint: Option<String>,
    /// The region of the KMS key [default: that of its ARN]
    #[arg(long, value_name = "REGION")]
    pub(crate) kms_region: Option<String>,
    /// aes-256-gcm, or none to store everything in the clear
    #[arg(long, value_name = "SUITE")]
    pub(crate) encryption: Option<String>,
    /// What this cluster shares keys and deduplication with [default: the cluster's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) domain: Option<String>,
    /// The S3 server's address [default: AWS]
    #[arg(long, value_name = "URL")]
    pub(crate) s3_endpoint: Option<String>,
    /// The bucket's region
    #[arg(long, value_name = "REGION")]
    pub(crate) s3_region: Option<String>,
    /// Whether the bucket goes into the path: auto, always, never
    #[arg(long, value_name = "WHEN")]
    pub(crate) s3_path_style: Option<String>,
    /// PEM certificates to trust in place of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) s3_ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl InitArgs {
    /// The settings these flags give.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut add = |path, flag, value: Option<std::ffi::OsString>| {
            flags.extend(value.map(|value| Flag { path, flag, value }));
        };
        add("repository.key_file", "--key-file", self.key_file.clone().map(Into::into));
        add("repository.kms_key", "--kms-key", self.kms_key.clone().map(Into::into));
        add("repository.kms.endpoint", "--kms-endpoint", self.kms_endpoint.clone().map(Into::into));
        add("repository.kms.region", "--kms-region", self.kms_region.clone().map(Into::into));
        add("repository.encryption", "--encryption", self.encryption.clone().map(Into::into));
        add("cluster.domain", "--domain", self.domain.clone().map(Into::into));
        add("repository.s3.endpoint", "--s3-endpoint", self.s3_endpoint.clone().map(Into::into));
        add("repository.s3.region", "--s3-region", self.s3_region.clone().map(Into::into));
        add(
            "repository.s3.path_style",
            "--s3-path-style",
            self.s3_path_style.clone().map(Into::into),
        );
        add("repository.s3.ca_file", "--s3-ca-file", self.s3_ca_file.clone().map(Into::into));
        flags
    }
}

/// Leaves questions out.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct ConfirmArgs {
    /// Do not ask; without a terminal a question ends the command
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

/// Prove that archiving works, end to end, and say what to mend
///
/// Tries what the store promises. Then switches to a new WAL segment, waits until the one that was
/// closed arrives through archive_command, fetches it by the restore_command it prints, and
/// compares the bytes; a standby closes no segment, so there this is left out. Each failure says
/// what to do.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall check
  pgrecall check --cluster main --json")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Take a backup
///
/// Every backup stands alone when restored; what an earlier one stored already is not stored again,
/// so the second and later ones are small. A backup that is interrupted leaves its work for the
/// next try.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall backup
  pgrecall backup --fast-checkpoint
  0 2 * * *  postgres  pgrecall backup --cluster main      (in /etc/cron.d)

The backup counts only when it is told to be complete: the exit code is 0 then, and `pgrecall list` shows it.")]
pub(crate) struct BackupArgs {
    /// Start at once instead of spreading the checkpoint's writes over minutes
    #[arg(long)]
    pub(crate) fast_checkpoint: bool,
    /// Threads that hash, compress and encrypt [default: the number of processors]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<String>,
    /// How long to wait for each WAL segment the backup needs, such as 10min
    #[arg(long, value_name = "DURATION")]
    pub(crate) wal_timeout: Option<String>,
    /// Take none, and end this one of a host that is gone for good: its id, or the beginning of it
    #[arg(
        long,
        value_name = "ID",
        conflicts_with_all = ["fast_checkpoint", "threads", "wal_timeout"]
    )]
    pub(crate) end_dead: Option<String>,
    /// With --end-dead: the cluster's system identifier, where several were stored under the same
    /// name
    #[arg(long, value_name = "N", requires = "end_dead")]
    pub(crate) system_id: Option<u64>,
    /// Do not ask before --end-dead; it needs this where there is no terminal
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl BackupArgs {
    /// The settings these flags give.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut add = |path, flag, value: Option<String>| {
            flags.extend(value.map(|value| Flag { path, flag, value: value.into() }));
        };
        let fast = self.fast_checkpoint.then(|| "fast".to_owned());
        add("backup.checkpoint", "--fast-checkpoint", fast);
        add("backup.threads", "--threads", self.threads.clone());
        add("backup.wal_timeout", "--wal-timeout", self.wal_timeout.clone());
        flags
    }
}

/// Show the backups, how far each reaches in time, gaps in the WAL, and sizes
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall list
  pgrecall list --cluster main --json | jq '.clusters[0].backups[-1]'")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Check what is stored: chunks, packs, WAL
///
/// Every chunk of every backup must exist, and the WAL must go on without a gap from each backup's
/// start. With --read-data all of it is read, opened and compared as well. Each finding says what
/// it means for recovery.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall verify
  pgrecall verify --read-data --backup latest

The exit code is 0 when all is sound, 18 when something is missing (WAL, a
timeline's history, a backup that others or this host have seen) and nothing else is wrong, 14
when all that is wrong is that another version of pgrecall wrote some of it, and 13 when something is damaged.")]
pub(crate) struct VerifyArgs {
    /// Read and open all data, not only look whether it is there
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Only this backup: its id, the beginning of it, or latest
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Option<String>,
    /// A backup that is known to have been taken, such as the last one that a monitor saw: its id.
    /// That it is neither there nor expired is told as missing
    #[arg(long, value_name = "ID")]
    pub(crate) expect_at_least: Option<String>,
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Print the settings in force, and where each value came from
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall config
  pgrecall config --json | jq -r '.settings[] | select(.source.kind == \"file\") | .setting'

Secrets are masked. Precedence: flag, environment variable, file, default.")]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Print the completions for a shell
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall completions bash > /etc/bash_completion.d/pgrecall
  pgrecall completions zsh  > /usr/local/share/zsh/site-functions/_pgrecall
  pgrecall completions fish > ~/.config/fish/completions/pgrecall.fish")]
pub(crate) struct CompletionsArgs {
    pub(crate) shell: Shell,
}

/// A shell that completes commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Write the manual pages into a folder
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    pub(crate) dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn walk(command: &clap::Command) {
            for sub in command.get_subcommands() {
                let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
                assert!(about.len() > 12, "{} has no help: {about}", sub.get_name());
                walk(sub);
            }
        }
        walk(&Cli::command());
    }

    #[test]
    fn commands_that_read_what_is_stored_show_how_to_name_one_of_several_clusters() {
        for sub in Cli::command().get_subcommands() {
            let flag = sub.get_arguments().find(|flag| flag.get_id() == "system_id");
            let is_shown = flag.is_some_and(|flag| !flag.is_hide_set());
            let reads = ["backup", "expire", "gc", "list", "plan", "repair", "restore", "verify"];
            let reads = reads.contains(&sub.get_name());
            assert_eq!(is_shown, reads, "{}", sub.get_name());
        }
    }

    #[test]
    fn what_each_command_prints_as_json_is_documented() {
        fn walk(command: &clap::Command, name: &str, page: &str) {
            if command.get_arguments().any(|flag| flag.get_id() == "json") {
                assert!(page.contains(&format!("\n## `{name}`\n")), "docs/json.md has no {name}");
            }
            for sub in command.get_subcommands() {
                walk(sub, &format!("{name} {}", sub.get_name()), page);
            }
        }
        walk(&Cli::command(), "pgrecall", include_str!("../../../../docs/json.md"));
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn walk(command: &clap::Command) {
            for flag in command.get_arguments() {
                let name = flag.get_long().unwrap_or(flag.get_id().as_str());
                let words = ["password", "passphrase", "secret", "token", "credential"];
                // A file that holds one may be named, and a switch holds nothing.
                let named = name.ends_with("-file") || !flag.get_action().takes_values();
                let secret = words.iter().any(|word| name.contains(word));
                assert!(!secret || named, "{} takes {name}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn flags_of_settings_are_the_ones_the_table_names() -> Result<(), clap::Error> {
        let line = "pgrecall init --repo file:///b --cluster c --pgdata /d --log-level info --log-format json \
            --key-file /k --kms-key k --kms-endpoint https://k --kms-region r --encryption none --domain d --s3-endpoint http://x --s3-region r \
            --s3-path-style auto --s3-ca-file /ca --s3-as-of 2026-11-22T14:00:00Z";
        let cli = Cli::try_parse_from(line.split_whitespace())?;
        let Command::Init(init) = &cli.command else { panic!("parsed as another command") };
        let line = "pgrecall backup --fast-checkpoint --threads 2 --wal-timeout 1min";
        let backup = Cli::try_parse_from(line.split_whitespace())?;
        let Command::Backup(backup) = &backup.command else { panic!("parsed as another command") };
        let flags = cli.common.flags().into_iter().chain(init.flags()).chain(backup.flags());
        let mut count = 0;
        for flag in flags {
            let setting = crate::config::table::TABLE.iter().find(|setting| setting.is(flag.path));
            assert_eq!(setting.and_then(|s| s.flag), Some(flag.flag), "{}", flag.path);
            count += 1;
        }
        assert_eq!(count, 19);
        Ok(())
    }
}
