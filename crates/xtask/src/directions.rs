//! Which crate may know which: the arrows of `docs/architecture.md`, checked on the real dependency
//! graph.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::tidy::Offence;

/// What a workspace crate may depend on among its siblings.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("pgrecall-pgformat", &[]),
    ("pgrecall-store", &[]),
    ("pgrecall-repo", &["pgrecall-store"]),
    ("pgrecall-pgserver", &["pgrecall-pgformat"]),
    (
        "pgrecall-engine",
        &["pgrecall-pgformat", "pgrecall-pgserver", "pgrecall-repo", "pgrecall-store"],
    ),
    (
        "pgrecall",
        &[
            "pgrecall-engine",
            "pgrecall-pgformat",
            "pgrecall-pgserver",
            "pgrecall-repo",
            "pgrecall-store",
        ],
    ),
    (
        "pgrecall-testkit",
        &[
            "pgrecall-engine",
            "pgrecall-pgformat",
            "pgrecall-pgserver",
            "pgrecall-repo",
            "pgrecall-store",
        ],
    ),
    ("pgrecall-model", &[]),
    ("pgrecall-sim", &["pgrecall-engine", "pgrecall-pgformat", "pgrecall-repo", "pgrecall-store"]),
    ("pgrecall-xtask", &[]),
];

/// Crates that only the root package may name.
const ROOT_ONLY: [&str; 4] = ["clap", "anyhow", "clap_complete", "clap_mangen"];

/// Crates that nothing may pull in: they need a C toolchain of their own, or a system library.
const BANNED: [&str; 5] = ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"];

/// Crates that pgformat must not reach, however far down: it has no I/O.
const PGFORMAT_WITHOUT: [&str; 3] = ["tokio", "async-std", "mio"];

/// Checks the answer of `cargo metadata`.
pub(crate) fn check(metadata: &Value) -> Result<Vec<Offence>, String> {
    let graph = Graph::read(metadata)?;
    let mut offences = Vec::new();
    for name in &graph.members {
        let manifest = format!("crate {name}");
        let offence = |what: String| Offence::new(&manifest, 0, what);
        let Some((_, allowed)) = ALLOWED.iter().find(|(member, _)| member == name) else {
            offences.push(offence("is not known to the directions in xtask".to_owned()));
            continue;
        };
        for dependency in graph.normal_of(name) {
            if graph.members.contains(dependency) && !allowed.contains(&dependency.as_str()) {
                offences.push(offence(format!("must not depend on {dependency}")));
            }
            if name != "pgrecall" && ROOT_ONLY.contains(&dependency.as_str()) {
                offences.push(offence(format!("depends on {dependency}, the root's alone")));
            }
        }
    }
    for banned in BANNED {
        if graph.all.contains(banned) {
            offences.push(Offence::new("Cargo.lock", 0, format!("{banned} is pulled in")));
        }
    }
    for reached in graph.reach("pgrecall-pgformat") {
        if PGFORMAT_WITHOUT.contains(&reached.as_str()) {
            let what = format!("reaches {reached}; it has no I/O");
            offences.push(Offence::new("crate pgrecall-pgformat", 0, what));
        }
    }
    Ok(offences)
}

/// The dependency graph by crate names. Several versions of one crate are one node, which is enough
/// for these rules.
struct Graph {
    members: BTreeSet<String>,
    all: BTreeSet<String>,
    /// Normal and build dependencies as the resolver chose them; development ones left out.
    normal: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read(metadata: &Value) -> Result<Self, String> {
        let list = |value: &Value, what: &str| {
            value.as_array().cloned().ok_or_else(|| format!("cargo metadata has no {what}"))
        };
        let mut names = BTreeMap::new();
        for package in list(&metadata["packages"], "packages")? {
            let field = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
            names.insert(field("id"), field("name"));
        }
        let named = |id: &Value| {
            let id = id.as_str().unwrap_or_default();
            names.get(id).cloned().ok_or_else(|| format!("cargo metadata does not name {id}"))
        };
        let mut graph =
            Self { members: BTreeSet::new(), all: BTreeSet::new(), normal: BTreeMap::new() };
        for id in list(&metadata["workspace_members"], "workspace_members")? {
            graph.members.insert(named(&id)?);
        }
        for node in list(&metadata["resolve"]["nodes"], "resolve.nodes")? {
            let from = named(&node["id"])?;
            graph.all.insert(from.clone());
            for dependency in list(&node["deps"], "deps")? {
                let kinds = list(&dependency["dep_kinds"], "dep_kinds")?;
                if kinds.iter().any(|kind| kind["kind"].as_str() != Some("dev")) {
                    let to = named(&dependency["pkg"])?;
                    graph.normal.entry(from.clone()).or_default().insert(to);
                }
            }
        }
        Ok(graph)
    }

