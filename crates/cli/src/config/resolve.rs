//! Which value is in force: flag, then environment, then file, then default; and which repository
//! and cluster are meant.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file::{self, ConfigFile, Entries, Entry};
use super::table::{Fallback, Placement, Section, Setting, TABLE};
use super::value::Value;
use crate::failure::{Failure, Kind, Outcome};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Variable(String),
    File {
        path: PathBuf,
        line: usize,
    },
    Default,
    /// Nobody gave a value: it is found out at run time, in the way told here.
    Derived(&'static str),
    Unset,
}

/// A setting with what is in force.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) setting: &'static Setting,
    pub(crate) value: Option<Value>,
    pub(crate) origin: Origin,
}

/// A value given by a flag.
pub(crate) struct Flag {
    /// The setting's path, such as `cluster.name`.
    pub(crate) path: &'static str,
    pub(crate) flag: &'static str,
    pub(crate) value: OsString,
}

/// How much a command needs to know which cluster is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterNeed {
    /// One cluster must be meant, and be in the file if that lists any.
    One,
    /// One cluster must be meant; it may be new.
    OneOrNew,
    /// If it is not clear, none is.
    IfClear,
}

/// What the command line asks of the configuration.
pub(crate) struct Request {
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) cluster: ClusterNeed,
}

/// What the process was started with; handed in, so that tests need no process.
pub(crate) struct Surroundings {
    pub(crate) variables: BTreeMap<String, OsString>,
    pub(crate) directory: PathBuf,
    /// Root's own file is the whole host's.
    pub(crate) is_root: bool,
    /// The file of the whole host: [`SYSTEM_FILE`].
    pub(crate) system_file: PathBuf,
}

impl Surroundings {
    pub(crate) fn of_process() -> Outcome<Self> {
        let directory = std::env::current_dir().map_err(|error| {
            Failure::from_error(Kind::Configuration, &error).during("reading the working directory")
        })?;
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| name.into_string().ok().map(|name| (name, value)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let is_root = rustix::process::geteuid().is_root();
        Ok(Self { variables, directory, is_root, system_file: PathBuf::from(SYSTEM_FILE) })
    }

    fn text(&self, name: &str) -> Outcome<Option<String>> {
        let Some(value) = self.variables.get(name) else { return Ok(None) };
        match value.to_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Failure::configuration(format!("the variable {name} is not valid UTF-8"))),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).map(PathBuf::from)
    }
}

/// The configuration in force, before it is given types.
pub(crate) struct Resolved {
    /// The file read, or the one that would be.
    pub(crate) file: PathBuf,
    pub(crate) file_exists: bool,
    pub(crate) items: Vec<Item>,
    /// Whether one cluster is meant.
    pub(crate) cluster_known: bool,
    pub(crate) warnings: Vec<String>,
}

/// Finds the file and settles every setting.
pub(crate) fn resolve(request: &Request, around: &Surroundings) -> Outcome<Resolved> {
    let (path, exists) = locate(request, around)?;
    let file = if exists { ConfigFile::read(&path)? } else { ConfigFile::default() };
    let repository = choose_repository(&file, request, around)?;
    let cluster = choose_cluster(&file, request, around)?;
    let mut warnings = unknown_variables(around);
    if exists {
        warnings.extend(loose_modes(&file));
    }
    let mut items = Vec::with_capacity(TABLE.len());
    for setting in TABLE {
        let entries = match setting.section {
            Section::Repository => repository.entries,
            Section::Cluster => cluster.unwrap_or_default(),
            _ => &file.globals,
        };
        let skip_given = setting.key == "url" && repository.given == Given::AsName;
        items.push(settle(setting, entries, &path, request, around, skip_given)?);
    }
    let cluster_known = items.iter().any(|item| {
        item.setting.section == Section::Cluster
            && item.setting.key == "name"
            && item.value.is_some()
    });
    if !cluster_known && request.cluster != ClusterNeed::IfClear {
        return Err(Failure::configuration("no cluster is named")
            .hint("Give --cluster NAME, or list the cluster in the configuration file."));
    }
    Ok(Resolved { file: path, file_exists: exists, items, cluster_known, warnings })
}

/// `/etc/pgrecall/pgrecall.toml`, the file of the whole host.
pub(crate) const SYSTEM_FILE: &str = "/etc/pgrecall/pgrecall.toml";

fn locate(request: &Request, around: &Surroundings) -> Outcome<(PathBuf, bool)> {
    let named = match &request.config {
        Some(path) => Some((around.directory.join(path), "--config")),
        None => around.path("PGRECALL_CONFIG").map(|path| (path, "PGRECALL_CONFIG")),
    };
    if let Some((path, by)) = named {
        // `init` writes the file that it is told to read.
        if request.cluster != ClusterNeed::OneOrNew && !path.exists() {
            return Err(Failure::configuration(format!(
                "the configuration file {} named by {by} does not exist",
                path.display()
            )));
        }
        let exists = path.exists();
        return Ok((path, exists));
    }
    let system = around.system_file.clone();
    // A file that is there but cannot be looked at is no missing file.
    if system.try_exists().unwrap_or(true) {
        return Ok((system, true));
    }
    let user = around
        .path("XDG_CONFIG_HOME")
        .or_else(|| around.path("HOME").map(|home| home.join(".config")))
        .map(|folder| folder.join("pgrecall/pgrecall.toml"));
    match user {
        Some(path) if path.exists() => Ok((path, true)),
        Some(path) if !around.is_root => Ok((path, false)),
        _ => Ok((system, false)),
    }
}

