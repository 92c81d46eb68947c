//! `pgrecall hold …`.

use clap::{Args, Subcommand};

use super::{LineageArgs, OutputArgs};

#[derive(Subcommand, Debug)]
pub(crate) enum HoldCommand {
    Add(AddArgs),
    List(ListArgs),
    Remove(RemoveArgs),
}

impl HoldCommand {
    pub(crate) const fn lineage(&self) -> &LineageArgs {
        match self {
            Self::Add(args) => &args.lineage,
            Self::List(args) => &args.lineage,
            Self::Remove(args) => &args.lineage,
        }
    }
}

/// Keep a backup, whatever the rules say
///
/// When this command has said so, no `expire` takes the backup, from whatever host, until the hold
/// ends or is removed. The WAL that makes it consistent stays with it, not all WAL after it. A hold
/// of a backup that is held already takes the place of the earlier one.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall hold add latest --reason 'before the migration' --until '2027-01-31 00:00:00+00'
  pgrecall hold add 5f3a9c --reason 'audit 2026'

A restore that takes long is safe from expire and gc while its backup is held.")]
pub(crate) struct AddArgs {
    /// The backup: its id, the beginning of it, or latest
    #[arg(value_name = "BACKUP")]
    pub(crate) backup: String,
    /// Why, for whoever reads `hold list`
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// When the hold ends, such as '2027-01-31 00:00:00+00' [default: when it is removed]
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Show which backups are held, and why
///
/// Those of all clusters that share a domain with this one.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall hold list
  pgrecall hold list --json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Let the rules decide on a backup again
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall hold remove 5f3a9c

The backup stays until the next `expire` that finds no rule for it.")]
pub(crate) struct RemoveArgs {
    /// The backup: its id, or the beginning of it
    #[arg(value_name = "BACKUP")]
    pub(crate) backup: String,
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
