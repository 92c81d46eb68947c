//! From the kind of a failure to the exit code, under the rules of whoever called: a person,
//! `archive_command` or `restore_command`. The table is part of the interface and stands in
//! `docs/errors.md`.

use crate::contract::Contract;
use crate::failure::{Failure, Kind};

/// One row of the table of exit codes.
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) code: u8,
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
}

const fn row(kind: Kind, code: u8, name: &'static str, meaning: &'static str) -> Row {
    Row { kind, code, name, meaning }
}

/// Every kind with its code; codes never change their meaning.
pub(crate) const TABLE: [Row; 14] = [
    row(Kind::Usage, 2, "usage", "the command line is wrong; nothing was done"),
    row(Kind::Configuration, 3, "configuration", "a setting is missing, unknown or malformed"),
    row(
        Kind::NotFound,
        10,
        "not found",
        "the backup, segment, key or repository named is not there",
    ),
    row(Kind::AlreadyExists, 11, "already exists", "what was to be made is there already"),
    row(
        Kind::Conflict,
        12,
        "conflict",
        "another process holds it, or it is stored with other content",
    ),
    row(
        Kind::Corrupt,
        13,
        "damaged",
        "stored bytes are not what was written; see `pgrecall verify`",
    ),
    row(
        Kind::Unsupported,
        14,
        "unsupported",
        "a newer format, one from before the first release, an unknown PostgreSQL version, or a store that cannot do it",
    ),
    row(
        Kind::Unavailable,
        15,
        "unavailable",
        "the store or the server does not answer; trying again may help",
    ),
    row(
        Kind::Denied,
        16,
        "denied",
        "a key, passphrase, permission or credential is missing or wrong",
    ),
    row(Kind::Invalid, 17, "invalid", "what was asked cannot work with what was found"),
    row(
        Kind::Incomplete,
        18,
        "incomplete",
        "WAL is missing, a backup or restore was not brought to its end, or `restore --salvage` has put zeros for what is lost",
    ),
    row(Kind::Internal, 19, "internal", "a defect of pgrecall; please report it"),
    row(Kind::Interrupted, 130, "interrupted", "ended by SIGINT"),
    row(Kind::Terminated, 143, "terminated", "ended by SIGTERM"),
];

/// `wal fetch`: the segment is proven not to be in the repository.
pub(crate) const ABSENT: u8 = 1;

/// `wal fetch` outside standby mode: anything but success and proven absence. PostgreSQL takes
/// codes up to 125 as "no such file" and ends recovery there; above, it stops with an error
/// (`RestoreArchivedFile` in `xlogarchive.c`).
pub(crate) const FETCH_FAILED: u8 = 126;

/// `wal push` when a signal would have been reported: PostgreSQL's archiver dies of codes above 125
/// (`pgarch_archiveXlog`).
const PUSH_ENDED: u8 = 1;

impl Kind {
    /// This kind's row in the table.
    pub(crate) fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.kind == self).unwrap_or(&TABLE[11])
    }
}

/// The exit code of a failure for this caller.
pub(crate) fn code(contract: Contract, failure: &Failure) -> u8 {
    let code = failure.kind.row().code;
    match contract {
        Contract::Person => code,
        Contract::Push if code > 125 => PUSH_ENDED,
        Contract::Push => code,
        Contract::Fetch => FETCH_FAILED,
        Contract::StandbyFetch | Contract::PromotionFetch => ABSENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_row_and_one_code_of_its_own() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.kind.row().code, row.code);
            assert!(TABLE[at + 1..].iter().all(|other| other.code != row.code));
            assert!(TABLE[at + 1..].iter().all(|other| other.kind != row.kind));
            assert!(row.code != 0 && row.code != ABSENT && row.code != FETCH_FAILED);
        }
        assert_eq!(TABLE[11].kind, Kind::Internal);
    }

    #[test]
    fn callers_see_only_codes_they_understand() {
        for row in &TABLE {
            let failure = Failure::new(row.kind, "x");
            assert_eq!(code(Contract::Person, &failure), row.code);
            assert!((1..=125).contains(&code(Contract::Push, &failure)), "{}", row.name);
            assert_eq!(code(Contract::Fetch, &failure), 126, "{}", row.name);
            assert_eq!(code(Contract::StandbyFetch, &failure), 1, "{}", row.name);
            assert_eq!(code(Contract::PromotionFetch, &failure), 1, "{}", row.name);
        }
    }

    #[test]
    fn the_documented_table_is_the_one_in_force() {
        let page = include_str!("../../../docs/errors.md");
        let documented: Vec<&str> =
            page.lines().filter(|line| line.starts_with("| ") && line.contains("| **")).collect();
        let expected: Vec<String> = TABLE
            .iter()
            .map(|row| format!("| {} | **{}** | {} |", row.code, row.name, row.meaning))
            .collect();
        assert_eq!(documented, expected, "docs/errors.md and exit.rs tell different tables");
    }
}
