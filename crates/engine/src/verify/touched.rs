//! Which parts of a backup's files cannot be had: bytes, and of which relation which blocks those
//! are.

use std::ops::Range;

use pgrecall_pgformat::relation::{Fork, RelationFile};
use serde::Serialize;

use crate::details::BackupDetails;

/// Ranges of one file that are told apart; the rest is counted.
const RANGES_MAX: usize = 1000;

/// A file that cannot be had whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TouchedFile {
    /// The file, below the data directory.
    pub path: String,
    /// The relation that it belongs to, if it is a relation's.
    pub relation: Option<TouchedRelation>,
    /// The bytes that cannot be had, in order.
    pub ranges: Vec<ByteRange>,
    /// How many those are in all.
    pub lost_bytes: u64,
    /// Why the first of them cannot be had.
    pub reason: String,
}

/// Bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ByteRange {
    /// The first.
    pub start: u64,
    /// The one after the last.
    pub end: u64,
}

/// The part of a relation that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TouchedRelation {
    /// The tablespace's OID.
    pub tablespace: u32,
    /// The database's OID; 0 for what all databases share.
    pub database: u32,
    /// The relation's file number: `pg_filenode_relation` gives its name in that database.
    pub filenode: u32,
    /// Which fork.
    pub fork: Fork,
    /// Blocks, by their numbers in the fork.
    pub blocks: Vec<BlockRange>,
}

/// Blocks of a relation's fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BlockRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Bytes that cannot be had, collected from first to last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    ranges: Vec<Range<u64>>,
    bytes: u64,
}

impl Lost {
    /// Takes up more, which begin where those before end, or later.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        match self.ranges.last() {
            Some(last) if last.end != range.start && self.ranges.len() >= RANGES_MAX => {
                self.bytes += range.end.saturating_sub(range.start);
            }
            _ => self.add_uncut(range),
        }
    }

    /// The same, however many there are.
    pub(crate) fn add_uncut(&mut self, range: Range<u64>) {
        self.bytes += range.end.saturating_sub(range.start);
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }

    /// Takes up those of a piece of the file.
    pub(super) fn add_piece(&mut self, piece: &Self, piece_start: u64) {
        let counted: u64 = piece.ranges.iter().map(|range| range.end - range.start).sum();
        for range in &piece.ranges {
            self.add(piece_start + range.start..piece_start + range.end);
        }
        self.bytes += piece.bytes.saturating_sub(counted);
    }
}

impl TouchedFile {
    pub(crate) fn new(path: String, lost: &Lost, reason: String, details: &BackupDetails) -> Self {
        let ranges =
            lost.ranges.iter().map(|range| ByteRange { start: range.start, end: range.end });
        let relation = RelationFile::parse(&path).map(|file| TouchedRelation {
            tablespace: file.locator.tablespace,
            database: file.locator.database,
            filenode: file.locator.relation,
            fork: file.fork,
            blocks: blocks(&lost.ranges, file.segment, details),
        });
        Self { path, relation, ranges: ranges.collect(), lost_bytes: lost.bytes, reason }
    }

    /// In a few words.
    #[must_use]
    pub fn text(&self) -> String {
        let Some(relation) = &self.relation else {
            return format!("{}: {} bytes", self.path, self.lost_bytes);
        };
        let blocks: Vec<String> = relation.blocks.iter().take(4).map(BlockRange::text).collect();
        let more = if relation.blocks.len() > blocks.len() { ", …" } else { "" };
        let fork = match relation.fork {
            Fork::Main => String::new(),
            fork => format!(" of fork {}", fork.name()),
        };
        format!("{}: blocks {}{more}{fork}", self.path, blocks.join(", "))
    }
}

impl BlockRange {
    fn text(&self) -> String {
        if self.first == self.last {
            return self.first.to_string();
        }
        format!("{} to {}", self.first, self.last)
    }
}

/// The blocks that any of these bytes are of, by their numbers in the fork.
fn blocks(ranges: &[Range<u64>], segment: u32, details: &BackupDetails) -> Vec<BlockRange> {
    let size = u64::from(details.page_size_bytes.max(1));
    let before = u64::from(segment) * u64::from(details.relation_segment_pages);
    let mut blocks: Vec<BlockRange> = Vec::new();
    for range in ranges.iter().filter(|range| range.end > range.start) {
        let (first, last) = (before + range.start / size, before + (range.end - 1) / size);
        match blocks.last_mut() {
            Some(block) if block.last + 1 >= first => block.last = last,
            _ => blocks.push(BlockRange { first, last }),
        }
    }
    blocks
}
