//! Walking backups: file tables, file maps, and every chunk that they refer to.

use std::collections::{HashMap, HashSet, hash_map};

use pgrecall_repo::RepoError;
use pgrecall_repo::format::map::{FileMap, Source};
use pgrecall_repo::format::table::{self, Entry, PieceMap};
use pgrecall_repo::id::ChunkId;
use pgrecall_repo::names::Name;
use pgrecall_repo::sealed_store::SealedStore;

use super::rows::{Presence, Rows};
use super::touched::{Lost, TouchedFile};
use crate::catalog::{Known, chain};
use crate::details::BackupDetails;
use crate::error::EngineError;
use crate::unreadable::{Cause, Unreadable};

/// Table chunks and maps read at once: bounds memory, whatever the number of files.
const TABLES_AT_ONCE: usize = 64;
const MAPS_AT_ONCE: usize = 256;

/// Files that are named; the others are counted.
const FILES_MAX: usize = 10_000;

/// What is wrong with a map: the files that use it cannot be had, or only their page hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum MapState {
    Sound,
    NoHashes(String),
    /// Why, and the bytes of the piece that cannot be had.
    Bad(Unreadable, Lost),
}

impl MapState {
    /// All of a piece of so many bytes.
    fn all_lost(why: Unreadable, len: u64) -> Self {
        let mut lost = Lost::default();
        lost.add(0..len);
        Self::Bad(why, lost)
    }
}

/// What a walk over one backup has found.
#[derive(Debug, Clone, Default)]
pub(super) struct Walked {
    pub(super) entries: u64,
    pub(super) bad_files: u64,
    pub(super) touched: Vec<TouchedFile>,
    /// File tables that do not read: nobody knows which files they name.
    pub(super) bad_tables: Vec<String>,
    /// Whether all of that is because another version of the program wrote something.
    cause: Option<Cause>,
    /// Files without page hashes that should have them.
    pub(super) unhashed_files: u64,
    pub(super) unhashed_example: Option<String>,
}

impl Walked {
    pub(super) fn is_whole(&self) -> bool {
        self.bad_files == 0 && self.bad_tables.is_empty()
    }

    /// Whether all of it is there, page hashes, too.
    pub(super) fn lacks_nothing(&self) -> bool {
        self.is_whole() && self.unhashed_files == 0
    }

    /// What cannot be had, in a few words.
    pub(super) fn example(&self) -> String {
        match (self.bad_tables.first(), self.touched.first()) {
            (Some(table), _) => format!("the list of its files, {table}"),
            (None, Some(TouchedFile { path, reason, .. })) => {
                format!("{} files of it, such as {path}: {reason}", self.bad_files)
            }
            (None, None) => String::new(),
        }
    }

    /// Why it is not whole: damage outweighs what cannot be judged.
    pub(super) fn cause(&self) -> Cause {
        self.cause.unwrap_or(Cause::Damage)
    }

    fn bad(&mut self, entry: &Entry, why: Unreadable, lost: &Lost, details: &BackupDetails) {
        self.bad_files += 1;
        self.weigh(why.cause);
        if self.touched.len() < FILES_MAX {
            let path = entry.path.to_string();
            self.touched.push(TouchedFile::new(path, lost, why.reason, details));
        }
    }

    fn bad_table(&mut self, why: Unreadable) {
        self.bad_tables.push(why.reason);
        self.weigh(why.cause);
    }

    fn weigh(&mut self, cause: Cause) {
        self.cause = Some(self.cause.map_or(cause, |before| before.graver(cause)));
    }
}

