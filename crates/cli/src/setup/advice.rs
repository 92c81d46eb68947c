//! What `init` tells at its end: the lines for `postgresql.conf`, the next steps, and what the key
//! means.

use std::fmt::Write as _;
use std::path::Path;

use pgrecall_engine::restore::recovery_settings;

use super::config_file;
use crate::config::resolve::Resolved;

/// `archive_command`, as `postgresql.conf` spells it, with absolute paths.
pub(crate) fn archive_command(program: &Path, resolved: &Resolved) -> String {
    let mut words = vec![program.display().to_string()];
    words.extend(config_file::finding_flags(resolved));
    words.extend(["wal".to_owned(), "push".to_owned()]);
    let command: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    // `%` begins a placeholder in the command, and a quote ends the setting's text.
    let command = command.join(" ").replace('%', "%%").replace('\'', "''");
    format!("archive_command = '{command} %p'")
}

/// The command behind `restore_command`, as `restore` writes and `check` tries it: with absolute
/// paths, since PostgreSQL runs it in the data directory and with an environment of its own. A
/// quote in it is not doubled yet.
pub(crate) fn restore_command(program: &Path, config: &Path, cluster: &str) -> String {
    let (program, config) = (program.to_string_lossy(), config.to_string_lossy());
    let words = [&*program, "--config", &*config, "--cluster", cluster];
    let words = words.map(recovery_settings::shell_word);
    format!("{} wal fetch %f \"%p\"", words.join(" "))
}

/// A word as the shell reads it back.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// What to do next, in order.
pub(crate) fn next_steps(program: &Path, resolved: &Resolved) -> String {
    let mut text = String::from("Next:\n\n1. Put these lines into postgresql.conf:\n\n");
    let _ = writeln!(text, "     archive_mode = on");
    let _ = writeln!(text, "     {}", archive_command(program, resolved));
    // The newest commits of an idle server are in no repository until their segment is closed.
    let _ = writeln!(text, "     archive_timeout = 60");
    let flags = config_file::finding_flags(resolved).join(" ");
    let call = |command: &str| {
        let words = ["pgrecall", &flags, command].map(str::to_owned);
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    let _ = write!(
        text,
        "\n   and restart PostgreSQL if archive_mode was off (a reload is enough if it was on).\n\
         2. {}      proves that archiving works\n\
         3. {}     takes the first backup; then let cron or a timer call it\n",
        call("check"),
        call("backup"),
    );
    text
}

/// What the key means, in plain words.
pub(crate) fn about_the_key(key_file: &Path) -> String {
    let key = key_file.display();
    format!(
        "THE KEY. Everything in the repository is encrypted. The only key lies in\n\n     {key}\n\n\
         Without it nobody can restore, you included: when this host burns, the key burns with it, and \
         the backups\nare worthless. So, today:\n\
         - copy the file to a safe place that is not this host and not the repository (it is one line: \
         print it, too), or\n\
         - add a passphrase that people know: pgrecall key add --new-passphrase\n"
    )
}

/// What it means that the only key is one of KMS.
pub(crate) fn about_the_kms_key(key: &str) -> String {
    format!(
        "THE KEY. Everything in the repository is encrypted. The only key is the KMS key\n\n     {key}\n\n\
         When it is deleted, or its account is lost, nobody can restore, you included. So, today, add a second \
         key:\n\
         - a file for a safe place that is not this host: pgrecall key add --new-key-file FILE, or\n\
         - a passphrase that people know: pgrecall key add --new-passphrase\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell_word("/usr/bin/pgrecall"), "/usr/bin/pgrecall");
        assert_eq!(shell_word("/a b/$x"), "\"/a b/\\$x\"");
        assert_eq!(shell_word(""), "\"\"");
    }

    #[test]
    fn the_restore_command_survives_postgresql_and_the_shell() {
        let command = restore_command(
            Path::new("/usr/bin/pgrecall"),
            Path::new("/srv/a b 100%.toml"),
            "main",
        );
        assert_eq!(
            command,
            "/usr/bin/pgrecall --config '/srv/a b 100%%.toml' --cluster main wal fetch %f \"%p\""
        );
    }

    #[test]
    fn the_archive_command_names_the_configuration_and_escapes_what_postgresql_reads() {
        let mut resolved = Resolved {
            file: "/etc/pgrecall/pgrecall.toml".into(),
            file_exists: true,
            items: Vec::new(),
            cluster_known: true,
            warnings: Vec::new(),
        };
        assert_eq!(
            archive_command(Path::new("/usr/bin/pgrecall"), &resolved),
            "archive_command = '/usr/bin/pgrecall wal push %p'"
        );
        resolved.file = "/srv/it's 100%/p.toml".into();
        assert_eq!(
            archive_command(Path::new("/usr/bin/pgrecall"), &resolved),
            "archive_command = '/usr/bin/pgrecall --config \"/srv/it''s 100%%/p.toml\" wal push %p'"
        );
    }
}
