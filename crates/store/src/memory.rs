//! Objects in memory, for tests: the same contract as a real store, gone with the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::error::{Act, ErrorKind, StoreError, object_name};
use crate::key::{Key, Prefix};
use crate::store::{ByteRange, Listed, ObjectMeta, Put, RangeRead, Store};

/// Objects in memory. A clone is another connection to the same objects.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<Key, Bytes>>>,
}

const URL: &str = "memory:";

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, act: Act, key: &Key) -> Result<Bytes, StoreError> {
        let found = self.objects().get(key).cloned();
        found.ok_or_else(|| StoreError::not_found(act, URL, key))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put {
        self.put_once(key, body).await
    }

    async fn put_once(&self, key: &Key, body: Bytes) -> Put {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Put::Exists;
        }
        objects.insert(key.clone(), body);
        Put::Created
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let bytes = self.find(Act::Get, key)?;
        let size = bytes.len() as u64;
        if size > limit_bytes {
            return Err(StoreError::too_large(Act::Get, URL, key, size, limit_bytes));
        }
        Ok(bytes)
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        let whole = self.find(Act::GetRange, key)?;
        let object_size = whole.len() as u64;
        let Some((offset, len)) = range.within(object_size) else {
            let what = format!("{range:?} ends beyond 2^64");
            let object = object_name(URL, key);
            return Err(StoreError::new(ErrorKind::Invalid, Act::GetRange, object, what));
        };
        // What exists of the range lies within the object; one of nothing may begin beyond it.
        let place = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        let part = place.and_then(|(offset, len)| whole.get(offset..)?.get(..len));
        let bytes = part.map(|part| whole.slice_ref(part)).unwrap_or_default();
        Ok(RangeRead { bytes, object_size })
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        Ok(ObjectMeta { size: self.find(Act::Head, key)?.len() as u64 })
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let objects = self.objects();
        let found: Vec<_> = objects
            .range::<str, _>(from)
            .take_while(|(key, _)| prefix.contains(key))
            .map(|(key, bytes)| Ok(Listed { key: key.clone(), size: bytes.len() as u64 }))
            .collect();
        stream::iter(found).boxed()
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
        let mut folders: Vec<Prefix> = Vec::new();
        for key in self.objects().keys() {
            let below = key.strip_prefix(prefix).and_then(|rest| rest.split_once('/'));
            let Some(folder) = below.and_then(|(name, _)| prefix.join(name).ok()) else { continue };
            if folders.last() != Some(&folder) {
                folders.push(folder);
            }
        }
        Ok(folders)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.objects().remove(key);
        Ok(())
    }

    fn url(&self) -> String {
        URL.to_owned()
    }
}
