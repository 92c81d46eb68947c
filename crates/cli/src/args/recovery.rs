//! `pgrecall plan` and `pgrecall restore`: to which moment, from which backup, to which places.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{LineageArgs, OutputArgs};
use crate::config::resolve::Flag;

/// The moment recovery goes to; none of them means the latest.
#[derive(Args, Debug, Clone, Default)]
#[group(multiple = false)]
pub(crate) struct TargetArgs {
    /// Up to a time, with its zone: '2026-11-22 14:03:07+00' or '2026-11-22 15:03:07 Europe/Berlin'
    #[arg(long, value_name = "TIME", help_heading = "Target")]
    pub(crate) to_time: Option<String>,
    /// Up to a place in the WAL, such as 16/B374D848
    #[arg(long, value_name = "LSN", help_heading = "Target")]
    pub(crate) to_lsn: Option<String>,
    /// Up to a transaction
    #[arg(long, value_name = "XID", help_heading = "Target")]
    pub(crate) to_xid: Option<u64>,
    /// Up to a restore point made by pg_create_restore_point()
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub(crate) to_name: Option<String>,
    /// Just far enough for the backup to be consistent
    #[arg(long, help_heading = "Target")]
    pub(crate) to_immediate: bool,
    /// As far as the stored WAL goes (the default; for a standby and with --files-only it is
    /// --to-immediate)
    #[arg(long, help_heading = "Target")]
    pub(crate) to_latest: bool,
}

/// How the target is taken, and from where.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct RouteArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Stop just before the target (with --to-time, --to-lsn or --to-xid)
    #[arg(
        long,
        help_heading = "Target",
        conflicts_with_all = ["to_name", "to_immediate", "to_latest"]
    )]
    pub(crate) exclusive: bool,
    /// The timeline to follow [default: the one that the target lies on]
    #[arg(long, value_name = "N", value_parser = timeline, help_heading = "Target")]
    pub(crate) timeline: Option<u32>,
    /// The backup to start from: its id, the beginning of it, or latest [default: the best one]
    #[arg(long, value_name = "ID", help_heading = "Target")]
    pub(crate) backup: Option<String>,
}

/// Where what lies outside of the data directory goes.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct PlaceArgs {
    /// Put the tablespace that was at OLD into NEW; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = tablespace, help_heading = "Places")]
    pub(crate) tablespace_map: Vec<(PathBuf, PathBuf)>,
    /// Where pg_wal goes, if not into the data directory
    #[arg(long, value_name = "DIR", help_heading = "Places")]
    pub(crate) waldir: Option<PathBuf>,
    /// original: put tablespaces and pg_wal where they were
    #[arg(long, value_name = "WHICH", help_heading = "Places")]
    pub(crate) locations: Option<Locations>,
}

/// `--locations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Locations {
    Original,
}

/// Show what a restore would do: which backup, which WAL, how far, how much
///
/// Reads only the descriptions of backups and WAL, and says before a byte is written whether the
/// target can be reached. When it cannot, the nearest moments that can are shown.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall plan
  pgrecall plan --to-time '2026-11-22 14:03:07+00'
  pgrecall plan --to-lsn 16/B374D848 --exclusive --json")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) route: RouteArgs,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Bring a cluster back as it was at a moment
///
/// Writes the files of the best backup into DIR, and the settings with which PostgreSQL then
/// replays the WAL up to the target when you start it. Nothing is started here. After an
/// interruption run the same command again: it goes on with what is there. A directory that is only
/// half restored cannot be started.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall restore /srv/copy --as copy --to-time '2026-11-22 14:03:07+00'
      a second server to look at; it never archives into the production repository
  pgrecall restore /var/lib/postgresql/17/main --as primary --delta
      the production server itself, as far as the WAL goes, using what is still there
  pgrecall restore /var/lib/postgresql/17/main --as standby
      a new standby; set primary_conninfo before you start it
  pgrecall restore /srv/copy --as copy --tablespace-map /ssd/ts1=/srv/ts1