/// Walks the backups of a domain. A map that several share is read once.
#[derive(Debug)]
pub(super) struct Walker<'a> {
    sealed: &'a SealedStore,
    domain: &'a Name,
    rows: &'a mut Rows,
    maps: HashMap<ChunkId, MapState>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(sealed: &'a SealedStore, domain: &'a Name, rows: &'a mut Rows) -> Self {
        Self { sealed, domain, rows, maps: HashMap::new() }
    }

    /// Walks one backup.
    pub(super) async fn walk(&mut self, backup: &Known) -> Result<Walked, EngineError> {
        let mut walked = Walked::default();
        let mut last: Option<table::RelativePath> = None;
        for part in backup.manifest.tables.chunks(TABLES_AT_ONCE) {
            let wanted: Vec<ChunkId> = part.iter().map(|chunk| chunk.id).collect();
            let mut read = self.rows.read_meta(self.sealed, self.domain, &wanted).await?;
            for chunk in part {
                let presence = self.rows.refer(&chunk.id, chunk.plain_len);
                let plain = match read.remove(&chunk.id) {
                    Some(Ok(plain)) => plain,
                    Some(Err(error)) => {
                        let reason = format!("from {}: {}", chunk.first, chain(&error));
                        let cause = cause_of(&error, presence);
                        walked.bad_table(Unreadable { cause, reason });
                        continue;
                    }
                    // The same chunk twice in one manifest: paths would not rise.
                    None => {
                        let reason = format!("from {}: named twice", chunk.first);
                        walked.bad_table(Unreadable::damaged(reason));
                        continue;
                    }
                };
                match decode(&plain, chunk.entries, last.as_ref()) {
                    Ok(entries) => {
                        last = entries.last().map(|entry| entry.path.clone()).or(last);
                        self.walk_entries(&entries, &backup.details, &mut walked).await?;
                    }
                    Err(reason) => {
                        let reason = format!("from {}: {reason}", chunk.first);
                        walked.bad_table(Unreadable::damaged(reason));
                    }
                }
            }
        }
        if walked.bad_tables.is_empty() && walked.entries != backup.manifest.entries {
            walked.bad_table(Unreadable::damaged(format!(
                "the tables have {} entries, the manifest says {}",
                walked.entries, backup.manifest.entries
            )));
        }
        Ok(walked)
    }

    async fn walk_entries(
        &mut self,
        entries: &[Entry],
        details: &BackupDetails,
        walked: &mut Walked,
    ) -> Result<(), EngineError> {
        self.read_maps(entries).await?;
        for entry in entries {
            walked.entries += 1;
            match self.walk_pieces(entry) {
                MapState::Sound => {}
                MapState::NoHashes(reason) => {
                    walked.unhashed_files += 1;
                    let example = || format!("{}: {reason}", entry.path);
                    walked.unhashed_example.get_or_insert_with(example);
                }
                MapState::Bad(why, lost) => walked.bad(entry, why, &lost, details),
            }
        }
        Ok(())
    }

    /// What is wrong with a file, the bytes that cannot be had counted from its start.
    fn walk_pieces(&mut self, entry: &Entry) -> MapState {
        let (mut start, mut lost) = (0, Lost::default());
        let mut state = MapState::Sound;
        for piece in entry.pieces() {
            let found = match &piece.map {
                PieceMap::Zeros => MapState::Sound,
                PieceMap::Inline(bytes) => self.judge(bytes, piece.len),
                PieceMap::Chunk { id, .. } => match self.maps.get(id) {
                    Some(state) => state.clone(),
                    None => {
                        let why = Unreadable::damaged(format!("its map {id} was not read"));
                        MapState::all_lost(why, piece.len)
                    }
                },
            };
            if let MapState::Bad(_, part) = &found {
                lost.add_piece(part, start);
            }
            start += piece.len;
            state = worse(state, found);
        }
        match state {
            MapState::Bad(why, _) => MapState::Bad(why, lost),
            state => state,
        }
    }

    /// Reads and judges the maps that these entries have in chunks of their own.
    async fn read_maps(&mut self, entries: &[Entry]) -> Result<(), EngineError> {
        let mut wanted: Vec<(ChunkId, u64, Presence)> = Vec::new();
        for piece in entries.iter().flat_map(Entry::pieces) {
            if let PieceMap::Chunk { id, plain_len } = piece.map {
                let presence = self.rows.refer(&id, plain_len);
                // Until it is read; a piece that comes again is not wanted twice.
                if let hash_map::Entry::Vacant(place) = self.maps.entry(id) {
                    let why = missing("its map", &id, presence);
                    place.insert(MapState::all_lost(why, piece.len));
                    wanted.push((id, piece.len, presence));
                }
            }
        }
        for part in wanted.chunks(MAPS_AT_ONCE) {
            let ids: Vec<ChunkId> = part.iter().map(|(id, ..)| *id).collect();
            let mut read = self.rows.read_meta(self.sealed, self.domain, &ids).await?;
            for (id, len, presence) in part {
                let state = match read.remove(id) {
                    Some(Ok(plain)) => self.judge(&plain, *len),
                    Some(Err(error)) => {
                        let reason = format!("its map: {}", chain(&error));
                        let cause = cause_of(&error, *presence);
                        MapState::all_lost(Unreadable { cause, reason }, *len)
                    }
                    None => continue,
                };
                self.maps.insert(*id, state);
            }
        }
        Ok(())
    }

    fn judge(&mut self, bytes: &[u8], len: u64) -> MapState {
        let map = match FileMap::decode(bytes) {
            Ok(map) => map,
            Err(error) => {
                let reason = format!("its map does not read: {error}");
                let why = Unreadable { cause: Cause::of(error.kind()), reason };
                return MapState::all_lost(why, len);
            }
        };
        if map.len() != len {
            let reason = format!("its map describes {} bytes of a piece of {len}", map.len());
            return MapState::all_lost(Unreadable::damaged(reason), len);
        }
        let mut state = MapState::Sound;
        for chunk in &map.hash_chunks {
            let presence = self.rows.refer(&chunk.id, chunk.plain_len);
            if presence != Presence::There {
                let reason = missing("a chunk of page hashes", &chunk.id, presence);
                state = worse(state, MapState::NoHashes(reason.reason));
            }
        }
        let mut gone = HashSet::new();
        let mut why = None;
        for (number, chunk) in (0_u32..).zip(&map.chunks) {
            let presence = self.rows.refer(&chunk.id, chunk.plain_len);
            if presence != Presence::There {
                gone.insert(number);
                why.get_or_insert_with(|| missing("chunk", &chunk.id, presence));
            }
        }
        match why {
            Some(why) => MapState::Bad(why, lost_of(&map, &gone)),
            None => state,
        }
    }
}

