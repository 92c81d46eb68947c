//! Reading the configuration file: every key must be known, every value must fit, and each keeps
//! its line.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::table::{Placement, Section, Setting, TABLE};
use super::value::{Kind, Value};
use crate::failure::{self, Failure, Outcome};

/// A value in the file.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) setting: &'static Setting,
    pub(crate) value: Value,
    pub(crate) line: usize,
}

/// The values of one `[[repository]]`, of one `[[cluster]]`, or of all the plain sections.
pub(crate) type Entries = Vec<Entry>;

/// The value of a key among some entries, as text.
pub(crate) fn text_of<'a>(entries: &'a [Entry], key: &str) -> Option<&'a str> {
    entries.iter().find(|entry| entry.setting.key == key).and_then(|entry| match &entry.value {
        Value::Text(text) => Some(text.as_str()),
        Value::Path(path) => path.to_str(),
        _ => None,
    })
}

/// A configuration file that was read and found well-formed.
#[derive(Default)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) repositories: Vec<Entries>,
    pub(crate) clusters: Vec<Entries>,
    pub(crate) globals: Entries,
}

impl ConfigFile {
    /// Reads and checks the file at `path`.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::from_error(failure::Kind::Configuration, &error)
                .during(format!("reading the configuration file {}", path.display()))
        })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a file; `path` is for the messages.
    pub(crate) fn parse(text: &str, path: &Path) -> Outcome<Self> {
        let lines = Lines { text, path };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            lines.failure(at, error.message())
        })?;
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        for (key, value) in table.get_ref().iter() {
            let at = key.span().start;
            let section = section(key.get_ref()).map_err(|message| lines.failure(at, &message))?;
            file.add_section(section, value.get_ref(), at, lines)?;
        }
        file.refuse_same_names(lines)?;
        Ok(file)
    }

    fn add_section(
        &mut self,
        section: Section,
        value: &DeValue<'_>,
        at: usize,
        lines: Lines<'_>,
    ) -> Outcome<()> {
        let name = section.name();
        match (section.is_list(), value) {
            (true, DeValue::Array(items)) => {
                for item in items.iter() {
                    let DeValue::Table(table) = item.get_ref() else {
                        return Err(lines.failure(at, &format!("write [[{name}]]")));
                    };
                    let mut entries = Vec::new();
                    read_table(section, "", table, lines, &mut entries)?;
                    match section {
                        Section::Repository => self.repositories.push(entries),
                        _ => self.clusters.push(entries),
                    }
                }
                Ok(())
            }
            (true, _) => Err(lines
                .failure(at, &format!("\"{name}\" is a list; write [[{name}]] with two brackets"))),
            (false, DeValue::Table(table)) => {
                read_table(section, "", table, lines, &mut self.globals)
            }
            (false, _) => {
                Err(lines.failure(at, &format!("\"{name}\" is a section; write [{name}]")))
            }
        }
    }

    fn refuse_same_names(&self, lines: Lines<'_>) -> Outcome<()> {
        for (what, list) in [("repository", &self.repositories), ("cluster", &self.clusters)] {
            for (at, entries) in list.iter().enumerate() {
                let Some(name) = text_of(entries, "name") else {
                    if list.len() > 1 || what == "cluster" {
                        return Err(Failure::configuration(format!(
                            "{}: a [[{what}]] has no name",
                            lines.path.display()
                        )));
                    }
                    continue;
                };
                if list[..at].iter().any(|other| text_of(other, "name") == Some(name)) {
                    return Err(Failure::configuration(format!(
                        "{}: two [[{what}]] are named \"{name}\"",
                        lines.path.display()
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Turns offsets of the text into line numbers for messages.
#[derive(Clone, Copy)]
struct Lines<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Lines<'_> {
    fn number(self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn failure(self, at: usize, message: &str) -> Failure {
        let line = self.number(at);
        Failure::configuration(format!("{}:{line}: {message}", self.path.display()))
    }
}

fn section(name: &str) -> Result<Section, String> {
    Section::ALL.into_iter().find(|section| section.name() == name).ok_or_else(|| {
        let mut message = format!("unknown section \"{name}\"");
        let known = Section::ALL.iter().map(|section| section.name());
        if let Some(near) = nearest(name, known) {
            message.push_str(&format!("; did you mean \"{near}\"?"));
        }
        message
    })
}

fn read_table(
    section: Section,
    prefix: &str,
    table: &DeTable<'_>,
    lines: Lines<'_>,
    entries: &mut Entries,
) -> Outcome<()> {
    for (key, value) in table.iter() {
        let at = key.span().start;
        let key = format!("{prefix}{}", key.get_ref());
        let below = format!("{key}.");
        let of_section = || TABLE.iter().filter(|setting| setting.section == section);
        if let DeValue::Table(inner) = value.get_ref()
            && of_section().any(|setting| setting.key.starts_with(&below))
        {
            read_table(section, &below, inner, lines, entries)?;
            continue;
        }
        let Some(setting) = of_section().find(|setting| setting.key == key) else {
            return Err(lines.failure(at, &unknown_key(section, &key)));
        };
        if setting.placement == Placement::EnvironmentOnly {
            let message =
                format!("{key} does not belong into the file; use {key}_file or {key}_command");
            return Err(lines.failure(at, &message));
        }
        let value = scalar(setting, value.get_ref())
            .and_then(|text| check(setting, &text))
            .map_err(|message| lines.failure(at, &format!("{}: {message}", setting.path())))?;
        entries.push(Entry { setting, value, line: lines.number(at) });
    }
    Ok(())
}

/// Parses a value from the file or the environment. Paths must be absolute there: PostgreSQL runs
/// us in its data directory, cron somewhere else.
pub(crate) fn check(setting: &Setting, text: &str) -> Result<Value, String> {
    let value = setting.kind.parse(text)?;
    match &value {
        Value::Path(path) if path.is_relative() => {
            Err(format!("\"{text}\" is relative; write the absolute path"))
        }
        _ => Ok(value),
    }
}

fn scalar(setting: &Setting, value: &DeValue<'_>) -> Result<String, String> {
    let takes_number = matches!(setting.kind, Kind::Integer(..) | Kind::Size(..) | Kind::Duration);
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if takes_number && number.radix() == 10 => {
            Ok(number.as_str().replace('_', ""))
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            Err(format!("expected {}, found {}", quoted(setting.kind), value.type_str()))
        }
        DeValue::Array(_) | DeValue::Table(_) => {
            Err(format!("expected one value, found {}", value.type_str()))
        }
    }
}

fn quoted(kind: Kind) -> String {
    match kind {
        Kind::Choice(_) => format!("one of {}", kind.describe()),
        Kind::Integer(..) => "a whole number".to_owned(),
        Kind::Size(..) => "a size such as \"32MiB\"".to_owned(),
        Kind::Duration => "a duration such as \"30s\"".to_owned(),
        _ => "a text in quotes".to_owned(),
    }
}

fn unknown_key(section: Section, key: &str) -> String {
    let mut message = format!("unknown key \"{}.{key}\"", section.name());
    let known = TABLE.iter().filter(|setting| setting.section == section);
    if let Some(near) = nearest(key, known.map(|setting| setting.key)) {
        message.push_str(&format!("; did you mean \"{near}\"?"));
        return message;
    }
    // Right key, wrong section.
    if let Some(setting) = TABLE.iter().find(|setting| setting.key == key) {
        message.push_str(&format!("; there is \"{}\"", setting.path()));
    }
    message
}

/// The known name most like `name`, if any is alike at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let parsed = ConfigFile::parse(text, Path::new("x.toml"));
        parsed.err().map(|failure| failure.to_string()).unwrap_or_default()
    }

    #[test]
    fn values_keep_their_lines() -> Outcome<()> {
        let text = "# c\n[[repository]]\nurl = \"s3://b/p\"\n[repository.s3]\nregion = \"x\"\n\n\
                    [backup]\ncompression_level = 3\n[[cluster]]\nname = 'a'\n[[cluster]]\nname='b'\n";
        let file = ConfigFile::parse(text, Path::new("x.toml"))?;
        assert_eq!((file.repositories.len(), file.clusters.len()), (1, 2));
        assert_eq!(text_of(&file.repositories[0], "s3.region"), Some("x"));
        let line = |key| file.repositories[0].iter().find(|e| e.setting.key == key).map(|e| e.line);
        assert_eq!((line("url"), line("s3.region")), (Some(3), Some(5)));
        assert_eq!(file.globals[0].line, 8);
        assert!(matches!(file.globals[0].value, Value::Integer(3)));
        assert_eq!(text_of(&file.clusters[1], "name"), Some("b"));
        Ok(())
    }

    #[test]
    fn unknown_keys_name_the_nearest_and_the_line() {
        for (text, expected) in [
            (
                "[[repository]]\nulr = 'file:///x'\n",
                "x.toml:2: unknown key \"repository.ulr\"; did you mean \"url\"?",
            ),
            (
                "[backup]\n\ncompresion_level = 1\n",
                "x.toml:3: unknown key \"backup.compresion_level\"; did you mean \"compression_level\"?",
            ),
            (
                "[[repository]]\n[repository.s3]\nregoin = 'x'\n",
                "x.toml:3: unknown key \"repository.s3.regoin\"; did you mean \"s3.region\"?",
            ),
            (
                "[[repositories]]\nurl = 'file:///x'\n",
                "x.toml:1: unknown section \"repositories\"; did you mean \"repository\"?",
            ),
            (
                "[log]\npgdata = '/x'\n",
                "x.toml:2: unknown key \"log.pgdata\"; there is \"cluster.pgdata\"",
            ),
        ] {
            assert_eq!(error(text), expected);
        }
    }

    #[test]
    fn misshapen_values_say_what_was_expected() {
        for (text, part) in [
            ("[wal]\npush_timeout = 30\n", "x.toml:2: wal.push_timeout: \"30\" has no unit"),
            ("[backup]\ncheckpoint = true\n", "expected one of \"spread\", \"fast\""),
            ("[repository]\nurl = 'file:///x'\n", "write [[repository]] with two brackets"),
            ("[[cluster]]\nname = 'a'\npgdata = 'data'\n", "\"data\" is relative"),
            ("[[cluster]]\nname = 'a'\npassword = 'x'\n", "use password_file or password_command"),
            (
                "[[cluster]]\nname = 'a'\n[[cluster]]\nname = 'a'\n",
                "two [[cluster]] are named \"a\"",
            ),
            ("[[cluster]]\npgdata = '/a'\n", "a [[cluster]] has no name"),
            ("[backup\n", "x.toml:1: "),
            ("[backup]\nthreads = [1]\n", "expected one value, found array"),
        ] {
            assert!(error(text).contains(part), "{text}: {}", error(text));
        }
    }
}
