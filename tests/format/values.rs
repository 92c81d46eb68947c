//! `docs/format.md` and the code agree on the kinds inside of file tables and maps, on limits, and
//! on what keys are derived with.

use std::collections::BTreeSet;
use std::path::Path;

use pgrecall_repo::format::frame::{FRAME_BYTES_MAX, FRAME_PLAIN_BYTES_MAX};
use pgrecall_repo::format::header::METHOD_FIELD_BYTES_MAX;
use pgrecall_repo::format::index::{BLOCKS_MAX, PACKS_MAX};
use pgrecall_repo::format::map::{Extent, FileMap, HashSource, MapChunk, Source};
use pgrecall_repo::format::pack::CHUNKS_MAX;
use pgrecall_repo::format::root::ROOT_BYTES_MAX;
use pgrecall_repo::format::table::{
    self as file_table, ENTRIES_MAX, Entry, EntryKind, Piece, PieceMap, RelativePath,
    STRING_BYTES_MAX,
};
use pgrecall_repo::format::wrap::WRAP_BYTES_MAX;
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::sealed_store::DOCUMENT_BYTES_MAX;
use pgrecall_store::KEY_LEN_MAX;

use crate::specification::{specification, table};

/// Where a table of one entry `a` has the entry's kind: after the version, the number of entries,
/// what it shares, its path, mode and owner, and the time.
const ENTRY_KIND_AT: usize = 1 + 1 + 1 + 2 + 3 + 8;

/// Where it has the kind of a file's only piece: after the number of pieces and its length.
const PIECE_KIND_AT: usize = ENTRY_KIND_AT + 3;

fn table_of(kind: EntryKind) -> Vec<u8> {
    let path = RelativePath::new(b"a").unwrap();
    file_table::encode(&[Entry { path, mode: 0, uid: 0, gid: 0, mtime_us: 0, kind }])
}

