//! What PostgreSQL leaves out of a base backup, by its own names.
//!
//! The lists are those of `src/backend/backup/basebackup.c` (before 15
//! `src/backend/replication/basebackup.c`): `excludeDirContents`, `excludeFiles` and the rules of
//! `sendDir`. PostgreSQL compares names at every depth, and so does this.

use crate::relation::{Fork, Owner, RelationFile};
use crate::version::Major;

/// Directories whose content stays out while they themselves are kept (`excludeDirContents`), and
/// why.
pub const EMPTIED_DIRECTORIES: [(&str, &str); 7] = [
    ("pg_stat_tmp", "temporary statistics"),
    ("pg_replslot", "replication slots belong to the server, not to a copy of it"),
    ("pg_dynshmem", "removed at start (dsm_cleanup_for_mmap)"),
    ("pg_notify", "removed at start (AsyncShmemInit)"),
    ("pg_serial", "not needed, made anew at start (SerialInit)"),
    ("pg_snapshots", "removed at start (DeleteAllExportedSnapshotFiles)"),
    ("pg_subtrans", "zeroed at start (StartupSUBTRANS)"),
];

/// Files that stay out wherever they are (`excludeFiles`), and why.
pub const LEFT_OUT_FILES: [(&str, &str); 9] = [
    ("postgresql.auto.conf.tmp", "half-written settings of ALTER SYSTEM"),
    ("current_logfiles.tmp", "half-written list of log files"),
    ("backup_label", "the backup brings its own"),
    ("tablespace_map", "the backup brings its own"),
    ("backup_manifest", "belongs to the backup that this server was made from"),
    ("postmaster.pid", "belongs to the running server"),
    ("postmaster.opts", "belongs to the running server"),
    (".DS_Store", "belongs to the desktop of macOS"),
    // PostgreSQL keeps this one, and never reads it.
    ("backup_label.old", "belongs to the backup that this server was made from"),
];

/// Files and directories whose names begin so stay out wherever they are, and why.
pub const LEFT_OUT_PREFIXES: [(&str, &str); 2] = [
    ("pg_internal.init", "the relation cache, made anew at start (also half-written ones)"),
    ("pgsql_tmp", "temporary files of queries (PG_TEMP_FILE_PREFIX)"),
];

/// Files of ours at the top of a data directory begin so; they are never part of a backup.
pub const OWN_PREFIX: &str = ".pgrecall";

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory, or a link to one.
    Directory,
    /// A regular file.
    File,
}

/// Whether the folder of a relation file holds an init fork of the same relation: then the relation
/// is unlogged, and all its other forks are made anew from that one at the end of recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitFork {
    /// There is one.
    Present,
    /// There is none.
    Absent,
}

/// Why an entry stays out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Named in [`LEFT_OUT_FILES`] or [`LEFT_OUT_PREFIXES`]; the text there.
    Named(&'static str),
    /// Content of a directory of [`EMPTIED_DIRECTORIES`]; the text there.
    EmptiedDirectory(&'static str),
    /// WAL comes from the archive.
    Wal,
    /// A fork of an unlogged relation other than its init fork.
    UnloggedRelation,
    /// A temporary relation.
    TemporaryRelation,
    /// A file of ours.
    Own,
}

impl LeftOut {
    /// For people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Named(reason) | Self::EmptiedDirectory(reason) => reason,
            Self::Wal => "WAL comes from the archive",
            Self::UnloggedRelation => "unlogged relation, made anew from its init fork",
            Self::TemporaryRelation => "temporary relation",
            Self::Own => "written by this program",
        }
    }
}

/// What to do with an entry of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Back it up; look into it if it is a directory.
    Keep,
    /// Keep the directory with just these directories in it, and nothing else.
    EmptyDirectory {
        /// Empty directories to keep within it.
        within: &'static [&'static str],
    },
    /// Not part of a backup.
    LeaveOut(LeftOut),
}