fn settle(
    setting: &'static Setting,
    entries: &[Entry],
    file: &Path,
    request: &Request,
    around: &Surroundings,
    skip_given: bool,
) -> Outcome<Item> {
    let item = |value, origin| Ok(Item { setting, value: Some(value), origin });
    if !skip_given {
        if let Some(flag) = request.flags.iter().find(|flag| setting.is(flag.path)) {
            let value = flag_value(setting, flag, around)?;
            return item(value, Origin::Flag(flag.flag));
        }
        let own = setting.variable();
        for name in std::iter::once(own.as_str()).chain(setting.variables.iter().copied()) {
            if let Some(value) = variable(setting, name, around)? {
                return item(value, Origin::Variable(name.to_owned()));
            }
        }
    }
    if let Some(entry) = entries.iter().find(|entry| entry.setting.key == setting.key) {
        let origin = Origin::File { path: file.to_owned(), line: entry.line };
        return item(entry.value.clone(), origin);
    }
    for name in setting.gap_variables {
        if let Some(value) = variable(setting, name, around)? {
            return item(value, Origin::Variable((*name).to_owned()));
        }
    }
    match setting.fallback {
        Fallback::Fixed(text) => match setting.kind.parse(text) {
            Ok(value) => item(value, Origin::Default),
            Err(message) => Err(Failure::new(Kind::Internal, message).during(setting.path())),
        },
        Fallback::Derived(how) => Ok(Item { setting, value: None, origin: Origin::Derived(how) }),
        Fallback::Unset => Ok(Item { setting, value: None, origin: Origin::Unset }),
    }
}

fn flag_value(setting: &Setting, flag: &Flag, around: &Surroundings) -> Outcome<Value> {
    let usage = |message: String| Failure::new(Kind::Usage, message).during(flag.flag);
    if setting.kind == super::value::Kind::Path {
        return Ok(Value::Path(around.directory.join(&flag.value)));
    }
    let text = flag.value.to_str().ok_or_else(|| usage("the value is not UTF-8".to_owned()))?;
    setting.kind.parse(text).map_err(usage)
}

fn variable(setting: &Setting, name: &str, around: &Surroundings) -> Outcome<Option<Value>> {
    if setting.kind == super::value::Kind::Path
        && let Some(path) = around.path(name)
    {
        if path.is_relative() {
            let message =
                format!("{name}: \"{}\" is relative; give the absolute path", path.display());
            return Err(Failure::configuration(message));
        }
        return Ok(Some(Value::Path(path)));
    }
    let Some(text) = around.text(name)? else { return Ok(None) };
    let value = file::check(setting, &text).map_err(|message| {
        Failure::configuration(message).during(format!("the variable {name}"))
    })?;
    Ok(Some(value))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// `--repo` was not given, or as a URL.
    AsUrl,
    /// `--repo` was a repository's name.
    AsName,
}

struct ChosenRepository<'a> {
    entries: &'a [Entry],
    given: Given,
}

fn choose_repository<'a>(
    file: &'a ConfigFile,
    request: &Request,
    around: &Surroundings,
) -> Outcome<ChosenRepository<'a>> {
    let given =
        given(request, around, "repository.url", &["PGRECALL_REPOSITORY_URL", "PGRECALL_REPO"])?;
    let list = &file.repositories;
    let by = |key: &str, text: &str| list.iter().find(|e| file::text_of(e, key) == Some(text));
    let name_of = |entries: &'a Entries| file::text_of(entries, "name").unwrap_or("main");
    let names = || list.iter().map(name_of).collect::<Vec<_>>();
    match (given, list.as_slice()) {
        (Some(text), _) if !text.contains("://") => {
            if let Some(entries) = list.iter().find(|entries| name_of(entries) == text) {
                return Ok(ChosenRepository { entries, given: Given::AsName });
            }
            let failure = Failure::configuration(format!("no repository is named \"{text}\""));
            Err(match file::nearest(&text, names().into_iter()) {
                Some(near) => failure.hint(format!("Did you mean \"{near}\"?")),
                None => failure.hint("--repo takes a URL such as file:///backup/pg, or a name."),
            })
        }
        (Some(text), list) => {
            let entries = match (by("url", &text), list) {
                (Some(entries), _) => entries.as_slice(),
                (None, []) => &[],
                // The same repository reached another way: what is pinned still holds.
                (None, [only]) => only,
                (None, _) => {
                    return Err(Failure::configuration(format!(
                        "none of the repositories in the file has the URL {text}"
                    ))
                    .hint(format!("Repositories: {}.", names().join(", "))));
                }
            };
            Ok(ChosenRepository { entries, given: Given::AsUrl })
        }
        (None, []) => Ok(ChosenRepository { entries: &[], given: Given::AsUrl }),
        (None, [only]) => Ok(ChosenRepository { entries: only, given: Given::AsUrl }),
        (None, _) => Err(Failure::configuration("more than one repository is configured")
            .hint(format!("Name one with --repo: {}.", names().join(", ")))
            .hint("Working with several repositories at once is not possible yet.")),
    }
}

