//! A put that arrives when nobody expects it any more: its client was told "unknown", or has died.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use pgrecall_store::{
    Act, ByteRange, ErrorKind, Key, Listed, ObjectMeta, Prefix, Put, RangeRead, Store, StoreError,
};

use super::calls::{CallKind, Calls};

/// Holds back the first so many of the chosen puts, tells their clients "unknown", and delivers
/// them on demand.
#[derive(Debug)]
pub struct LatePut {
    inner: Arc<dyn Store>,
    calls: Calls,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: u64,
    held: Vec<(Key, Bytes)>,
}

impl LatePut {
    /// Holds back the first `first` of the chosen puts.
    pub fn over(inner: Arc<dyn Store>, calls: Calls, first: u64) -> Arc<Self> {
        let state = Mutex::new(State { left: first, held: Vec::new() });
        Arc::new(Self { inner, calls, state })
    }

    /// The names of the puts on their way, in the order in which they were sent.
    pub fn held(&self) -> Vec<Key> {
        self.with(|state| state.held.iter().map(|(key, _)| key.clone()).collect())
    }

    /// Lets all that is on its way arrive, in that order; tells what the store answered, to nobody
    /// in particular.
    pub async fn deliver_all(&self) -> Vec<(Key, Put)> {
        let held = self.with(|state| std::mem::take(&mut state.held));
        let mut answers = Vec::new();
        for (key, body) in held {
            let answer = self.inner.put_once(&key, body).await;
            answers.push((key, answer));
        }
        answers
    }

    /// Lets the first put of that name arrive; nothing when none is on its way.
    pub async fn deliver(&self, key: &Key) -> Option<Put> {
        let (key, body) = self.with(|state| {
            let at = state.held.iter().position(|(held, _)| held == key)?;
            Some(state.held.remove(at))
        })?;
        Some(self.inner.put_once(&key, body).await)
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the put was held back.
    fn hold(&self, kind: CallKind, key: &Key, body: &Bytes) -> Option<Put> {
        if !self.calls.matches(kind, key.as_str()) {
            return None;
        }
        let held = self.with(|state| {
            state.left = state.left.checked_sub(1)?;
            state.held.push((key.clone(), body.clone()));
            Some(())
        });
        held.map(|()| {
            let what = "planted: the request is on its way, its answer will never come";
            Put::Unknown(StoreError::new(ErrorKind::Unavailable, Act::Put, key.as_str(), what))
        })
    }
}

#[async_trait]
impl Store for LatePut {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put {
        match self.hold(CallKind::PutIfAbsent, key, &body) {
            Some(unknown) => unknown,
            None => self.inner.put_if_absent(key, body).await,
        }
    }

    async fn put_once(&self, key: &Key, body: Bytes) -> Put {
        match self.hold(CallKind::PutOnce, key, &body) {
            Some(unknown) => unknown,
            None => self.inner.put_once(key, body).await,
        }
    }

    async fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.make_durable(key).await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.inner.get(key, limit_bytes).await
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        self.inner.list(prefix)
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
        self.inner.list_folders(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}
