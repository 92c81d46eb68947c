//! The repository's bytes: slices in, values or located errors out. No I/O, no clock, no C code.
//!
//! | object | body | trailer | module |
//! |---|---|---|---|
//! | `pgrecall.json` | JSON in the clear | | [`root`] |
//! | `keys/<key-id>` | JSON in the clear, wraps the repository key | | [`wrap`] |
//! | packs | one frame a chunk | directory | [`pack`] |
//! | index objects | a head frame, then blocks | | [`index`] |
//! | manifests and all small documents | one blob of JSON | | [`document`] |
//! | archived WAL | frames of at most 1 MiB | summary (opaque here) | `crate::archive` |
//!
//! Inside chunks of kind "meta": file tables ([`table`]), file maps ([`map`]) and page hashes.
//! `docs/format.md` is the specification; a test holds its byte tables against [`layout`].

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::as_conversions
    )
)]

pub mod bytes;
pub mod document;
pub mod frame;
pub mod header;
pub mod index;
pub mod layout;
pub mod map;
pub mod pack;
pub mod root;
pub mod table;
pub mod wrap;