fn choose_cluster<'a>(
    file: &'a ConfigFile,
    request: &Request,
    around: &Surroundings,
) -> Outcome<Option<&'a [Entry]>> {
    let list = &file.clusters;
    let name_of = |entries: &'a Entries| file::text_of(entries, "name").unwrap_or_default();
    let names = || list.iter().map(name_of).collect::<Vec<_>>().join(", ");
    if let Some(name) =
        given(request, around, "cluster.name", &["PGRECALL_CLUSTER_NAME", "PGRECALL_CLUSTER"])?
    {
        if let Some(entries) = list.iter().find(|entries| name_of(entries) == name) {
            return Ok(Some(entries));
        }
        if list.is_empty() || request.cluster != ClusterNeed::One {
            return Ok(None);
        }
        let failure = Failure::configuration(format!("no cluster is named \"{name}\""));
        return Err(failure.hint(format!("Clusters in {}: {}.", file.path.display(), names())));
    }
    let pgdata = given(request, around, "cluster.pgdata", &["PGRECALL_CLUSTER_PGDATA"])?;
    let of_folder = |folder: &Path| list.iter().find(|entries| has_pgdata(entries, folder));
    if let Some(folder) = pgdata.map(|path| around.directory.join(path)) {
        return match (of_folder(&folder), list.as_slice()) {
            (Some(entries), _) => Ok(Some(entries)),
            (None, []) => Ok(None),
            // A cluster whose place the file leaves open can be this one.
            (None, [only]) if file::text_of(only, "pgdata").is_none() => Ok(Some(only)),
            (None, _) if request.cluster != ClusterNeed::One => Ok(None),
            // Whoever names a data directory must not be served another cluster's.
            (None, _) => {
                let message = format!("no [[cluster]] has the data directory {}", folder.display());
                Err(Failure::configuration(message)
                    .hint(format!("Name the cluster with --cluster as well: {}.", names())))
            }
        };
    }
    if let Some(entries) = of_folder(&around.directory) {
        return Ok(Some(entries));
    }
    match list.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        _ if request.cluster == ClusterNeed::IfClear => Ok(None),
        _ => Err(Failure::configuration("more than one cluster is configured")
            .hint(format!("Name one with --cluster: {}.", names()))),
    }
}

/// Whether the entries' data directory is `folder`, links followed on both sides.
fn has_pgdata(entries: &[Entry], folder: &Path) -> bool {
    let Some(pgdata) = file::text_of(entries, "pgdata").map(Path::new) else { return false };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    pgdata == folder || real(pgdata) == real(folder)
}

fn given(
    request: &Request,
    around: &Surroundings,
    path: &str,
    variables: &[&str],
) -> Outcome<Option<String>> {
    if let Some(flag) = request.flags.iter().find(|flag| flag.path == path) {
        return Ok(Some(flag.value.to_string_lossy().into_owned()));
    }
    for name in variables {
        if let Some(text) = around.text(name)? {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

fn unknown_variables(around: &Surroundings) -> Vec<String> {
    let ours =
        |name: &&String| name.starts_with("PGRECALL_") && !name.starts_with("PGRECALL_TEST_");
    let mut found = around.variables.keys().filter(ours).peekable();
    if found.peek().is_none() {
        return Vec::new();
    }
    let mut known: Vec<String> = TABLE.iter().map(Setting::variable).collect();
    known.extend(TABLE.iter().flat_map(|setting| setting.variables).map(|name| (*name).to_owned()));
    known.push("PGRECALL_CONFIG".to_owned());
    found
        .filter(|name| !known.contains(name))
        .map(|name| match file::nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("the variable {name} is not known; did you mean {near}?"),
            None => format!("the variable {name} is not known"),
        })
        .collect()
}

/// Warns when secrets stand in a file that everybody can read, and when others than its owner can
/// write the file: they would say which commands run (`passphrase_command`).
fn loose_modes(file: &ConfigFile) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(found) = std::fs::metadata(&file.path) else { return Vec::new() };
    let (mode, path) = (found.permissions().mode(), file.path.display());
    let mut warnings = Vec::new();
    let mut lists = file.repositories.iter().chain(&file.clusters).flatten();
    let secret = lists
        .find(|entry| entry.setting.is_secret() && entry.setting.placement == Placement::Anywhere);
    if let Some(secret) = secret.filter(|_| mode & 0o004 != 0) {
        let secret = secret.setting.path();
        warnings.push(format!(
            "{path} holds a secret ({secret}) and can be read by everybody; chmod 640 it"
        ));
    }
    if mode & 0o022 != 0 {
        warnings.push(format!(
            "{path} can be written by others than its owner, who could have any command run; \
             chmod go-w it"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