    fn normal_of(&self, name: &str) -> impl Iterator<Item = &String> {
        self.normal.get(name).into_iter().flatten()
    }

    /// Everything a crate pulls in.
    fn reach(&self, name: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(next) = open.pop() {
            for dependency in self.normal_of(&next) {
                if reached.insert(dependency.clone()) {
                    open.push(dependency.clone());
                }
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Metadata of a workspace with these members, whose edges are (from, to, kind).
    fn metadata(members: &[&str], edges: &[(&str, &str, Option<&str>)]) -> Value {
        let mut names: BTreeSet<&str> = members.iter().copied().collect();
        names.extend(edges.iter().flat_map(|(from, to, _)| [*from, *to]));
        let packages: Vec<Value> =
            names.iter().map(|name| json!({"id": format!("id:{name}"), "name": name})).collect();
        let nodes: Vec<Value> = names
            .iter()
            .map(|name| {
                let deps: Vec<Value> = edges
                    .iter()
                    .filter(|(from, _, _)| from == name)
                    .map(|(_, to, kind)| {
                        json!({"pkg": format!("id:{to}"), "dep_kinds": [{"kind": kind}]})
                    })
                    .collect();
                json!({"id": format!("id:{name}"), "deps": deps})
            })
            .collect();
        let members: Vec<String> = members.iter().map(|name| format!("id:{name}")).collect();
        json!({"packages": packages, "workspace_members": members, "resolve": {"nodes": nodes}})
    }

    fn found(members: &[&str], edges: &[(&str, &str, Option<&str>)]) -> Vec<String> {
        let offences = check(&metadata(members, edges)).expect("well-formed metadata");
        offences.into_iter().map(|offence| offence.what).collect()
    }

    #[test]
    fn arrows_point_down_only() {
        let members = ["pgrecall", "pgrecall-engine", "pgrecall-repo", "pgrecall-store"];
        let down = [
            ("pgrecall", "pgrecall-engine", None),
            ("pgrecall-engine", "pgrecall-repo", None),
            ("pgrecall-repo", "pgrecall-store", None),
        ];
        assert!(found(&members, &down).is_empty());
        let up = [("pgrecall-store", "pgrecall-repo", None)];
        assert_eq!(found(&members, &up), ["must not depend on pgrecall-repo"]);
    }

    #[test]
    fn the_testkit_is_for_tests() {
        let members = ["pgrecall", "pgrecall-testkit"];
        let edge = |kind| [("pgrecall", "pgrecall-testkit", kind)];
        assert!(found(&members, &edge(Some("dev"))).is_empty());
        assert_eq!(found(&members, &edge(None)), ["must not depend on pgrecall-testkit"]);
    }

    #[test]
    fn heavy_crates_stay_where_they_belong() {
        let members = ["pgrecall", "pgrecall-pgformat", "pgrecall-store"];
        assert!(found(&members, &[("pgrecall", "clap", None)]).is_empty());
        let clap = found(&members, &[("pgrecall-store", "clap", None)]);
        assert_eq!(clap, ["depends on clap, the root's alone"]);
        let deep = [("pgrecall-pgformat", "a", None), ("a", "tokio", None)];
        assert_eq!(found(&members, &deep), ["reaches tokio; it has no I/O"]);
        let banned = found(&members, &[("pgrecall-store", "aws-lc-rs", None)]);
        assert_eq!(banned, ["aws-lc-rs is pulled in"]);
    }

    #[test]
    fn a_crate_nobody_knows_is_an_offence() {
        assert_eq!(found(&["pgrecall-new"], &[]), ["is not known to the directions in xtask"]);
    }
}
