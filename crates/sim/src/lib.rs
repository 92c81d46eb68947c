//! The whole repository protocol under simulation: many processes of several hosts run the
//! product's own code over a store in memory, and one seed decides which request happens next and
//! what becomes of it.
//!
//! [`world::World`] holds the objects and the requests on their way; [`store::SimStore`] is a
//! process's connection to it; [`actors`] are what processes do; [`oracle`] looks at the stored
//! objects after each change, from outside of the protocol; [`run`] puts a run together and
//! [`schedule`] decides what happens next. [`planted`] has the bugs that it has to find: a [`door`]
//! between the product and the store makes of its requests those of a wrong product.
//!
//! Nothing depends on this crate. `docs/testing.md` tells how seeds are run and replayed.

#![deny(missing_docs)]

pub mod actors;
pub mod chance;
pub mod database;
pub mod door;
pub mod oracle;
pub mod planted;
pub mod request;
pub mod run;
pub mod schedule;
pub mod store;
pub mod world;
