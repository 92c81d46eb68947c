//! The trait that every backend implements, and what goes in and out of it.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::error::{Act, ErrorKind, StoreError, object_name};
use crate::keeping::{Keeping, LockRequest, Locked};
use crate::key::{Key, Prefix};

/// Where objects are kept. Objects are whole or absent, and never overwritten.
///
/// Strong consistency is assumed (and tried by [`probe`](crate::probe())): a get or list that
/// starts after a put was answered sees the object.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Puts an object unless one of that name exists. Sends the same bytes again (within the retry
    /// budget) until the store says created or exists; HTTP 409 means again, not exists. Created
    /// *and* exists mean durable.
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put;

    /// As [`put_if_absent`](Self::put_if_absent), but at most one request leaves this machine:
    /// nothing below sends again either. Anything but created or exists is unknown, and a name
    /// whose put is unknown may still appear.
    async fn put_once(&self, key: &Key, body: Bytes) -> Put;

    /// The whole object.
    ///
    /// # Errors
    /// `NotFound` when there is no such object; `Corrupt` when it is larger than `limit_bytes`
    /// (found out before memory is taken for it) or not whole.
    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError>;

    /// A part of the object, short or empty when the object ends earlier.
    ///
    /// # Errors
    /// `NotFound` when there is no such object; `Invalid` when the range ends beyond 2^64.
    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError>;

    /// What is known of the object without reading it.
    ///
    /// # Errors
    /// `NotFound` when there is no such object.
    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError>;

    /// Every object below `prefix`, at any depth, in byte order of the keys; a folder without
    /// objects gives an empty stream. The stream ends at the first error.
    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>>;

    /// The folders that lie directly in `prefix` and have an object below them, in byte order. A
    /// folder whose last object was deleted may still be named.
    ///
    /// # Errors
    /// When the store cannot list.
    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError>;

    /// Removes the object; an absent one is fine.
    ///
    /// # Errors
    /// When the store has not said that the object is gone.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Makes durable what is there under this name: another process may have put it at this moment,
    /// and not have come so far. For who is about to delete something because of it. In a store
    /// where only what is durable can be read there is nothing to do.
    ///
    /// # Errors
    /// `NotFound` when there is no such object; when it cannot be made durable.
    async fn make_durable(&self, _: &Key) -> Result<(), StoreError> {
        Ok(())
    }

    /// What the store keeps of what is deleted or put over.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn keeping(&self) -> Result<Keeping, StoreError> {
        Ok(Keeping::NOTHING)
    }

    /// Has the store let nobody delete the object before a time; no lock is made shorter.
    ///
    /// # Errors
    /// `NotFound` when there is no such object; `Unsupported` where there are no locks; `Denied`
    /// when the credentials may not.
    async fn lock(&self, key: &Key, request: LockRequest) -> Result<Locked, StoreError> {
        let _ = request;
        let object = object_name(&self.url(), key);
        Err(StoreError::new(ErrorKind::Unsupported, Act::Lock, object, "this store locks nothing"))
    }

    /// What the store is, for messages; without secrets.
    fn url(&self) -> String;
}

/// The answer to a put.
#[must_use = "an unknown put is neither done nor undone"]
#[derive(Debug, Clone)]
pub enum Put {
    /// The object is there with these bytes, durably.
    Created,
    /// An object of that name is there, durably: the caller compares.
    Exists,
    /// Nobody knows: the object may be there, may appear later, or may never appear.
    Unknown(StoreError),
}

/// Which bytes of an object are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `len` bytes from `offset`.
    At {
        /// Bytes before the range.
        offset: u64,
        /// Bytes in it.
        len: u64,
    },
    /// The last `len` bytes.
    Last {
        /// Bytes in the range.
        len: u64,
    },
}

/// A part of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRead {
    /// The bytes of the range that exist.
    pub bytes: Bytes,
    /// The size of the whole object in bytes.
    pub object_size: u64,
}

/// What is known of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its size in bytes.
    pub size: u64,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
}

impl ByteRange {
    /// Where the range lies in an object of that size: the first byte and the number of bytes that
    /// exist; nothing when the range ends beyond 2^64.
    #[must_use]
    pub fn within(self, object_size: u64) -> Option<(u64, u64)> {
        match self {
            Self::At { offset, len } => {
                let end = offset.checked_add(len)?.min(object_size);
                Some((offset, end.saturating_sub(offset)))
            }
            Self::Last { len } => {
                let len = len.min(object_size);
                Some((object_size - len, len))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_object() {
        assert_eq!(ByteRange::At { offset: 2, len: 3 }.within(10), Some((2, 3)));
        assert_eq!(ByteRange::At { offset: 8, len: 3 }.within(10), Some((8, 2)));
        assert_eq!(ByteRange::At { offset: 10, len: 3 }.within(10), Some((10, 0)));
        assert_eq!(ByteRange::At { offset: 99, len: 3 }.within(10), Some((99, 0)));
        assert_eq!(ByteRange::At { offset: 1, len: u64::MAX }.within(10), None);
        assert_eq!(ByteRange::Last { len: 3 }.within(10), Some((7, 3)));
        assert_eq!(ByteRange::Last { len: 11 }.within(10), Some((0, 10)));
        assert_eq!(ByteRange::Last { len: 0 }.within(10), Some((10, 0)));
        assert_eq!(ByteRange::Last { len: 4 }.within(0), Some((0, 0)));
    }
}
