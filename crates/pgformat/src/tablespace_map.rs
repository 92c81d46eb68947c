//! `tablespace_map`: the links of `pg_tblspc`, which recovery puts in place from this file.
//!
//! Written by `do_pg_backup_start` (`xlog.c`), read by `read_tablespace_map` (`xlogrecovery.c`,
//! before 15 in `xlog.c`); since 14 the path is escaped with backslashes before line feed, carriage
//! return and backslash.

use crate::error::{FileKind, FormatError, excerpt};

/// One tablespace outside the data directory. Paths are bytes: they need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespaceLink {
    /// The tablespace's OID, the name of the link in `pg_tblspc`.
    pub oid: u32,
    /// Where the link leads.
    pub path: Vec<u8>,
}

/// Reads the content of `tablespace_map`.
///
/// # Errors
/// A line without an OID and a path, or a last line that does not end.
pub fn parse(bytes: &[u8]) -> Result<Vec<TablespaceLink>, FormatError> {
    let mut links = Vec::new();
    let mut line = Vec::new();
    let mut number = 1_u32;
    let mut escaped = false;
    for byte in bytes {
        match (escaped, *byte) {
            (false, b'\n' | b'\r') => {
                if !line.is_empty() {
                    links.push(parse_line(&line).ok_or_else(|| wrong_line(number, &line))?);
                    line.clear();
                }
                number = number.saturating_add(u32::from(*byte == b'\n'));
            }
            (false, b'\\') => escaped = true,
            (_, byte) => {
                line.push(byte);
                escaped = false;
            }
        }
    }
    if line.is_empty() && !escaped { Ok(links) } else { Err(wrong_line(number, &line)) }
}

/// The content of `tablespace_map`, as PostgreSQL writes it.
#[must_use]
pub fn compose(links: &[TablespaceLink]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for link in links {
        bytes.extend_from_slice(link.oid.to_string().as_bytes());
        bytes.push(b' ');
        for byte in &link.path {
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                bytes.push(b'\\');
            }
            bytes.push(*byte);
        }
        bytes.push(b'\n');
    }
    bytes
}

fn parse_line(line: &[u8]) -> Option<TablespaceLink> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (oid, path) = line.split_at_checked(space)?;
    let path = path.get(1..).filter(|path| !path.is_empty())?;
    let oid = std::str::from_utf8(oid).ok()?;
    if !oid.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let oid = oid.parse().ok().filter(|oid| *oid != 0)?;
    Some(TablespaceLink { oid, path: path.to_vec() })
}

fn wrong_line(line: u32, found: &[u8]) -> FormatError {
    FormatError::Line {
        file: FileKind::TablespaceMap,
        line,
        expected: "an OID, a space, a path and a line end",
        found: excerpt(&String::from_utf8_lossy(found)),
    }
}

#[cfg(test)]
mod tests {
    use super::{TablespaceLink, compose, parse};

    #[test]
    fn awkward_paths_come_back() {
        let links: Vec<TablespaceLink> =
            [&b"/ts/one"[..], b" /leading space", b"/new\nline\r\\back", b"/\xff\xfe"]
                .iter()
                .zip(16400..)
                .map(|(path, oid)| TablespaceLink { oid, path: path.to_vec() })
                .collect();
        let bytes = compose(&links);
        assert!(bytes.starts_with(
            b"16400 /ts/one\n16401  /leading space\n16402 /new\\\nline\\\r\\\\back\n"
        ));
        assert_eq!(parse(&bytes).unwrap(), links);
        assert_eq!(
            parse(b"\r\n5 /x\r\n").unwrap(),
            [TablespaceLink { oid: 5, path: b"/x".to_vec() }]
        );
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn refuses_half_lines() {
        for bad in [&b"5 /x"[..], b"5 \n", b"5\n", b" /x\n", b"x /x\n", b"5 /x\\", b"0 /x\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
