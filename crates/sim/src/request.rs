//! Requests to the store, as they travel: what a process sends, what happens to it, what it hears.

use std::fmt;

use bytes::Bytes;
use pgrecall_store::{
    Act, ByteRange, ErrorKind, Key, Listed, ObjectMeta, Prefix, RangeRead, StoreError,
};

/// A process, by its number in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// Whether the transport may send a put twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sends {
    /// `put_if_absent`.
    Often,
    /// `put_once`.
    Once,
}

/// One request.
#[derive(Debug, Clone)]
pub enum Request {
    /// Put unless there is one.
    Put(Key, Bytes, Sends),
    /// The whole object.
    Get(Key),
    /// A part of it.
    GetRange(Key, ByteRange),
    /// Its size.
    Head(Key),
    /// A page of a listing: so many keys after one.
    List(Prefix, Option<Key>, usize),
    /// The folders in a folder.
    Folders(Prefix),
    /// Remove it.
    Delete(Key),
    /// Make it durable: a directory's second step of a put.
    Sync(Key),
}

impl Request {
    /// Whether it can change anything.
    #[must_use]
    pub const fn changes(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Delete(_))
    }

    /// Whether its object's name has this part.
    #[must_use]
    pub fn names(&self, part: &str) -> bool {
        match self {
            Self::Put(key, ..)
            | Self::Get(key)
            | Self::GetRange(key, _)
            | Self::Head(key)
            | Self::Delete(key)
            | Self::Sync(key) => key.as_str().contains(part),
            Self::List(prefix, ..) | Self::Folders(prefix) => prefix.as_str().contains(part),
        }
    }

    /// Whether a copy of it may be on its way besides: the protocol excludes it for what is put
    /// once.
    #[must_use]
    pub const fn may_double(&self) -> bool {
        matches!(self, Self::Put(_, _, Sends::Often) | Self::Delete(_))
    }

    /// An error in answer to it.
    #[must_use]
    pub fn error(&self, kind: ErrorKind, what: &str) -> StoreError {
        let (act, name) = match self {
            Self::Put(key, ..) | Self::Sync(key) => (Act::Put, key.as_str()),
            Self::Get(key) => (Act::Get, key.as_str()),
            Self::GetRange(key, _) => (Act::GetRange, key.as_str()),
            Self::Head(key) => (Act::Head, key.as_str()),
            Self::Delete(key) => (Act::Delete, key.as_str()),
            Self::List(prefix, ..) | Self::Folders(prefix) => (Act::List, prefix.as_str()),
        };
        StoreError::new(kind, act, name, what)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, body, Sends::Often) => write!(f, "put {key} ({} bytes)", body.len()),
            Self::Put(key, body, Sends::Once) => write!(f, "put once {key} ({} bytes)", body.len()),
            Self::Get(key) => write!(f, "get {key}"),
            Self::GetRange(key, range) => write!(f, "get {key} {range:?}"),
            Self::Head(key) => write!(f, "head {key}"),
            Self::List(prefix, None, _) => write!(f, "list {prefix}"),
            Self::List(prefix, Some(after), _) => write!(f, "list {prefix} after {after}"),
            Self::Folders(prefix) => write!(f, "folders of {prefix}"),
            Self::Delete(key) => write!(f, "delete {key}"),
            Self::Sync(key) => write!(f, "sync {key}"),
        }
    }
}

/// What the store says.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The put has made the object.
    Created,
    /// There was one.
    Exists,
    /// The object.
    Object(Bytes),
    /// A part of it.
    Part(RangeRead),
    /// Its size.
    Meta(ObjectMeta),
    /// A page of a listing; a full one may not be the last.
    Page(Vec<Listed>),
    /// Folders.
    Folders(Vec<Prefix>),
    /// It is gone.
    Deleted,
    /// It is durable.
    Synced,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out and answered.
    Done,
    /// It is carried out; the answer is lost.
    AnswerLost,
    /// Its client is told nothing, and it stays on its way.
    Late,
    /// It never arrives, or the store asks to slow down.
    Refused,
    /// It is carried out and answered, and a copy stays on its way.
    Doubled,
}
