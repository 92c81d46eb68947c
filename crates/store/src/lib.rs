//! Names to bytes: where a repository's objects live.
//!
//! [`Store`] is the only door. What it promises: an object appears whole or not at all, is never
//! overwritten, and is seen by every get and list that starts after its put was answered. Above
//! this crate nothing knows what kind of store it speaks to; no type of a vendor's library is
//! public here.
//!
//! Backends: a directory ([`DirectoryStore`], `file:///path`), S3 (`S3Store`, `s3://bucket/prefix`,
//! with the feature `s3`, which brings in the vendor's library; `S3AsOf` is a bucket's past) and
//! memory ([`MemoryStore`], `memory:`, for tests). [`open`] turns a URL into one of them.
//! [`probe()`] finds out whether a store keeps its promises.
//!
//! Beside stores, what is asked of a service that keeps keys ([`KeyService`]), and, with the
//! feature `kms`, a key of AWS KMS (`KmsKey`), which is reached as S3 is.
#![forbid(unsafe_code)]
// Whatever comes from outside, this crate gives an error and does not panic.
#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::string_slice,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::unchecked_time_subtraction
    )
)]

#[cfg(feature = "s3")]
mod aws;
mod directory;
mod error;
mod keeping;
mod key;
mod key_service;
#[cfg(feature = "kms")]
mod kms;
mod kms_options;
mod memory;
mod probe;
mod registry;
#[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "only stores over a network send again"))]
mod retry;
#[cfg(feature = "s3")]
mod s3;
mod s3_options;
mod store;

pub use directory::{DirectoryStore, RootPolicy};
pub use error::{Act, ErrorKind, StoreError};
pub use keeping::{DefaultLock, Keeping, LockMode, LockRequest, Locked, Versions};
pub use key::{KEY_LEN_MAX, Key, KeyError, Prefix};
pub use key_service::{KeyContext, KeyService, ServiceSealed};
#[cfg(feature = "kms")]
pub use kms::KmsKey;
pub use kms_options::KmsOptions;
pub use memory::MemoryStore;
pub use probe::{Deletion, ProbeFinding, ProbeReport, Promise, probe};
pub use registry::{StoreOptions, open};
pub use retry::{Progress, Retry, RetryOptions, SystemTiming, Timing};
#[cfg(feature = "s3")]
pub use s3::{S3AsOf, S3Store};
pub use s3_options::{
    Addressing, Listing, S3Credentials, S3Options, SecretText, ServerSideEncryption, UploadChecksum,
};
pub use store::{ByteRange, Listed, ObjectMeta, Put, RangeRead, Store};
