//! What `pg_waldump` says, read from its text.

use std::collections::BTreeMap;
use std::path::Path;

use pgrecall_pgformat::Lsn;

use crate::cluster::Cluster;

/// A record as `pg_waldump` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DumpedRecord {
    pub(crate) lsn: Lsn,
    pub(crate) previous: Lsn,
    pub(crate) xid: u32,
    pub(crate) resource_manager: String,
    pub(crate) rec_len: u32,
    pub(crate) total_len: u32,
    /// `rel 1663/5/16384 fork vm blk 3 FPW`, by block id.
    pub(crate) blocks: BTreeMap<u8, String>,
    /// Kind and details, without the blocks.
    pub(crate) description: String,
}

/// The records from the first to the last segment given, and what it complained about at the end.
pub(crate) fn dump(cluster: &Cluster, first: &Path, last: &Path) -> (Vec<DumpedRecord>, String) {
    let first = first.to_str().expect("UTF-8");
    let last = last.to_str().expect("UTF-8");
    let output = cluster.try_run("pg_waldump", &[first, last]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (text.lines().filter(|line| line.starts_with("rmgr:")).map(parse).collect(), errors)
}

fn parse(line: &str) -> DumpedRecord {
    let between = |start: &str, end: &str| -> &str {
        let from = line.find(start).unwrap_or_else(|| panic!("{start:?} in {line}")) + start.len();
        let len = line[from..].find(end).unwrap_or_else(|| panic!("{end:?} in {line}"));
        line[from..from + len].trim()
    };
    let (rec_len, total_len) =
        between("len (rec/tot):", ", tx:").split_once('/').expect("two lengths");
    let rest = line.split_once("desc: ").expect("a description").1;
    let mut parts = rest.split(", blkref #");
    let description = parts.next().expect("a description").to_owned();
    let blocks = parts.map(|part| {
        let (id, text) = part.split_once(": ").expect("a block id");
        (id.parse().expect("a block id"), text.to_owned())
    });
    DumpedRecord {
        lsn: between("lsn: ", ", ").parse().expect("an LSN"),
        previous: between("prev ", ", ").parse().expect("an LSN"),
        xid: between("tx:", ", ").parse().expect("an xid"),
        resource_manager: between("rmgr: ", " ").to_owned(),
        rec_len: rec_len.trim().parse().expect("a length"),
        total_len: total_len.trim().parse().expect("a length"),
        blocks: blocks.collect(),
        description,
    }
}
