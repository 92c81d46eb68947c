//! `pgrecall key …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ConfirmArgs, OutputArgs};

#[derive(Subcommand, Debug)]
pub(crate) enum KeyCommand {
    Add(AddArgs),
    List(ListArgs),
    Remove(RemoveArgs),
    Rotate(RotateArgs),
    Shred(ShredArgs),
}

/// Another key than this host's.
#[derive(Args, Debug)]
pub(crate) struct UnlockArgs {
    /// A key file to open the repository with [default: this host's key, else the KMS key, else the
    /// passphrase]
    #[arg(long, value_name = "FILE")]
    pub(crate) unlock: Option<PathBuf>,
}

/// Let one more key file, KMS key or passphrase open the repository
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall key add --new-key-file /root/safe.key --label 'paper copy in the safe'
  pgrecall key add --new-kms-key alias/pgrecall
  pgrecall key add --new-passphrase-file /root/passphrase
  pgrecall key add --new-passphrase            (asks for it on the terminal)

Keep at least one key away from the host that is backed up: without a key nothing can be restored.")]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) new: NewKeyArgs,
    /// What to call it in `key list`
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What the new key is.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct NewKeyArgs {
    /// Make a key and write it to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key_file: Option<PathBuf>,
    /// Let this key of AWS KMS open it: its id, its ARN, or alias/NAME; where KMS is stands in the
    /// configuration
    #[arg(long, value_name = "KEY")]
    pub(crate) new_kms_key: Option<String>,
    /// Take the first line of this file as a passphrase
    #[arg(long, value_name = "FILE")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
    /// Ask for a passphrase on the terminal
    #[arg(long)]
    pub(crate) new_passphrase: bool,
}

/// Show the keys that open the repository
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall key list
  pgrecall key list --unlock /root/safe.key --json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Take a key's right away; another key must have been tried first
///
/// The last key cannot be removed. Whoever had the key may have kept what it opened: change the
/// store's credentials as well when it fell into wrong hands.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall key remove 5f3a9c
  pgrecall key remove 5f3a9c --unlock /root/safe.key --yes

The key that this command opens the repository with cannot be removed: name another by --unlock.")]
pub(crate) struct RemoveArgs {
    /// The key's id, as `key list` shows it, or the beginning of it
    #[arg(value_name = "KEY-ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Begin a new epoch of the domain's keys; old objects stay as they are
///
/// It bounds how much is sealed under one pair of keys. It does not lock out who has had a key of
/// the repository: what opens the new epoch is the same repository key.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall key rotate --cluster main
  pgrecall key rotate --cluster main --ids --yes
  pgrecall key rotate --cluster main --restore-key /root/main.restore-key

With --restore-key a thief of this host learns from the repository what changed and when, and hardly a row
(docs/threat-model.md). Without that file nobody restores what is stored from then on: make copies of it. There is no way back
but a new repository.")]
pub(crate) struct RotateArgs {
    /// Change the key that names chunks too: nothing stored before is known again, so the next
    /// backup stores everything, and costs as much as the first
    #[arg(long)]
    pub(crate) ids: bool,
    /// From now on seal data for this restore key, which is made if the file is not there: whoever
    /// backs up cannot read it again. Keep the file where you restore, and not on this host
    #[arg(long, value_name = "FILE")]
    pub(crate) restore_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Make all that a domain holds unreadable for good, by deleting its keys
///
/// For data that must be gone, such as a customer's at the end of a contract: give what is to be
/// shredded together a domain of its own. Refused while a backup in it is held or under way.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pgrecall key shred customer-17 --dry-run
  pgrecall key shred customer-17

There is no way back. Copies of the keys' objects in other hosts' caches, in versions that a bucket keeps and in snapshots
of the store are not reached.")]
pub(crate) struct ShredArgs {
    /// The domain (a cluster's is called like the cluster, unless the configuration says otherwise)
    #[arg(value_name = "DOMAIN")]
    pub(crate) domain: String,
    /// Say what would be lost, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
