//! Golden repositories: made once by a version that is named in their README, never edited, and
//! readable for ever.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use pgrecall_repo::format::document::Resolution;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::format::map::{FileMap, HashSource, Source};
use pgrecall_repo::format::table::{Entry, PieceMap};
use pgrecall_repo::id::{BackupId, ChunkId};
use pgrecall_repo::index::{Index, Purpose};
use pgrecall_repo::keys::{KeyFile, Unlock};
use pgrecall_repo::manifests;
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::object::Proof;
use pgrecall_repo::random::SharedRandom;
use pgrecall_repo::repository::Repository;
use pgrecall_repo::sealed_store::SealedStore;
use pgrecall_repo::{RepoError, archive, chunks};
use pgrecall_store::{Key, RootPolicy};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::make::{self, Sort, hex};

/// One golden repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixture {
    /// Its folder under `tests/fixtures/repo/`.
    pub(crate) folder: &'static str,
    /// Whether it is encrypted.
    pub(crate) sort: Sort,
}

/// All of them.
pub(crate) const FIXTURES: &[Fixture] = &[
    Fixture { folder: "v2/clear", sort: Sort::Clear },
    Fixture { folder: "v2/encrypted", sort: Sort::Encrypted },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/repo")
}

impl Fixture {
    /// Its folder.
    pub(crate) fn path(&self) -> PathBuf {
        root().join(self.folder)
    }

    /// The repository itself.
    pub(crate) fn repository(&self) -> PathBuf {
        self.path().join("repository")
    }

    /// The key file of an encrypted one.
    pub(crate) fn key(&self) -> PathBuf {
        self.path().join("key")
    }

