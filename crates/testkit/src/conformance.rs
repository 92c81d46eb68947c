//! The contract of a store, as a suite that every backend has to pass.
//!
//! `PGRECALL_TEST_LISTED` sets how many objects the listing test puts (1100 by default, more than
//! one page of S3).

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use futures::{StreamExt, TryStreamExt, stream};
use pgrecall_store::{ByteRange, ErrorKind, Key, Listed, Prefix, Put, Store, StoreError};

/// Opens the same store anew: another connection to the same objects.
pub type Opener = dyn Fn() -> BoxFuture<'static, Arc<dyn Store>> + Send + Sync;

const LIMIT: u64 = 1 << 30;

/// Runs the whole suite; panics where the store breaks the contract. The store must be empty.
pub async fn run(open: &Opener) {
    let store = open().await;
    assert_eq!(names(&store, "").await, Vec::<String>::new(), "the store is not empty");
    absent_objects_are_not_found(&store).await;
    objects_come_back(&store).await;
    ranges(&store).await;
    exists(&store).await;
    limits(&store).await;
    deletes(&store).await;
    prefixes(&store).await;
    folders(&store).await;
    order_and_pages(&store).await;
    puts_race(open).await;
    large(&store).await;
    secrets_and_names(&store);
}

async fn absent_objects_are_not_found(store: &Arc<dyn Store>) {
    for name in ["absent", "no/such/folder/object"] {
        let range = ByteRange::At { offset: 0, len: 1 };
        for error in [
            store.get(&key(name), LIMIT).await.map(drop).unwrap_err(),
            store.get(&key(name), 0).await.map(drop).unwrap_err(),
            store.get_range(&key(name), range).await.map(drop).unwrap_err(),
            store.get_range(&key(name), ByteRange::Last { len: 0 }).await.map(drop).unwrap_err(),
            store.head(&key(name)).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
            assert!(error.object().ends_with(name), "which object? {error}");
        }
    }
    assert_eq!(names(store, "no/such/folder/").await, Vec::<String>::new());
}

async fn objects_come_back(store: &Arc<dyn Store>) {
    let names = ["o/empty", "o/one", "o/A-Z_0.9", "o/deep/er/and/deeper", "o/a..b"];
    for (len, name) in [0, 1, 2, 4095, 100_000].into_iter().zip(names) {
        let body = bytes(len, 7);
        created(store.put_if_absent(&key(name), body.clone()).await);
        assert_eq!(store.get(&key(name), LIMIT).await.unwrap(), body, "{name}");
        assert_eq!(store.head(&key(name)).await.unwrap().size, len as u64, "{name}");
    }
    let longest = Key::parse(&format!("o/{}", "n".repeat(255))).unwrap();
    created(store.put_once(&longest, bytes(3, 1)).await);
    assert_eq!(store.get(&longest, LIMIT).await.unwrap(), bytes(3, 1));
}

async fn ranges(store: &Arc<dyn Store>) {
    let name = key("ranges/ten");
    let body = bytes(10, 3);
    created(store.put_once(&name, body.clone()).await);
    let at = |offset, len| ByteRange::At { offset, len };
    let last = |len| ByteRange::Last { len };
    for (range, from, to) in [
        (at(0, 10), 0, 10),
        (at(0, 1), 0, 1),
        (at(9, 1), 9, 10),
        (at(3, 4), 3, 7),
        (at(3, 0), 3, 3),
        (at(8, 5), 8, 10),
        (at(0, 11), 0, 10),
        (at(10, 5), 10, 10),
        (at(99, 5), 10, 10),
        (last(0), 10, 10),
        (last(1), 9, 10),
        (last(10), 0, 10),
        (last(11), 0, 10),
        (last(1 << 40), 0, 10),
    ] {
        let read = store.get_range(&name, range).await.unwrap();
        assert_eq!(read.bytes, body.slice(from..to), "{range:?}");
        assert_eq!(read.object_size, 10, "{range:?}");
    }
    let error = store.get_range(&name, at(1, u64::MAX)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);

    let empty = key("ranges/empty");
    created(store.put_once(&empty, Bytes::new()).await);
    for range in [at(0, 0), at(0, 1), at(5, 1), last(0), last(5)] {
        let read = store.get_range(&empty, range).await.unwrap();
        assert_eq!((read.bytes.len(), read.object_size), (0, 0), "{range:?}");
    }
}

