//! What a restored server is told: `postgresql.auto.conf`, signal files, and the files that were
//! outside of its data directory.

use std::path::Path;

use super::plan::{RestorePlan, Stop};
use super::target::{Action, Bound};

/// Settings of recovery, by name: those of an earlier one would mix with these. ALTER SYSTEM drops
/// comments, so marks in the file would be lost (`guc.c`, `ReplaceAutoConfigFile`).
const RECOVERY_SETTINGS: [&str; 12] = [
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "recovery_min_apply_delay",
];

/// Of these PostgreSQL takes one, and `postgresql.conf` may hold another: the empty ones are named
/// first, since each setting is looked at in the order of the files
/// (`error_multiple_recovery_targets`).
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// What the result is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes the old server's place and goes on archiving.
    Primary,
    /// It never archives.
    Copy,
    /// It follows a primary.
    Standby,
}

/// The settings that a restored server gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// What it is to be.
    pub role: Role,
    /// What it does at the target.
    pub action: Action,
    /// `restore_command`, whole.
    pub restore_command: String,
}

impl ServerSettings {
    /// The signal file that makes PostgreSQL recover from the archive.
    #[must_use]
    pub const fn signal_file(&self) -> &'static str {
        match self.role {
            Role::Primary | Role::Copy => "recovery.signal",
            Role::Standby => "standby.signal",
        }
    }

    /// Names and values, in order.
    #[must_use]
    pub fn lines(&self, plan: &RestorePlan) -> Vec<(&'static str, String)> {
        let mut lines = vec![("restore_command", self.restore_command.clone())];
        let ours = match self.role {
            Role::Standby => None,
            Role::Primary | Role::Copy => Some("recovery_target_lsn"),
        };
        let others = TARGETS.iter().filter(|name| Some(**name) != ours);
        lines.extend(others.map(|name| (*name, String::new())));
        if self.role == Role::Standby {
            lines.push(("recovery_target_timeline", "latest".into()));
            return lines;
        }
        let (lsn, bound) = match plan.stop {
            Stop::Lsn { lsn, bound } => (lsn, bound),
            Stop::Consistency { after, .. } => (after, Bound::Inclusive),
        };
        lines.push(("recovery_target_lsn", lsn.to_string()));
        let inclusive = if bound == Bound::Inclusive { "true" } else { "false" };
        lines.push(("recovery_target_inclusive", inclusive.into()));
        lines.push(("recovery_target_timeline", plan.timeline.0.to_string()));
        lines.push(("recovery_target_action", self.action.setting().into()));
        if self.role == Role::Copy {
            lines.push(("archive_mode", "off".into()));
        }
        lines
    }
}

