//! What the directory store does on disk, beyond the contract that all stores share.

mod power_cut;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use futures::TryStreamExt;

use super::*;

/// A folder below the system's temporary folder, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let id = getrandom::u64().unwrap();
        let path = std::env::temp_dir().join(format!("pgrecall-store-{name}-{id:016x}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    async fn open(&self) -> DirectoryStore {
        DirectoryStore::open(&self.0, RootPolicy::MustExist).await.unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

#[tokio::test]
async fn what_is_there_is_made_durable_and_what_is_not_is_told() {
    let place = Place::new("durable");
    let store = place.open().await;
    let absent = store.make_durable(&key("a/b")).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(matches!(store.put_once(&key("a/b"), Bytes::new()).await, Put::Created));
    store.make_durable(&key("a/b")).await.unwrap();
}

#[tokio::test]
async fn a_put_leaves_one_file_and_no_temporary_one() {
    let place = Place::new("put");
    let store = place.open().await;
    let body = Bytes::from_static(b"body");
    assert!(matches!(store.put_once(&key("a/b/c"), body.clone()).await, Put::Created));
    assert!(matches!(store.put_if_absent(&key("a/b/c"), body.clone()).await, Put::Exists));
    assert_eq!(fs::read(place.0.join("a/b/c")).unwrap(), b"body");
    assert_eq!(fs::read_dir(place.0.join(".tmp")).unwrap().count(), 0);
    let mode = |name: &str| fs::metadata(place.0.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("a/b/c") & !0o640, 0);
    assert_eq!(mode("a/b") & !0o750, 0);
}

#[tokio::test]
async fn what_is_no_object_is_not_listed() {
    let place = Place::new("list");
    let store = place.open().await;
    for name in ["a/b", "a-b", "a.b", "c"] {
        assert!(matches!(store.put_once(&key(name), Bytes::new()).await, Put::Created));
    }
    fs::write(place.0.join(".hidden"), b"x").unwrap();
    fs::write(place.0.join("a b"), b"x").unwrap();
    fs::create_dir(place.0.join("lost+found")).unwrap();
    fs::create_dir(place.0.join("empty")).unwrap();
    let listed: Vec<Listed> = store.list(&Prefix::root()).try_collect().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|l| l.key.as_str()).collect();
    assert_eq!(names, ["a-b", "a.b", "a/b", "c"]);
}

#[tokio::test]
async fn the_root_is_made_only_when_asked() {
    let place = Place::new("root");
    let path = place.0.join("x/y");
    let missing = DirectoryStore::open(&path, RootPolicy::MustExist).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Unavailable);
    assert!(!path.exists());
    DirectoryStore::open(&path, RootPolicy::Create).await.unwrap();
    DirectoryStore::open(&path, RootPolicy::Create).await.unwrap();
    assert!(path.is_dir());
    let relative = DirectoryStore::open("x/y", RootPolicy::Create).await.unwrap_err();
    assert_eq!(relative.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_removed_root_is_not_an_empty_one() {
    let place = Place::new("removed");
    let path = place.0.join("root");
    let store = DirectoryStore::open(&path, RootPolicy::Create).await.unwrap();
    assert_eq!(store.get(&key("a"), 9).await.unwrap_err().kind(), ErrorKind::NotFound);
    fs::remove_dir(&path).unwrap();
    let listed = store.list(&Prefix::root()).try_collect::<Vec<_>>().await;
    let errors = [
        store.get(&key("a"), 9).await.unwrap_err(),
        store.head(&key("a/b")).await.unwrap_err(),
        store.delete(&key("a")).await.unwrap_err(),
        listed.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let put = store.put_once(&key("a/b"), Bytes::new()).await;
    assert!(matches!(put, Put::Unknown(error) if error.kind() == ErrorKind::Unavailable));
}

#[tokio::test]
async fn what_dead_writers_left_is_removed_and_what_live_ones_write_is_not() {
    let place = Place::new("left");
    let temporary = place.0.join(".tmp");
    fs::create_dir(&temporary).unwrap();
    let [dead, live, foreign] = ["00", "11", "xy"].map(|two| temporary.join(two.repeat(16)));
    for file in [&dead, &live, &foreign] {
        fs::write(file, b"half").unwrap();
    }
    let writing = fs::File::open(&live).unwrap();
    writing.lock().unwrap();
    let store = place.open().await;
    assert!(matches!(store.put_once(&key("a"), Bytes::new()).await, Put::Created));
    assert!(!dead.exists() && live.exists() && foreign.exists());
}
