//! Collection of what nobody refers to, in two steps (R and S of the protocol): packs are retired
//! by a marker that every new backup obeys, and swept once all backups that may not have seen it
//! have ended. Any host may go on where another has stopped, several at once, and be late by hours.

mod copies;
mod live;
mod merge;
mod retire;
mod rewrite;
mod sweep;
mod usage;

pub use live::{Live, live_chunks};
pub use merge::{Merged, merge_index, worth_merging};
pub use retire::{Round, RoundLook, look_at, retire, rounds};
pub use rewrite::{Rewritten, rewrite};
pub use sweep::{Swept, remove_remains, sweep};
pub use usage::{Ids, IndexUse, PackUse, Usage, usage};
