//! A domain in memory, and backups of one file of made-up chunks in it, for tests of what is kept
//! and what goes.

use std::collections::HashSet;

use pgrecall_repo::backup::{BackupSession, Claim};
use pgrecall_repo::codec::Level;
use pgrecall_repo::expired::{ExpiredLog, remove_manifests};
use pgrecall_repo::format::document::{Expired, Manifest, TableChunk};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::map::{Extent, FileMap, HashSource, MapChunk, Source};
use pgrecall_repo::format::table::{self, Entry, EntryKind, Piece, PieceMap, RelativePath};
use pgrecall_repo::id::{BackupId, ChunkId};
use pgrecall_repo::index::{self, Index, Purpose};
use pgrecall_repo::names::ClusterRef;
use pgrecall_repo::pack::PackBuilder;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{RepoError, chunks, manifests};

use crate::repositories::{self, InMemory};

/// The cluster that the backups are of.
pub fn at() -> ClusterRef {
    ClusterRef {
        domain: "main".parse().unwrap(),
        cluster: "main".parse().unwrap(),
        lineage: "7".into(),
    }
}

/// Its domain in a new repository in memory.
///
/// # Panics
/// As everything here, when something fails.
pub async fn domain() -> SealedStore {
    let InMemory { repository, .. } = InMemory::create().await;
    repository.domain(&at().domain).await.expect("a new domain")
}

/// Begins a backup.
///
/// # Panics
/// When it cannot begin.
pub async fn begin(sealed: &SealedStore) -> BackupSession {
    repositories::begin(sealed, &at()).await
}

/// The contents of a chunk by its number.
pub fn plain(number: u32) -> Vec<u8> {
    (0..3000_u32).map(|at| (at.wrapping_mul(number + 7) >> 3) as u8).collect()
}

/// Puts what is new of these chunks into one pack.
pub async fn put(session: &BackupSession, kind: Kind, plains: &[Vec<u8>]) -> Vec<ChunkId> {
    let mut pack = PackBuilder::new(session.sealed(), &at().domain, kind).unwrap();
    let mut ids = Vec::new();
    for plain in plains {
        let id = session.sealed().keys().chunk_id(plain);
        if session.claim(&id) == Claim::Store {
            pack.add(id, plain, Level::default()).unwrap();
        }
        ids.push(id);
    }
    if !pack.is_empty() {
        session.put_pack(pack.finish().unwrap()).await.unwrap();
    }
    ids
}

/// The rest of a backup of one file that has these chunks.
///
/// # Errors
/// As the commit.
pub async fn finish(session: &BackupSession, ids: &[ChunkId]) -> Result<BackupId, RepoError> {
    let mut map = FileMap::default();
    for (number, id) in (0..).zip(ids) {
        map.chunks.push(MapChunk { id: *id, plain_len: 3000, hashes: HashSource::None });
        let source = Source::Chunk { chunk: number, offset: 0 };
        map.extents.push(Extent { len: 3000, source });
    }
    let pieces = vec![Piece { len: map.len(), map: PieceMap::Inline(map.encode()) }];
    let entry = Entry {
        path: RelativePath::new(b"file").unwrap(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime_us: 0,
        kind: EntryKind::File(pieces),
    };
    let plain = table::encode(&[entry]);
    let plain_len = u32::try_from(plain.len()).unwrap();
    let id = put(session, Kind::MetaPack, &[plain]).await[0];
    let manifest = Manifest {
        backup: session.id(),
        cluster: "main".into(),
        lineage: at().lineage,
        tables: vec![TableChunk { first: "file".into(), entries: 1, id, plain_len }],
        entries: 1,
        bytes: 0,
        details: Default::default(),
    };
    session.commit(&manifest).await?;
    Ok(session.id())
}

/// A backup of the chunks of these numbers.
pub async fn backup(sealed: &SealedStore, numbers: std::ops::Range<u32>) -> BackupId {
    let session = begin(sealed).await;
    let plains: Vec<_> = numbers.map(plain).collect();
    let ids = put(&session, Kind::DataPack, &plains).await;
    finish(&session, &ids).await.unwrap()
}

/// Expires a backup.
pub async fn expire(sealed: &SealedStore, id: BackupId) {
    let log = ExpiredLog::read(sealed, &at().domain).await.unwrap();
    let more = Expired { backups: vec![id], ..Expired::default() };
    log.append(sealed, &at().domain, more).await.unwrap();
    remove_manifests(sealed, &at().domain).await.unwrap();
}

/// Every valid backup can be read whole; gives how many packs there are.
pub async fn check(sealed: &SealedStore) -> usize {
    let domain = &at().domain;
    let index = Index::open(sealed, domain, Purpose::Read).await.unwrap();
    for backup in manifests::list(sealed, domain).await.unwrap().valid {
        let mut wanted = HashSet::new();
        manifests::each_table(sealed, domain, &index, &backup.manifest.tables, |entries| {
            for piece in entries.iter().flat_map(Entry::pieces) {
                let PieceMap::Inline(map) = &piece.map else { panic!("{piece:?}") };
                wanted.extend(FileMap::decode(map).unwrap().chunks.iter().map(|chunk| chunk.id));
            }
            Ok::<(), RepoError>(())
        })
        .await
        .unwrap();
        let read = chunks::read_many(sealed, domain, &index, &wanted).await.unwrap();
        assert_eq!(read.len(), wanted.len());
    }
    index::list_packs(sealed, domain).await.unwrap().len()
}