/// Judges an entry by its path below the data directory (`/` between the parts).
///
/// Entries below a directory that is emptied or left out are left out too, whichever way they are
/// come upon. `init_fork` counts for relation files only.
#[must_use]
pub fn judge(path: &str, kind: EntryKind, major: Major, init_fork: InitFork) -> Judgement {
    if path.starts_with(OWN_PREFIX) {
        return Judgement::LeaveOut(LeftOut::Own);
    }
    if path == "pg_wal" || path.starts_with("pg_wal/") {
        return judge_wal(path, kind, major);
    }
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        if let Some(reason) = prefix_reason(part) {
            return Judgement::LeaveOut(LeftOut::Named(reason));
        }
        let emptied = EMPTIED_DIRECTORIES.iter().find(|(name, _)| *name == part);
        if let Some((_, reason)) = emptied {
            if !is_last {
                return Judgement::LeaveOut(LeftOut::EmptiedDirectory(reason));
            }
            if kind == EntryKind::Directory {
                return Judgement::EmptyDirectory { within: &[] };
            }
        }
        let named = LEFT_OUT_FILES.iter().find(|(name, _)| *name == part);
        if let Some((_, reason)) = named {
            return Judgement::LeaveOut(LeftOut::Named(reason));
        }
    }
    match kind {
        EntryKind::Directory => Judgement::Keep,
        EntryKind::File => judge_relation(path, init_fork),
    }
}

fn prefix_reason(part: &str) -> Option<&'static str> {
    LEFT_OUT_PREFIXES.iter().find(|(prefix, _)| part.starts_with(prefix)).map(|(_, reason)| *reason)
}

/// `pg_wal` stays with the directories that a server expects in it; 17 brought `summaries`.
fn judge_wal(path: &str, kind: EntryKind, major: Major) -> Judgement {
    let within: &[&str] =
        if major >= Major::V17 { &["archive_status", "summaries"] } else { &["archive_status"] };
    if path == "pg_wal" {
        return Judgement::EmptyDirectory { within };
    }
    let is_expected = path.strip_prefix("pg_wal/").is_some_and(|rest| within.contains(&rest));
    if is_expected && kind == EntryKind::Directory {
        return Judgement::EmptyDirectory { within: &[] };
    }
    Judgement::LeaveOut(LeftOut::Wal)
}

