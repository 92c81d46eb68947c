//! File tables: a backup's files sorted by path, cut into chunks, with the path's part that it
//! shares with the one before left out.

use std::fmt;

use crate::error::FormatError;
use crate::format::bytes::{Reader, put_string, put_varint, wide};
use crate::id::ChunkId;

const VERSION: u8 = 1;

/// No path, link target or inline map is longer.
pub const STRING_BYTES_MAX: usize = 1 << 16;

/// No chunk of a file table has more entries: what a path shares with the one before costs no
/// bytes, so the length of a chunk alone would not bound what it becomes in memory.
pub const ENTRIES_MAX: usize = 4096;

/// A path below a backup's root: relative, with `/` between components, none of them empty, `.` or
/// `..`. A manifest that names anything else is refused when it is read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(Vec<u8>);

impl RelativePath {
    /// Checks the bytes.
    ///
    /// # Errors
    /// When they could lead out of the directory that they are below of.
    pub fn new(bytes: &[u8]) -> Result<Self, FormatError> {
        let sound = bytes.len() <= 4096
            && !bytes.contains(&0)
            && bytes
                .split(|byte| *byte == b'/')
                .all(|part| !matches!(part, b"" | b"." | b"..") && part.len() <= 255);
        if sound {
            return Ok(Self(bytes.to_vec()));
        }
        Err(FormatError::Unexpected {
            what: "a path in the file table",
            expected: "a relative path without empty, . or .. components".into(),
            found: format!("{:?}", String::from_utf8_lossy(bytes)),
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// One file, folder or link of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path below the data directory (tablespaces are below `pg_tblspc/<oid>/`).
    pub path: RelativePath,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was last written, microseconds since 1970.
    pub mtime_us: i64,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Directory,
    /// A file, by its pieces from first to last.
    File(Vec<Piece>),
    /// A symbolic link (a tablespace's, `pg_wal`'s, or any other) and its target as it was.
    Link(Vec<u8>),
    /// A file that lives outside of the data directory, with its absolute path; `path` is where it
    /// goes unless the original locations are asked for.
    Outside(Vec<u8>, Vec<Piece>),
}

/// A piece of a file: maps are cut so that an unchanged piece costs nothing in the next backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the file.
    pub len: u64,
    /// Where its map is.
    pub map: PieceMap,
}

/// Where a piece's map is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceMap {
    /// There is none: the bytes are zero.
    Zeros,
    /// Here.
    Inline(Vec<u8>),
    /// In a chunk of its own.
    Chunk {
        /// The chunk.
        id: ChunkId,
        /// Bytes of its plaintext.
        plain_len: u32,
    },
}

impl Entry {
    /// Bytes of the file; 0 for all else.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.pieces().iter().fold(0, |sum, piece| sum.saturating_add(piece.len))
    }

    /// True when it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces of a file; none for all else.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        match &self.kind {
            EntryKind::File(pieces) | EntryKind::Outside(_, pieces) => pieces,
            EntryKind::Directory | EntryKind::Link(_) => &[],
        }
    }
}

/// Encodes entries, which must be in order of their paths.
#[must_use]
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, wide(entries.len()));
    let mut before: &[u8] = &[];
    for entry in entries {
        let path = entry.path.as_bytes();
        let shared = path.iter().zip(before).take_while(|(a, b)| a == b).count();
        put_varint(&mut out, wide(shared));
        put_string(&mut out, path.get(shared..).unwrap_or_default());
        for value in [entry.mode, entry.uid, entry.gid] {
            put_varint(&mut out, value.into());
        }
        out.extend_from_slice(&entry.mtime_us.to_le_bytes());
        encode_kind(&entry.kind, &mut out);
        before = path;
    }
    out
}

fn encode_kind(kind: &EntryKind, out: &mut Vec<u8>) {
    match kind {
        EntryKind::Directory => out.push(1),
        EntryKind::File(pieces) => {
            out.push(2);
            encode_pieces(pieces, out);
        }
        EntryKind::Link(target) => {
            out.push(3);
            put_string(out, target);
        }
        EntryKind::Outside(original, pieces) => {
            out.push(4);
            put_string(out, original);
            encode_pieces(pieces, out);
        }
    }
}