Run `pgrecall plan` with the same target first: it tells what will happen, and about how long it takes.")]
pub(crate) struct RestoreArgs {
    /// The data directory to write
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// What the result is to be; asked when there is a terminal
    #[arg(long = "as", value_name = "ROLE", conflicts_with = "files_only")]
    pub(crate) role: Option<Role>,
    #[command(flatten)]
    pub(crate) route: RouteArgs,
    /// What PostgreSQL does at the target [default: pause; promote when going to the latest]
    #[arg(long, value_name = "ACTION", help_heading = "Target", conflicts_with = "files_only")]
    pub(crate) action: Option<Action>,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
    /// Use what is in DIR already and write only what differs
    #[arg(long)]
    pub(crate) delta: bool,
    /// Where the repository has lost some of the backup, bring the rest, and zeros for what is lost
    ///
    /// The last resort, when no other backup leads to the data: every file and block that is lost
    /// is told, and written to DIR/pgrecall-lost.txt; the exit code is then 18. DIR has to be
    /// empty.
    #[arg(long, conflicts_with = "delta")]
    pub(crate) salvage: bool,
    /// Only files, no recovery settings: for another tool that brings its own, such as Patroni
    #[arg(long)]
    pub(crate) files_only: bool,
    /// Threads that decrypt, inflate and write [default: the number of processors]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<String>,
    #[command(flatten)]
    pub(crate) lineage: LineageArgs,
    /// Do not ask before writing over what is in DIR; without a terminal nothing is asked
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl RestoreArgs {
    /// The settings these flags give.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let value = self.threads.clone().map(Into::into);
        let flag = value.map(|value| Flag { path: "restore.threads", flag: "--threads", value });
        flag.into_iter().collect()
    }
}

/// `--as`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Takes the old server's place and goes on archiving
    Primary,
    /// A copy that never archives
    Copy,
    /// Follows a primary
    Standby,
}

/// `--action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Stop replaying and let people look, read-only
    Pause,
    /// Become a writable server on a new timeline
    Promote,
    /// Shut down
    Shutdown,
}

/// A timeline in decimal or, with `0x`, in hex, as `recovery_target_timeline` takes it.
fn timeline(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(0) | Err(_) => Err("a timeline is a number from 1".to_owned()),
        Ok(timeline) => Ok(timeline),
    }
}

fn tablespace(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (old, new) = text.split_once('=').ok_or("expected OLD=NEW")?;
    let (old, new) = (PathBuf::from(old), PathBuf::from(new));
    if !old.is_absolute() || !new.is_absolute() {
        return Err("both paths must be absolute".to_owned());
    }
    Ok((old, new))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn restore(line: &str) -> Result<RestoreArgs, String> {
        let words = ["pgrecall", "restore", "/srv/x"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Restore(restore) => Ok(restore),
            _ => Err("another command".to_owned()),
        }
    }

    #[test]
    fn targets_exclude_each_other() -> Result<(), String> {
        assert_eq!(restore("--to-xid 742 --exclusive")?.route.target.to_xid, Some(742));
        assert!(restore("--to-xid 742 --to-lsn 0/1").is_err());
        assert!(restore("--to-latest --to-immediate").is_err());
        assert!(restore("--to-name x --exclusive").is_err());
        assert!(restore("--files-only --as copy").is_err());
        Ok(())
    }

    #[test]
    fn timelines_and_tablespaces_are_checked() -> Result<(), String> {
        assert_eq!(restore("--timeline 0x1F")?.route.timeline, Some(31));
        assert_eq!(restore("--timeline 12")?.route.timeline, Some(12));
        for bad in
            ["--timeline 0", "--timeline latest", "--tablespace-map /a", "--tablespace-map a=/b"]
        {
            assert!(restore(bad).is_err(), "{bad}");
        }
        let places =
            restore("--tablespace-map /a=/b --tablespace-map /c=/d --locations original")?.places;
        assert_eq!(places.tablespace_map.len(), 2);
        assert_eq!(places.locations, Some(Locations::Original));
        Ok(())
    }
}