/// `postgresql.auto.conf` without what an earlier recovery left in it, and with these lines.
#[must_use]
pub fn auto_conf(before: &[u8], lines: &[(&str, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in before.split_inclusive(|byte| *byte == b'\n') {
        let name = setting_name(line);
        let ours = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let replaced = lines.iter().any(|(name, _)| ours(name));
        if !replaced && !RECOVERY_SETTINGS.iter().any(|name| ours(name)) {
            out.extend_from_slice(line);
        }
    }
    if out.last().is_some_and(|byte| *byte != b'\n') {
        out.push(b'\n');
    }
    for (name, value) in lines {
        out.extend_from_slice(format!("{name} = {}\n", quote(value)).as_bytes());
    }
    out
}

/// The name at the start of a line of a configuration file (`guc-file.l`).
fn setting_name(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_start();
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.');
    let end = line.iter().position(|byte| !word(byte)).unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// A value in single quotes, as PostgreSQL's configuration files take it: quotes are doubled, and
/// backslashes, which would escape, too (`GUC_scanstr`).
#[must_use]
pub fn quote(value: &str) -> String {
    let mut out = String::from("'");
    for c in value.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// A word for the shell that PostgreSQL hands commands to. `%` is doubled: PostgreSQL replaces
/// `%f`, `%p` and `%r`, and takes `%%` for `%` (`BuildRestoreCommand`).
#[must_use]
pub fn shell_word(word: &str) -> String {
    let word = word.replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Lines for the end of a `postgresql.conf` that came in from outside of its data directory, or
/// speaks of another one: the last setting of a name holds, and without them the new server would
/// open the old one's files.
#[must_use]
pub fn taken_in(conf: &[u8], dir: &Path, taken_in: &[Vec<u8>]) -> Option<Vec<u8>> {
    let set = |name: &str| {
        let lines = conf.split(|byte| *byte == b'\n');
        lines.map(setting_name).any(|set| set.eq_ignore_ascii_case(name.as_bytes()))
    };
    let mut lines = Vec::new();
    let mut add = |name: &str, value: String| lines.push(format!("{name} = {}", quote(&value)));
    if set("data_directory") {
        add("data_directory", dir.display().to_string());
    }
    for (name, file) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
        let moved = taken_in.iter().any(|path| path == file.as_bytes());
        if moved || set(name) && dir.join(file).exists() {
            add(name, dir.join(file).display().to_string());
        }
    }
    if set("external_pid_file") {
        add("external_pid_file", String::new());
    }
    if lines.is_empty() {
        return None;
    }
    let mut out = conf.to_vec();
    if out.last().is_some_and(|byte| *byte != b'\n') {
        out.push(b'\n');
    }
    let note =
        "\n# By pgrecall restore: this server's files are here, not where the old one's were.\n";
    out.extend_from_slice(note.as_bytes());
    out.extend_from_slice(lines.join("\n").as_bytes());
    out.push(b'\n');
    Some(out)
}

/// A configuration without the includes that would keep a server from starting, since what they
/// name is not there: those lines become comments. Names are relative to the file's `folder`
/// (`AbsoluteConfigLocation`, guc-file.l). Gives the names, too.
#[must_use]
pub fn without_missing_includes(conf: &[u8], folder: &Path) -> Option<(Vec<u8>, Vec<String>)> {
    let (mut out, mut missing) = (Vec::with_capacity(conf.len()), Vec::new());
    for line in conf.split_inclusive(|byte| *byte == b'\n') {
        let name = setting_name(line);
        let kind = ["include", "include_dir"]
            .into_iter()
            .find(|kind| name.eq_ignore_ascii_case(kind.as_bytes()));
        let absent = kind.and_then(|_| included(line)).filter(|named| !folder.join(named).exists());
        if let Some(named) = absent {
            out.extend_from_slice(b"# By pgrecall restore, since it is not there: ");
            missing.push(named);
        }
        out.extend_from_slice(line);
    }
    (!missing.is_empty()).then_some((out, missing))
}

/// What an include names.
fn included(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let rest = text.split_once(|c: char| c.is_whitespace() || c == '=' || c == '\'')?;
    let rest = text.get(rest.0.len()..)?.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    match rest.strip_prefix('\'') {
        Some(quoted) => Some(quoted.split('\'').next()?.to_owned()),
        None => Some(rest.split(|c: char| c.is_whitespace() || c == '#').next()?.to_owned()),
    }
    .filter(|named| !named.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_recovery_settings_go_and_others_stay() {
        let before =
            b"# Do not edit this file manually!\nwork_mem = '64MB'\n  Restore_Command = 'cp \
            x'\nrecovery_target_time='2020-01-01'\nrecovery_target_xid 7\nrestore_command2 = 'x'\n\
            primary_conninfo = 'host=a'";
        let lines = [("restore_command", "it's \\ here".to_owned())];
        let text = String::from_utf8(auto_conf(before, &lines)).unwrap();
        let expected = "# Do not edit this file manually!\nwork_mem = '64MB'\nrestore_command2 = \
            'x'\nprimary_conninfo = 'host=a'\nrestore_command = 'it''s \\\\ here'\n";
        assert_eq!(text, expected);
        assert_eq!(auto_conf(text.as_bytes(), &lines), text.as_bytes());
    }

    #[test]
    fn words_are_quoted_for_the_shell_and_for_postgresql() {
        assert_eq!(shell_word("/usr/bin/pgrecall"), "/usr/bin/pgrecall");
        assert_eq!(shell_word("/my dir/it's"), "'/my dir/it'\\''s'");
        assert_eq!(shell_word("/100%f"), "/100%%f");
    }

    #[test]
    fn includes_of_what_is_not_there_become_comments() {
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("there.d")).unwrap();
        let conf = b"include_dir = 'conf.d'\ninclude_dir 'there.d'\nInclude='/no/such.conf' # x\n\
            include_if_exists = 'gone'\nport = 5432\ninclude_dir=''\n";
        let (text, missing) = without_missing_includes(conf, folder.path()).unwrap();
        assert_eq!(missing, ["conf.d", "/no/such.conf"]);
        let mark = "# By pgrecall restore, since it is not there: ";
        let text = String::from_utf8(text).unwrap();
        let expected = format!(
            "{mark}include_dir = 'conf.d'\ninclude_dir 'there.d'\n{mark}Include='/no/such.conf' \
             # x\ninclude_if_exists = 'gone'\nport = 5432\ninclude_dir=''\n"
        );
        assert_eq!(text, expected);
        assert_eq!(without_missing_includes(text.as_bytes(), folder.path()), None);
    }

    #[test]
    fn a_configuration_from_elsewhere_speaks_of_the_new_place() {
        let conf = b"Data_Directory = '/old'\nhba_file='/etc/pg_hba.conf'\n#ident_file = 'x'";
        let taken = [b"pg_hba.conf".to_vec(), b"postgresql.conf".to_vec()];
        let text = taken_in(conf, Path::new("/new"), &taken).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.ends_with("data_directory = '/new'\nhba_file = '/new/pg_hba.conf'\n"),
            "{text}"
        );
        assert_eq!(taken_in(b"port = 5432\n", Path::new("/new"), &[]), None);
    }
}
