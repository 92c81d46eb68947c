//! Arguments of `gc`.

use clap::Args;

use super::{LineageArgs, OutputArgs};
use crate::config::resolve::Flag;

/// Free what no backup refers to any more
///
/// Works on the cluster's domain: everything that shares keys and deduplication with it. The plan
/// is printed first, with bytes and requests. Packs that no backup refers to are retired, and go as
/// soon as no backup under way can refer to them; those that a backup keeps waiting go by a later
/// run. Of packs that are mostly not needed the rest is copied. Run it after `expire`, from one
/// host or several, while backups run and beside other collections.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall gc --dry-run
  pgrecall gc --rewrite-below 80 --rewrite-max 100GiB
  45 4 * * 0  postgres  pgrecall gc --cluster main     (in /etc/cron.d, after expire)
  pgrecall gc --extend-locks                           (object lock: docs/s3-policy.md)

A backup whose host is gone for good keeps packs waiting: `pgrecall backup --end-dead ID` ends it at once, and gc does so
after [cluster.collection] dead_after. Whatever cannot be read ends the run before anything is deleted.")]
pub(crate) struct GcArgs {
    /// Print what would be done, and change nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Copy packs of which at most this much is needed, in percent; 0 copies none
    #[arg(long, value_name = "PERCENT")]
    pub(crate) rewrite_below: Option<String>,
    /// Copy at most this much, such as 16GiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) rewrite_max: Option<String>,
    /// Have the bucket lock what is needed for as long from now as it locks what is put now
    #[arg(long)]
    pub(crate) extend_locks: bool,
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl GcArgs {
    /// The settings these flags give.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut add = |path, flag, value: &Option<String>| {
            flags.extend(value.clone().map(|value| Flag { path, flag, value: value.into() }));
        };
        add("cluster.collection.rewrite_below", "--rewrite-below", &self.rewrite_below);
        add("cluster.collection.rewrite_max", "--rewrite-max", &self.rewrite_max);
        flags
    }
}
