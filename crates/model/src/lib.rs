//! The protocol of commit and deletion as a machine, and a search through all that can happen to
//! it: `docs/protocol.md` says in words what is written here as steps.
//!
//! One request to the store is one step. Answers are lost, requests arrive late, processes die or
//! pause for ever, and nobody looks at a clock. Every rule of the protocol can be broken by name,
//! and the search then tells the shortest way to the harm. A rule is changed here before it is
//! changed in the product.

pub mod chunks;
pub mod expired_log;
pub mod keys;
pub mod runs;
pub mod search;
pub mod set;
pub mod wal;
