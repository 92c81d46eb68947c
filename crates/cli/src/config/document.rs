//! Texts made from the table of settings: the commented file that `init` writes, and
//! `docs/configuration.md`.

use std::fmt::Write as _;

use super::table::{Fallback, Placement, Section, Setting, TABLE};
use super::value::Kind;

/// Values that the written file states; everything else stands there as a comment.
pub(crate) type Chosen<'a> = &'a [(&'a str, String)];

/// The commented configuration file, with `chosen` values (path, text) in force.
pub(crate) fn commented_file(chosen: Chosen<'_>) -> String {
    let mut text = String::from(
        "# Configuration of pgrecall. What is commented out shows the default, or an example.\n\
         # Flags and environment variables win over this file; `pgrecall config` prints what is in force.\n",
    );
    for section in Section::ALL {
        let brackets = if section.is_list() { ("[[", "]]") } else { ("[", "]") };
        let _ = write!(text, "\n# {}\n", section.doc());
        let _ = writeln!(text, "{}{}{}", brackets.0, section.name(), brackets.1);
        let mut sub = "";
        for setting in TABLE.iter().filter(|setting| setting.section == section) {
            if setting.placement == Placement::EnvironmentOnly {
                continue;
            }
            let (table, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
            if table != sub {
                let _ = writeln!(text, "\n[{}.{table}]", section.name());
                sub = table;
            }
            write_setting(&mut text, setting, key, chosen);
        }
    }
    text
}

fn write_setting(text: &mut String, setting: &Setting, key: &str, chosen: Chosen<'_>) {
    let _ = writeln!(text, "# {}", setting.doc);
    if let Fallback::Derived(how) = setting.fallback {
        let _ = writeln!(text, "# Default: {how}.");
    }
    if let Some((_, value)) = chosen.iter().find(|(path, _)| setting.is(path)) {
        let _ = writeln!(text, "{key} = {}", quote(setting, value));
        return;
    }
    let shown = match setting.fallback {
        Fallback::Fixed(value) => value,
        _ => setting.example,
    };
    let _ = writeln!(text, "#{key} = {}", quote(setting, shown));
}

/// A value as TOML spells it.
pub(crate) fn quote(setting: &Setting, value: &str) -> String {
    match setting.kind {
        Kind::Integer(..) if !value.is_empty() => value.to_owned(),
        _ => toml::Value::String(value.to_owned()).to_string(),
    }
}

#[cfg(test)]
const PAGE_HEAD: &str = "\
# Configuration

<!-- Made from crates/cli/src/config/table.rs; a test keeps the two equal. To write it anew:
     PGRECALL_TEST_WRITE_DOCS=1 cargo test -p pgrecall --bin pgrecall documented -->

One TOML file, environment variables and flags set the same things. A flag wins over an environment variable, that
over the file, that over the default. `pgrecall config` prints what is in force and where each value came from.

The file is the first of these that is named or exists:

1. `--config FILE`
2. the file that `PGRECALL_CONFIG` names
3. `/etc/pgrecall/pgrecall.toml`
4. `$XDG_CONFIG_HOME/pgrecall/pgrecall.toml`, which is `~/.config/pgrecall/pgrecall.toml` where that variable is not set

`pgrecall init` writes a commented file. Unknown keys are errors that name the nearest known key.

**Which repository.** `[[repository]]` is a list. With more than one, `--repo` names the one that is meant, by its name
or its URL; several at once are not possible yet. With one only, `--repo URL` reaches that same repository by another
way: the id and fingerprint in the file still hold.

**Which cluster.** `[[cluster]]` is a list, too. The cluster meant is the one that `--cluster` names, else the one whose
`pgdata` is `--pgdata` (an error, if none has it), else the one whose `pgdata` is the working directory (PostgreSQL runs
`archive_command` and `restore_command` there), else the only one. Otherwise the command ends with an error that lists
them.

**Secrets** come from a file, from an environment variable or from a command whose first line of output they are, never
from the command line. Of several ways to one secret a variable's wins over the file's, then the secret itself over its
`_file` and that over its `_command`. Secrets are fetched only when they are needed, and are masked wherever settings are
shown, `_command` texts too. A command is killed when it takes longer than two minutes, and under `wal push` and
`wal fetch` no longer than these may go without progress.

**What opens the repository.** The key file, if it exists; else `kms_key`, if it is set; else the passphrase. A passphrase costs
every `wal push` and `wal fetch` a listing and its slow hash. A KMS key costs each of them a request to KMS: some milliseconds within
its region, what Amazon takes for a request (a cent for some thousands), and no WAL is archived while KMS cannot be reached.
Give a host that archives much a key file, and one on whose disk no key may lie a KMS key.

**Values.** Sizes: `512KiB`, `32MiB`, `1GiB`, or bytes. Durations: `500ms`, `30s`, `10min`, `2h`, `7d`; a bare number is an
error. Paths are absolute in the file and in the environment.

`PGDATA` is the one variable that does not win over the file: it fills in `cluster.pgdata` where nothing else does.
";

/// The whole of `docs/configuration.md`.
#[cfg(test)]
pub(crate) fn page() -> String {
    let mut text = PAGE_HEAD.to_owned();
    for section in Section::ALL {
        let name = section.name();
        let heading = if section.is_list() { format!("[[{name}]]") } else { format!("[{name}]") };
        let _ = write!(text, "\n## `{heading}`\n\n{}\n\n", section.doc());
        text.push_str("| key | accepts | default | environment, flag | meaning |\n");
        text.push_str("|---|---|---|---|---|\n");
        for setting in TABLE.iter().filter(|setting| setting.section == section) {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                setting.key,
                setting.kind.describe(),
                default_of(setting),
                ways(setting),
                meaning(setting),
            );
        }
    }
    text
}

#[cfg(test)]
fn default_of(setting: &Setting) -> String {
    match setting.fallback {
        Fallback::Unset => "–".to_owned(),
        Fallback::Fixed(value) => format!("`{value}`"),
        Fallback::Derived(how) => how.to_owned(),
    }
}

#[cfg(test)]
fn ways(setting: &Setting) -> String {
    let mut ways = vec![format!("`{}`", setting.variable())];
    let more = setting.variables.iter().chain(setting.gap_variables);
    ways.extend(more.map(|name| format!("`{name}`")));
    ways.extend(setting.flag.map(|flag| format!("`{flag}`")));
    ways.join(", ")
}

#[cfg(test)]
fn meaning(setting: &Setting) -> String {
    match setting.placement {
        Placement::Anywhere => setting.doc.to_owned(),
        Placement::EnvironmentOnly => format!("{} Environment only.", setting.doc),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::{ConfigFile, text_of};
    use super::*;
    use crate::failure::Outcome;

    #[test]
    fn the_documented_settings_are_the_ones_in_force() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        if std::env::var_os("PGRECALL_TEST_WRITE_DOCS").is_some() {
            std::fs::write(path, page()).expect("writing docs/configuration.md");
        }
        let written = std::fs::read_to_string(path).expect("docs/configuration.md");
        assert!(written == page(), "docs/configuration.md is not what the table of settings says");
    }

    #[test]
    fn the_written_file_reads_back() -> Outcome<()> {
        let chosen = [
            ("repository.url", "s3://b/\"odd\\".to_owned() + "p"),
            ("repository.s3.region", "eu".to_owned()),
            ("cluster.name", "main".to_owned()),
            ("cluster.port", "5433".to_owned()),
        ];
        let text = commented_file(&chosen);
        let file = ConfigFile::parse(&text, Path::new("x.toml"))?;
        assert_eq!(text_of(&file.repositories[0], "url"), Some("s3://b/\"odd\\p"));
        assert_eq!(text_of(&file.repositories[0], "s3.region"), Some("eu"));
        assert_eq!(text_of(&file.clusters[0], "name"), Some("main"));
        assert_eq!(file.clusters[0].len(), 2);
        assert!(file.globals.is_empty());
        Ok(())
    }

    #[test]
    fn every_commented_line_is_known_when_put_in_force() -> Outcome<()> {
        let text = commented_file(&[]);
        let in_force: Vec<String> = text
            .lines()
            .filter(|line| !line.ends_with("= \"\""))
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
                _ => line.to_owned(),
            })
            .collect();
        let file = ConfigFile::parse(&in_force.join("\n"), Path::new("x.toml"))?;
        assert!(file.globals.len() > 10 && file.clusters[0].len() > 8);
        Ok(())
    }
}
