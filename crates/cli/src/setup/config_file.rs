//! The configuration that `init` writes, or, where a file stands there, what to add to it.

use std::path::Path;

use super::key_file;
use super::owner::{Owner, User};
use crate::config::document;
use crate::config::file::{self, ConfigFile};
use crate::config::resolve::{Origin, Resolved};
use crate::config::settings::Settings;
use crate::config::table::{Placement, Section};
use crate::failure::{Failure, Kind, Outcome};

/// What became of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// A new file.
    New,
    /// The file there says all of it already.
    Unchanged,
    /// A file is there and says less: these lines are to be added to it.
    ToAdd(String),
}

/// What `init` has found out and the configuration must pin.
pub(crate) struct Pinned {
    pub(crate) id: String,
    pub(crate) key_fingerprint: String,
}

/// Writes the commented file, unless there is one.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(
    settings: &Settings,
    pinned: &Pinned,
    owner: Option<Owner>,
) -> Outcome<Written> {
    let path = &settings.resolved.file;
    let chosen = chosen(settings, pinned);
    if settings.resolved.file_exists {
        return missing(path, &chosen);
    }
    let chosen: Vec<(&str, String)> =
        chosen.iter().map(|(path, value)| (path.as_str(), value.clone())).collect();
    let text = document::commented_file(&chosen);
    key_file::write_new(path, text.as_bytes(), 0o640).map_err(|error| {
        Failure::from_error(Kind::Denied, &error)
            .during(format!("writing the configuration file {}", path.display()))
    })?;
    // Root's file, readable by the server: a server that was broken into must not be able to say
    // what root runs (`passphrase_command`).
    if let Some(owner) = owner {
        owner.give(path, User::Not)?;
    }
    Ok(Written::New)
}

/// The values to write: what is pinned, and what was said by flags and variables, since nobody
/// says it again when PostgreSQL calls.
fn chosen(settings: &Settings, pinned: &Pinned) -> Vec<(String, String)> {
    let mut chosen = vec![
        ("repository.id".to_owned(), pinned.id.clone()),
        ("repository.key_fingerprint".to_owned(), pinned.key_fingerprint.clone()),
    ];
    for item in &settings.resolved.items {
        let listed = matches!(item.setting.section, Section::Repository | Section::Cluster);
        let here = match &item.origin {
            Origin::Flag(_) => true,
            // The server's own variables hold where it is started, not where it archives.
            Origin::Variable(name) => name == "PGDATA" || name.starts_with("PGRECALL_"),
            Origin::File { .. } => settings.resolved.file_exists,
            Origin::Default => item.setting.is("repository.name"),
            Origin::Derived(_) | Origin::Unset => false,
        };
        let writable = item.setting.placement == Placement::Anywhere && !item.setting.is_secret();
        let path = item.setting.path();
        let Some(value) = item.value.as_ref().filter(|_| listed && here && writable) else {
            continue;
        };
        if !chosen.iter().any(|(known, _)| *known == path) {
            chosen.push((path, value.show()));
        }
    }
    chosen
}

/// What the file at `path` does not say yet.
fn missing(path: &Path, chosen: &[(String, String)]) -> Outcome<Written> {
    let file = ConfigFile::read(path)?;
    let wanted = |section: &str| {
        let prefix = format!("{section}.");
        chosen
            .iter()
            .filter_map(|(path, value)| Some((path.strip_prefix(&prefix)?.to_owned(), value)))
            .collect::<Vec<_>>()
    };
    let mut text = String::new();
    for (section, list) in [("repository", &file.repositories), ("cluster", &file.clusters)] {
        let wanted = wanted(section);
        let name = wanted.iter().find(|(key, _)| key == "name").map(|(_, value)| value.as_str());
        let known = list.iter().find(|entries| {
            let named =
                file::text_of(entries, "name").or((section == "repository").then_some("main"));
            named == name
        });
        let lines: Vec<String> = wanted
            .iter()
            .filter(|(key, value)| known.is_none_or(|entries| says(entries, key, value).is_none()))
            .map(|(key, value)| format!("{key} = {}\n", quoted(value)))
            .collect();
        if !lines.is_empty() {
            text.push_str(&format!("[[{section}]]\n{}", lines.concat()));
        }
    }
    Ok(if text.is_empty() { Written::Unchanged } else { Written::ToAdd(text) })
}

/// The entry that says the value already; a default needs no saying.
fn says<'a>(entries: &'a [file::Entry], key: &str, value: &str) -> Option<&'a str> {
    let said = entries.iter().find(|entry| entry.setting.key == key);
    match said {
        Some(entry) if entry.value.show() == value => Some(""),
        None if key == "name" && value == "main" => Some(""),
        _ => None,
    }
}

fn quoted(value: &str) -> String {
    if value.parse::<u64>().is_ok() {
        return value.to_owned();
    }
    toml::Value::String(value.to_owned()).to_string()
}

/// The flags that make another call of `pgrecall` find this configuration.
pub(crate) fn finding_flags(resolved: &Resolved) -> Vec<String> {
    if resolved.file == Path::new(crate::config::resolve::SYSTEM_FILE) {
        return Vec::new();
    }
    vec!["--config".to_owned(), resolved.file.display().to_string()]
}
