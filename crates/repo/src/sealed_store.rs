//! A store seen through one set of keys: sealed documents and numbered logs in, documents out.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use pgrecall_store::{ByteRange, Key, Listed, Prefix, Put, Store};

use crate::error::RepoError;
use crate::format::document::Document;
use crate::format::header::{HEADER_BYTES_MAX, Header, KeyClass, Kind};
use crate::keys::Keys;
use crate::names::LogName;
use crate::object;
use crate::random::SharedRandom;

/// No document is longer, sealed or plain.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// What became of a put whose name may have been taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The object there is the one that was to be put, now or earlier.
    Mine,
    /// Another object has the name.
    Other,
}

/// A store and the keys for a part of it.
#[derive(Debug, Clone)]
pub struct SealedStore {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    random: SharedRandom,
}

impl SealedStore {
    /// Joins them.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: Arc<Keys>, random: SharedRandom) -> Self {
        Self { store, keys, random }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// The randomness.
    #[must_use]
    pub fn random(&self) -> &SharedRandom {
        &self.random
    }

    /// Every object below a prefix, in order.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn list(&self, prefix: &Prefix) -> Result<Vec<Listed>, RepoError> {
        Ok(self.store.list(prefix).try_collect().await?)
    }

    /// The folders directly in a folder; see [`Store::list_folders`].
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, RepoError> {
        Ok(self.store.list_folders(prefix).await?)
    }

    /// Puts a document under its name unless the name is taken.
    ///
    /// # Errors
    /// When the document is above the limit, the store does not say what became of it
    /// ([`RepoError::Unknown`]), or the object that has the name cannot be read.
    pub async fn put<T: Document>(
        &self,
        kind: Kind,
        name: &Key,
        document: &T,
    ) -> Result<Stored, RepoError> {
        let plain = document.encode();
        let class = self.class();
        let sealed = object::seal_blob(&self.keys, kind, class, name, &plain, &self.random)?;
        let len = plain.len().max(sealed.len());
        if len > DOCUMENT_BYTES_MAX {
            // No reader would take it.
            let reason = format!("{len} bytes, where at most {DOCUMENT_BYTES_MAX} are allowed");
            return Err(RepoError::Invalid { what: format!("document {name}"), reason });
        }
        self.put_sealed(kind, name, sealed).await
    }

    /// Puts a sealed object unless the name is taken; on exists the kinds and the digests of the
    /// plaintexts are compared.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_sealed(
        &self,
        kind: Kind,
        name: &Key,
        sealed: Bytes,
    ) -> Result<Stored, RepoError> {
        let ours = object::read_header(name, kind, &sealed)?.digest;
        match self.store.put_if_absent(name, sealed).await {
            Put::Created => Ok(Stored::Mine),
            Put::Exists => {
                let there = self.header(name).await?;
                let mine = there.kind == kind && there.digest == ours;
                Ok(if mine { Stored::Mine } else { Stored::Other })
            }
            Put::Unknown(source) => Err(RepoError::Unknown { object: name.to_string(), source }),
        }
    }

    /// The clear header of an object.
    ///
    /// # Errors
    /// When the object is not there or its header is damaged.
    pub async fn header(&self, name: &Key) -> Result<Header, RepoError> {
        let range = ByteRange::At { offset: 0, len: HEADER_BYTES_MAX };
        let front = self.store.get_range(name, range).await?.bytes;
        Header::decode(&mut crate::format::bytes::Reader::new(&front))
            .map_err(|error| RepoError::format(name, error))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is not there, damaged or newer.
    pub async fn get<T: Document>(&self, kind: Kind, name: &Key) -> Result<T, RepoError> {
        let object = self.store.get(name, DOCUMENT_BYTES_MAX as u64).await?;
        self.open(kind, name, &object)
    }

    /// Opens a document's bytes.
    ///
    /// # Errors
    /// When it is damaged or newer.
    pub fn open<T: Document>(&self, kind: Kind, name: &Key, object: &[u8]) -> Result<T, RepoError> {
        let plain = object::open_blob(&self.keys, kind, name, object, DOCUMENT_BYTES_MAX)?;
        T::decode(&plain).map_err(|error| RepoError::format(name, error))
    }

    /// The highest entry of a numbered log.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn highest(&self, log: &LogName) -> Result<Option<u64>, RepoError> {
        let entries = self.list(log.prefix()).await?;
        Ok(entries.iter().filter_map(|entry| log.number(&entry.key)).max())
    }

    /// The document of a log's highest entry, with its number.
    ///
    /// # Errors
    /// When it cannot be listed or read. An entry that vanished while it was read was not the
    /// highest any more: the log is listed again.
    pub async fn newest<T: Document>(
        &self,
        kind: Kind,
        log: &LogName,
    ) -> Result<Option<(u64, T)>, RepoError> {
        let mut before = None;
        loop {
            let Some(number) = self.highest(log).await? else { return Ok(None) };
            match self.get(kind, &log.entry(number)).await {
                Ok(document) => return Ok(Some((number, document))),
                Err(error) if error.is_not_found() && before != Some(number) => {
                    before = Some(number);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn class(&self) -> KeyClass {
        if self.keys.domain().is_empty() { KeyClass::Repository } else { KeyClass::Meta }
    }
}
