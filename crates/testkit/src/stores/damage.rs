//! Objects that come back other than they were put.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use pgrecall_store::{
    Act, ByteRange, ErrorKind, Key, Listed, ObjectMeta, Prefix, Put, RangeRead, Store, StoreError,
};

use super::calls::{CallKind, Calls};

/// What has happened to the stored bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Only the first so many bytes are left.
    Truncate {
        /// Bytes that are left.
        len: u64,
    },
    /// One bit is turned over.
    Flip {
        /// The byte; counted from the end when the object is not so long.
        byte: u64,
        /// The bit, 0 to 7.
        bit: u8,
    },
    /// Another object's bytes are in its place.
    Swap {
        /// That object.
        with: Key,
    },
    /// So many zero bytes follow.
    Extend {
        /// Bytes added.
        len: u64,
    },
}

/// A store whose chosen objects are damaged, for get, range, head and list alike; what is stored
/// stays whole.
#[derive(Debug)]
pub struct Damaged {
    inner: Arc<dyn Store>,
    calls: Calls,
    damage: Damage,
}

impl Damaged {
    /// Damages the objects of that name, as seen by the chosen calls.
    pub fn over(inner: Arc<dyn Store>, calls: Calls, damage: Damage) -> Arc<Self> {
        Arc::new(Self { inner, calls, damage })
    }

    async fn object(&self, key: &Key) -> Result<Bytes, StoreError> {
        let source = match &self.damage {
            Damage::Swap { with } => with,
            _ => key,
        };
        let bytes = self.inner.get(source, u64::MAX).await?;
        Ok(match self.damage {
            Damage::Swap { .. } => bytes,
            Damage::Truncate { len } => bytes.slice(..bytes.len().min(len as usize)),
            Damage::Flip { byte, bit } => flip(&bytes, byte, bit),
            Damage::Extend { len } => {
                let mut longer = BytesMut::from(bytes.as_ref());
                longer.resize(bytes.len() + len as usize, 0);
                longer.freeze()
            }
        })
    }
}

fn flip(bytes: &Bytes, byte: u64, bit: u8) -> Bytes {
    let mut damaged = BytesMut::from(bytes.as_ref());
    let Some(last) = damaged.len().checked_sub(1) else { return damaged.freeze() };
    damaged[last.min(byte as usize)] ^= 1 << bit;
    damaged.freeze()
}

#[async_trait]
impl Store for Damaged {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put {
        self.inner.put_if_absent(key, body).await
    }

    async fn put_once(&self, key: &Key, body: Bytes) -> Put {
        self.inner.put_once(key, body).await
    }

    async fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.make_durable(key).await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        if !self.calls.matches(CallKind::Get, key.as_str()) {
            return self.inner.get(key, limit_bytes).await;
        }
        let bytes = self.object(key).await?;
        let size = bytes.len() as u64;
        match size > limit_bytes {
            true => Err(StoreError::too_large(Act::Get, &self.url(), key, size, limit_bytes)),
            false => Ok(bytes),
        }
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        if !self.calls.matches(CallKind::GetRange, key.as_str()) {
            return self.inner.get_range(key, range).await;
        }
        let bytes = self.object(key).await?;
        let object_size = bytes.len() as u64;
        let Some((offset, len)) = range.within(object_size) else {
            let what = "the range ends beyond 2^64";
            let name = key.as_str();
            return Err(StoreError::new(ErrorKind::Invalid, Act::GetRange, name, what));
        };
        let from = offset.min(object_size) as usize;
        Ok(RangeRead { bytes: bytes.slice(from..from + len as usize), object_size })
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        if !self.calls.matches(CallKind::Head, key.as_str()) {
            return self.inner.head(key).await;
        }
        Ok(ObjectMeta { size: self.object(key).await?.len() as u64 })
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        self.inner
            .list(prefix)
            .then(move |listed| async move {
                let listed = listed?;
                if !self.calls.matches(CallKind::List, listed.key.as_str()) {
                    return Ok(listed);
                }
                let size = self.object(&listed.key).await?.len() as u64;
                Ok(Listed { size, ..listed })
            })
            .boxed()
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
