//! `pgrecall config`: the settings in force and where each value came from.

use serde::Serialize;

use crate::args::ConfigArgs;
use crate::config::resolve::{Item, Origin};
use crate::config::settings::Settings;
use crate::config::value::Value;
use crate::failure::Outcome;
use crate::output::stdout::{self, Colour, Paint};
use crate::output::table::{Align, Cell, Table};

pub(crate) fn run(settings: &Settings, args: &ConfigArgs) -> Outcome<()> {
    if args.output.json {
        return stdout::print_json(&report(settings));
    }
    let mut table =
        Table::new(&[("SETTING", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)]);
    for item in &settings.resolved.items {
        let value = match &item.value {
            Some(_) if prints_secret(item) => Cell::from(MASK),
            Some(value) => Cell::from(value.show()),
            None => Cell::painted("-", Paint::Faint),
        };
        let from = match &item.origin {
            Origin::Flag(flag) => Cell::from(format!("flag {flag}")),
            Origin::Variable(name) => Cell::from(format!("environment {name}")),
            Origin::File { path, line } => Cell::from(format!("{}:{line}", path.display())),
            Origin::Default => Cell::painted("default", Paint::Faint),
            Origin::Derived(how) => Cell::painted(format!("default: {how}"), Paint::Faint),
            Origin::Unset => Cell::painted("not set", Paint::Faint),
        };
        table.row([Cell::from(item.setting.path()), value, from]);
    }
    let resolved = &settings.resolved;
    let state = if resolved.file_exists { "" } else { " (does not exist)" };
    let mut text = format!("file: {}{state}\n", resolved.file.display());
    if !resolved.cluster_known {
        text.push_str("cluster: none is meant here; name one with --cluster\n");
    }
    text.push('\n');
    text.push_str(&table.render(Colour::of_stdout()));
    stdout::print(&text)
}

/// A command that prints a secret may have one in its own words.
fn prints_secret(item: &Item) -> bool {
    item.setting.key.ends_with("_command")
}

const MASK: &str = "********";

#[derive(Serialize)]
struct Report {
    file: String,
    file_exists: bool,
    settings: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    setting: String,
    /// Masked for secrets; null when there is none, or it is found out at run time.
    value: Option<String>,
    secret: bool,
    source: Source,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Source {
    Flag { flag: &'static str },
    Environment { variable: String },
    File { path: String, line: usize },
    Default,
    Derived { from: &'static str },
    Unset,
}

fn report(settings: &Settings) -> Report {
    Report {
        file: settings.resolved.file.display().to_string(),
        file_exists: settings.resolved.file_exists,
        settings: settings.resolved.items.iter().map(row).collect(),
    }
}

fn row(item: &Item) -> Row {
    Row {
        setting: item.setting.path(),
        value: item.value.as_ref().map(|value| match prints_secret(item) {
            true => MASK.to_owned(),
            false => Value::show(value),
        }),
        secret: item.setting.is_secret() || prints_secret(item),
        source: match &item.origin {
            Origin::Flag(flag) => Source::Flag { flag },
            Origin::Variable(name) => Source::Environment { variable: name.clone() },
            Origin::File { path, line } => {
                Source::File { path: path.display().to_string(), line: *line }
            }
            Origin::Default => Source::Default,
            Origin::Derived(how) => Source::Derived { from: how },
            Origin::Unset => Source::Unset,
        },
    }
}