fn encode_pieces(pieces: &[Piece], out: &mut Vec<u8>) {
    put_varint(out, wide(pieces.len()));
    for piece in pieces {
        put_varint(out, piece.len);
        match &piece.map {
            PieceMap::Zeros => out.push(0),
            PieceMap::Inline(map) => {
                out.push(1);
                put_string(out, map);
            }
            PieceMap::Chunk { id, plain_len } => {
                out.push(2);
                out.extend_from_slice(id.as_bytes());
                put_varint(out, (*plain_len).into());
            }
        }
    }
}

/// Decodes a chunk of a file table.
///
/// # Errors
/// When it is cut short, of a newer version, out of order, or names a path that could lead out.
pub fn decode(bytes: &[u8]) -> Result<Vec<Entry>, FormatError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8("file table version")?;
    if version != VERSION {
        return Err(FormatError::Newer {
            what: "the file table",
            found: version.into(),
            known: VERSION.into(),
        });
    }
    let count = reader.count("file table entries", 14)?;
    if count > ENTRIES_MAX {
        return Err(FormatError::TooLarge {
            what: "file table entries",
            limit: wide(ENTRIES_MAX),
            found: wide(count),
        });
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let before = entries.last().map(|entry| entry.path.as_bytes()).unwrap_or_default();
        let entry = decode_entry(&mut reader, before)?;
        if entries.last().is_some_and(|last| last.path >= entry.path) {
            return Err(FormatError::Unexpected {
                what: "file table",
                expected: "paths in order".into(),
                found: entry.path.to_string(),
            });
        }
        entries.push(entry);
    }
    reader.end("file table")?;
    Ok(entries)
}

fn decode_entry(reader: &mut Reader<'_>, before: &[u8]) -> Result<Entry, FormatError> {
    let shared = reader.varint("shared path length")?;
    let shared = usize::try_from(shared).ok().and_then(|len| before.get(..len)).ok_or(
        FormatError::TooLarge {
            what: "shared path length",
            limit: wide(before.len()),
            found: shared,
        },
    )?;
    let mut path = shared.to_vec();
    path.extend_from_slice(reader.string("path", STRING_BYTES_MAX)?);
    let path = RelativePath::new(&path)?;
    let mut numbers = [0_u32; 3];
    for number in &mut numbers {
        let value = reader.varint("mode or owner")?;
        *number = u32::try_from(value).map_err(|_| FormatError::TooLarge {
            what: "mode or owner",
            limit: u32::MAX.into(),
            found: value,
        })?;
    }
    let [mode, uid, gid] = numbers;
    let mtime_us = i64::from_le_bytes(reader.array("modification time")?);
    let kind = decode_kind(reader)?;
    Ok(Entry { path, mode, uid, gid, mtime_us, kind })
}

fn decode_kind(reader: &mut Reader<'_>) -> Result<EntryKind, FormatError> {
    match reader.u8("entry kind")? {
        1 => Ok(EntryKind::Directory),
        2 => Ok(EntryKind::File(decode_pieces(reader)?)),
        3 => Ok(EntryKind::Link(reader.string("link target", STRING_BYTES_MAX)?.to_vec())),
        4 => {
            let original = reader.string("original path", STRING_BYTES_MAX)?.to_vec();
            Ok(EntryKind::Outside(original, decode_pieces(reader)?))
        }
        other => Err(FormatError::Unexpected {
            what: "entry kind",
            expected: "1 to 4".into(),
            found: other.to_string(),
        }),
    }
}

