//! The WAL of a cluster as `pg_waldump` tells it: where records start, and which end transactions.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use pgrecall_pgformat::{Lsn, Timestamp};

use super::Moment;
use crate::postgres::Cluster;

/// How a record ends its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XactEnd {
    /// COMMIT or COMMIT_PREPARED.
    Commit,
    /// ABORT or ABORT_PREPARED.
    Abort,
}

/// A record at which recovery may stop for a time or an xid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XactRecord {
    /// Where the record starts.
    pub start: Lsn,
    /// The low 32 bits of the transaction id.
    pub xid: u32,
    /// The time in the record.
    pub time: Timestamp,
    /// Commit or abort.
    pub end: XactEnd,
}

/// What was found in the WAL of one timeline.
#[derive(Debug, Clone)]
pub(super) struct WalRecords {
    /// Starts of all records, ascending.
    starts: Vec<Lsn>,
    /// Ends of transactions, by position.
    xacts: Vec<XactRecord>,
    by_xid: HashMap<u32, Vec<XactRecord>>,
    /// Starts of restore point records with their names.
    restore_points: Vec<(String, Lsn)>,
}

impl WalRecords {
    /// Reads the newest timeline in `pg_wal`, from the first segment after the last hole.
    pub(super) fn read(cluster: &Cluster) -> Self {
        let folder = cluster.data_dir().join("pg_wal");
        let (timeline, first) = first_segment(cluster);
        let mut command = cluster.tool("pg_waldump");
        // Named by its file instead, the first segment would be the only one read.
        command.arg("--path").arg(&folder);
        command.args(["--timeline", &timeline.to_string(), "--start", &first.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("pg_waldump: {e}"));
        let out = child.stdout.take().expect("stdout is piped");
        let mut records = Self {
            starts: Vec::new(),
            xacts: Vec::new(),
            by_xid: HashMap::new(),
            restore_points: Vec::new(),
        };
        for line in BufReader::new(out).lines() {
            records.add(&line.unwrap_or_else(|e| panic!("pg_waldump: {e}")));
        }
        let mut said = String::new();
        let stderr = child.stderr.as_mut().expect("stderr is piped");
        stderr.read_to_string(&mut said).unwrap_or_else(|e| panic!("pg_waldump: {e}"));
        // It always ends with an error, at the end of the WAL.
        child.wait().unwrap_or_else(|e| panic!("pg_waldump: {e}"));
        assert!(!records.starts.is_empty(), "pg_waldump found no record from {first} on: {said}");
        records
    }

    /// The end of transaction `xid` at or after `not_before`: on a new timeline ids come again.
    pub(super) fn xact_of(&self, xid: u64, not_before: Option<Moment>) -> Option<XactRecord> {
        let low = u32::try_from(xid & u64::from(u32::MAX)).expect("32 bits");
        let from = not_before.map_or(Lsn::INVALID, |moment| moment.lsn);
        self.by_xid.get(&low)?.iter().copied().find(|record| record.start >= from)
    }

    /// The first commit or abort record of which `is_later` holds.
    pub(super) fn first_xact(&self, is_later: impl Fn(Timestamp) -> bool) -> Option<Lsn> {
        self.xacts.iter().find(|record| is_later(record.time)).map(|record| record.start)
    }

    /// All ends of transactions.
    pub(super) fn xacts(&self) -> &[XactRecord] {
        &self.xacts
    }

    /// The first record that starts at or after `lsn`.
    pub(super) fn first_start_from(&self, lsn: Lsn) -> Option<Lsn> {
        let at = self.starts.partition_point(|start| *start < lsn);
        self.starts.get(at).copied()
    }

    /// The first restore point with this name.
    pub(super) fn restore_point(&self, name: &str) -> Option<Lsn> {
        self.restore_points.iter().find(|(known, _)| known == name).map(|(_, lsn)| *lsn)
    }

    /// The start of the last record.
    pub(super) fn last_start(&self) -> Lsn {
        self.starts.last().copied().unwrap_or(Lsn::INVALID)
    }

    fn add(&mut self, line: &str) {
        let Some(record) = Line::parse(line) else {
            return;
        };
        self.starts.push(record.start);
        if record.rmgr == "XLOG"
            && let Some(name) = record.description.strip_prefix("RESTORE_POINT ")
        {
            self.restore_points.push((name.trim_end().to_owned(), record.start));
        }
        if record.rmgr == "Transaction"
            && let Some(xact) = record.xact()
        {
            self.xacts.push(xact);
            self.by_xid.entry(xact.xid).or_default().push(xact);
        }
    }
}

/// A line of `pg_waldump` in its usual format (`XLogDumpDisplayRecord` in `pg_waldump.c`).
struct Line<'a> {
    rmgr: &'a str,
    xid: u32,
    start: Lsn,
    description: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let rest = line.strip_prefix("rmgr: ")?;
        let (rmgr, _) = rest.split_once(' ')?;
        let (_, rest) = rest.split_once("tx:")?;
        let (xid, rest) = rest.split_once(", lsn: ")?;
        let (start, rest) = rest.split_once(", prev ")?;
        let (_, description) = rest.split_once(", desc: ")?;
        let (xid, start) = (xid.trim().parse().ok()?, start.parse().ok()?);
        Some(Self { rmgr, xid, start, description })
    }

    /// The end of a transaction, e.g. `COMMIT 2026-01-31 12:00:00.123456 UTC; subxacts: 7`, or
    /// `COMMIT_PREPARED 734: 2026-…`.
    fn xact(&self) -> Option<XactRecord> {
        let (kind, rest) = self.description.split_once(' ')?;
        let end = match kind {
            "COMMIT" | "COMMIT_PREPARED" => XactEnd::Commit,
            "ABORT" | "ABORT_PREPARED" => XactEnd::Abort,
            _ => return None,
        };
        let (xid, rest) = match rest.split_once(": ") {
            Some((xid, rest)) if kind.ends_with("_PREPARED") => (xid.parse().ok()?, rest),
            _ => (self.xid, rest),
        };
        let text = rest.split(';').next().unwrap_or(rest).trim();
        let time = parse_time(text).unwrap_or_else(|| panic!("pg_waldump's time {text:?}"));
        Some(XactRecord { start: self.start, xid, time, end })
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let (day, clock) = text.strip_suffix(" UTC")?.split_once(' ')?;
    let moment: jiff::Timestamp = format!("{day}T{clock}Z").parse().ok()?;
    Some(Timestamp::from_unix_micros(moment.as_microsecond()))
}