/// The first of two states that are equally bad, else the worse.
fn worse(before: MapState, now: MapState) -> MapState {
    let rank = |state: &MapState| match state {
        MapState::Sound => 0,
        MapState::NoHashes(_) => 1,
        MapState::Bad(..) => 2,
    };
    if rank(&now) > rank(&before) { now } else { before }
}

/// The bytes that come from these chunks of a map.
fn lost_of(map: &FileMap, gone: &HashSet<u32>) -> Lost {
    let (mut start, mut lost) = (0, Lost::default());
    for extent in &map.extents {
        let end = start + extent.len;
        if let Source::Chunk { chunk, .. } = extent.source
            && gone.contains(&chunk)
        {
            lost.add(start..end);
        }
        start = end;
    }
    lost
}

fn cause_of(error: &RepoError, presence: Presence) -> Cause {
    match presence {
        Presence::OtherVersion => Cause::OtherVersion,
        _ => Cause::of(error.kind()),
    }
}

fn missing(what: &str, chunk: &ChunkId, presence: Presence) -> Unreadable {
    let cause = match presence {
        Presence::OtherVersion => Cause::OtherVersion,
        _ => Cause::Damage,
    };
    let reason = match presence {
        Presence::There => format!("{what} {chunk} could not be read"),
        Presence::Missing => format!("{what} {chunk} is in no pack that is there"),
        Presence::Bad => format!("every stored copy of {what} {chunk} is damaged"),
        Presence::OtherLength(found) => {
            format!("{what} {chunk} has {found} bytes, another number than the map says")
        }
        Presence::OtherVersion => {
            format!("{what} {chunk}, or the index that names it, is of another version")
        }
    };
    Unreadable { cause, reason }
}

fn decode(
    plain: &[u8],
    expected: u64,
    last: Option<&table::RelativePath>,
) -> Result<Vec<Entry>, String> {
    let entries = table::decode(plain).map_err(|error| error.to_string())?;
    let in_order = match (last, entries.first()) {
        (Some(last), Some(first)) => *last < first.path,
        _ => true,
    };
    if !in_order {
        return Err("its paths do not follow those of the table before".into());
    }
    if u64::try_from(entries.len()) != Ok(expected) {
        return Err(format!("it has {} entries, the manifest says {expected}", entries.len()));
    }
    Ok(entries)
}
