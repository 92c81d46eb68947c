//! What the directory store makes of a disk that is full, a root that is not there or not writable,
//! and things that are no regular files in the places of objects.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use pgrecall_store::{
    ByteRange, DirectoryStore, ErrorKind, Key, Prefix, Put, RootPolicy, Store, StoreError,
};

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

async fn open(path: &Path) -> DirectoryStore {
    DirectoryStore::open(path, RootPolicy::MustExist).await.unwrap()
}

fn unknown(put: Put) -> StoreError {
    match put {
        Put::Unknown(error) => error,
        other => panic!("expected unknown, not {other:?}"),
    }
}

/// Runs one test of this file again, in a process prepared by a shell script. The test must notice
/// that it is the inner one by the folder in `PGRECALL_TEST_INNER`.
fn run_inside(test: &str, script: &str, folder: &Path) {
    let output = Command::new("sh")
        .args(["-c", &format!("{script} exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("PGRECALL_TEST_INNER", folder)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn inner_folder() -> Option<std::path::PathBuf> {
    std::env::var_os("PGRECALL_TEST_INNER").map(Into::into)
}

/// The full disk of an ordinary user: a limit on the size of files, whose signal is ignored so that
/// write(2) tells.
#[tokio::test]
async fn a_write_that_does_not_fit_leaves_nothing_behind() {
    let Some(folder) = inner_folder() else {
        let folder = tempfile::tempdir().unwrap();
        let test = "a_write_that_does_not_fit_leaves_nothing_behind";
        run_inside(test, "trap '' XFSZ; ulimit -f 1024;", folder.path());
        return;
    };
    let store = open(&folder).await;
    let error = unknown(store.put_once(&key("a/b"), vec![1; 4 << 20].into()).await);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.hint().is_some());
    assert_eq!(fs::read_dir(folder.join(".tmp")).unwrap().count(), 0, "a temporary file is left");
    assert_eq!(store.head(&key("a/b")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(matches!(store.put_once(&key("a/b"), "fits".into()).await, Put::Created));
}

/// A file system of 1 MiB, mounted in a name space of the test's own; an ordinary user gets one
/// with a user name space.
#[tokio::test]
async fn a_full_disk_is_told_and_holds_again_when_there_is_room() {
    let Some(folder) = inner_folder() else {
        let folder = tempfile::tempdir().unwrap();
        let test = "a_full_disk_is_told_and_holds_again_when_there_is_room";
        let become_root = match rustix::process::getuid().is_root() {
            true => "",
            false => "--user --map-root-user",
        };
        let script = format!(
            "exec unshare --mount {become_root} sh -c '\
               mount -t tmpfs -o size=1m tmpfs \"$PGRECALL_TEST_INNER\" && exec \"$@\"' sh \"$@\";"
        );
        run_inside(test, &script, folder.path());
        return;
    };
    let store = open(&folder).await;
    assert!(matches!(store.put_once(&key("a/old"), vec![1; 300_000].into()).await, Put::Created));
    let error = unknown(store.put_if_absent(&key("a/new"), vec![2; 2 << 20].into()).await);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(fs::read_dir(folder.join(".tmp")).unwrap().count(), 0, "a temporary file is left");
    assert_eq!(store.get(&key("a/old"), 1 << 20).await.unwrap(), vec![1; 300_000]);
    let listed: Vec<_> = store.list(&Prefix::root()).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1, "what did not fit is not there: {listed:?}");
    store.delete(&key("a/old")).await.unwrap();
    assert!(matches!(store.put_once(&key("a/new"), vec![2; 700_000].into()).await, Put::Created));
}

/// A read-only file system stops root as well, which modes do not.
#[tokio::test]
async fn a_read_only_file_system_is_told() {
    let Some(folder) = inner_folder() else {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        assert!(matches!(store.put_once(&key("a/old"), "old".into()).await, Put::Created));
        let become_root = match rustix::process::getuid().is_root() {
            true => "",
            false => "--user --map-root-user",
        };
        let script = format!(
            "exec unshare --mount {become_root} sh -c '\
               mount --bind \"$PGRECALL_TEST_INNER\" \"$PGRECALL_TEST_INNER\" && \
               mount -o remount,bind,ro \"$PGRECALL_TEST_INNER\" && exec \"$@\"' sh \"$@\";"
        );
        run_inside("a_read_only_file_system_is_told", &script, folder.path());
        return;
    };
    let store = open(&folder).await;
    for name in ["a/new", "b/new", "new"] {
        let error = unknown(store.put_if_absent(&key(name), "new".into()).await);
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("read-only"), "{error}");
    }
    let error = store.delete(&key("a/old")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert_eq!(store.get(&key("a/old"), 10).await.unwrap(), "old");
    assert!(matches!(store.put_once(&key("a/old"), "x".into()).await, Put::Exists));
}

/// Modes stop ordinary users only: root runs this test as `nobody`.
#[tokio::test]
async fn a_folder_without_rights_is_told() {
    let folder = match inner_folder() {
        Some(folder) => folder,
        None if rustix::process::getuid().is_root() => {
            let folder = tempfile::tempdir().unwrap();
            let open_to_all = fs::Permissions::from_mode(0o777);
            fs::set_permissions(folder.path(), open_to_all).unwrap();
            // The test's program may lie where nobody may look.
            let program = folder.path().join("test-program");
            fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            let inner = folder.path().join("inner");
            fs::create_dir(&inner).unwrap();
            std::os::unix::fs::chown(&inner, Some(65534), Some(65534)).unwrap();
            let output = Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(&program)
                .args(["a_folder_without_rights_is_told", "--exact", "--nocapture"])
                .env("PGRECALL_TEST_INNER", &inner)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let complained = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("1 passed"), "{said}{complained}");
            return;
        }
        None => tempfile::tempdir().unwrap().keep(),
    };
    let store = open(&folder).await;
    assert!(matches!(store.put_once(&key("a/b"), "x".into()).await, Put::Created));
    let closed = |mode| fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(mode));
    closed(0o000).unwrap();
    let listed = store.list(&Prefix::root()).try_collect::<Vec<_>>().await;
    let errors = [
        store.get(&key("a/b"), 10).await.unwrap_err(),
        store.head(&key("a/c")).await.unwrap_err(),
        store.delete(&key("a/b")).await.unwrap_err(),
        unknown(store.put_once(&key("a/c"), "x".into()).await),
        listed.unwrap_err(),
    ];
    closed(0o700).unwrap();
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    closed(0o500).unwrap();
    let error = unknown(store.put_once(&key("a/c"), "x".into()).await);
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert_eq!(store.get(&key("a/b"), 10).await.unwrap(), "x");
    closed(0o700).unwrap();
    fs::remove_dir_all(&folder).unwrap_or_default();
}

#[tokio::test]
async fn a_root_that_is_missing_or_no_directory_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("not/mounted");
    let error = DirectoryStore::open(&missing, RootPolicy::MustExist).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(!missing.exists(), "only init makes the root");

    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for policy in [RootPolicy::MustExist, RootPolicy::Create] {
        let error = DirectoryStore::open(&file, policy).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[tokio::test]
async fn what_is_no_regular_file_is_no_object() {
    let folder = tempfile::tempdir().unwrap();
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("outside"), "secret").unwrap();
    let store = open(folder.path()).await;
    assert!(matches!(store.put_once(&key("a/good"), "x".into()).await, Put::Created));
    symlink(secret.path().join("outside"), folder.path().join("a/link")).unwrap();
    symlink(secret.path(), folder.path().join("linked")).unwrap();
    fs::create_dir(folder.path().join("a/folder")).unwrap();
    let fifo = folder.path().join("a/fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());

    for name in ["a/link", "linked/outside", "a/folder", "a/fifo"] {
        let range = ByteRange::Last { len: 1 };
        let asked = async {
            [
                store.get(&key(name), 100).await.map(drop).unwrap_err(),
                store.get_range(&key(name), range).await.map(drop).unwrap_err(),
                store.head(&key(name)).await.map(drop).unwrap_err(),
                unknown(store.put_once(&key(name), "y".into()).await),
            ]
        };
        let errors = tokio::time::timeout(Duration::from_secs(10), asked).await;
        for error in errors.expect("a fifo blocks nobody") {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        }
    }
    assert_eq!(fs::read(secret.path().join("outside")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(secret.path()).unwrap().count(), 1);

    // What cannot be read must not look absent.
    for prefix in ["a/", "linked/", ""] {
        let prefix = Prefix::parse(prefix).unwrap();
        let error = store.list(&prefix).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[tokio::test]
async fn files_that_come_and_go_do_not_disturb_a_listing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for n in 0..300 {
        let put = store.put_once(&key(&format!("stays/{}/{n}", n % 5)), Bytes::new()).await;
        assert!(matches!(put, Put::Created));
    }
    let (churned, root) = (store.clone(), folder.path().to_owned());
    let churn = tokio::spawn(async move {
        for n in 0.. {
            let name = key(&format!("stays/{}/comes-{n}", n % 5));
            let put = churned.put_once(&name, "x".into()).await;
            assert!(matches!(put, Put::Created), "{put:?}");
            churned.delete(&name).await.unwrap();
            fs::create_dir_all(root.join(format!("stays/folder-{n}"))).unwrap();
            fs::remove_dir(root.join(format!("stays/folder-{n}"))).unwrap();
        }
    });
    for _ in 0..30 {
        let listed: Vec<_> = store.list(&Prefix::root()).try_collect().await.unwrap();
        let stayed = listed.iter().filter(|l| !l.key.as_str().contains("comes")).count();
        assert_eq!(stayed, 300);
        assert!(listed.is_sorted());
    }
    churn.abort();
}

#[tokio::test]
async fn an_object_cut_short_behind_our_back_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert!(matches!(store.put_once(&key("a"), vec![1; 1000].into()).await, Put::Created));
    fs::OpenOptions::new().write(true).open(folder.path().join("a")).unwrap().set_len(10).unwrap();
    assert_eq!(store.head(&key("a")).await.unwrap().size, 10);
    let read = store.get_range(&key("a"), ByteRange::At { offset: 5, len: 100 }).await.unwrap();
    assert_eq!((read.bytes.len(), read.object_size), (5, 10));
}
