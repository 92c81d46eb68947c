//! Every file below `tests/` belongs to a test binary; one that nobody lists is never compiled and
//! proves nothing.

use crate::tidy::Offence;

/// Checks the `[[test]]` entries of the root manifest against the files.
pub(crate) fn check(manifest: &str, files: &[(String, String)]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (path, _) in files {
        let Some(below) = path.strip_prefix("tests/") else { continue };
        match below.split_once('/') {
            None => {
                let name = below.trim_end_matches(".rs");
                if !manifest_lists(manifest, name, path) {
                    let what = "has no [[test]] entry in Cargo.toml, so it never runs";
                    offences.push(Offence::new(path, 0, what));
                }
            }
            Some(_) => {
                if !is_module(path, files) {
                    let what = "is in no list of modules, so it is never compiled";
                    offences.push(Offence::new(path, 0, what));
                }
            }
        }
    }
    offences
}

fn manifest_lists(manifest: &str, name: &str, path: &str) -> bool {
    let entries = manifest.split("[[test]]").skip(1);
    let mut blocks = entries.map(|entry| entry.split("\n[").next().unwrap_or_default());
    blocks.any(|block| {
        let has = |key: &str, value: &str| {
            block.lines().any(|line| {
                line.split_once('=').is_some_and(|(found, text)| {
                    found.trim() == key && text.trim().trim_matches('"') == value
                })
            })
        };
        // Without a path cargo takes tests/<name>.rs.
        has("path", path) || (has("name", name) && !block.contains("path"))
    })
}

/// Whether some other file below `tests/` declares the file as its module.
fn is_module(path: &str, files: &[(String, String)]) -> bool {
    let without = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let (folder, name) = without.rsplit_once('/').unwrap_or(("", without));
    let declared = |text: &str| {
        text.lines().any(|line| {
            let line = line.trim();
            let line =
                line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
            line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) == Some(name)
        })
    };
    let by_path = |parent: &str, text: &str| {
        let base = parent.rsplit_once('/').map_or("", |(base, _)| base);
        text.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")).any(|rest| {
            rest.split('"').next().is_some_and(|target| format!("{base}/{target}") == path)
        })
    };
    files.iter().filter(|(other, _)| other != path).any(|(parent, text)| {
        let parent_folder = parent.trim_end_matches(".rs").trim_end_matches("/mod");
        let root = parent.strip_prefix("tests/").is_some_and(|below| !below.contains('/'));
        // A test binary's root may list modules beside it (tests/support) or, by path, in its own
        // folder.
        let beside = root && folder == "tests";
        (by_path(parent, text) && parent.starts_with("tests/"))
            || ((parent_folder == folder || beside) && declared(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(manifest: &str, files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        check(manifest, &files).into_iter().map(|offence| offence.path).collect()
    }

    const MANIFEST: &str =
        "[[test]]\nname = \"cli\"\npath = \"tests/cli.rs\"\n\n[lints]\nworkspace = true\n";

    #[test]
    fn listed_files_are_fine_and_forgotten_ones_found() {
        let files = [
            ("crates/x/src/lib.rs", ""),
            ("tests/cli.rs", "#[path = \"cli/exit.rs\"]\nmod exit;\nmod support;\n"),
            ("tests/cli/exit.rs", ""),
            ("tests/cli/forgotten.rs", ""),
            ("tests/support/mod.rs", "pub mod program;\n"),
            ("tests/support/program.rs", ""),
            ("tests/lost.rs", ""),
        ];
        assert_eq!(found(MANIFEST, &files), ["tests/cli/forgotten.rs", "tests/lost.rs"]);
    }

    #[test]
    fn an_entry_without_a_path_means_the_file_of_its_name() {
        assert!(found("[[test]]\nname = \"cli\"\n", &[("tests/cli.rs", "")]).is_empty());
        assert_eq!(found("[[test]]\nname = \"x\"\n", &[("tests/cli.rs", "")]).len(), 1);
    }
}
