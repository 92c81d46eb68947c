//! `docs/format.md` and the code agree: the layout of every fixed structure, every list of values,
//! and the names and kinds of all objects that the golden repositories hold.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use pgrecall_repo::format::bytes::Reader;
use pgrecall_repo::format::frame::Codec;
use pgrecall_repo::format::header::{Header, KeyClass, KeyMethod, Kind, Suite};
use pgrecall_repo::format::layout::TABLES;

use crate::golden;

pub(crate) fn specification() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/format.md")).unwrap()
}

/// The cells of the first table below a heading, without its head.
pub(crate) fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let marked = [format!("### {heading}"), format!("## {heading}")];
    let mut lines = text.lines().skip_while(|line| !marked.iter().any(|mark| line == mark)).skip(1);
    let rows: Vec<Vec<String>> = lines
        .by_ref()
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "docs/format.md has no table under {heading:?}");
    rows
}

#[test]
fn byte_tables_are_those_of_the_code() {
    let text = specification();
    for layout in TABLES {
        let expected: Vec<Vec<String>> = layout
            .fields()
            .map(|field| {
                vec![field.offset.to_string(), field.size.to_string(), field.name.to_owned()]
            })
            .collect();
        assert_eq!(table(&text, layout.name), expected, "{}", layout.name);
    }
}

fn same_values<T: Copy + Debug>(text: &str, heading: &str, all: &[(T, u8)]) {
    let expected: Vec<(String, String)> =
        all.iter().map(|(value, byte)| (byte.to_string(), format!("{value:?}"))).collect();
    let found: Vec<(String, String)> =
        table(text, heading).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(found, expected, "{heading}");
}

#[test]
fn lists_of_values_are_those_of_the_code() {
    let text = specification();
    same_values(&text, "Kinds", Kind::ALL);
    same_values(&text, "Suites", Suite::ALL);
    same_values(&text, "Key methods", KeyMethod::ALL);
    same_values(&text, "Key classes", KeyClass::ALL);
    same_values(&text, "Codecs", Codec::ALL);
}

/// Whether a name fits a line of the tree, such as `domains/<domain>/index/<index-id>`.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<_>, Vec<_>) =
        (pattern.split('/').collect(), name.split('/').collect());
    pattern.len() == name.len()
        && pattern.iter().zip(name).all(|(pattern, part)| match pattern.split_once('>') {
            Some((name, "")) if name.ends_with("-id") => !part.contains('.'),
            Some((_, suffix)) => part.ends_with(suffix) && part.len() > suffix.len(),
            None => *pattern == part,
        })
}

#[test]
fn golden_objects_are_where_and_what_the_specification_says() {
    let text = specification();
    let tree: Vec<String> = table(&text, "The tree")
        .into_iter()
        .map(|row| row[0].split(',').next().unwrap().trim_matches('`').to_owned())
        .collect();
    let kinds = table(&text, "Kinds");
    let (mut seen, mut places) = (BTreeSet::new(), BTreeSet::new());
    for fixture in golden::FIXTURES {
        for (name, bytes) in golden::objects(fixture) {
            let place = tree.iter().position(|pattern| fits(pattern, &name));
            places.insert(place.unwrap_or_else(|| panic!("{name} has no place in the tree")));
            if name == "pgrecall.json" || (name.starts_with("keys/") && name.len() == 31) {
                continue;
            }
            let header = Header::decode(&mut Reader::new(&bytes)).unwrap();
            let row = kinds.iter().find(|row| row[0] == header.kind.byte().to_string()).unwrap();
            assert_eq!(row[3], format!("{:?}", header.sealing.class), "{name}");
            seen.insert(header.kind);
        }
    }
    let reserved: Vec<&String> = tree
        .iter()
        .enumerate()
        .filter(|(number, _)| !places.contains(number))
        .map(|(_, pattern)| pattern)
        .collect();
    let expected = ["domains/<domain>/retired/<round>", "domains/<domain>/holds/<n>"];
    assert!(
        reserved.iter().all(|p| expected.contains(&p.as_str())
            || p.contains("wal-summaries")
            || p.starts_with("leases/")
            || p.starts_with("quarantine/")),
        "no golden repository has {reserved:?}"
    );
    let missing: Vec<_> = Kind::ALL
        .iter()
        .filter(|(kind, _)| !seen.contains(kind) && *kind != Kind::WalSummaries)
        .collect();
    assert!(missing.is_empty(), "no golden repository has {missing:?}");
}
