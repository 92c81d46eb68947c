//! `pgrecall wal …`: the commands PostgreSQL calls, and the one that settles a collision.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand, Debug)]
pub(crate) enum WalCommand {
    Push(PushArgs),
    Fetch(FetchArgs),
    Resolve(ResolveArgs),
}

/// Store one WAL file; exits 0 only when it is durable in the repository
///
/// For PostgreSQL's archive_command. Segments, .partial, .history and .backup files are taken. The
/// same file again is fine; the same name with other content is refused. Every failure exits with 1
/// to 125, and PostgreSQL tries again.
#[derive(Args, Debug)]
#[command(after_long_help = "\
In postgresql.conf:
  archive_mode = on
  archive_command = 'pgrecall wal push %p'

With several clusters in one configuration, the one is meant whose data directory PostgreSQL runs in.")]
pub(crate) struct PushArgs {
    /// The file, as PostgreSQL gives it by %p
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

/// Fetch one WAL file; exits 1 only when it is proven not to be there
///
/// For PostgreSQL's restore_command. PostgreSQL ends recovery at an exit code from 1 to 125, so
/// anything else that goes wrong exits with 126, and recovery stops with an error instead of ending
/// too early. On a standby (standby.signal) it is the other way round: every failure exits with 1,
/// and PostgreSQL streams or asks again; see wal.standby_on_error.
#[derive(Args, Debug)]
#[command(after_long_help = "\
In postgresql.conf (restore writes the line for you):
  restore_command = 'pgrecall wal fetch %f %p'")]
pub(crate) struct FetchArgs {
    /// The file's name, as PostgreSQL gives it by %f
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Where it goes, as PostgreSQL gives it by %p
    #[arg(value_name = "DEST")]
    pub(crate) destination: PathBuf,
}

/// Settle which of two contents of one WAL segment is the right one
///
/// Two servers that both believed to be the primary may archive different segments under one name.
/// `wal push` refuses the second. This command stores both under names of their own and writes down
/// which one recovery is to use, and why.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall wal resolve 00000003000000A100000042
  pgrecall wal resolve 00000003000000A100000042 --keep 5f3a9c --reason 'db2 was fenced at 14:03'")]
pub(crate) struct ResolveArgs {
    /// The segment's name
    #[arg(value_name = "SEGMENT")]
    pub(crate) segment: String,
    /// The digest of the content to use, or the beginning of it; without it the contents are shown
    #[arg(long, value_name = "DIGEST", requires = "reason")]
    pub(crate) keep: Option<String>,
    /// Another content of the segment that is not in the repository yet
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// Why; kept in the repository
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) confirm: super::ConfirmArgs,
    #[command(flatten)]
    pub(crate) output: super::OutputArgs,
}
