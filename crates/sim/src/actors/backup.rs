//! A backup: the product's session, fed with a database of a few chunks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::try_join_all;
use pgrecall_engine::details::{BackupDetails, BackupStats, Method, Position, TakenFrom};
use pgrecall_engine::retention::floor;
use pgrecall_engine::wal_place;
use pgrecall_pgformat::control::DataChecksums;
use pgrecall_pgformat::{ArchiveName, Lsn, SegmentName, SegmentNumber};
use pgrecall_repo::RepoError;
use pgrecall_repo::backup::{BackupNote, BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::format::document::{Manifest, TableChunk};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::map::{Extent, FileMap, HashSource, MapChunk, Source};
use pgrecall_repo::format::table::{self, Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::id::{BackupId, ChunkId};
use pgrecall_repo::manifests;
use pgrecall_repo::pack::PackBuilder;
use pgrecall_store::{ErrorKind, Store as _};

use super::{Context, Ended, chain};
use crate::database::{self, CHUNK_BYTES};
use crate::oracle::Truth;
use crate::planted::Plant;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The primary.
    Primary,
    /// A standby, which may be far behind.
    Standby,
}

/// Tries of one command, as the product has them.
const TRIES: usize = 2;

/// Chunks of a pack: few, so that a backup has several.
const CHUNKS_PER_PACK: usize = 3;

/// How often a segment is looked for.
const LOOKS_MAX: u32 = 60;

enum Failed {
    Again(String),
    End(String),
}

impl std::convert::From<RepoError> for Failed {
    fn from(error: RepoError) -> Self {
        Self::End(chain(&error))
    }
}

/// Takes a backup.
///
/// # Errors
/// When there is none.
pub async fn run(context: &mut Context, from: From) -> Ended {
    let mut tries = 0;
    loop {
        tries += 1;
        match once(context, from).await {
            Ok(id) => return Ok(format!("backup {id} committed")),
            Err(Failed::Again(why)) if tries < TRIES => context.tell(&format!("again: {why}")),
            Err(Failed::Again(why) | Failed::End(why)) => return Err(why),
        }
    }
}

async fn once(context: &mut Context, from: From) -> Result<BackupId, Failed> {
    let (sealed, at) = (context.cluster.sealed.clone(), context.cluster.at.clone());
    let note = BackupNote {
        host: format!("host of {}", context.process),
        process: context.process.0,
        incarnation: String::new(),
        began: context.clock.now_text(),
    };
    let before = manifests::list(&sealed, &at.domain).await?.valid;
    let saw: Vec<BackupId> = before.iter().map(|backup| backup.manifest.backup).collect();
    let session = BackupSession::begin(sealed, at, &note).await?;
    if let Ok(mut living) = context.living.lock() {
        living.insert(session.id().to_string(), context.process);
    }
    context.tell(&format!("is backup {}", session.id()));
    let ended = copy_and_commit(context, &session, from, saw).await;
    if ended.is_err() {
        // What cannot be tidied is tidied by a collection.
        let _ = session.abandon().await;
        if context.plant == Some(Plant::GivesUpItsIntent) {
            let name = pgrecall_repo::names::intent(session.at(), session.id());
            let _ = context.store.delete(&name).await;
        }
    }
    ended
}

async fn copy_and_commit(
    context: &mut Context,
    session: &BackupSession,
    from: From,
    saw: Vec<BackupId>,
) -> Result<BackupId, Failed> {
    let start = {
        let mut database = context.database.lock();
        match from {
            From::Primary => database.lsn,
            From::Standby => {
                database.restartpoint(&mut context.chance);
                database.standby_lsn
            }
        }
    };
    let told_start = match context.plant {
        Some(Plant::StopInsteadOfStart) => context.database.lock().lsn,
        _ => start,
    };
    session.put_start(database::timeline().to_string(), told_start.to_string()).await?;
    if context.plant != Some(Plant::FloorIgnored) {
        floor::require_wal_from(&context.cluster, database::timeline(), start)
            .await
            .map_err(|error| Failed::End(chain(&error)))?;
    }
    let (files, stop) = {
        let mut database = context.database.lock();
        let files = database.files.clone();
        database.earlier.push(files.clone());
        if context.chance.happens(400) {
            // It takes long, and WAL goes on.
            database.switch();
        }
        let stop = match from {
            From::Primary => database.lsn,
            From::Standby => database.replayed().max(start),
        };
        database.switch();
        (files, stop)
    };
    let mut truth = Truth { chunks: BTreeSet::new(), files: BTreeMap::new(), start, stop };
    let reference = match context.chance.happens(600) {
        true => reference_chunks(context, session).await,
        false => BTreeSet::new(),
    };
    let entries = copy(context, session, &files, &reference, &mut truth).await?;
    let details = details(context, from, &truth, saw);
    let manifest = manifest(session, entries, &details, &mut truth).await?;
    session.flush_index().await?;
    wait_for_wal(context, start, stop).await?;
    context.world.lock().oracle.will_commit(session.id(), truth);
    match session.commit(&manifest).await {
        Ok(()) => {
            context.world.lock().oracle.told_committed(session.id());
            Ok(session.id())
        }
        Err(
            error @ (RepoError::PacksMissing { .. }
            | RepoError::ChunkMissing { .. }
            | RepoError::Corrupt { .. }
            | RepoError::KeysMissing { .. }),
        ) => Err(Failed::Again(chain(&error))),
        Err(error) => Err(error.into()),
    }
}

/// The chunks of the newest backup, read as an incremental backup reads them.
async fn reference_chunks(context: &Context, session: &BackupSession) -> BTreeSet<ChunkId> {
    let mut found = BTreeSet::new();
    let listed = manifests::list(session.sealed(), &session.at().domain).await;
    let Some(newest) = listed.ok().and_then(|mut listed| listed.valid.pop()) else { return found };
    let mut maps = Vec::new();
    let read: Result<(), RepoError> = session
        .each_table(&newest.manifest, |entries| {
            for piece in entries.iter().flat_map(Entry::pieces) {
                match &piece.map {
                    PieceMap::Inline(bytes) => found.extend(chunks_of(bytes)),
                    PieceMap::Chunk { id, .. } => maps.push(*id),
                    PieceMap::Zeros => {}
                }
            }
            Ok(())
        })
        .await;
    if let Err(error) = read {
        context.tell(&format!("goes without a reference: {}", chain(&error)));
        return BTreeSet::new();
    }
    for map in maps {
        if let Ok(Some(bytes)) = session.read_meta(&map).await {
            found.extend(chunks_of(&bytes));
        }
    }
    found
}

fn chunks_of(map: &[u8]) -> Vec<ChunkId> {
    let map = FileMap::decode(map).unwrap_or_default();
    map.chunks.iter().map(|chunk| chunk.id).collect()
}

/// Stores what is new of the files; packs are put several at once.
async fn copy(
    context: &mut Context,
    session: &BackupSession,
    files: &BTreeMap<String, Vec<u64>>,
    reference: &BTreeSet<ChunkId>,
    truth: &mut Truth,
) -> Result<Vec<Entry>, Failed> {
    let mut fresh: Vec<(ChunkId, Vec<u8>)> = Vec::new();
    let mut entries = Vec::new();
    let mut meta = Vec::new();
    for (name, contents) in files {
        let mut map = FileMap::default();
        let mut bytes = Vec::new();
        for (number, content) in (0..).zip(contents) {
            let plain = database::plain(*content);
            let id = session.sealed().keys().chunk_id(&plain);
            let known = reference.contains(&id) && session.refer(&id);
            if !known && session.claim(&id) == Claim::Store {
                fresh.push((id, plain.clone()));
            }
            truth.chunks.insert(id);
            bytes.extend_from_slice(&plain);
            map.chunks.push(MapChunk { id, plain_len: CHUNK_BYTES, hashes: HashSource::None });
            let source = Source::Chunk { chunk: number, offset: 0 };
            map.extents.push(Extent { len: CHUNK_BYTES.into(), source });
        }
        truth.files.insert(name.clone(), bytes);
        entries.push(entry(context, session, name, &map, &mut meta, truth)?);
    }
    put_packs(session, Kind::DataPack, fresh).await?;
    if context.chance.happens(300) {
        session.flush_index().await?;
    }
    put_packs(session, Kind::MetaPack, meta).await?;
    Ok(entries)
}

/// A file's entry, its map inline or in a chunk of its own.
fn entry(
    context: &mut Context,
    session: &BackupSession,
    name: &str,
    map: &FileMap,
    meta: &mut Vec<(ChunkId, Vec<u8>)>,
    truth: &mut Truth,
) -> Result<Entry, Failed> {
    let encoded = map.encode();
    let place = match context.chance.happens(500) {
        true => PieceMap::Inline(encoded),
        false => {
            let id = session.sealed().keys().chunk_id(&encoded);
            truth.chunks.insert(id);
            let len = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
            if session.claim(&id) == Claim::Store {
                meta.push((id, encoded));
            }
            PieceMap::Chunk { id, plain_len: len }
        }
    };
    let path =
        RelativePath::new(name.as_bytes()).map_err(|error| Failed::End(error.to_string()))?;
    let pieces = vec![Piece { len: map.len(), map: place }];
    let kind = EntryKind::File(pieces);
    Ok(Entry { path, mode: 0o600, uid: 0, gid: 0, mtime_us: 0, kind })
}

async fn put_packs(
    session: &BackupSession,
    kind: Kind,
    fresh: Vec<(ChunkId, Vec<u8>)>,
) -> Result<(), RepoError> {
    let mut packs = Vec::new();
    for part in fresh.chunks(CHUNKS_PER_PACK) {
        let mut pack = PackBuilder::new(session.sealed(), &session.at().domain, kind)?;
        for (id, plain) in part {
            pack.add(*id, plain, Level::default())?;
        }
        packs.push(session.put_pack(pack.finish()?));
    }
    try_join_all(packs).await.map(drop)
}

async fn manifest(
    session: &BackupSession,
    entries: Vec<Entry>,
    details: &BackupDetails,
    truth: &mut Truth,
) -> Result<Manifest, Failed> {
    let first = entries.first().map(|entry| entry.path.to_string()).unwrap_or_default();
    let plain = table::encode(&entries);
    let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    let id = session.sealed().keys().chunk_id(&plain);
    truth.chunks.insert(id);
    if session.claim(&id) == Claim::Store {
        put_packs(session, Kind::MetaPack, vec![(id, plain)]).await?;
    }
    let count = entries.len() as u64;
    Ok(Manifest {
        backup: session.id(),
        cluster: session.at().cluster.to_string(),
        lineage: session.at().lineage.clone(),
        tables: vec![TableChunk { first, entries: count, id, plain_len }],
        entries: count,
        bytes: truth.files.values().map(|bytes| bytes.len() as u64).sum(),
        details: details.to_value(),
    })
}

fn details(context: &Context, from: From, truth: &Truth, saw: Vec<BackupId>) -> BackupDetails {
    let at = |lsn| Position { timeline: database::timeline(), lsn };
    let start = match context.plant {
        Some(Plant::StopInsteadOfStart) => truth.stop,
        _ => truth.start,
    };
    BackupDetails {
        began: context.clock.now_text(),
        ended: context.clock.now(),
        host: format!("host of {}", context.process),
        major: context.cluster.facts.major,
        server_version: 170_011,
        catalog_version: 202_406_281,
        from: match from {
            From::Primary => TakenFrom::Primary,
            From::Standby => TakenFrom::Standby,
        },
        start: at(start),
        checkpoint_lsn: Lsn(start.0 + 0x38),
        stop: at(truth.stop),
        backup_label: String::new(),
        tablespace_map: String::new(),
        tablespaces: vec![],
        pg_wal_link: None,
        page_size_bytes: 8192,
        wal_segment_size: database::size(),
        relation_segment_pages: 131_072,
        data_checksums: DataChecksums::Off,
        chunk_bytes: CHUNK_BYTES,
        method: Method::Full,
        reference: None,
        damage: vec![],
        stats: BackupStats::default(),
        saw_backups: saw,
    }
}

/// Looks for the segments that the backup needs, as the product waits for them.
async fn wait_for_wal(context: &Context, start: Lsn, stop: Lsn) -> Result<(), Failed> {
    let size = database::size();
    let first = SegmentNumber::containing(start, size);
    let last = SegmentNumber::ending_at(stop, size).max(first);
    for number in (first.0..=last.0).map(SegmentNumber) {
        let name = ArchiveName::Segment(SegmentName { timeline: database::timeline(), number });
        let object = wal_place::object(&context.cluster.at, name, size)?;
        let mut looks = 0;
        loop {
            match context.store.head(&object).await {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Failed::End(chain(&error))),
            }
            looks += 1;
            if looks >= LOOKS_MAX {
                return Err(Failed::End(format!("segment {} does not come", number.0)));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}
