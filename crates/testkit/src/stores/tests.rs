//! The wrappers do what they say: a test that stands on one of them means what it claims.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use pgrecall_store::{ByteRange, ErrorKind, Key, MemoryStore, Prefix, Put, Store};

use super::*;

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

async fn filled() -> Arc<dyn Store> {
    let store = memory();
    for (name, body) in [("packs/a", "0123456789"), ("packs/b", "other"), ("index/c", "")] {
        assert!(matches!(store.put_once(&key(name), body.into()).await, Put::Created));
    }
    store
}

#[tokio::test]
async fn the_nth_call_fails_before_its_effect() {
    let inner = memory();
    let calls = Calls::puts().naming("packs/");
    let failing = FailNth::over(inner.clone(), calls, 2, Lasting::Once, ErrorKind::Unavailable);
    assert!(matches!(failing.put_once(&key("packs/1"), Bytes::new()).await, Put::Created));
    assert!(matches!(failing.put_once(&key("index/1"), Bytes::new()).await, Put::Created));
    assert!(!failing.hook().has_failed());
    let put = failing.put_if_absent(&key("packs/2"), Bytes::new()).await;
    assert!(matches!(put, Put::Unknown(_)), "{put:?}");
    assert!(inner.head(&key("packs/2")).await.is_err(), "it had an effect");
    assert!(matches!(failing.put_once(&key("packs/2"), Bytes::new()).await, Put::Created));
    assert_eq!(failing.hook().seen(), 3);
}

#[tokio::test]
async fn a_lasting_failure_lasts_for_every_method() {
    let store = filled().await;
    let failing = FailNth::over(store, Calls::all(), 1, Lasting::ForEver, ErrorKind::Denied);
    let name = key("packs/a");
    let listed = failing.list(&Prefix::root()).try_collect::<Vec<_>>().await;
    let range = ByteRange::Last { len: 1 };
    for error in [
        failing.get(&name, 99).await.map(drop).unwrap_err(),
        failing.get_range(&name, range).await.map(drop).unwrap_err(),
        failing.head(&name).await.map(drop).unwrap_err(),
        failing.delete(&name).await.unwrap_err(),
        listed.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied);
    }
    assert_eq!(failing.hook().seen(), 5);
}

#[tokio::test]
async fn a_lost_answer_is_that_of_a_call_that_worked() {
    let inner = memory();
    let losing = LoseAnswer::over(inner.clone(), Calls::all(), 2);
    let name = key("packs/a");
    assert!(matches!(losing.put_once(&name, "body".into()).await, Put::Unknown(_)));
    assert_eq!(inner.get(&name, 99).await.unwrap(), "body");
    assert_eq!(losing.delete(&name).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(inner.get(&name, 99).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(matches!(losing.put_once(&name, "body".into()).await, Put::Created));
    assert_eq!(losing.hook().lost(), 2);
    let listing = LoseAnswer::over(filled().await, Calls::of(&[CallKind::List]), 1);
    assert!(listing.list(&Prefix::root()).try_collect::<Vec<_>>().await.is_err());
    assert_eq!(listing.list(&Prefix::root()).try_collect::<Vec<_>>().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_late_put_arrives_when_told() {
    let inner = memory();
    let late = LatePut::over(inner.clone(), Calls::puts(), 2);
    let (a, b) = (key("a"), key("b"));
    assert!(matches!(late.put_once(&a, "first".into()).await, Put::Unknown(_)));
    assert!(matches!(late.put_if_absent(&b, "first".into()).await, Put::Unknown(_)));
    assert_eq!(inner.head(&a).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(matches!(late.put_if_absent(&b, "second".into()).await, Put::Created));
    assert_eq!(late.held(), [a.clone(), b.clone()]);
    assert!(matches!(late.deliver(&a).await, Some(Put::Created)));
    assert!(late.deliver(&a).await.is_none());
    let answers = late.deliver_all().await;
    assert!(matches!(answers.as_slice(), [(late_key, Put::Exists)] if *late_key == b));
    assert_eq!(inner.get(&b, 99).await.unwrap(), "second");
}

#[tokio::test]
async fn damage_shows_in_every_way_of_reading() {
    let cases = [
        (Damage::Truncate { len: 4 }, "0123"),
        (Damage::Truncate { len: 99 }, "0123456789"),
        (Damage::Flip { byte: 1, bit: 0 }, "0023456789"),
        (Damage::Flip { byte: 999, bit: 0 }, "0123456788"),
        (Damage::Swap { with: key("packs/b") }, "other"),
        (Damage::Extend { len: 2 }, "0123456789\0\0"),
    ];
    for (damage, expected) in cases {
        let calls = Calls::all().naming("packs/a");
        let damaged = Damaged::over(filled().await, calls, damage.clone());
        let name = key("packs/a");
        assert_eq!(damaged.get(&name, 99).await.unwrap(), expected, "{damage:?}");
        let last = damaged.get_range(&name, ByteRange::Last { len: 3 }).await.unwrap();
        assert_eq!(last.bytes, expected[expected.len() - 3..], "{damage:?}");
        let size = expected.len() as u64;
        assert_eq!((last.object_size, damaged.head(&name).await.unwrap().size), (size, size));
        let listed: Vec<_> = damaged.list(&Prefix::root()).try_collect().await.unwrap();
        let sizes: Vec<u64> = listed.iter().map(|listed| listed.size).collect();
        assert_eq!(sizes, [0, size, 5]);
        assert_eq!(damaged.get(&key("packs/b"), 99).await.unwrap(), "other", "a bystander");
        let limited = damaged.get(&name, size - 1).await.unwrap_err();
        assert_eq!(limited.kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn every_call_is_written_down() {
    let record = Record::over(memory());
    let name = key("packs/a");
    assert!(matches!(record.put_once(&name, "12345".into()).await, Put::Created));
    assert!(matches!(record.put_if_absent(&name, "12345".into()).await, Put::Exists));
    record.get(&name, 99).await.unwrap();
    record.get_range(&name, ByteRange::Last { len: 2 }).await.unwrap();
    record.head(&name).await.unwrap();
    record.list(&Prefix::root()).try_collect::<Vec<_>>().await.unwrap();
    record.list_folders(&Prefix::root()).await.unwrap();
    record.delete(&name).await.unwrap();
    let log = record.hook();
    let kinds: Vec<CallKind> = log.calls().iter().map(|call| call.kind).collect();
    use CallKind::{Delete, Get, GetRange, Head, List, ListFolders, PutIfAbsent, PutOnce};
    assert_eq!(kinds, [PutOnce, PutIfAbsent, Get, GetRange, Head, List, ListFolders, Delete]);
    assert_eq!(log.count(&Calls::puts()), 2);
    assert_eq!(log.count(&Calls::all().naming("packs/")), 6);
    assert_eq!(log.sent_bytes(&Calls::all()), 10);
    assert_eq!(log.received_bytes(&Calls::reads()), 7);
    log.clear();
    assert_eq!(log.calls(), []);
}

#[tokio::test]
async fn a_delay_delays_only_what_it_should() {
    let time = std::time::Duration::from_millis(80);
    let slow = Delay::over(filled().await, Calls::reads(), time);
    let start = std::time::Instant::now();
    slow.head(&key("packs/a")).await.unwrap();
    assert!(start.elapsed() < time);
    slow.get(&key("packs/a"), 99).await.unwrap();
    assert!(start.elapsed() >= time);
}
