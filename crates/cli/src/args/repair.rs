//! Arguments of `repair`.

use clap::Args;

use super::{ConfirmArgs, LineageArgs, OutputArgs};

/// Mend what rot has done to the repository's own notes
///
/// Works on the cluster's domain. Packs that the index does not name are put into it again, by the
/// directory that each has. What does not read and stands in the way of `expire` and `gc` is moved
/// to `quarantine/` in the repository: nothing is thrown away. A backup whose manifest does not
/// read is given up. The plan is printed first. Chunks are not looked at: `verify --read-data`
/// finds those that have rotted, and the next backup stores them again where the server still has
/// them.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall repair --dry-run
  pgrecall repair
  pgrecall repair --give-up qkw3t7w5

Objects of another version of pgrecall, those whose key is not here, and the parts of a collection's round stay where they
are.")]
pub(crate) struct RepairArgs {
    /// Print what would be done, and change nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Give up this backup, whose list of files is lost in part: its id, or the beginning of it
    ///
    /// As long as it stands `gc` removes nothing, since nobody can tell what it needs. Refused for
    /// one whose list reads, or which is held.
    #[arg(long, value_name = "BACKUP")]
    pub(crate) give_up: Option<String>,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