async fn exists(store: &Arc<dyn Store>) {
    let name = key("exists/object");
    created(store.put_once(&name, bytes(100, 1)).await);
    for body in [bytes(100, 1), bytes(100, 2), bytes(0, 0), bytes(9999, 3)] {
        let once = store.put_once(&name, body.clone()).await;
        assert!(matches!(once, Put::Exists), "{once:?}");
        let again = store.put_if_absent(&name, body).await;
        assert!(matches!(again, Put::Exists), "{again:?}");
        assert_eq!(store.get(&name, LIMIT).await.unwrap(), bytes(100, 1), "it was overwritten");
    }
    let empty = key("exists/empty");
    created(store.put_if_absent(&empty, Bytes::new()).await);
    let other = store.put_if_absent(&empty, bytes(1, 1)).await;
    assert!(matches!(other, Put::Exists), "an empty object is an object: {other:?}");
}

async fn limits(store: &Arc<dyn Store>) {
    let name = key("limits/object");
    created(store.put_once(&name, bytes(1000, 1)).await);
    assert_eq!(store.get(&name, 1000).await.unwrap().len(), 1000);
    for limit in [999, 1, 0] {
        let error = store.get(&name, limit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

async fn deletes(store: &Arc<dyn Store>) {
    let name = key("deletes/object");
    created(store.put_once(&name, bytes(10, 1)).await);
    store.delete(&name).await.unwrap();
    let gone = store.get(&name, LIMIT).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(names(store, "deletes/").await, Vec::<String>::new());
    store.delete(&name).await.unwrap();
    store.delete(&key("deletes/never/was")).await.unwrap();
    // The name is free again; that nobody uses it is the caller's rule.
    created(store.put_if_absent(&name, bytes(11, 2)).await);
    assert_eq!(store.get(&name, LIMIT).await.unwrap(), bytes(11, 2));
}

async fn prefixes(store: &Arc<dyn Store>) {
    for name in ["p/a/b", "p/a/bc", "p/a/b-c/d", "p/a/bb/c", "p/ab", "p/a.b"] {
        created(store.put_once(&key(name), bytes(name.len(), 1)).await);
    }
    assert_eq!(names(store, "p/a/").await, ["p/a/b", "p/a/b-c/d", "p/a/bb/c", "p/a/bc"]);
    assert_eq!(names(store, "p/").await[..3], ["p/a.b", "p/a/b", "p/a/b-c/d"]);
    assert_eq!(names(store, "p/a/b/").await, Vec::<String>::new(), "an object is no folder");
    assert_eq!(names(store, "p/a/bb/").await, ["p/a/bb/c"]);
    let prefix = Prefix::parse("p/").unwrap();
    for listed in store.list(&prefix).try_collect::<Vec<Listed>>().await.unwrap() {
        assert_eq!(listed.size, listed.key.as_str().len() as u64, "{}", listed.key);
    }
}

async fn folders(store: &Arc<dyn Store>) {
    assert_eq!(folder_names(store, "f/").await, Vec::<String>::new());
    for name in ["f/a/b/c", "f/a/d", "f/a-b/c", "f/a.b/c", "f/z", "f/q/r", "f/q/s/t/u"] {
        created(store.put_once(&key(name), bytes(1, 1)).await);
    }
    // In byte order: '-' and '.' sort before the slash that ends a folder.
    assert_eq!(folder_names(store, "f/").await, ["f/a-b/", "f/a.b/", "f/a/", "f/q/"]);
    assert_eq!(folder_names(store, "f/a/").await, ["f/a/b/"]);
    assert_eq!(folder_names(store, "f/q/").await, ["f/q/s/"]);
    assert_eq!(folder_names(store, "f/a/b/").await, Vec::<String>::new());
    assert_eq!(folder_names(store, "f/z/").await, Vec::<String>::new(), "an object is no folder");
    assert!(folder_names(store, "").await.contains(&"f/".to_owned()));
}

async fn order_and_pages(store: &Arc<dyn Store>) {
    let wanted = std::env::var("PGRECALL_TEST_LISTED").map_or(1100, |n| n.parse().unwrap());
    // Names in which order by component and order by byte differ: '-' and '.' sort before '/'.
    let mut expected: Vec<String> = (0..wanted)
        .map(|n: usize| match n % 4 {
            0 => format!("many/{:03}/object-{n}", n % 50),
            1 => format!("many/{:03}-x/object-{n}", n % 50),
            2 => format!("many/{:03}.x/object-{n}", n % 50),
            _ => format!("many/{:03}/{:02}/object-{n}", n % 50, n % 7),
        })
        .collect();
    let puts = expected.iter().map(|name| async move {
        created(store.put_once(&key(name), Bytes::new()).await);
    });
    stream::iter(puts).buffer_unordered(16).collect::<Vec<()>>().await;
    expected.sort();
    assert_eq!(names(store, "many/").await, expected);
    let folder_of = |name: &String| name.split_inclusive('/').take(2).collect::<String>();
    let mut folders: Vec<String> = expected.iter().map(folder_of).collect();
    folders.dedup();
    assert_eq!(folder_names(store, "many/").await, folders);
    let everything = names(store, "").await;
    assert!(everything.is_sorted() && everything.len() > wanted);
    // A reader may stop early.
    let prefix = Prefix::parse("many/").unwrap();
    let first: Vec<_> = store.list(&prefix).take(3).try_collect::<Vec<_>>().await.unwrap();
    let first: Vec<_> = first.iter().map(|listed| listed.key.as_str()).collect();
    assert_eq!(first, expected[..3]);
}

async fn puts_race(open: &Opener) {
    let stores = join_all((0..16).map(|_| open())).await;
    for round in 0..8 {
        let name = key(&format!("race/{round}"));
        let puts = stores.iter().enumerate().map(|(racer, store)| {
            let (store, name) = (Arc::clone(store), name.clone());
            tokio::spawn(async move {
                let body = bytes(50_000, racer as u8);
                match racer % 2 {
                    0 => store.put_once(&name, body).await,
                    _ => store.put_if_absent(&name, body).await,
                }
            })
        });
        let answers: Vec<Put> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> =
            (0..answers.len()).filter(|racer| matches!(answers[*racer], Put::Created)).collect();
        assert_eq!(winners.len(), 1, "round {round}: {answers:?}");
        for (racer, answer) in answers.iter().enumerate() {
            // "Unknown" is what S3 makes of a 409, for the put that is sent but once.
            let told = match answer {
                Put::Unknown(error) => racer % 2 == 0 && error.kind() == ErrorKind::Conflict,
                Put::Created | Put::Exists => true,
            };
            assert!(told, "round {round}: racer {racer} was told {answer:?}");
        }
        let body = bytes(50_000, winners[0] as u8);
        for store in &stores {
            assert_eq!(store.get(&name, LIMIT).await.unwrap(), body, "not the winner's bytes");
        }
    }
}

async fn large(store: &Arc<dyn Store>) {
    let name = key("large/object");
    let len = 33 << 20;
    let body = bytes(len, 9);
    created(store.put_if_absent(&name, body.clone()).await);
    assert_eq!(store.head(&name).await.unwrap().size, len as u64);
    assert!(store.get(&name, LIMIT).await.unwrap() == body, "33 MiB came back changed");
    let offset = 17 << 20;
    let range = ByteRange::At { offset: offset as u64, len: 100_000 };
    let read = store.get_range(&name, range).await.unwrap();
    assert!(read.bytes == body.slice(offset..offset + 100_000));
    assert_eq!(read.object_size, len as u64);
    assert!(matches!(store.put_if_absent(&name, body).await, Put::Exists));
    store.delete(&name).await.unwrap();
}

fn secrets_and_names(store: &Arc<dyn Store>) {
    assert!(!store.url().is_empty());
    let shown = format!("{store:?}").to_lowercase();
    assert!(!shown.contains("testsecret"), "Debug shows a secret: {shown}");
}

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

/// `len` bytes that look random and differ by `seed`.
fn bytes(len: usize, seed: u8) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(seed);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        })
        .collect()
}

fn created(put: Put) {
    assert!(matches!(put, Put::Created), "{put:?}");
}

async fn names(store: &Arc<dyn Store>, prefix: &str) -> Vec<String> {
    let listed: Result<Vec<Listed>, StoreError> =
        store.list(&Prefix::parse(prefix).unwrap()).try_collect().await;
    listed.unwrap().into_iter().map(|listed| listed.key.to_string()).collect()
}

async fn folder_names(store: &Arc<dyn Store>, prefix: &str) -> Vec<String> {
    let folders = store.list_folders(&Prefix::parse(prefix).unwrap()).await.unwrap();
    folders.iter().map(|folder| folder.as_str().to_owned()).collect()
}
