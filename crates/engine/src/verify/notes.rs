//! What verifications note in the repository, and what becomes of notes that do not read: until all
//! that they may have spoken of has been read again nothing expires.

use std::collections::BTreeMap;

use pgrecall_repo::RepoError;
use pgrecall_repo::damaged_chunks::UnreadNote;
use pgrecall_repo::id::DamageId;
use pgrecall_store::Key;

use super::finding::{Severity, VerifyReport};
use super::wal::{All, WalCheck};
use super::{Depth, Notes, VerifyOptions, Which};
use crate::catalog::chain;
use crate::unreadable::{Cause, Unreadable};

/// Why a note of chunks that does not read stands in the way still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not every copy was read.
    Unread,
    /// Some were compared in their sealed form only.
    Locked,
    /// Another version of the program reads some.
    OtherVersion,
    /// Some could not be judged.
    InDoubt,
    /// The note that was to stand for it could not be put.
    Unwritten,
    /// It was read when copies were.
    Meanwhile,
}

impl Standing {
    const fn what_then(self) -> &'static str {
        match self {
            Self::Unread => {
                "nothing expires and nothing is collected until verify --read-data, of all \
                 backups and with the right to put, has read everything again"
            }
            Self::Locked => {
                "nothing expires and nothing is collected until everything has been read again: \
                 run verify --read-data where the restore key is, with the right to put"
            }
            Self::OtherVersion => {
                "nothing expires and nothing is collected until everything has been read again: \
                 run verify --read-data by the version of pgrecall that wrote the rest, or a \
                 newer one"
            }
            Self::InDoubt => {
                "nothing expires and nothing is collected until everything has been read again; \
                 of what is told here as unreadable nobody knows whether it is sound. Bring its \
                 keys back, or copy the repository to a disk that reads (what is lost then is \
                 damaged for certain), and run it again"
            }
            Self::Unwritten => {
                "nothing expires and nothing is collected until another note stands for it, which \
                 could not be written: run it again with credentials that may put"
            }
            Self::Meanwhile => {
                "nothing expires and nothing is collected until everything has been read again: \
                 it was lost while this one read, so run it again"
            }
        }
    }
}

/// Tells which packs cannot be asked what they hold, so that nobody knows whether all was read.
pub(super) fn report_directories(in_doubt: &BTreeMap<Key, Unreadable>, report: &mut VerifyReport) {
    for (pack, why) in in_doubt {
        report.add_unreadable(
            Severity::Warning,
            pack.as_str(),
            ("the directory of the pack does not read: ", why),
            "what it holds that no index object names cannot be read again",
        );
    }
}

/// Tells which notes of chunks do not read. Those of `replaced` stand in nobody's way any more.
pub(super) fn report_notes(
    unread: &[UnreadNote],
    replaced: &[DamageId],
    standing: Standing,
    report: &mut VerifyReport,
) {
    for note in unread {
        let what = "a note of chunks that were found damaged does not read: ";
        let why = Unreadable::of(note.error.kind(), &note.error);
        let (severity, consequence) = match replaced.contains(&note.id) {
            true => (
                Severity::Warning,
                "every stored copy was read again, and another note stands for it: `pgrecall \
                 repair` moves it out of the way",
            ),
            false if why.cause == Cause::OtherVersion => {
                (Severity::Damage, "nothing expires and nothing is collected by this version")
            }
            false => (Severity::Damage, standing.what_then()),
        };
        report.add_unreadable(severity, note.name.as_str(), (what, &why), consequence);
    }
}

/// Writes down which WAL is damaged, for those that expire backups.
pub(super) async fn write_down(
    options: &VerifyOptions,
    check: &WalCheck<'_>,
    report: &mut VerifyReport,
) {
    let all = read_all(options, check, report);
    let written = match options.notes {
        Notes::None => None,
        Notes::Written => {
            let found = format!("verify on {} at {}", options.host, options.clock.now_text());
            Some(check.write_down(found, all.map_or(All::Not, |()| All::Read)).await)
        }
    };
    if let Some(error) = &check.stored().damage.unreadable {
        let what = "the note of damaged WAL does not read: ";
        let why = Unreadable::from(error);
        match (&written, all) {
            (Some(Ok(())), Ok(())) => report.add_unreadable(
                Severity::Warning,
                "WAL",
                (what, &why),
                "all WAL that backups need was read again, and another note stands for it",
            ),
            // It reads now, or somebody has replaced it.
            (Some(Ok(())), Err(_)) => report.add_unreadable(
                Severity::Damage,
                "WAL",
                (what, &why),
                "there is one that reads by now, by which nothing here was judged: run it again",
            ),
            (_, all) => report.add_unreadable(
                Severity::Damage,
                "WAL",
                (what, &why),
                format!(
                    "nothing expires until verify --read-data has read all of it again; {}",
                    all.err().unwrap_or("it could not be written down")
                ),
            ),
        }
        return;
    }
    if let Some(Err(error)) = written {
        report.add(
            Severity::Warning,
            "WAL",
            format!("which WAL is damaged could not be written down: {}", chain(&error)),
            "`expire` does not know what is written here: run verify again, with credentials that \
             may put",
        );
    }
}

/// What was not read of the WAL that backups need, if so.
fn read_all(
    options: &VerifyOptions,
    check: &WalCheck<'_>,
    report: &VerifyReport,
) -> Result<(), &'static str> {
    if options.depth != Depth::ReadData || options.which != Which::All {
        return Err("this one has read a part of it");
    }
    if check.locked {
        return Err("the restore key that opens the rest is not here");
    }
    if check.knows_not_what_holds() {
        return Err("a history or a settlement does not read, or is not there");
    }
    if report.unsure || check.unsure {
        return Err("of what is told here as unreadable nobody knows yet whether it is sound");
    }
    Ok(())
}

/// What was found matters more than that it cannot be written down: the reader may have no right to
/// put, or look at the past.
pub(super) fn not_noted(error: &RepoError, report: &mut VerifyReport) {
    report.add(
        Severity::Warning,
        "data",
        format!("which chunks are bad could not be written down: {}", chain(error)),
        "a later backup does not store them again by itself: run verify --read-data again with \
         credentials that may put",
    );
}