fn judge_relation(path: &str, init_fork: InitFork) -> Judgement {
    let Some(file) = RelationFile::parse(path) else {
        return Judgement::Keep;
    };
    // Neither kind is ever in global/, and PostgreSQL does not look for them there.
    if path.starts_with("global/") {
        return Judgement::Keep;
    }
    match (file.owner, init_fork) {
        (Owner::Backend(_), _) => Judgement::LeaveOut(LeftOut::TemporaryRelation),
        (Owner::Shared, InitFork::Present) if file.fork != Fork::Init => {
            Judgement::LeaveOut(LeftOut::UnloggedRelation)
        }
        (Owner::Shared, _) => Judgement::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        EMPTIED_DIRECTORIES, EntryKind, InitFork, Judgement, LEFT_OUT_FILES, LEFT_OUT_PREFIXES,
        LeftOut, OWN_PREFIX, judge,
    };
    use crate::version::Major;

    fn file(path: &str) -> Judgement {
        judge(path, EntryKind::File, Major::V17, InitFork::Absent)
    }

    fn directory(path: &str) -> Judgement {
        judge(path, EntryKind::Directory, Major::V17, InitFork::Absent)
    }

    #[test]
    fn data_and_settings_are_kept() {
        for path in [
            "PG_VERSION",
            "base/5/16384",
            "base/5/16384_init",
            "global/pg_control",
            "global/1260",
            "pg_xact/0000",
            "postgresql.auto.conf",
            "postgresql.conf",
            "tablespace_map.old",
            "current_logfiles",
            "pg_tblspc/16400/PG_17_202406281/5/16390",
            "pg_logical/replorigin_checkpoint",
            "standby.signal",
        ] {
            assert_eq!(file(path), Judgement::Keep, "{path}");
        }
        assert_eq!(directory("base/5"), Judgement::Keep);
    }

    #[test]
    fn what_postgresql_leaves_out_is_left_out() {
        for path in [
            "postmaster.pid",
            "postmaster.opts",
            "backup_label",
            "backup_label.old",
            "backup_manifest",
            "postgresql.auto.conf.tmp",
            "current_logfiles.tmp",
            "base/5/pg_internal.init",
            "global/pg_internal.init.4711",
            "base/pgsql_tmp/pgsql_tmp4711.0",
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status/000000010000000000000001.ready",
            "pg_replslot/slot/state",
            "pg_stat_tmp/global.stat",
            "base/5/t3_16384",
            ".pgrecall-restore.json",
        ] {
            assert!(matches!(file(path), Judgement::LeaveOut(_)), "{path}");
        }
        assert!(matches!(directory("base/pgsql_tmp"), Judgement::LeaveOut(_)));
    }

    #[test]
    fn emptied_directories_stay() {
        for name in
            ["pg_replslot", "pg_notify", "pg_subtrans", "pg_dynshmem", "pg_wal/archive_status"]
        {
            assert_eq!(directory(name), Judgement::EmptyDirectory { within: &[] }, "{name}");
        }
        let wal = |major| judge("pg_wal", EntryKind::Directory, major, InitFork::Absent);
        assert_eq!(wal(Major::V16), Judgement::EmptyDirectory { within: &["archive_status"] });
        assert_eq!(
            wal(Major::V17),
            Judgement::EmptyDirectory { within: &["archive_status", "summaries"] }
        );
        let summaries =
            judge("pg_wal/summaries", EntryKind::Directory, Major::V16, InitFork::Absent);
        assert_eq!(summaries, Judgement::LeaveOut(LeftOut::Wal));
    }

    #[test]
    fn unlogged_relations_keep_their_init_forks_only() {
        let unlogged = |path| judge(path, EntryKind::File, Major::V17, InitFork::Present);
        for path in ["base/5/16384", "base/5/16384_fsm", "base/5/16384_vm.1"] {
            assert_eq!(unlogged(path), Judgement::LeaveOut(LeftOut::UnloggedRelation), "{path}");
        }
        assert_eq!(unlogged("base/5/16384_init"), Judgement::Keep);
        assert_eq!(unlogged("base/5/PG_VERSION"), Judgement::Keep);
    }

    /// A row of the documented table: its name, what stays out, why, and a path that it is about.
    type Row = (String, String, &'static str, String);

    fn documented_rows() -> Vec<Row> {
        let content = "its content".to_owned();
        let wal =
            "its content; `archive_status/` and, from 17 on, `summaries/` stay as empty folders";
        let mut rows: Vec<Row> = vec![(
            "`pg_wal/`".into(),
            wal.into(),
            LeftOut::Wal.reason(),
            "pg_wal/000000010000000000000001".into(),
        )];
        rows.extend(EMPTIED_DIRECTORIES.map(|(name, why)| {
            (format!("`{name}/`"), content.clone(), why, format!("{name}/0000"))
        }));
        rows.extend(LEFT_OUT_FILES.map(|(name, why)| {
            (format!("`{name}`"), "files of this name".into(), why, format!("base/5/{name}"))
        }));
        let beginning = "files and folders whose names begin so";
        rows.extend(LEFT_OUT_PREFIXES.map(|(name, why)| {
            (format!("`{name}*`"), beginning.into(), why, format!("base/5/{name}.42"))
        }));
        rows.push((
            "`base/5/16384`, where `base/5/16384_init` is".into(),
            "all forks but the init fork".into(),
            LeftOut::UnloggedRelation.reason(),
            "base/5/16384".into(),
        ));
        rows.push((
            "`base/5/t3_16384`".into(),
            "all forks".into(),
            LeftOut::TemporaryRelation.reason(),
            "base/5/t3_16384_fsm".into(),
        ));
        rows.push((
            format!("`{OWN_PREFIX}*`"),
            "files and folders at the top whose names begin so".into(),
            LeftOut::Own.reason(),
            format!("{OWN_PREFIX}-restore"),
        ));
        rows
    }

    #[test]
    fn the_documented_table_is_the_one_in_force() {
        let page = include_str!("../../../docs/backup.md");
        let rows = documented_rows();
        let documented: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = rows
            .iter()
            .map(|(name, what, why, _)| format!("| {name} | {what} | {why} |"))
            .collect();
        assert_eq!(documented, expected, "docs/backup.md and data_directory.rs differ");
        for (name, _, why, path) in rows {
            let judged = judge(&path, EntryKind::File, Major::V17, InitFork::Present);
            let Judgement::LeaveOut(reason) = judged else { panic!("{name}: {path} is kept") };
            assert_eq!(reason.reason(), why, "{path}");
        }
    }
}
