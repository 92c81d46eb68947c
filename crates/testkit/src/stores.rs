//! Stores that misbehave on purpose, each around another store: a call fails, an answer is lost, a
//! call takes long, a put arrives after its client gave up, what is read is damaged, something else
//! happens meanwhile; and one that writes down every call.
//!
//! They nest in any order: `FailNth` over `Record` records only what got through.

mod bad_sector;
mod calls;
mod damage;
mod delay;
mod fail_nth;
mod hooked;
mod late_put;
mod lose_answer;
mod meanwhile;
mod record;

pub use bad_sector::BadSector;
pub use calls::{CallKind, Calls};
pub use damage::{Damage, Damaged};
pub use delay::Delay;
pub use fail_nth::{FailNth, Lasting};
pub use hooked::{Call, Hook, Hooked};
pub use late_put::LatePut;
pub use lose_answer::LoseAnswer;
pub use meanwhile::Meanwhile;
pub use record::{Record, Recorded};

#[cfg(test)]
mod tests;
