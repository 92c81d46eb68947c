//! A sound store passes; each way of breaking a promise is told by its name.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};

use crate::memory::MemoryStore;
use crate::store::{ByteRange, Listed, ObjectMeta, RangeRead};

use super::*;

/// What a store does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    EveryoneWins,
    MissingIsDenied,
    LoserIsStored,
    ListsLate,
    KeepsDeleted,
    OverwritesLater,
    /// No lie, but a guard.
    DeniesDeletes,
}

#[derive(Debug)]
struct Liar {
    inner: MemoryStore,
    lie: Lie,
}

#[async_trait]
impl Store for Liar {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put {
        if self.lie == Lie::OverwritesLater {
            self.inner.delete(key).await.unwrap();
        }
        self.inner.put_if_absent(key, body).await
    }

    async fn put_once(&self, key: &Key, body: Bytes) -> Put {
        match self.inner.put_once(key, body.clone()).await {
            Put::Exists if self.lie == Lie::EveryoneWins => Put::Created,
            Put::Exists if self.lie == Lie::LoserIsStored => {
                self.inner.delete(key).await.unwrap();
                let _ = self.inner.put_once(key, body).await;
                Put::Exists
            }
            put => put,
        }
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        match self.inner.get(key, limit_bytes).await {
            Err(error) if self.lie == Lie::MissingIsDenied => {
                Err(StoreError::new(ErrorKind::Denied, Act::Get, error.object(), "HTTP 403"))
            }
            answer => answer,
        }
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        match self.lie {
            Lie::ListsLate => stream::empty().boxed(),
            _ => self.inner.list(prefix),
        }
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
        self.inner.list_folders(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match self.lie {
            Lie::KeepsDeleted => Ok(()),
            Lie::DeniesDeletes => {
                Err(StoreError::new(ErrorKind::Denied, Act::Delete, key.as_str(), "HTTP 403"))
            }
            _ => self.inner.delete(key).await,
        }
    }

    fn url(&self) -> String {
        "liar:".to_owned()
    }
}

async fn probe_liar(lie: Lie) -> (Result<ProbeReport, StoreError>, MemoryStore) {
    static SEED: AtomicU64 = AtomicU64::new(0);
    let inner = MemoryStore::new();
    let stores: Vec<Arc<dyn Store>> =
        (0..16).map(|_| Arc::new(Liar { inner: inner.clone(), lie }) as Arc<dyn Store>).collect();
    let mut random = |bytes: &mut [u8]| {
        let seed = SEED.fetch_add(1, Ordering::Relaxed);
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
    };
    let prefix = Prefix::parse("probe/").unwrap();
    (probe(&stores, &prefix, 3, &mut random).await, inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_passes_and_is_left_clean() {
    let (report, inner) = probe_liar(Lie::None).await;
    let report = report.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!((report.rounds, report.racers), (3, 16));
    assert_eq!(inner.list(&Prefix::root()).count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lie_is_found() {
    for (lie, promise) in [
        (Lie::EveryoneWins, Promise::OneWinner),
        (Lie::LoserIsStored, Promise::WinnersBytes),
        (Lie::ListsLate, Promise::ListedAtOnce),
        (Lie::KeepsDeleted, Promise::DeletedAtOnce),
        (Lie::OverwritesLater, Promise::ExistsIsExists),
    ] {
        let report = probe_liar(lie).await.0.unwrap();
        // Where racers meet in another order, the same lie shows as two winners.
        let shown = |f: &ProbeFinding| f.promise == promise || f.promise == Promise::OneWinner;
        assert!(report.findings.iter().any(shown), "{lie:?}: {report:?}");
    }
    let (report, _) = probe_liar(Lie::MissingIsDenied).await;
    // What follows stumbles over the 403 as well; the first finding is what counts, when it is
    // told.
    match report {
        Ok(report) => assert_eq!(report.findings[0].promise, Promise::MissingIsNotFound),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Denied),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_may_not_delete_are_told_apart_from_a_broken_store() {
    let (report, inner) = probe_liar(Lie::DeniesDeletes).await;
    let report = report.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!(report.deletion, Deletion::Denied);
    assert_eq!(inner.list(&Prefix::root()).count().await, 3, "one object of each round stays");
}

#[tokio::test]
async fn one_connection_is_no_race() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let error = probe(&[store], &Prefix::root(), 1, &mut |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
