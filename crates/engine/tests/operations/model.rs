//! What a repository should hold, kept beside it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use pgrecall_repo::RepoError;
use pgrecall_repo::chunks;
use pgrecall_repo::expired::ExpiredLog;
use pgrecall_repo::format::document::Manifest;
use pgrecall_repo::format::map::{FileMap, Source};
use pgrecall_repo::format::table::{Entry, PieceMap};
use pgrecall_repo::id::BackupId;
use pgrecall_repo::index::{Index, Purpose};
use pgrecall_repo::manifests;
use pgrecall_repo::sealed_store::SealedStore;

use crate::chunked_backups::{at, plain};

/// The backups that there are, and what was told of them.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// The numbers of the chunks of each one's file.
    pub(crate) backups: BTreeMap<BackupId, Vec<u32>>,
    pub(crate) held: BTreeSet<BackupId>,
    /// Those that have expired.
    pub(crate) gone: Vec<BackupId>,
}

impl Model {
    /// Any of the backups.
    pub(crate) fn any(&self, choice: u8) -> Option<BackupId> {
        let count = self.backups.len().max(1);
        self.backups.keys().nth(usize::from(choice) % count).copied()
    }

    /// The repository lists these backups and no others, they are whole, and those that are held
    /// are held.
    pub(crate) async fn check(&self, sealed: &SealedStore) {
        let domain = &at().domain;
        let listed = manifests::list(sealed, domain).await.expect("backups are listed");
        assert!(listed.unreadable.is_empty() && listed.log_error.is_none(), "{listed:?}");
        let ids: BTreeSet<BackupId> = listed.valid.iter().map(|row| row.manifest.backup).collect();
        assert_eq!(ids, self.backups.keys().copied().collect());
        let log = ExpiredLog::read(sealed, domain).await.expect("the log is read");
        let held: BTreeSet<BackupId> = log.entry().held.iter().map(|hold| hold.backup).collect();
        assert_eq!(held, self.held);
        let index = Index::open(sealed, domain, Purpose::Read).await.expect("the index is read");
        for backup in listed.valid {
            let numbers = &self.backups[&backup.manifest.backup];
            let whole: Vec<u8> = numbers.iter().flat_map(|number| plain(*number)).collect();
            let read = read(sealed, &index, &backup.manifest).await;
            assert!(read == whole, "backup {} has other bytes", backup.manifest.backup);
        }
    }
}

/// The bytes of the one file of a backup.
async fn read(sealed: &SealedStore, index: &Index, manifest: &Manifest) -> Vec<u8> {
    let domain = &at().domain;
    let mut maps = Vec::new();
    manifests::each_table(sealed, domain, index, &manifest.tables, |entries| {
        for piece in entries.iter().flat_map(Entry::pieces) {
            let PieceMap::Inline(map) = &piece.map else { panic!("{piece:?}") };
            maps.push(FileMap::decode(map).expect("a map"));
        }
        Ok::<(), RepoError>(())
    })
    .await
    .expect("the file table is read");
    let wanted: HashSet<_> =
        maps.iter().flat_map(|map| &map.chunks).map(|chunk| chunk.id).collect();
    let read = chunks::read_many(sealed, domain, index, &wanted).await.expect("chunks are read");
    let mut bytes = Vec::new();
    for map in &maps {
        for extent in &map.extents {
            let Source::Chunk { chunk, offset } = extent.source else { panic!("{extent:?}") };
            let (chunk, offset) = (chunk as usize, offset as usize);
            let plain = &read[&map.chunks[chunk].id];
            bytes.extend_from_slice(&plain[offset..offset + extent.len as usize]);
        }
    }
    bytes
}
