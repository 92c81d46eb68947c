//! Arguments of `expire`.

use clap::Args;

use super::{LineageArgs, OutputArgs};
use crate::config::resolve::Flag;

/// Remove backups that no rule keeps, and WAL that no kept backup needs
///
/// All rules hold at once: a backup goes only if none of them keeps it. The last backup that can be
/// restored stays whatever they say. A backup kept for its day, week, month or year keeps the WAL
/// that makes it consistent; the others keep all WAL after them. What goes is printed first, with
/// how far back one can go in time afterwards. What is stored of the files of expired backups is
/// freed by `gc`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall expire --keep-window 14d --keep-monthly 12 --dry-run
  30 4 * * *  postgres  pgrecall expire --cluster main     (in /etc/cron.d, with rules in [cluster.retention])

Without a rule nothing expires, and the exit code is not 0.")]
pub(crate) struct ExpireArgs {
    /// Print what would go, and remove nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Keep the newest N backups that can be restored
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<String>,
    /// Keep backups younger than this, such as 14d
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_within: Option<String>,
    /// Keep what it takes to get to any moment of this long a time, such as 14d
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_window: Option<String>,
    /// Keep the newest backup of each of the last N days that have one
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<String>,
    /// The same for weeks
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<String>,
    /// The same for months
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<String>,
    /// The same for years
    #[arg(long, value_name = "N")]
    pub(crate) keep_yearly: Option<String>,
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl ExpireArgs {
    /// The settings these flags give.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut add = |path, flag, value: &Option<String>| {
            flags.extend(value.clone().map(|value| Flag { path, flag, value: value.into() }));
        };
        add("cluster.retention.keep_last", "--keep-last", &self.keep_last);
        add("cluster.retention.keep_within", "--keep-within", &self.keep_within);
        add("cluster.retention.keep_window", "--keep-window", &self.keep_window);
        add("cluster.retention.keep_daily", "--keep-daily", &self.keep_daily);
        add("cluster.retention.keep_weekly", "--keep-weekly", &self.keep_weekly);
        add("cluster.retention.keep_monthly", "--keep-monthly", &self.keep_monthly);
        add("cluster.retention.keep_yearly", "--keep-yearly", &self.keep_yearly);
        flags
    }
}
