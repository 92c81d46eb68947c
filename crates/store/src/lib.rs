//! Names to bytes: where a repository's objects live.
//!
//! [`Store`] is the only door. What it promises: an object appears whole or not at all, is never
//! overwritten, and is seen by every get and list that starts after its put was answered. Above
//! this crate nothing knows what kind of store it speaks to; no type of a vendor's library is
//! public here.
//!
//! Backends: a directory ([`DirectoryStore`], `file:///path`), S3 ([`S3Store`],
//! `s3://bucket/prefix`) and memory ([`MemoryStore`], `memory:`, for tests). [`open`] turns a URL
//! into one of them. [`probe()`] finds out whether a store keeps its promises.

mod directory;
mod error;
mod key;
mod memory;
mod probe;
mod registry;
mod retry;
mod s3;
mod store;

pub use directory::{DirectoryStore, RootPolicy};
pub use error::{Act, ErrorKind, StoreError};
pub use key::{KEY_LEN_MAX, Key, KeyError, Prefix};
pub use memory::MemoryStore;
pub use probe::{Deletion, ProbeFinding, ProbeReport, Promise, probe};
pub use registry::{StoreOptions, open};
pub use retry::{Progress, Retry, RetryOptions, SystemTiming, Timing};
pub use s3::{
    Addressing, Listing, S3Credentials, S3Options, S3Store, SecretText, ServerSideEncryption,
    UploadChecksum,
};
pub use store::{ByteRange, Listed, ObjectMeta, Put, RangeRead, Store};