    /// What it holds: see [`make::contents`].
    pub(crate) fn contents(&self) -> Value {
        let text = std::fs::read_to_string(self.path().join("contents.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

fn files(below: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(below).unwrap().to_str().unwrap().to_owned();
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Every object of a golden repository.
pub(crate) fn objects(fixture: &Fixture) -> BTreeMap<String, Vec<u8>> {
    let mut found = files(&fixture.repository());
    found.retain(|name, _| !name.starts_with('.'));
    assert!(!found.is_empty());
    found
}

/// What the files below a folder are, in the same form; links are no files.
pub(crate) fn sums_of(folder: &Path) -> Value {
    files(folder)
        .into_iter()
        .filter(|(name, _)| !name.ends_with(".link"))
        .map(|(name, bytes)| (name, Value::from(hex(&bytes))))
        .collect()
}

async fn open(repository: &Path, sort: Sort, unlock: Unlock) -> Result<Repository, RepoError> {
    let store = make::directory(repository, RootPolicy::MustExist).await;
    Repository::open(store, make::options(sort, unlock, SharedRandom::system())).await
}

fn unlock(sort: Sort, key: &str) -> Unlock {
    match sort {
        Sort::Clear => Unlock::Nothing,
        Sort::Encrypted => Unlock::KeyFile(KeyFile::parse(key).unwrap()),
    }
}

/// Reads everything that a repository holds, and says it as `contents.json` does.
async fn read_all(repository: &Repository) -> Value {
    let domain: Name = "main".parse().unwrap();
    let sealed = repository.existing_domain(&domain).await.unwrap();
    let index = Index::open(&sealed, &domain, Purpose::Read).await.unwrap();
    let backups = manifests::list(&sealed, &domain).await.unwrap();
    assert!(backups.unreadable.is_empty());
    let mut found = serde_json::Map::new();
    for backup in &backups.valid {
        let mut entries = Vec::new();
        manifests::each_table::<RepoError>(
            &sealed,
            &domain,
            &index,
            &backup.manifest.tables,
            |part| {
                entries.extend(part);
                Ok(())
            },
        )
        .await
        .unwrap();
        assert_eq!(u64::try_from(entries.len()).unwrap(), backup.manifest.entries);
        let mut sums = serde_json::Map::new();
        for entry in entries.iter().filter(|entry| is_file(entry)) {
            let bytes = read_file(&sealed, &index, entry).await;
            sums.insert(entry.path.to_string(), hex(&bytes).into());
        }
        found.insert(backup.manifest.backup.to_string(), sums.into());
    }
    let mut archived = serde_json::Map::new();
    for object in sealed.list(&names::clusters()).await.unwrap() {
        let name = object.key.as_str();
        if name.ends_with("/identity") || name.ends_with(".resolved") || name.contains("/damaged/")
        {
            continue;
        }
        let plain = read_archived(&sealed, &object.key).await;
        let trailer = archive::read_trailer(&sealed, &object.key).await.unwrap().plain;
        let trailer: Value = serde_json::from_slice(&trailer).unwrap();
        if trailer["name"] != object.key.file_name() {
            // Kept beside the file, for a settlement.
            continue;
        }
        let settlement = Key::parse(&format!("{name}.resolved")).unwrap();
        let plain = match sealed.get::<Resolution>(Kind::Resolution, &settlement).await {
            Ok(settled) => read_archived(&sealed, &Key::parse(&settled.object).unwrap()).await,
            Err(_) => plain,
        };
        archived.insert(object.key.file_name().to_owned(), hex(&plain).into());
    }
    serde_json::json!({"backups": found, "archived": archived})
}

async fn read_archived(sealed: &SealedStore, object: &Key) -> Vec<u8> {
    let mut plain = Vec::new();
    archive::fetch(sealed, object, 16 << 20, Proof::Hash, |part| plain.extend_from_slice(part))
        .await
        .unwrap();
    plain
}

fn is_file(entry: &Entry) -> bool {
    use pgrecall_repo::format::table::EntryKind;
    matches!(entry.kind, EntryKind::File(_) | EntryKind::Outside(..))
}

async fn read_chunks(
    sealed: &SealedStore,
    index: &Index,
    wanted: HashSet<ChunkId>,
) -> std::collections::HashMap<ChunkId, Vec<u8>> {
    let domain: Name = "main".parse().unwrap();
    chunks::read_many(sealed, &domain, index, &wanted).await.unwrap()
}

async fn read_file(sealed: &SealedStore, index: &Index, entry: &Entry) -> Vec<u8> {
    let mut contents = Vec::new();
    for piece in entry.pieces() {
        let map = match &piece.map {
            PieceMap::Zeros => {
                contents.resize(contents.len() + usize::try_from(piece.len).unwrap(), 0);
                continue;
            }
            PieceMap::Inline(map) => map.clone(),
            PieceMap::Chunk { id, .. } => {
                read_chunks(sealed, index, HashSet::from([*id])).await.remove(id).unwrap()
            }
        };
        let map = FileMap::decode(&map).unwrap();
        let wanted = map.chunks.iter().map(|chunk| chunk.id);
        let wanted = wanted.chain(map.hash_chunks.iter().map(|chunk| chunk.id)).collect();
        let read = read_chunks(sealed, index, wanted).await;
        check_page_hashes(sealed, &map, &read);
        for extent in &map.extents {
            let len = usize::try_from(extent.len).unwrap();
            match extent.source {
                Source::Zeros => contents.resize(contents.len() + len, 0),
                Source::Chunk { chunk, offset } => {
                    let chunk = &read[&map.chunks[chunk as usize].id];
                    contents.extend_from_slice(&chunk[offset as usize..][..len]);
                }
            }
        }
    }
    contents
}

/// Every page hash is that of its page.
fn check_page_hashes(
    sealed: &SealedStore,
    map: &FileMap,
    read: &std::collections::HashMap<ChunkId, Vec<u8>>,
) {
    for chunk in &map.chunks {
        let plain = &read[&chunk.id];
        let stored: Vec<u64> = match &chunk.hashes {
            HashSource::None => continue,
            HashSource::Inline(hashes) => hashes.clone(),
            HashSource::Shared { chunk: shared, first } => {
                let hashes = &read[&map.hash_chunks[*shared as usize].id];
                let start = *first as usize * 8;
                let end = start + map.pages_of(chunk.plain_len) as usize * 8;
                let (words, _) = hashes[start..end].as_chunks::<8>();
                words.iter().map(|word| u64::from_le_bytes(*word)).collect()
            }
        };
        let found: Vec<u64> = plain
            .chunks(map.page_size as usize)
            .map(|page| sealed.keys().page_hash(page))
            .collect();
        assert_eq!(stored, found);
    }
}

#[test]
fn every_fixture_is_listed() {
    let mut found = Vec::new();
    for version in std::fs::read_dir(root()).unwrap() {
        let version = version.unwrap().path();
        if !version.is_dir() {
            continue;
        }
        assert!(version.join("README.md").is_file(), "{} says who made it", version.display());
        for fixture in std::fs::read_dir(&version).unwrap() {
            let path = fixture.unwrap().path();
            if path.is_dir() {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    let mut listed: Vec<_> = FIXTURES.iter().map(|fixture| fixture.folder.to_owned()).collect();
    listed.sort();
    assert_eq!(found, listed);
}

#[tokio::test]
async fn every_fixture_opens_and_holds_what_it_was_given() {
    for fixture in FIXTURES {
        let key = match fixture.sort {
            Sort::Clear => String::new(),
            Sort::Encrypted => std::fs::read_to_string(fixture.key()).unwrap(),
        };
        let unlock = unlock(fixture.sort, &key);
        let repository = open(&fixture.repository(), fixture.sort, unlock).await.unwrap();
        assert_eq!(read_all(&repository).await, fixture.contents(), "{}", fixture.folder);
    }
}

/// A repository of version 1 has chunks that would not open: that is no damage.
#[tokio::test]
async fn a_repository_of_the_unreleased_version_is_told_from_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    make::make(folder.path(), Sort::Clear).await;
    let root = folder.path().join("pgrecall.json");
    let text = std::fs::read_to_string(&root).unwrap();
    let older = text.replacen("\"version\": 2", "\"version\": 1", 1);
    assert_ne!(older, text);
    std::fs::write(&root, older).unwrap();
    let error = open(folder.path(), Sort::Clear, Unlock::Nothing).await.unwrap_err();
    assert!(matches!(error, RepoError::Older { .. }), "{error:?}");
    assert_eq!(error.to_string(), "pgrecall.json is of an older, unreleased format");
}

#[tokio::test]
async fn the_passphrase_opens_an_encrypted_fixture_and_no_other_does() {
    for fixture in FIXTURES.iter().filter(|fixture| fixture.sort == Sort::Encrypted) {
        let unlock = Unlock::Passphrase(Zeroizing::new(make::PASSPHRASE.into()));
        let repository = open(&fixture.repository(), fixture.sort, unlock).await.unwrap();
        assert_eq!(read_all(&repository).await, fixture.contents());
        let wrong = Unlock::Passphrase(Zeroizing::new("incorrect horse".into()));
        assert!(open(&fixture.repository(), fixture.sort, wrong).await.is_err());
    }
}

#[tokio::test]
async fn what_is_written_today_reads_as_it_was_written() {
    for sort in [Sort::Clear, Sort::Encrypted] {
        let folder = tempfile::tempdir().unwrap();
        let made = make::make(folder.path(), sort).await;
        let repository = open(folder.path(), sort, unlock(sort, &made.key)).await.unwrap();
        assert_eq!(read_all(&repository).await, make::contents(&made));
        let ids: Vec<BackupId> = made.backups.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), 2);
    }
}