fn decode_pieces(reader: &mut Reader<'_>) -> Result<Vec<Piece>, FormatError> {
    let count = reader.count("pieces", 2)?;
    let mut pieces = Vec::new();
    let mut total = 0_u64;
    for _ in 0..count {
        let len = reader.varint("piece length")?;
        let map = match reader.u8("piece kind")? {
            0 => PieceMap::Zeros,
            1 => PieceMap::Inline(reader.string("inline map", STRING_BYTES_MAX)?.to_vec()),
            2 => {
                let id = ChunkId::from_bytes(reader.array("map chunk id")?);
                let len = reader.varint("map length")?;
                let plain_len = u32::try_from(len).map_err(|_| FormatError::TooLarge {
                    what: "map length",
                    limit: u32::MAX.into(),
                    found: len,
                })?;
                PieceMap::Chunk { id, plain_len }
            }
            other => {
                return Err(FormatError::Unexpected {
                    what: "piece kind",
                    expected: "0 to 2".into(),
                    found: other.to_string(),
                });
            }
        };
        // File sizes are signed 64-bit numbers everywhere: a larger sum is a lie.
        total = total.saturating_add(len);
        if i64::try_from(total).is_err() {
            return Err(FormatError::TooLarge {
                what: "file length",
                limit: u64::MAX / 2,
                found: total,
            });
        }
        pieces.push(Piece { len, map });
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: RelativePath::new(path.as_bytes()).unwrap(),
            mode: 0o600,
            uid: 5,
            gid: 6,
            mtime_us: -1,
            kind,
        }
    }

    #[test]
    fn tables_round_trip() {
        let pieces = vec![
            Piece { len: 5, map: PieceMap::Inline(vec![1, 2]) },
            Piece { len: 6, map: PieceMap::Zeros },
            Piece {
                len: 7,
                map: PieceMap::Chunk { id: ChunkId::from_bytes([3; 32]), plain_len: 70 },
            },
        ];
        let entries = vec![
            entry("base", EntryKind::Directory),
            entry("base/1/1249", EntryKind::File(pieces.clone())),
            entry("base/1/1249_fsm", EntryKind::File(vec![])),
            entry("pg_tblspc/16384", EntryKind::Link(b"/mnt/fast".to_vec())),
            entry("postgresql.conf", EntryKind::Outside(b"/etc/postgresql.conf".to_vec(), pieces)),
        ];
        let bytes = encode(&entries);
        assert_eq!(decode(&bytes).unwrap(), entries);
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["", "/etc/passwd", "../../etc/passwd", "a/../b", "a//b", "a/", "./a", "a\0b"] {
            assert!(RelativePath::new(path.as_bytes()).is_err(), "{path:?}");
        }
    }

    /// Bytes of folders, by what each shares with the path before and the rest of it.
    fn folders(rows: &[(u64, &str)]) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put_varint(&mut bytes, wide(rows.len()));
        for (shared, rest) in rows {
            put_varint(&mut bytes, *shared);
            put_string(&mut bytes, rest.as_bytes());
            bytes.extend([0; 3 + 8]);
            bytes.push(1);
        }
        bytes
    }

    #[test]
    fn decoded_paths_that_lead_out_are_refused() {
        let sound = [(0, "base"), (4, "/1"), (5, "2")];
        let paths: Vec<_> = decode(&folders(&sound)).unwrap().into_iter().map(|e| e.path).collect();
        assert_eq!(format!("{paths:?}"), r#"["base", "base/1", "base/2"]"#);
        let hostile: [&[(u64, &str)]; 7] = [
            &[(0, "../../etc/passwd")],
            &[(0, "/etc/passwd")],
            &[(0, "base/../../etc/passwd")],
            &[(0, "base"), (4, "/")],
            // Together with what they share with a sound path.
            &[(0, "base/.-"), (6, "./../etc/passwd")],
            &[(0, "base/.-"), (6, ".")],
            &[(0, "base/.-"), (6, "")],
        ];
        for rows in hostile {
            let error = decode(&folders(rows)).unwrap_err();
            assert!(error.to_string().contains("a path in the file table"), "{rows:?}: {error}");
        }
    }

    #[test]
    fn a_table_with_too_many_entries_is_refused() {
        let entries: Vec<_> =
            (0..=ENTRIES_MAX).map(|n| entry(&format!("{n:09}"), EntryKind::Directory)).collect();
        assert_eq!(decode(&encode(&entries[..ENTRIES_MAX])).unwrap().len(), ENTRIES_MAX);
        assert!(matches!(decode(&encode(&entries)), Err(FormatError::TooLarge { .. })));
    }

    #[test]
    fn tables_out_of_order_are_refused() {
        let entries = [entry("b", EntryKind::Directory), entry("a", EntryKind::Directory)];
        assert!(decode(&encode(&entries)).is_err());
    }
}