/// The first two cells of each row.
fn listed(heading: &str) -> Vec<(String, String)> {
    let rows = table(&specification(), heading);
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

/// Holds a list of byte values to what the code writes, and sees that it reads no others.
fn same_bytes(heading: &str, at: usize, written: &[(&str, Vec<u8>)]) {
    let expected: Vec<(String, String)> =
        written.iter().map(|(name, bytes)| (bytes[at].to_string(), (*name).into())).collect();
    assert_eq!(listed(heading), expected);
    for (name, bytes) in written {
        file_table::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let mut bytes = written[0].1.clone();
    for byte in 0..=u8::MAX {
        bytes[at] = byte;
        let told = expected.iter().any(|(listed, _)| *listed == byte.to_string());
        let refused = file_table::decode(&bytes).is_err_and(|error| {
            let text = error.to_string();
            text.contains("entry kind") || text.contains("piece kind")
        });
        assert_eq!(refused, !told, "{heading}: {byte}");
    }
}

#[test]
fn entry_kinds_are_those_of_the_code() {
    let kinds = [
        ("Directory", EntryKind::Directory),
        ("File", EntryKind::File(vec![])),
        ("Link", EntryKind::Link(b"x".to_vec())),
        ("Outside", EntryKind::Outside(b"/x".to_vec(), vec![])),
    ];
    same_bytes("Entry kinds", ENTRY_KIND_AT, &kinds.map(|(name, kind)| (name, table_of(kind))));
}

#[test]
fn piece_kinds_are_those_of_the_code() {
    let id = ChunkId::from_bytes([7; 32]);
    let kinds = [
        ("Zeros", PieceMap::Zeros),
        ("Inline", PieceMap::Inline(b"map".to_vec())),
        ("Chunk", PieceMap::Chunk { id, plain_len: 1 }),
    ];
    let tables =
        kinds.map(|(name, map)| (name, table_of(EntryKind::File(vec![Piece { len: 1, map }]))));
    same_bytes("Piece kinds", PIECE_KIND_AT, &tables);
}

#[test]
fn hash_sources_are_those_of_the_code() {
    let (id, hashes_id) = (ChunkId::from_bytes([7; 32]), ChunkId::from_bytes([9; 32]));
    let number = |hashes: HashSource| {
        let map = FileMap {
            page_size: 8192,
            hash_chunks: (0..3)
                .map(|_| pgrecall_repo::format::map::HashChunk { id: hashes_id, plain_len: 64 })
                .collect(),
            chunks: vec![MapChunk { id, plain_len: 100, hashes }],
            extents: vec![Extent { len: 100, source: Source::Chunk { chunk: 0, offset: 0 } }],
        };
        let bytes = map.encode();
        assert_eq!(FileMap::decode(&bytes).unwrap(), map);
        let at = bytes.windows(32).position(|window| window == id.as_bytes()).unwrap();
        // The id, and the plain length in one byte.
        bytes[at + 33]
    };
    let rows = listed("Hash sources");
    let names: Vec<(&str, &str)> = rows.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(names, [("0", "None"), ("1", "Inline"), ("2 + k", "Shared")]);
    assert_eq!(number(HashSource::None), 0);
    assert_eq!(number(HashSource::Inline(vec![1])), 1);
    for chunk in 0..3 {
        assert_eq!(u32::from(number(HashSource::Shared { chunk, first: 0 })), 2 + chunk);
    }
}

#[test]
fn limits_are_those_of_the_code() {
    let text = specification().split_whitespace().collect::<Vec<_>>().join(" ");
    let (kib, mib) = (1 << 10, 1 << 20);
    let (frame, sealed) = (u64::from(FRAME_PLAIN_BYTES_MAX), u64::from(FRAME_BYTES_MAX));
    for sentence in [
        format!("a name has at most {KEY_LEN_MAX} bytes"),
        format!("`pgrecall.json` is JSON in the clear, at most {} KiB", ROOT_BYTES_MAX / kib),
        format!("`keys/<key-id>` is JSON in the clear, at most {} KiB", WRAP_BYTES_MAX / kib),
        format!("the method field (at most {METHOD_FIELD_BYTES_MAX} bytes"),
        format!("The plain length is at most {} MiB", frame / mib),
        format!("the sealed length at most {} MiB + {} KiB", frame / mib, (sealed - frame) / kib),
        format!("Sealed or plain a document has at most {} MiB", DOCUMENT_BYTES_MAX as u64 / mib),
        format!("(`u32`, at most 2^{} for a reader", CHUNKS_MAX.ilog2()),
        format!("At most 2^{} packs and 2^{} blocks", PACKS_MAX.ilog2(), BLOCKS_MAX.ilog2()),
        format!("A chunk is at most {} MiB of plaintext", frame / mib),
        format!("a chunk has at most {ENTRIES_MAX} entries"),
        format!("Strings here have at most {STRING_BYTES_MAX} bytes"),
    ] {
        assert!(text.contains(&sentence), "docs/format.md does not say {sentence:?}");
    }
    for power in [CHUNKS_MAX, PACKS_MAX, BLOCKS_MAX] {
        assert!(power.is_power_of_two());
    }
}

/// Texts in double quotes that begin with our name and a space, in all of these.
fn labels(texts: &[String]) -> BTreeSet<String> {
    let begun = texts.iter().flat_map(|text| text.split("\"pgrecall ").skip(1));
    begun.filter_map(|rest| Some(format!("pgrecall {}", rest.split_once('"')?.0))).collect()
}

/// What keys are derived with stands in the code as it stands on the page.
#[test]
fn labels_are_those_of_the_code() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/repo/src");
    let mut texts = vec![std::fs::read_to_string(source.join("keys.rs")).unwrap()];
    for entry in std::fs::read_dir(source.join("keys")).unwrap() {
        texts.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let mut told = labels(&[specification()]);
    assert!(told.remove("pgrecall repository"), "the root object's mark");
    let used: BTreeSet<String> = labels(&texts);
    assert!(used.len() > 8, "{used:?}");
    assert_eq!(told, used);
}
