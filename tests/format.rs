//! The repository format: `docs/format.md` says what the code does, old repositories stay readable,
//! and a reader in another language that knows nothing but that page reads them too.

#[path = "format/golden.rs"]
mod golden;
#[path = "format/make.rs"]
mod make;
#[path = "format/members.rs"]
mod members;
#[path = "format/reader.rs"]
mod reader;
#[path = "format/specification.rs"]
mod specification;
#[path = "format/values.rs"]
mod values;