/// The newest timeline, and the start of its first segment that has no hole after it.
fn first_segment(cluster: &Cluster) -> (u32, Lsn) {
    let folder = cluster.data_dir().join("pg_wal");
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit()))
        .collect();
    names.sort();
    let newest = names.last().unwrap_or_else(|| panic!("no WAL in {}", folder.display())).clone();
    names.retain(|name| name[..8] == newest[..8]);
    let size = std::fs::metadata(folder.join(&newest)).map(|found| found.len());
    let size_bytes = size.unwrap_or_else(|e| panic!("{newest}: {e}"));
    let starts: Vec<u64> = names.iter().map(|name| start_of(name, size_bytes)).collect();
    let hole = starts.windows(2).rposition(|pair| pair[0] + size_bytes != pair[1]);
    let first = starts[hole.map_or(0, |at| at + 1)];
    (u32::try_from(hex(&newest[..8])).expect("eight digits"), Lsn(first))
}

/// The position at which the segment with this name starts (`XLogFromFileName`).
fn start_of(name: &str, size_bytes: u64) -> u64 {
    (hex(&name[8..16]) << 32) + hex(&name[16..24]) * size_bytes
}

fn hex(digits: &str) -> u64 {
    u64::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{digits:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pg_waldump_are_understood() {
        let line = "rmgr: Transaction len (rec/tot):     46/    46, tx:        734, \
                    lsn: 0/0152E3A8, prev 0/0152E370, \
                    desc: COMMIT 2026-01-31 12:00:00.123456 UTC; subxacts: 735";
        let record = Line::parse(line).unwrap();
        assert_eq!((record.rmgr, record.start), ("Transaction", Lsn(0x0152_E3A8)));
        let xact = record.xact().unwrap();
        assert_eq!((xact.xid, xact.end), (734, XactEnd::Commit));
        assert_eq!(xact.time.to_unix_micros(), 1_769_860_800_123_456);
        let line = line.replace("COMMIT ", "ABORT_PREPARED 7: ").replace("; subxacts: 735", "");
        let xact = Line::parse(&line).unwrap().xact().unwrap();
        assert_eq!((xact.xid, xact.end), (7, XactEnd::Abort));
        assert!(Line::parse("first record is after 0/1").is_none());
    }
}
