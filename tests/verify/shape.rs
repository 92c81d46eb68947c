//! The shape of JSON: which members there are and of what kind; and the tables of `docs/json.md`
//! that say so.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

const PAGE: &str = include_str!("../../docs/json.md");

/// What was seen of one member, all outputs taken together.
type Kinds = BTreeSet<&'static str>;

/// What a command has printed, member by member.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    members: BTreeMap<String, Kinds>,
    /// How often each object, and each of its members, was seen.
    seen: BTreeMap<String, u64>,
}

impl Shape {
    /// Takes in one more output.
    pub(crate) fn add(&mut self, output: &Value) {
        self.walk("", output);
    }

    fn walk(&mut self, path: &str, value: &Value) {
        *self.seen.entry(path.to_owned()).or_default() += 1;
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "text",
            Value::Object(members) => {
                let dot = if path.is_empty() { "" } else { "." };
                for (name, member) in members {
                    self.walk(&format!("{path}{dot}{name}"), member);
                }
                "object"
            }
            Value::Array(items) => self.items(path, items),
        };
        self.members.entry(path.to_owned()).or_default().insert(kind);
    }

    fn items(&mut self, path: &str, items: &[Value]) -> &'static str {
        let all = |fits: fn(&Value) -> bool| items.iter().all(fits);
        if items.is_empty() {
            return "array";
        }
        if all(Value::is_string) {
            return "array of text";
        }
        if all(Value::is_number) {
            return "array of numbers";
        }
        for item in items {
            self.walk(&format!("{path}[]"), item);
        }
        "array of objects"
    }

    /// The kinds of a member, with "absent" where some of its objects do without it.
    fn kinds(&self, path: &str) -> Kinds {
        let mut kinds = self.members.get(path).cloned().unwrap_or_default();
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let objects = self.seen.get(parent).copied().unwrap_or_default();
        let others = self.members.get(parent).is_some_and(|kinds| kinds.len() > 1);
        // Where the object itself may be null, its members are not counted.
        if !path.ends_with("[]") && !others && self.seen.get(path).copied() < Some(objects) {
            kinds.insert("absent");
        }
        kinds
    }

    /// Panics unless this is what the page says under that heading.
    #[track_caller]
    pub(crate) fn expect_documented(&self, heading: &str) {
        let documented = documented(heading);
        let mut wrong = Vec::new();
        let inner = |path: &&String| !path.is_empty() && !path.ends_with("[]");
        for path in self.members.keys().filter(inner) {
            let (kinds, told) = (self.kinds(path), documented.get(path));
            if !told.is_some_and(|told| fits(&kinds, told)) {
                let kinds: Vec<&str> = kinds.into_iter().collect();
                wrong.push(format!("printed:    | `{path}` | {} |", kinds.join(" or ")));
            }
        }
        for path in documented.keys().filter(|path| !self.members.contains_key(*path)) {
            wrong.push(format!("not printed: `{path}`"));
        }
        assert!(wrong.is_empty(), "docs/json.md, {heading}:\n{}", wrong.join("\n"));
    }
}

/// Whether what was seen is what is told. Null and absence need not have been seen, nor the items of
/// an array.
fn fits(seen: &Kinds, told: &BTreeSet<String>) -> bool {
    let is_array = |kind: &str| kind.starts_with("array");
    let allowed = |kind: &&str| {
        told.contains(*kind) || *kind == "array" && told.iter().any(|told| is_array(told))
    };
    let met = |kind: &String| {
        let optional = kind == "null" || kind == "absent";
        optional || seen.contains(kind.as_str()) || is_array(kind) && seen.contains("array")
    };
    seen.iter().all(allowed) && told.iter().all(met)
}

/// The rows `| `member` | kinds | meaning |` of the page under a heading.
fn documented(heading: &str) -> BTreeMap<String, BTreeSet<String>> {
    let marked = format!("## `{heading}`");
    let mut lines = PAGE.lines().skip_while(|line| *line != marked);
    assert!(lines.next().is_some(), "docs/json.md has no {marked}");
    let rows = lines.take_while(|line| !line.starts_with("## "));
    let mut found = BTreeMap::new();
    for row in rows.filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [member, kinds, meaning] = cells.as_slice() else { panic!("three cells: {row}") };
        assert!(meaning.len() > 5, "no meaning: {row}");
        let member = member.trim_start_matches("| ").trim_matches('`').to_owned();
        let kinds = kinds.split(" or ").map(str::to_owned).collect();
        assert!(found.insert(member, kinds).is_none(), "twice: {row}");
    }
    assert!(!found.is_empty(), "docs/json.md has no table under {marked}");
    found
}

#[test]
fn a_member_that_is_new_gone_or_of_another_kind_is_told() {
    let heading = "pgrecall key rotate";
    let mut right = Shape::default();
    right.add(&serde_json::json!({ "domain": "main", "epoch": 1, "restore_key": "ab" }));
    right.expect_documented(heading);
    for wrong in [
        serde_json::json!({ "domain": "main", "restore_key": "ab" }),
        serde_json::json!({ "domain": "main", "epoch": "1", "restore_key": "ab" }),
        serde_json::json!({ "domain": "main", "epoch": 1, "restore_key": "ab", "more": true }),
        serde_json::json!({ "domain": null, "epoch": 1, "restore_key": "ab" }),
    ] {
        let mut shape = Shape::default();
        shape.add(&wrong);
        let told = std::panic::catch_unwind(|| shape.expect_documented(heading));
        assert!(told.is_err(), "{wrong} passed");
    }
}
